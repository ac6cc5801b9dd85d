"""The memory plan against measured peaks, on cards of other sizes than the one that is there.

A smaller card is made of a large one by letting PyTorch's allocator reserve no more, less what CUDA's context takes of
every card, and by telling the plan the smaller size: what it chooses must run inside it, fragments included. `--starve`
leaves the allocator less than the plan knows of: the memory really runs out, the restorer steps down as in a pod, and
the result is compared, byte for byte, with that of a restorer that had the leaner knobs from the beginning.
"""

import argparse
import copy
import gc
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.gpu.machine import GIB, Machine, begin, save
from benchmarks.gpu.networks import RELEASED, SEED, TEXT_TOKENS, build, config_of
from benchmarks.gpu.stages import SIZES, STAGES, TINY, Row, measure, moving_picture, parse_knobs, scene, scene_work
from restoration_api.outcome import FailureReason
from restoration_api.request import Precision
from restoration_runner.errors import RestorationError
from restoration_runner.models.device import compute_dtype, host_memory_bytes
from restoration_runner.models.seedvr2 import memory_plan
from restoration_runner.models.seedvr2.config import ModelConfig
from restoration_runner.models.seedvr2.fast.dit import FastDit
from restoration_runner.models.seedvr2.fast.vae import FastVae
from restoration_runner.models.seedvr2.fitted import refusal
from restoration_runner.models.seedvr2.folder import LoadedModel
from restoration_runner.models.seedvr2.knobs import Knobs
from restoration_runner.models.seedvr2.memory_model import Load, estimate
from restoration_runner.models.seedvr2.networks import NetworkPath, joined
from restoration_runner.models.seedvr2.restorer import SeedVr2Restorer
from restoration_runner.restoration.grid import latent_count

CONTEXT = round(0.6 * GIB)
"""Of every card, beside what the allocator reserves: CUDA's context and the libraries' kernels, measured on an H100."""
STARVED = 0.8
"""Of what the plan predicts for its first choice: surely too little for it."""


@dataclass(frozen=True)
class Found:
    """One case. predicted_gib and error (measured ÷ predicted - 1): by stage, and of the worst of them."""

    card_gib: float
    predicted_gib: dict[str, float]
    error: dict[str, float]
    row: Row


class Card:
    """The properties of the GPU that is there, with another size."""

    def __init__(self, own: Any, total_bytes: int) -> None:
        self._own, self.total_memory = own, total_bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)


@contextmanager
def card_of(device: torch.device, total_bytes: int | None) -> Iterator[None]:
    """What asks for the GPU's size is told this one; None leaves it as it is."""
    if device.type != "cuda" or total_bytes is None:
        yield
        return
    card = Card(torch.cuda.get_device_properties(device), total_bytes)
    with mock.patch.object(torch.cuda, "get_device_properties", lambda _device: card):
        yield


@contextmanager
def at_most(device: torch.device, reserved_bytes: int | None) -> Iterator[None]:
    """The allocator reserves no more than that."""
    if device.type != "cuda" or reserved_bytes is None:
        yield
        return
    free(device)
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, reserved_bytes / total))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def load_of(config: ModelConfig, case: Row) -> Load:
    width, height = (-(-side // 16) * 16 for side in (case.width, case.height))
    return Load(
        dit=config.dit,
        vae=config.vae,
        width=width,
        height=height,
        window_latents=latent_count(case.window_frames),
        text_tokens=TEXT_TOKENS,
        scene_latents=latent_count(case.frames),
        element_bytes=compute_dtype(case.precision).itemsize,
        fp8_weights=case.precision == Precision.FP8,
    )


def restorer_of(config: ModelConfig, case: Row, device: torch.device, knobs: Knobs | None) -> SeedVr2Restorer:
    dtype = compute_dtype(case.precision)
    read = partial(build, config, device=device, dtype=dtype, precision=case.precision)
    with torch.no_grad():
        return SeedVr2Restorer(read(), device=device, dtype=dtype, path=NetworkPath.FAST, knobs=knobs, reload=read)


class Models:
    """Restorers for one case after another. A transformer is made anew only where its weights lie elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._key: tuple[str, str, bool] | None = None
        self._model: LoadedModel
        self._dit: FastDit

    @torch.no_grad()
    def restorer(self, config: ModelConfig, case: Row, knobs: Knobs) -> SeedVr2Restorer:
        dtype, key = compute_dtype(case.precision), (config.name, case.precision, knobs.dit.streamed_weights)
        if self._key != key:
            self._key = None
            self._model = self._dit = None  # type: ignore[assignment]
            free(self._device)
            model = build(config, device=self._device, dtype=dtype, precision=case.precision)
            self._dit = FastDit(model.dit, knobs=knobs.dit, release=True, fp8_weights=model.fp8_weights)
            model.vae.to("cpu")  # beside the fast one it would be in nobody's way in a pod
            self._model, self._key = model, key
        self._dit.set_knobs(knobs.dit)
        vae = FastVae(copy.deepcopy(self._model.vae).to(self._device), knobs=knobs.vae)
        made = SeedVr2Restorer(self._model, device=self._device, dtype=dtype, path=NetworkPath.FAST, knobs=knobs)
        made.networks = joined(vae, self._dit, knobs)
        free(self._device)
        return made


def compared(
    config: ModelConfig, case: Row, knobs: Knobs, *, card_bytes: int, models: Models, machine: Machine
) -> Found:
    """One scene on a card of that size, predicted and measured."""
    restorer = models.restorer(config, case, knobs)
    with at_most(restorer.device, card_bytes - CONTEXT):
        row = measure(restorer, case, scene_work(config, case), machine)
    expected = estimate(load_of(config, case), knobs)
    predicted = {name: getattr(expected, name) / GIB for name in (*STAGES, "peak")}
    measured = {**(row.peaks_gib or {}), "peak": row.peak_live_gib}
    errors = {name: gib / predicted[name] - 1 for name in predicted if (gib := measured.get(name)) is not None}
    return Found(card_bytes / GIB, predicted, errors, row)


@torch.no_grad()
def starved(config: ModelConfig, case: Row, device: torch.device, card_bytes: int) -> str:
    """What happened when the card was smaller than the plan was told."""
    load = load_of(config, case)
    offered = memory_plan.fitting(load, card_bytes, host_memory_bytes())
    least = STARVED * estimate(load, offered[0]).peak
    made = restorer_of(config, case, device, None)
    with card_of(device, card_bytes):
        made.prepare(
            width=case.width,
            height=case.height,
            window_latents=load.window_latents,
            overlap_latents=load.overlap_latents,
            scene_frames=case.frames,
        )
    with at_most(device, round(least)):
        steps, frames = until_it_fits(made, case)
    same = frames_of(restorer_of(config, case, device, offered[steps]), case)
    verdict = "the same bytes" if torch.equal(frames, same) else "ANOTHER RESULT"
    return f"{steps} steps down in {least / GIB:.1f} GiB, then {verdict} as with these knobs from the beginning"


def until_it_fits(restorer: SeedVr2Restorer, case: Row) -> tuple[int, Tensor]:
    """As `Segments` does it."""
    for steps in itertools.count():
        try:
            return steps, frames_of(restorer, case)
        except RestorationError as error:
            if error.reason is not FailureReason.INSUFFICIENT_GPU_MEMORY:
                raise
            problem = error.with_traceback(None)
            problem.__cause__ = problem.__context__ = None
        if not restorer.step_down():
            raise problem
    raise AssertionError


def frames_of(restorer: SeedVr2Restorer, case: Row) -> Tensor:
    made = restorer.restore(scene(case, case.frames), moving_picture(case, restorer.device), seed=SEED)
    return torch.stack([frame.cpu() for frame in made])


CASES = (
    *("480p/21/8", "480p/21/12", "480p/81/16", "480p/21/80"),
    *("720p/21/12", "720p/49/16", "720p/21/24", "720p/49/24", "720p/81/40", "720p/21/80", "720p/81/80"),
    *("1080p/21/24", "1080p/49/24", "1080p/21/48", "1080p/21/80"),
    *("2160p/1/24", "2160p/9/80"),
)
"""Size, frames of a window, GiB of the card; then knobs, where they shall not be the plan's."""


def case_of(text: str, config: ModelConfig, chosen: argparse.Namespace) -> tuple[Row, int, list[Knobs]]:
    """What is measured, bytes of the card, and the knobs asked for, or the plan's choice: none where nothing fits."""
    size, window, card, *knobs = text.split("/")
    width, height = (TINY if chosen.tiny else SIZES)[size]
    frames = chosen.frames or 3 * int(window) - 2  # they share a latent
    case = Row("fast", config.name, chosen.precision, width, height, frames, min(int(window), frames))
    card_bytes = round(float(card) * GIB)
    given = [parse_knobs(words) for words in knobs]
    return case, card_bytes, given or memory_plan.fitting(load_of(config, case), card_bytes, host_memory_bytes())[:1]


HEADING = f"{'model':12}{'size':11}{'frames':>7}{'window':>7}{'card':>6}" + "".join(
    f"{name:>{width}}" for name, width in (("predicted", 10), ("live", 7), ("error", 8), ("reserved", 9), ("fps", 7))
)


def show(found: Found) -> None:
    row = found.row
    size = f"{row.width}x{row.height}"
    what = f"{row.model.removeprefix('seedvr2-'):12}{size:11}{row.frames:7}{row.window_frames:7}{found.card_gib:6.4g}"
    if row.problem is not None:
        print(f"{what}{found.predicted_gib['peak']:10.2f}  {row.problem}", flush=True)
        return
    live, reserved = row.peak_live_gib or 0.0, row.peak_reserved_gib or 0.0
    error = f"{found.error['peak']:+8.1%}" if found.error else " " * 8
    stages = " ".join(f"{name} {found.error[name]:+.1%}" for name in STAGES if name in found.error)
    print(
        f"{what}{found.predicted_gib['peak']:10.2f}{live:7.2f}{error}{reserved:9.2f}{row.frames_per_s:7.2f}  "
        f"{in_words(row.settings or {})}  [{stages}]",
        flush=True,
    )


def in_words(settings: dict[str, str]) -> str:
    """What differs from the defaults."""
    usual = Knobs().settings()
    return ", ".join(f"{name}={value}" for name, value in settings.items() if usual.get(name, value) != value) or "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", choices=RELEASED, default=["seedvr2-3b"])
    parser.add_argument("--cases", nargs="+", default=CASES, help="SIZE/WINDOW/GIB, then /KNOBS as in `stages`")
    parser.add_argument("--frames", type=int, help="length of the scene (default: three windows)")
    parser.add_argument("--starve", action="store_true", help="run out of memory and step down, in every case")
    parser.add_argument("--precision", default="BF16")


def main(chosen: argparse.Namespace) -> None:
    device, machine = begin(chosen)
    print(HEADING, flush=True)
    rows: list[Found] = []
    models = Models(device)
    for name, text in itertools.product(chosen.models, chosen.cases):
        config = config_of(name, tiny=chosen.tiny)
        case, card_bytes, offered = case_of(text, config, chosen)
        if not offered:
            print(f"{name} {text}: {refusal(load_of(config, case), card_bytes, host_memory_bytes())}", flush=True)
        for knobs in offered:
            if chosen.starve:
                print(f"{name} {text}: {starved(config, case, device, card_bytes)}", flush=True)
                continue
            rows.append(compared(config, case, knobs, card_bytes=card_bytes, models=models, machine=machine))
            show(rows[-1])
            free(device)
            save(chosen.json, machine, rows=rows)
