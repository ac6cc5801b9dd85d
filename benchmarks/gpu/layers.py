"""Behind which layer the error arises: the networks in BF16, plain and fast, against the plain ones in FP32.

All start from the same bf16 weights and inputs, and each layer's error is that of its output in a network that made all
layers before in BF16, too. Relative L2, mean of all seeds, and in units of BF16's last place (2⁻⁷): a number that is
rounded once is about 0.2 of them off. Random weights of trained scale; pictures are small, for a layer's rounding does
not depend on their size.
"""

import argparse
import re
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.gpu import dit, vae
from benchmarks.gpu.machine import begin, save
from benchmarks.gpu.networks import RELEASED, config_of
from restoration_runner.models.seedvr2.config import DitConfig, VaeConfig
from restoration_runner.models.seedvr2.fast.vae import FastVae
from restoration_runner.models.seedvr2.fast.vae_blocks import Activation, ResBlock
from restoration_runner.models.seedvr2.fast.vae_causal import CausalConv, Room
from restoration_runner.models.seedvr2.fast.vae_encoder import FirstConv
from restoration_runner.models.seedvr2.fast.vae_last_conv import LastConv
from restoration_runner.models.seedvr2.fast.vae_middle import FrameAttention
from restoration_runner.models.seedvr2.fast.vae_state import VaeKnobs
from restoration_runner.models.seedvr2.fast.vae_upsample import Upsample
from restoration_runner.models.seedvr2.fast.vae_winograd import WinogradBlock
from restoration_runner.models.seedvr2.vae import VideoVae

WHOLE = {
    "fast": VaeKnobs(frames_at_once=None),
    "fast, Winograd": VaeKnobs(frames_at_once=None, winograd=True),
}
"""All frames at once, so that each layer is called once."""
ULP = torch.finfo(torch.bfloat16).eps
DIT_PATHS = {"plain": "plain bf16", "fast": "fast bf16"}
"""To what `dit.errors_of` calls them."""
DIT_SIZE = (256, 144)
"""Width and height of the transformer's pictures; the VAE's are `vae.ACCURACY_SIZE`."""

Layers = dict[str, Tensor]
"""A layer's name to its output, channels last, in the order in which they are computed."""
Errors = dict[tuple[str, str], float]
"""Of one seed, by layer and path."""


@dataclass(frozen=True)
class Row:
    """path: plain or a form of the fast one. relative: L2, mean of all seeds."""

    network: str
    layer: str
    path: str
    relative: float

    @property
    def ulp(self) -> float:
        return self.relative / ULP


# --- the VAE ---------------------------------------------------------------------------------------------------

NAMES = re.compile(r"(en|de)coder\.(conv_in|conv_out|middle\.\w+|levels\.\d+\.(blocks\.\d+|resample))")


def plain_layers(network: VideoVae, given: dict[str, Tensor]) -> Layers:
    found: Layers = {}

    def note(name: str) -> Callable[..., None]:
        return lambda _module, _given, out: found.update({name: out[0].permute(1, 2, 3, 0).float()})

    named = [(name, module) for name, module in network.named_modules() if NAMES.fullmatch(name)]
    hooks = [module.register_forward_hook(note(name)) for name, module in named]
    for part, x in given.items():
        getattr(network, part)(x.to(next(network.parameters()).dtype))
    for hook in hooks:
        hook.remove()
    return found


def fast_layers(network: FastVae, given: dict[str, Tensor]) -> Layers:
    found: Layers = {}
    names = names_of(network)
    with ExitStack() as patches:
        for watched in WATCHED:
            patches.enter_context(noted(*watched, names, found))
        for part, x in given.items():
            getattr(network, part)(x)
    return found


def names_of(network: FastVae) -> dict[object, str]:
    """What the plain module in the place of a layer is called."""
    found: dict[object, str] = {}
    for part, half in (("encoder", network._encoder), ("decoder", network._decoder)):
        found |= {half.conv_in: f"{part}.conv_in", half.conv_out: f"{part}.conv_out"}
        found |= {getattr(half.middle, name): f"{part}.middle.{name}" for name in ("before", "attention", "after")}
        for i, level in enumerate(half.levels):
            found |= {block: f"{part}.levels.{i}.blocks.{j}" for j, block in enumerate(level.blocks)}
    downs = enumerate(level.down for level in network._encoder.levels)
    ups = enumerate(level.up for level in network._decoder.levels)
    found |= {down: f"encoder.levels.{i}.resample" for i, down in downs if down is not None}
    found |= {up: f"decoder.levels.{i}.resample" for i, up in ups if up is not None}
    return found


def of_activation(_layer: object, out: Activation, *_given: object) -> Tensor:
    return out.value()


def of_frames(_layer: object, out: Tensor, *_given: object) -> Tensor:
    return out


def of_room(_layer: object, room: Room, a: Activation, *_given: object) -> Tensor:
    _, H, W, _ = a.x.shape
    return room.buffer[room.slot :, :H, :W]


def of_convolution(layer: CausalConv, out: Tensor, *_given: object) -> Tensor:
    return Activation(out, layer.bias).value()


WATCHED: tuple[tuple[type, str, Callable[..., Tensor]], ...] = (
    (FirstConv, "__call__", of_activation),
    (ResBlock, "__call__", of_activation),
    (WinogradBlock, "__call__", of_activation),
    (ResBlock, "into", of_room),
    (WinogradBlock, "into", of_room),
    (FrameAttention, "__call__", of_activation),
    (Upsample, "__call__", of_activation),
    (CausalConv, "run", of_convolution),
    (LastConv, "__call__", of_frames),
)
"""Methods that make a layer's output, and how to read it from what they return."""


@contextmanager
def noted(
    owner: type, method: str, read: Callable[..., Tensor], names: dict[object, str], found: Layers
) -> Iterator[None]:
    own = getattr(owner, method)

    def call(layer: object, *given: Any, **named: Any) -> Any:
        out = own(layer, *given, **named)
        if layer in names:
            found[names[layer]] = read(layer, out, *given).float().clone()  # its memory may be used again
        return out

    with mock.patch.object(owner, method, call):
        yield


def vae_errors(config: VaeConfig, chosen: argparse.Namespace, device: torch.device) -> Iterator[Errors]:
    for seed in range(chosen.seeds):
        plain = vae.make_plain(config, device, seed)
        given = vae.inputs(config, vae.ACCURACY_SIZE, device, seed)
        forms = {"plain": plain_layers(plain, given)}
        forms |= {name: fast_layers(FastVae(plain, knobs=knobs), given) for name, knobs in WHOLE.items()}
        yield errors(forms, plain_layers(plain.float(), given))


# --- the transformer -------------------------------------------------------------------------------------------


def dit_errors(config: DitConfig, chosen: argparse.Namespace, device: torch.device) -> Iterator[Errors]:
    for seed in range(chosen.seeds):
        found = dit.errors_of(config, DIT_SIZE, seed, device, paths=DIT_PATHS.values())
        names = [*(f"blocks.{i}" for i in range(config.layers)), "output"]
        yield {(name, form): found[path][i] for i, name in enumerate(names) for form, path in DIT_PATHS.items()}


# --- program ---------------------------------------------------------------------------------------------------


def errors(forms: dict[str, Layers], wanted: Layers) -> Errors:
    for form, layers in forms.items():
        if layers.keys() != wanted.keys():
            raise AssertionError(f"{form} has other layers: {layers.keys() ^ wanted.keys()}")
    return {(name, form): dit.relative(layers[name], wanted[name]) for name in wanted for form, layers in forms.items()}


def rows_of(network: str, seeds: list[Errors]) -> list[Row]:
    return [Row(network, *place, statistics.mean(seed[place] for seed in seeds)) for place in seeds[0]]


def show(rows: list[Row]) -> None:
    paths = list(dict.fromkeys(row.path for row in rows))
    print(f"{rows[0].network:32}" + "".join(f"{path:>23}" for path in paths))
    for name in dict.fromkeys(row.layer for row in rows):
        cells = [f"{row.relative:12.1e}{row.ulp:7.2f} ulp" for row in rows if row.layer == name]
        print(f"{name:32}" + "".join(cells), flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--networks", nargs="+", choices=["vae", *RELEASED], default=["vae", *RELEASED])
    parser.add_argument("--seeds", type=int, default=3, help="of random weights and inputs")


@torch.no_grad()
def main(chosen: argparse.Namespace) -> None:
    device, machine = begin(chosen)
    rows: list[Row] = []
    for name in chosen.networks:
        config = config_of("seedvr2-3b" if name == "vae" else name, tiny=chosen.tiny)
        found = vae_errors(config.vae, chosen, device) if name == "vae" else dit_errors(config.dit, chosen, device)
        made = rows_of(name, list(found))
        show(made)
        rows += made
        save(chosen.json, machine, rows=[asdict(row) | {"ulp": row.ulp} for row in rows])
