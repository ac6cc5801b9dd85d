"""What the restorer calls: one of two implementations of the same networks, and how it was chosen.

The plain modules are what is computed, in words; the fast ones how a GPU computes it quickly. The restorer knows
neither: it has four functions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.models.seedvr2.folder import LoadedModel
from restoration_runner.models.seedvr2.vae import StreamState


class NetworkPath(StrEnum):
    """Which implementation."""

    PLAIN = "plain"
    FAST = "fast"


@dataclass(frozen=True, kw_only=True)
class Networks:
    """encode, decode: as the methods of `VideoVae`, with a state of `new_state`. velocity: as a call of `NaDiT`.

    latents_at_once: how many latents one call of encode or decode may get; more cost memory and give larger, that is
    fewer kernels. settings: what of this decides the bytes, for the fingerprint.
    """

    encode: Callable[[Tensor, Any], Tensor]
    decode: Callable[[Tensor, Any], Tensor]
    velocity: Callable[[Tensor, Tensor, Tensor], Tensor]
    new_state: Callable[[], Any]
    settings: dict[str, str]
    latents_at_once: int = 1
    memory_format: torch.memory_format = torch.contiguous_format


def plain_networks(model: LoadedModel, device: torch.device) -> Networks:
    """The reference, in the memory format that suits the device."""
    memory_format = torch.contiguous_format
    if device.type == "cpu":  # channels-last convolutions are faster there, slower with cuDNN's plain path
        memory_format = torch.channels_last_3d
        model.vae.to(memory_format=memory_format)  # type: ignore[call-overload]
    return Networks(
        encode=model.vae.encode,
        decode=model.vae.decode,
        velocity=model.dit,
        new_state=StreamState,
        settings={"path": NetworkPath.PLAIN.value},
        memory_format=memory_format,
    )


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
