"""What each kernel brings: the fast networks as they are, then with one kernel's plain fallback in its place.

Everything else stays, so what a pass saves or costs its neighbours (rows still in a cache, copies, memory) is in the
figures, which a kernel timed by itself does not show. All networks are called for one window; encoder and decoder by
Winograd and with rings, the transformer with weights in 16 and in 8 bits. Random weights of trained scale, BF16.
"""

import argparse
import json
import pkgutil
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from types import ModuleType
from unittest import mock

import torch

from benchmarks.gpu import dit, vae
from benchmarks.gpu.machine import describe, this_machine, timed
from benchmarks.gpu.networks import RELEASED, config_of
from restoration_runner.models import kernels
from restoration_runner.models.device import prepare_device
from restoration_runner.models.seedvr2.fast.dit import FastDit

FORMS = ("Winograd", "1 frame")
"""Of the VAE, see `vae.SETTINGS`."""


@dataclass(frozen=True)
class Row:
    """One network, median milliseconds. without: the kernel whose fallback computed, none if empty."""

    network: str
    without: str
    ms: float | None


def modules() -> list[ModuleType]:
    """Those that ask whether their kernel takes a tensor, in alphabetical order."""
    found = [import_module(f"{kernels.__name__}.{each.name}") for each in pkgutil.iter_modules(kernels.__path__)]
    return [module for module in found if hasattr(module, "takes") and module.takes.__module__ != module.__name__]


def works(chosen: argparse.Namespace, device: torch.device) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each network's name and one call of it."""
    width, height = dit.TINY if chosen.tiny else dit.SIZES[chosen.size]
    config = config_of("seedvr2-3b", tiny=chosen.tiny).vae
    given = vae.inputs(config, (chosen.frames, height, width), device)
    for form in FORMS:
        network = vae.with_knobs(vae.make_plain(config, device), form, height)
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
    used = used_by(work)
    yield Row(network, "", milliseconds(work, device, repeats))
    for module in used:
        with mock.patch.object(module, "takes", lambda *_: False):
            yield Row(network, module.__name__.rpartition(".")[2], milliseconds(work, device, repeats))


def milliseconds(work: Callable[[], object], device: torch.device, repeats: int) -> float | None:
    """The median of some calls behind a first one; None where the GPU's memory is too small."""
    try:
        dit.free(device)
        return 1000 * statistics.median([timed(work, device) for _ in range(repeats + 1)][1:])
    except torch.OutOfMemoryError:
        return None


def show(row: Row, whole: float | None) -> None:
    if row.ms is None or whole is None:
        print(f"{row.network:24}{row.without or 'nothing':20} does not fit", flush=True)
        return
    gain = f"{row.ms - whole:+9.1f}{row.ms / whole:8.2f}" if row.without else ""
    print(f"{row.network:24}{row.without or 'nothing':20}{row.ms:9.1f}{gain}", flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", choices=RELEASED, default=["seedvr2-3b"])
    parser.add_argument("--size", choices=list(dit.SIZES), default="720p")
    parser.add_argument("--frames", type=int, default=21, help="of a window, 4n+1")
    parser.add_argument("--repeats", type=int, default=3, help="of a call, whose median counts")


@torch.no_grad()
def main(chosen: argparse.Namespace) -> None:
    device = prepare_device(chosen.device)
    machine = this_machine(device, tiny=chosen.tiny)
    print(describe(machine), flush=True)
    print(f"{'network':24}{'without':20}{'ms':>9}{'more':>9}{'times':>8}")
    rows: list[Row] = []
    for network, work in works(chosen, device):
        whole = None
        for row in rows_of(network, work, device, chosen.repeats):
            whole = row.ms if not row.without else whole
            show(row, whole)
            rows.append(row)
            if chosen.json:
                found = {"machine": asdict(machine), "rows": [asdict(each) for each in rows]}
                chosen.json.write_text(json.dumps(found, indent=1) + "\n")
