"""What each kernel brings: the fast networks as they are, then with one kernel's plain fallback in its place.

Everything else stays, so what a pass saves or costs its neighbours (rows still in a cache, copies, memory) is in the
figures, which a kernel timed by itself does not show. All networks are called for one window; encoder and decoder by
Winograd and with rings, the transformer with weights in 16 and in 8 bits. Random weights of trained scale, BF16.
"""

import argparse
import pkgutil
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import ModuleType
from unittest import mock

import torch

from benchmarks.gpu import dit, vae
from benchmarks.gpu.machine import begin, save, timed
from benchmarks.gpu.networks import RELEASED, config_of
from restoration_runner.models import kernels
from restoration_runner.models.seedvr2.fast.dit import FastDit

FORMS = ("Winograd", "1 frame")
"""Of the VAE, see `vae.SETTINGS`."""


@dataclass(frozen=True)
class Row:
    """One network, median milliseconds of a call: with all kernels, and with the fallback of one.

    Both are called in turn: a card that changes its pace in between changes it for both.
    """

    network: str
    kernel: str
    ms: float | None
    fallback_ms: float | None


def modules() -> list[ModuleType]:
    """Those that ask whether their kernel takes a tensor, in alphabetical order."""
    found = [import_module(f"{kernels.__name__}.{each.name}") for each in pkgutil.iter_modules(kernels.__path__)]
    return [module for module in found if hasattr(module, "takes") and module.takes.__module__ != module.__name__]


def works(chosen: argparse.Namespace, device: torch.device) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each network's name and one call of it."""
    width, height = dit.TINY if chosen.tiny else dit.SIZES[chosen.size]
    config = config_of("seedvr2-3b", tiny=chosen.tiny).vae
    given = vae.inputs(config, (chosen.frames, height, width), device)
    plain = vae.make_plain(config, device)
    for form in FORMS:
        network = vae.with_knobs(plain, form, height)
        for part, x in given.items():
            yield f"{part}, {form}", partial(vae.run, network, part, x, streamed=False)
        del network
    for name in chosen.models:
        transformer = config_of(name, tiny=chosen.tiny).dit
        low = dit.rounded(dit.inputs(transformer, (width, height), chosen.frames, device))
        for words, is_fp8 in (("", False), (", 8 bits", True)):
            dit.free(device)
            fast = FastDit(dit.plain(transformer, torch.bfloat16, device), release=True, fp8_weights=is_fp8)
            yield name + words, partial(fast, *low)
            del fast


def used_by(work: Callable[[], object]) -> list[ModuleType]:
    """The kernels that a network asks for; a first call as well."""
    asked = set()

    def noted(module: ModuleType, takes: Callable[..., bool], *given: object) -> bool:
        asked.add(module)
        return takes(*given)

    with ExitStack() as patches:
        for module in modules():
            patches.enter_context(mock.patch.object(module, "takes", partial(noted, module, module.takes)))
        work()
    return [module for module in modules() if module in asked]


def rows_of(network: str, work: Callable[[], object], device: torch.device, repeats: int) -> Iterator[Row]:
    for module in used_by(work):
        name = module.__name__.rpartition(".")[2]
        try:
            yield Row(network, name, *milliseconds(module, work, device, repeats))
        except torch.OutOfMemoryError:
            yield Row(network, name, None, None)


def milliseconds(
    module: ModuleType, work: Callable[[], object], device: torch.device, repeats: int
) -> tuple[float, float]:
    dit.free(device)
    whole, without = [], []
    for _ in range(repeats + 1):
        whole.append(1000 * timed(work, device))
        with mock.patch.object(module, "takes", lambda *_: False):
            without.append(1000 * timed(work, device))
    return statistics.median(whole[1:]), statistics.median(without[1:])


def show(row: Row) -> None:
    start = f"{row.network:24}{row.kernel:18}"
    if row.ms is None or row.fallback_ms is None:
        print(f"{start} does not fit", flush=True)
        return
    more, times = row.fallback_ms - row.ms, row.fallback_ms / row.ms
    print(f"{start}{row.ms:9.1f}{row.fallback_ms:10.1f}{more:+8.1f}{times:7.2f}", flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", choices=RELEASED, default=["seedvr2-3b"])
    parser.add_argument("--size", choices=list(dit.SIZES), default="720p")
    parser.add_argument("--frames", type=int, default=21, help="of a window, 4n+1")
    parser.add_argument("--repeats", type=int, default=3, help="of a call, whose median counts")


@torch.no_grad()
def main(chosen: argparse.Namespace) -> None:
    device, machine = begin(chosen)
    print(f"{'network':24}{'kernel':18}{'ms':>9}{'fallback':>10}{'more':>8}{'times':>7}")
    rows: list[Row] = []
    for network, work in works(chosen, device):
        for row in rows_of(network, work, device, chosen.repeats):
            show(row)
            rows.append(row)
            save(chosen.json, machine, rows=rows)
