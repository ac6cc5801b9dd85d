"""Time and memory of each stage: one scene through the restorer, as the product does it, plain and fast side by side.

Frame after frame into the encoder, windows through the transformer, latent after latent out of the decoder; frames are
on the device already. The GPU's own clock is read; the host only queues work. Each case runs twice: the first, a short
one, loads kernels (`cold s`). A case that does not fit says so.
"""

import argparse
import gc
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from benchmarks.gpu.arithmetic import Work, work_of
from benchmarks.gpu.machine import GIB, Machine, describe, save, synchronize, this_machine
from benchmarks.gpu.networks import RELEASED, SEED, build, config_of
from restoration_runner.errors import RestorationError
from restoration_runner.models.device import compute_dtype, prepare_device
from restoration_runner.models.seedvr2.config import ModelConfig
from restoration_runner.models.seedvr2.fast.dit_knobs import DitKnobs
from restoration_runner.models.seedvr2.fast.vae_state import VaeKnobs
from restoration_runner.models.seedvr2.knobs import Knobs
from restoration_runner.models.seedvr2.networks import NetworkPath
from restoration_runner.models.seedvr2.restorer import SeedVr2Restorer
from restoration_runner.restoration.grid import SegmentWork, latent_count, scene_segments
from restoration_runner.restoration.resize import pad_to_alignment
from restoration_runner.restoration.stopwatch import stopwatch, timed

SIZES = {"480p": (854, 480), "720p": (1280, 720), "1080p": (1920, 1080), "2160p": (3840, 2160)}
TINY = {"480p": (48, 32), "720p": (64, 48), "1080p": (96, 64), "2160p": (128, 96)}
STAGES = ("encode", "transformer", "decode")
COLD_FRAMES = 21
"""Of the first run, which compiles: six latents, with which each kernel meets one group of frames and several."""


@dataclass(frozen=True)
class Row:
    """One scene. Seconds of the GPU in each stage; `other_s` is noise, blending and what is idle.

    tflop: of the plain networks' products, by stage; ceiling: share of this run's matrix product that is. peaks_gib:
    what was live at the worst moment of each stage, weights and the other stages' states included.
    """

    path: str
    model: str
    precision: str
    width: int
    height: int
    frames: int
    window_frames: int
    encode_s: float | None = None
    transformer_s: float | None = None
    decode_s: float | None = None
    other_s: float | None = None
    total_s: float | None = None
    cold_s: float | None = None
    frames_per_s: float | None = None
    tflop: dict[str, float] | None = None
    gbytes: dict[str, float] | None = None
    tflop_per_s: float | None = None
    ceiling: float | None = None
    peak_live_gib: float | None = None
    peak_reserved_gib: float | None = None
    peaks_gib: dict[str, float] | None = None
    knobs: str = ""
    settings: dict[str, str] | None = None
    problem: str | None = None


def measure(restorer: SeedVr2Restorer, case: Row, work: dict[str, Work], machine: Machine) -> Row:
    """The same scene twice."""
    device = restorer.device
    is_gpu = device.type == "cuda"
    try:
        cold = seconds(lambda: run(restorer, case, frames=min(COLD_FRAMES, case.frames)), device)
        warm_up(restorer, case)
        if is_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        with Watched(restorer) as watched:
            total = seconds(lambda: run(restorer, case, frames=case.frames), device)
            spent = {name: watch.milliseconds / 1000 for name, watch in watched.watches.items()}
    except RestorationError as error:
        return replace(case, problem=error.message)
    tflop = sum(one.tflop for one in work.values())
    return replace(
        case,
        encode_s=spent["encode"],
        transformer_s=spent["transformer"],
        decode_s=spent["decode"],
        other_s=total - sum(spent.values()),
        total_s=total,
        cold_s=cold,
        frames_per_s=case.frames / total,
        tflop={name: one.tflop for name, one in work.items()},
        gbytes={name: one.gbytes for name, one in work.items()},
        tflop_per_s=tflop / total,
        ceiling=tflop / total / machine.matmul_tflops,
        peak_live_gib=watched.peak() / GIB if is_gpu else None,
        peak_reserved_gib=torch.cuda.memory_reserved(device) / GIB if is_gpu else None,
        peaks_gib={name: peak / GIB for name, peak in watched.peaks.items()} if is_gpu else None,
        settings=restorer.networks.settings,
    )


class Watched:
    """The restorer's networks with clocks and gauges around them, for as long as this lasts."""

    def __init__(self, restorer: SeedVr2Restorer) -> None:
        self._restorer, self._networks = restorer, restorer.networks
        self._is_gpu = restorer.device.type == "cuda"
        self.watches = {name: stopwatch(restorer.device) for name in STAGES}
        self.peaks = dict.fromkeys((*STAGES, "between"), 0)

    def __enter__(self) -> Self:
        own = self._networks
        self._restorer.networks = replace(
            own,
            encode=self._watched("encode", own.encode),
            velocity=self._watched("transformer", own.velocity),
            decode=self._decode,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._restorer.networks = self._networks
        self._gauge("between")

    def peak(self) -> int:
        """Bytes that were live at the worst moment."""
        return max(self.peaks.values())

    def _watched(self, name: str, inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*arguments: object) -> Tensor:
            self._gauge("between")
            with self.watches[name]:
                result = inner(*arguments)
            self._gauge(name)
            return result

        return call

    def _decode(self, *arguments: Any) -> Iterator[Tensor]:
        """Frames come as they are made."""
        self._gauge("between")
        for frames in timed(self._networks.decode(*arguments), self.watches["decode"]):
            self._gauge("decode")
            yield frames
            self._gauge("between")

    def _gauge(self, name: str) -> None:
        """What was live at most since the last reading belongs to `name`; the allocator counts on the host."""
        if self._is_gpu:
            self.peaks[name] = max(self.peaks[name], torch.cuda.max_memory_allocated(self._restorer.device))
            torch.cuda.reset_peak_memory_stats(self._restorer.device)


def seconds(work: Callable[[], None], device: torch.device) -> float:
    synchronize(device)
    begun = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - begun


def run(restorer: SeedVr2Restorer, case: Row, *, frames: int) -> None:
    """One scene of `frames` frames in one segment."""
    work = scene(case, frames)
    made = sum(1 for _ in restorer.restore(work, moving_picture(case, restorer.device), seed=SEED))
    assert made == frames
    if restorer.report().non_finite_values:
        raise AssertionError(f"{case.model} in {case.precision}: random weights gave values that are not numbers")


@torch.no_grad()
def warm_up(restorer: SeedVr2Restorer, case: Row) -> None:
    """The transformer once at the size of the case's windows: cuDNN's attention prepares at its first call."""
    work, channels = scene(case, case.frames), 16
    height, width = (-(-side // 16) * 2 for side in (case.height, case.width))
    latent = torch.ones(height, width, channels, device=restorer.device)
    window = work.windows[0]
    restorer._window([latent] * (window.stop - window.start), work, window.start, SEED)


def scene(case: Row, frames: int) -> SegmentWork:
    (work,) = scene_segments(
        start=0,
        frames=frames,
        window=latent_count(case.window_frames),
        overlap=1,
        per_segment=10_000,
        encoder_warmup=1,
        decoder_warmup=1,
    )
    return work


def moving_picture(case: Row, device: torch.device) -> Iterator[Tensor]:
    """Frames `[3, H, W]` in [-1, 1], padded, without end: noise that moves to the side."""
    generator = torch.Generator(device).manual_seed(SEED)
    picture = torch.rand(3, case.height, case.width, generator=generator, device=device) * 2 - 1
    padded = pad_to_alignment(picture)
    while True:
        yield padded
        padded = padded.roll(1, dims=-1)


COLUMNS = ("encode s", "DiT s", "decode s", "other s", "total s", "cold s", "frames/s", "TFLOP/s", "ceiling")
HEADING = f"{'model':16}{'path':6}{'size':<11}{'fr':>4}{'window':>7}" + "".join(
    f"{name:>9}" for name in (*COLUMNS, "live GiB", "reserved")
)


def show(row: Row) -> None:
    what = f"{row.model:16}{row.path:6}{row.width}x{row.height:<6}{row.frames:>4}{row.window_frames:>7}"
    if row.problem:
        print(f"{what}  {row.problem}", flush=True)
        return
    seconds_ = (row.encode_s, row.transformer_s, row.decode_s, row.other_s, row.total_s, row.cold_s)
    cells = [f"{value:9.3f}" for value in seconds_ if value is not None]
    cells += [f"{row.frames_per_s:9.2f}", f"{row.tflop_per_s:9.1f}", f"{100 * (row.ceiling or 0):8.1f}%"]
    cells += ["        -" if gib is None else f"{gib:9.2f}" for gib in (row.peak_live_gib, row.peak_reserved_gib)]
    print("".join((what, *cells, f"  {row.knobs}")), flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", choices=RELEASED, default=list(RELEASED))
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--windows", nargs="+", type=int, default=[21], help="frames of a window, 4n+1")
    parser.add_argument("--frames", type=int, help="length of the scene (default: that of the window)")
    parser.add_argument("--paths", nargs="+", choices=PATHS, default=list(PATHS))
    parser.add_argument(
        "--knobs",
        nargs="+",
        default=[""],
        help="exact knobs of the fast path, such as latents=2,vae.frames_at_once=1,dit.streamed_weights=1",
    )
    parser.add_argument("--precision", default="BF16")


def parse_knobs(text: str) -> Knobs:
    """`latents=2,vae.strip_rows=136`; an empty text stands for the defaults."""
    given = {name: int(value) for name, value in (word.split("=") for word in text.split(",") if word)}
    vae, dit = ({name.partition(".")[2]: v for name, v in given.items() if name.startswith(f"{of}.")} for of in KINDS)
    for knobs in (vae, dit):
        knobs |= {name: bool(knobs[name]) for name in SWITCHES if name in knobs}
    own = {"latents_at_once": given.get("latents", 1), "stage_by_stage": bool(given.get("stage_by_stage", 0))}
    return Knobs(**own, vae=VaeKnobs(**vae), dit=DitKnobs(**dit))  # type: ignore[arg-type]


KINDS = ("vae", "dit")
SWITCHES = [knob.name for of in (VaeKnobs, DitKnobs) for knob in fields(of) if isinstance(knob.default, bool)]
PATHS = tuple(NetworkPath)


def main(chosen: argparse.Namespace) -> None:
    device = prepare_device(chosen.device)
    machine = this_machine(device, tiny=chosen.tiny)
    print(f"{describe(machine)}; {chosen.precision}")
    print(HEADING)
    rows: list[Row] = []
    for name, path in itertools.product(chosen.models, chosen.paths):
        config = config_of(name, tiny=chosen.tiny)
        for knobs in chosen.knobs if path == NetworkPath.FAST else [""]:
            rows += measure_all(config, path, knobs, chosen, device=device, machine=machine)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        save(chosen.json, machine, rows=rows)


def measure_all(
    config: ModelConfig, path: str, knobs: str, chosen: argparse.Namespace, *, device: torch.device, machine: Machine
) -> Iterator[Row]:
    """The cases of one network with one set of knobs."""
    dtype = compute_dtype(chosen.precision)
    with torch.no_grad():
        restorer = SeedVr2Restorer(
            build(config, device=device, dtype=dtype, precision=chosen.precision),
            device=device,
            dtype=dtype,
            path=NetworkPath(path),
            knobs=parse_knobs(knobs),
        )
    for size, window in itertools.product(chosen.sizes, chosen.windows):
        width, height = (TINY if chosen.tiny else SIZES)[size]
        frames = chosen.frames or window
        case = Row(path, config.name, chosen.precision, width, height, frames, min(window, frames), knobs=knobs)
        row = measure(restorer, case, scene_work(config, case), machine)
        show(row)
        yield row


def scene_work(config: ModelConfig, case: Row) -> dict[str, Work]:
    """Of the whole scene: it is encoded and decoded once, and denoised window by window, overlaps twice."""
    width, height = (-(-side // 16) * 16 for side in (case.width, case.height))
    window = work_of(config, width=width, height=height, frames=case.window_frames)
    windows = scene(case, case.frames).windows
    share = case.frames / case.window_frames
    times = {"encode": share, "transformer": float(len(windows)), "decode": share}
    return {name: Work(one.tflop * times[name], one.gbytes * times[name]) for name, one in window.items()}
