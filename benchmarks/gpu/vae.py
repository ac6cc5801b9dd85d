"""The video VAE alone, plain and fast with each knob: time, memory and error, encoder and decoder apart.

Memory is what a call needs beside the weights, which stand in a column of their own. Streams take one latent a call, as
the restorer does. Errors are relative L2 to the plain VAE in fp32 (without TF32) with the same weights.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor

from benchmarks.gpu.machine import GIB, begin, save, synchronize
from benchmarks.gpu.networks import config_of, materialise
from benchmarks.gpu.stages import SIZES, TINY
from restoration_runner.models.seedvr2.config import VaeConfig
from restoration_runner.models.seedvr2.fast.vae import FastVae
from restoration_runner.models.seedvr2.fast.vae_state import VaeKnobs
from restoration_runner.models.seedvr2.vae import VideoVae

Vae = VideoVae | FastVae
SETTINGS: dict[str, VaeKnobs | None] = {
    "plain": None,
    "whole": VaeKnobs(frames_at_once=None),
    "4 frames": VaeKnobs(frames_at_once=4),
    "1 frame": VaeKnobs(frames_at_once=1),
    "Winograd": VaeKnobs(frames_at_once=4, winograd=True),
    "8 strips": VaeKnobs(frames_at_once=1, strip_rows=1),  # rows: an eighth of the picture
    "8 strips, past on host": VaeKnobs(frames_at_once=1, strip_rows=1, past_on_host=True),
    "8 strips, second level": VaeKnobs(frames_at_once=1, strip_rows=1, past_on_host=True, second_level=True),
}
PARTS = ("encode", "decode")
ACCURACY_SIZE = (9, 96, 160)
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Row:
    """One part of one clip: median milliseconds, GiB while it ran. state_gib: remembered between calls of a stream."""

    part: str
    path: str
    streamed: bool
    width: int
    height: int
    frames: int
    knobs: dict[str, int | None] = field(default_factory=dict)
    ms: float | None = None
    first_s: float | None = None
    live_gib: float | None = None
    reserved_gib: float | None = None
    state_gib: float | None = None
    weights_gib: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Error:
    """Relative L2 of bf16 or fp32 to plain fp32, mean of all seeds."""

    path: str
    dtype: str
    streamed: bool
    encode: float
    decode: float


def make_plain(config: VaeConfig, device: torch.device, seed: int = 0) -> VideoVae:
    with torch.device("meta"):
        vae = VideoVae(config)
    generator = torch.Generator(device).manual_seed(seed)
    materialise(vae.eval().requires_grad_(False), device=device, dtype=torch.bfloat16, generator=generator)
    return vae


def with_knobs(plain: VideoVae, name: str, height: int) -> Vae:
    knobs = SETTINGS[name]
    if knobs is None:
        return plain
    if knobs.strip_rows is not None:
        knobs = replace(knobs, strip_rows=-(-height // 8))
    return FastVae(plain, knobs=knobs)


def run(vae: Vae, part: str, x: Tensor, *, streamed: bool) -> tuple[Tensor, int]:
    """The part's result for the clip `x`, and the bytes that its state holds at the end."""
    call: Callable[..., Tensor] = getattr(vae, part)
    if not streamed:
        return call(x), 0
    state, step = vae.new_state(), 4 if part == "encode" else 1
    cuts = [0, *range(1, x.shape[2], step), x.shape[2]]
    made = [call(x[:, :, a:b], state) for a, b in pairwise(cuts)]
    return torch.cat(made, dim=2), state.size_bytes


def inputs(config: VaeConfig, size: tuple[int, int, int], device: torch.device, seed: int = 0) -> dict[str, Tensor]:
    """A clip and latents of that size, in bf16 values."""
    frames, height, width = size
    space, time_stride = config.spatial_stride, config.temporal_stride
    generator = torch.Generator(device).manual_seed(seed)
    shape = (1, config.latent_channels, (frames - 1) // time_stride + 1, height // space, width // space)
    video = torch.rand((1, config.image_channels, *size), generator=generator, device=device) * 2 - 1
    latent = torch.randn(shape, generator=generator, device=device)
    return {"encode": video.bfloat16(), "decode": latent.bfloat16()}


def measure(vae: Vae, row: Row, x: Tensor, repeats: int, weights_bytes: int) -> Row:
    device = x.device
    before = memory(device)
    try:
        first = seconds(lambda: run(vae, row.part, x, streamed=row.streamed), device)
        state_bytes = 0
        spent = []
        for _ in range(repeats):
            begun = time.perf_counter()
            state_bytes = run(vae, row.part, x, streamed=row.streamed)[1]
            synchronize(device)
            spent.append(time.perf_counter() - begun)
    except torch.OutOfMemoryError:
        return replace(row, problem="does not fit")
    after = peak(device)
    return replace(
        row,
        ms=1000 * statistics.median(spent),
        first_s=first,
        live_gib=(after[0] - before) / GIB,
        reserved_gib=(after[1] - before) / GIB,
        state_gib=state_bytes / GIB,
        weights_gib=weights_bytes / GIB,
    )


def memory(device: torch.device) -> int:
    """Bytes in use; the peaks begin anew."""
    gc.collect()
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def peak(device: torch.device) -> tuple[int, int]:
    if device.type != "cuda":
        return 0, 0
    return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    begun = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - begun


def rows_of(chosen: argparse.Namespace, config: VaeConfig, device: torch.device) -> Iterator[Row]:
    plain = make_plain(config, device)
    for size in chosen.sizes:
        width, height = (-(-side // 16) * 16 for side in (TINY if chosen.tiny else SIZES)[size])
        x = inputs(config, (chosen.frames, height, width), device)
        for path in chosen.settings:
            before = memory(device)
            vae = with_knobs(plain, path, height)
            weights = memory(device) - before
            knobs = {} if isinstance(vae, VideoVae) else asdict(vae.knobs)
            for part in PARTS:
                for streamed in (True, False) if chosen.whole else (True,):
                    row = Row(part, path, streamed, width, height, chosen.frames, knobs)
                    yield measure(vae, row, x[part], chosen.repeats, weights)
            del vae


def errors_of(config: VaeConfig, settings: list[str], device: torch.device) -> Iterator[Error]:
    half = make_plain(config, device)
    exact = make_plain(config, device).float()
    for path, dtype in [(path, dtype) for path in settings for dtype in (torch.float32, torch.bfloat16)]:
        vae = with_knobs(exact if dtype is torch.float32 else half, path, ACCURACY_SIZE[1])
        for streamed in (False, True):
            found: dict[str, list[float]] = {part: [] for part in PARTS}
            for seed in SEEDS:
                for part, x in inputs(config, ACCURACY_SIZE, device, seed).items():
                    wanted = run(exact, part, x.float(), streamed=False)[0]
                    made = run(vae, part, x.to(dtype), streamed=streamed)[0].float()
                    found[part].append(((made - wanted).norm() / wanted.norm()).item())
            mean = {part: statistics.mean(values) for part, values in found.items()}
            yield Error(path, str(dtype).removeprefix("torch."), streamed, mean["encode"], mean["decode"])


@dataclass(frozen=True)
class Agreement:
    """A setting beside the first one that was asked for, both in bf16 and streamed."""

    path: str
    part: str
    relative: float
    largest: float
    is_equal: bool
    is_repeatable: bool


def agreements(chosen: argparse.Namespace, config: VaeConfig, device: torch.device) -> Iterator[Agreement]:
    """At full width and the first size: strips and rows in the host's memory only count where there are several."""
    plain = make_plain(config, device)
    width, height = (-(-side // 16) * 16 for side in (TINY if chosen.tiny else SIZES)[chosen.sizes[0]])
    given = inputs(config, (chosen.frames, height, width), device)
    wanted: dict[str, Tensor] = {}
    for path in chosen.settings:
        vae = with_knobs(plain, path, height)
        for part, x in given.items():
            made, again = (run(vae, part, x, streamed=True)[0].float() for _ in range(2))
            first = wanted.setdefault(part, made)
            error = (made - first).norm() / first.norm()
            largest = (made - first).abs().max().item()
            yield Agreement(path, part, error.item(), largest, torch.equal(made, first), torch.equal(made, again))
        del vae


def show(row: Row) -> None:
    how = f"{row.path}{', streamed' if row.streamed else ''}"
    start = f"{row.part:8}{row.width}x{row.height}x{row.frames:<4} {how:33}"
    if row.problem is not None:
        print(f"{start} {row.problem}", flush=True)
        return
    numbers = (row.ms, row.live_gib, row.reserved_gib, row.state_gib, row.weights_gib, row.first_s)
    ms, live, reserved, state, weights, first = (number or 0.0 for number in numbers)
    print(f"{start}{ms:9.1f}{live:9.2f}{reserved:9.2f}{state:9.2f}{weights:9.2f}{first:9.2f}", flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", nargs="*", choices=list(SIZES), default=["720p", "1080p"])
    parser.add_argument("--frames", type=int, default=21, help="4n + 1 (default: 21)")
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--whole", action="store_true", help="also whole clips in one call")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--accuracy", action="store_true", help="also errors, of small clips")
    parser.add_argument("--agreement", action="store_true", help="also every setting beside the first, at full size")


@torch.no_grad()
def main(chosen: argparse.Namespace) -> None:
    device, machine = begin(chosen)
    config = config_of("seedvr2-3b", tiny=chosen.tiny).vae
    print(
        f"{'part':8}{'clip':15}{'path':17}{'ms':>9}{'live':>8}{'reserved':>10}{'state':>8}{'weights':>9}{'first s':>9}"
    )
    rows = []
    for row in rows_of(chosen, config, device):
        rows.append(row)
        show(row)
        save(chosen.json, machine, rows=rows)
    errors = []
    if chosen.accuracy:
        print(f"\n{'path':24}{'type':10}{'streamed':10}{'encode':>10}{'decode':>10}")
        for error in errors_of(config, chosen.settings, device):
            errors.append(error)
            line = f"{error.path:24}{error.dtype:10}{error.streamed!s:10}{error.encode:10.2e}{error.decode:10.2e}"
            print(line, flush=True)
    pairs = []
    for pair in agreements(chosen, config, device) if chosen.agreement else ():
        pairs.append(pair)
        print(f"{pair}", flush=True)
    save(chosen.json, machine, rows=rows, errors=errors, pairs=pairs)
