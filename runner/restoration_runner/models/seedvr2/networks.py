"""What the restorer calls: one of two implementations of the same networks, and how it was chosen.

The plain modules are what is computed, in words; the fast ones how a GPU computes it quickly. The restorer knows
neither: it has four functions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.models.seedvr2.fast.dit import FastDit
from restoration_runner.models.seedvr2.fast.vae import FastVae
from restoration_runner.models.seedvr2.folder import LoadedModel
from restoration_runner.models.seedvr2.fp8 import round_matrices
from restoration_runner.models.seedvr2.knobs import Knobs
from restoration_runner.models.seedvr2.vae import StreamState


class NetworkPath(StrEnum):
    """Which implementation."""

    PLAIN = "plain"
    FAST = "fast"


@dataclass(frozen=True, kw_only=True)
class Networks:
    """encode, decode: as the methods of `VideoVae`, with a state of `new_state`; what is decoded comes as it is made, a
    few frames at a time. velocity: as a call of `NaDiT`.

    latents_at_once, stage_by_stage: as in `Knobs`. settings: what of this decides the bytes, for the fingerprint.
    """

    encode: Callable[[Tensor, Any], Tensor]
    decode: Callable[[Tensor, Any], Iterator[Tensor]]
    velocity: Callable[[Tensor, Tensor, Tensor], Tensor]
    new_state: Callable[[], Any]
    settings: dict[str, str]
    latents_at_once: int = 1
    stage_by_stage: bool = False
    memory_format: torch.memory_format = torch.contiguous_format


def plain_networks(model: LoadedModel, device: torch.device) -> Networks:
    """The reference, in the memory format that suits the device."""
    memory_format = torch.contiguous_format
    if device.type == "cpu":  # channels-last convolutions are faster there, slower with cuDNN's plain path
        memory_format = torch.channels_last_3d
        model.vae.to(memory_format=memory_format)  # type: ignore[call-overload]
    if model.fp8_weights:
        round_matrices(model.dit)
    if model.dit.patch_in.weight.device.type != device.type:  # it waited on the host
        model.dit.to(device)
    vae = model.vae

    def decode(latent: Tensor, state: StreamState | None) -> Iterator[Tensor]:
        yield vae.decode(latent, state)

    return Networks(
        encode=vae.encode,
        decode=decode,
        velocity=model.dit,
        new_state=StreamState,
        settings={"path": NetworkPath.PLAIN.value},
        memory_format=memory_format,
    )


def fast_networks(model: LoadedModel, device: torch.device, knobs: Knobs) -> Networks:
    """The fast implementation. It takes the weights, so that they never exist twice: `model` is useless then."""
    vae = FastVae(model.vae, knobs=knobs.vae)
    dit = FastDit(model.dit, device=device, knobs=knobs.dit, release=True, fp8_weights=model.fp8_weights)
    return joined(vae, dit, knobs)


def joined(vae: FastVae, dit: FastDit, knobs: Knobs) -> Networks:
    """Both, made with these knobs."""
    return Networks(
        encode=vae.encode,
        decode=vae.decoded,
        velocity=dit,
        new_state=vae.new_state,
        settings={"path": NetworkPath.FAST.value, **knobs.settings()},
        latents_at_once=knobs.latents_at_once,
        stage_by_stage=knobs.stage_by_stage,
    )


def choose_path(model: LoadedModel, device: torch.device, wished: NetworkPath | None) -> NetworkPath:
    """What was wished; else the fast path on a GPU where it takes both networks, and the plain one everywhere else.

    Raises RestorationError(InvalidParameters) where the fast path is wished and does not take them.
    """
    dtype = model.vae.encoder.conv_in.weight.dtype
    config = model.description
    is_possible = FastVae.supports(config.vae, dtype, device) and FastDit.supports(config.dit, dtype, device)
    if wished is NetworkPath.FAST and not is_possible:
        message = f"--path: the fast path does not compute {config.name} in {dtype} on {device.type}; use the plain one"
        raise RestorationError(FailureReason.INVALID_PARAMETERS, message)
    if wished is not None:
        return wished
    return NetworkPath.FAST if device.type == "cuda" and is_possible else NetworkPath.PLAIN


def parse_path(wished: str | None) -> NetworkPath | None:
    """None leaves the choice to the machine. Raises RestorationError(InvalidParameters)."""
    if wished is None:
        return None
    try:
        return NetworkPath(wished)
    except ValueError:
        offered = ", ".join(NetworkPath)
        message = f"--path: '{wished}' is no implementation of the networks: choose one of {offered}"
        raise RestorationError(FailureReason.INVALID_PARAMETERS, message) from None
