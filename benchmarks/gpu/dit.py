"""The fast transformer alone, beside the plain one: accuracy block by block, speed, exact knobs, profile.

accuracy  relative error of both in bf16 against the plain network in fp32, block by block and at the end
speed     time, peak memory and TFLOP/s of one step, and the share of this card's own matrix products; then with
          weights in 8 bits
knobs     what each exact knob costs in time and saves in memory, and whether the bytes stay
profile   where the time of a step goes, kernel by kernel

Random weights of trained scale. Peaks of memory include weights and inputs.
"""

import argparse
import gc
import statistics
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.arithmetic import transformer_work
from benchmarks.gpu.machine import GIB, Machine, begin, save, timed
from benchmarks.gpu.networks import RELEASED, TEXT_TOKENS, config_of, materialise
from restoration_runner.models.seedvr2.config import DitConfig
from restoration_runner.models.seedvr2.dit import NaDiT
from restoration_runner.models.seedvr2.fast.dit import FastDit
from restoration_runner.models.seedvr2.fast.dit_knobs import DitKnobs
from restoration_runner.restoration.grid import latent_count

WHAT = ("accuracy", "speed", "knobs", "profile")
SIZES = {"480p": (864, 480), "720p": (1280, 720), "1080p": (1920, 1088), "2160p": (3840, 2160)}
"""Width and height as the networks see them, multiples of 16."""
TINY = (64, 48)
ACCURACY_FRAMES = 5
PATHS = ("fast fp32", "plain bf16", "fast bf16", "fast fp8")


@dataclass(frozen=True)
class Row:
    """One step. Times until the device has finished; bytes are peaks, `before_bytes` what there was without the step.

    weight_bytes: of the blocks' matrices on the device. ceiling: share of this run's matrix product.
    """

    model: str
    path: str
    size: str
    frames: int
    tflop: float
    knobs: str = ""
    first_s: float | None = None
    step_ms: float | None = None
    tflop_per_s: float | None = None
    ceiling: float | None = None
    weight_bytes: int | None = None
    before_bytes: int | None = None
    live_bytes: int | None = None
    reserved_bytes: int | None = None
    problem: str | None = None


def plain(config: DitConfig, dtype: torch.dtype, device: torch.device, seed: int = 0) -> NaDiT:
    with torch.device("meta"):
        network = NaDiT(config).eval().requires_grad_(False)
    materialise(network, device=device, dtype=dtype, generator=torch.Generator(device).manual_seed(seed))
    return network


def inputs(config: DitConfig, size: tuple[int, int], frames: int, device: torch.device, seed: int = 0) -> list[Tensor]:
    """Noise and condition as latents have them, the text and the timestep."""
    width, height = size
    generator = torch.Generator(device).manual_seed(seed)
    shape = (1, latent_count(frames), height // 8, width // 8, config.in_channels)
    video = torch.randn(shape, generator=generator, device=device)
    text = torch.randn(1, TEXT_TOKENS, config.text_width, generator=generator, device=device)
    return [video, text, torch.full((1,), 1000.0, device=device)]


# --- accuracy --------------------------------------------------------------------------------------------------


class WatchedFastDit(FastDit):
    """Keeps the residual stream behind every block."""

    def _add(self, x: Tensor, update: Tensor, *args: object, **kwargs: object) -> None:
        super()._add(x, update, *args, **kwargs)  # type: ignore[arg-type]
        self.seen = [*getattr(self, "seen", []), x.float().clone()]


def watched_plain(network: NaDiT, given: list[Tensor]) -> list[Tensor]:
    """The residual video stream behind every block, then the output."""
    seen: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _m, _i, out: seen.append(out[0][0].float())) for block in network.blocks
    ]
    out = network(*given)
    for hook in hooks:
        hook.remove()
    return [*seen, out[0].float()]


def watched_fast(network: NaDiT, given: list[Tensor], *, fp8_weights: bool = False) -> list[Tensor]:
    fast = WatchedFastDit(network, fp8_weights=fp8_weights)
    out = fast(*given)
    t, h, w = (n // p for n, p in zip(given[0].shape[1:4], network.config.patch, strict=True))
    return [*(x[: t * h * w] for x in fast.seen[1::2]), out[0].float()]


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def errors_of(
    config: DitConfig, size: tuple[int, int], seed: int, device: torch.device, *, paths: Collection[str]
) -> dict[str, list[float]]:
    """Of each of these `PATHS`: relative L2 behind every block, then of the output.

    Both precisions start from the same bf16 numbers: the rounding of weights and inputs is not the question.
    """
    network = plain(config, torch.bfloat16, device, seed).float()
    low = rounded(inputs(config, size, ACCURACY_FRAMES, device, seed))
    given = [x.float() for x in low]
    expected = watched_plain(network, given)

    def errors(stages: list[Tensor]) -> list[float]:
        return [relative(a, b) for a, b in zip(stages, expected, strict=True)]

    found = {"fast fp32": errors(watched_fast(network, given))} if "fast fp32" in paths else {}
    network.to(torch.bfloat16)
    watched = {
        "plain bf16": watched_plain,
        "fast bf16": watched_fast,
        "fast fp8": partial(watched_fast, fp8_weights=True),
    }
    return found | {path: errors(watch(network, low)) for path, watch in watched.items() if path in paths}


@torch.no_grad()
def accuracy(config: DitConfig, name: str, chosen: argparse.Namespace) -> Iterator[dict[str, object]]:
    device, size = torch.device(chosen.device), TINY if chosen.tiny else SIZES["480p"]
    print(f"{name}, 480p x {ACCURACY_FRAMES}: relative L2 error of the output, then behind every sixth block")
    for seed in range(chosen.seeds):
        for path, errors in errors_of(config, size, seed, device, paths=PATHS).items():
            yield {"model": name, "seed": seed, "path": path, "output": errors[-1], "blocks": errors[:-1]}
            shown = " ".join(f"{error:.1e}" for error in [*errors[:-1:6], errors[-2]])
            print(f"seed {seed} {path:11} {errors[-1]:.2e}  {shown}", flush=True)
        free(device)


# --- speed, memory ---------------------------------------------------------------------------------------------


def measured(row: Row, network: NaDiT | FastDit, given: list[Tensor], machine: Machine, repeats: int) -> Row:
    """The first call makes kernels, plans and tables; then the median of `repeats`."""
    device = given[0].device
    try:
        free(device)
        first = timed(lambda: network(*given), device)
        free(device)
        before = torch.cuda.memory_allocated(device) if device.type == "cuda" else None
        step = statistics.median(timed(lambda: network(*given), device) for _ in range(repeats))
    except torch.OutOfMemoryError as error:
        return replace(row, problem=str(error).splitlines()[0][:100])
    tflop_per_s = row.tflop / step
    is_gpu = device.type == "cuda"
    return replace(
        row,
        first_s=first,
        step_ms=step * 1e3,
        tflop_per_s=tflop_per_s,
        ceiling=tflop_per_s / machine.matmul_tflops,
        before_bytes=before,
        live_bytes=torch.cuda.max_memory_allocated(device) if is_gpu else None,
        reserved_bytes=torch.cuda.max_memory_reserved(device) if is_gpu else None,
    )


def free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def show(row: Row) -> None:
    what = f"{row.model:12}{row.path:6}{row.size:>6} x {row.frames:<3}"
    if row.problem or row.step_ms is None:
        print(f"{what} {row.problem}  {row.knobs}", flush=True)
        return
    live, reserved, weights = ((n or 0) / GIB for n in (row.live_bytes, row.reserved_bytes, row.weight_bytes))
    print(
        f"{what}{row.step_ms:9.1f}{row.tflop_per_s:9.1f}{100 * (row.ceiling or 0):7.1f}{live:8.2f}{reserved:9.2f}"
        f"{weights:8.2f}{row.first_s:8.2f}  {row.knobs}",
        flush=True,
    )


def rows_of(config: DitConfig, name: str, chosen: argparse.Namespace) -> Iterator[tuple[Row, tuple[int, int]]]:
    for size in chosen.sizes:
        for frames in chosen.frames:
            width, height = TINY if chosen.tiny else SIZES[size]
            tflop = transformer_work(config, (latent_count(frames), height // 8, width // 8)).tflop
            yield Row(name, "fast", size, frames, tflop), (width, height)


@torch.no_grad()
def speed(config: DitConfig, name: str, chosen: argparse.Namespace, machine: Machine) -> Iterator[Row]:
    device = torch.device(chosen.device)

    def rows(path: str, network: NaDiT | FastDit, repeats: int, weight_bytes: int | None) -> Iterator[Row]:
        for row, size in rows_of(config, name, chosen):
            given = rounded(inputs(config, size, row.frames, device))
            yield measured(replace(row, path=path, weight_bytes=weight_bytes), network, given, machine, repeats)

    network = plain(config, torch.bfloat16, device)
    if chosen.plain:
        yield from rows("plain", network, 1, None)
    fast = FastDit(network, release=True)
    del network
    yield from rows("fast", fast, chosen.repeats, fast.weight_bytes)
    del fast
    free(device)
    fast = FastDit(plain(config, torch.bfloat16, device), release=True, fp8_weights=True)
    yield from rows("fp8", fast, chosen.repeats, fast.weight_bytes)


def rounded(given: list[Tensor]) -> list[Tensor]:
    return [given[0].bfloat16(), given[1].bfloat16(), given[2]]


# --- knobs -----------------------------------------------------------------------------------------------------

KNOBS = (
    DitKnobs(),
    DitKnobs(mlp_rows=16384),
    DitKnobs(mlp_rows=4096),
    DitKnobs(attention_rows=8192),
    DitKnobs(mlp_rows=4096, attention_rows=8192),
    DitKnobs(streamed_weights=True),
    DitKnobs(mlp_rows=4096, attention_rows=8192, streamed_weights=True),
)


@torch.no_grad()
def knobs(config: DitConfig, name: str, chosen: argparse.Namespace, machine: Machine) -> Iterator[Row]:
    """The result of each knob beside that of none, and beside itself."""
    device = torch.device(chosen.device)
    expected: dict[tuple[str, int], Tensor] = {}
    for is_streamed in (False, True):
        fast = FastDit(
            plain(config, torch.bfloat16, device), knobs=DitKnobs(streamed_weights=is_streamed), release=True
        )
        free(device)
        for some in (k for k in KNOBS if k.streamed_weights is is_streamed):
            fast.set_knobs(some)
            for row, size in rows_of(config, name, chosen):
                given = rounded(inputs(config, size, row.frames, device))
                made = measured(replace(row, weight_bytes=fast.weight_bytes), fast, given, machine, chosen.repeats)
                out, again = fast(*given).cpu(), fast(*given).cpu()
                wanted = expected.setdefault((row.size, row.frames), out)
                words = [f"{key}={value}" for key, value in asdict(some).items() if value] or ["none"]
                words += ["equal" if torch.equal(out, wanted) else f"off by {relative(out, wanted):.1e}"]
                words += [] if torch.equal(out, again) else ["ANOTHER RESULT THE SECOND TIME"]
                yield replace(made, knobs=", ".join(words))
        del fast
        free(device)


# --- profile ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def profile(config: DitConfig, name: str, chosen: argparse.Namespace) -> None:
    device = torch.device(chosen.device)
    fast = FastDit(plain(config, torch.bfloat16, device), release=True)
    activity = torch.profiler.ProfilerActivity
    for row, size in rows_of(config, name, chosen):
        given = rounded(inputs(config, size, row.frames, device))
        timed(lambda given=given: fast(*given), device)
        with torch.profiler.profile(activities=[activity.CUDA if device.type == "cuda" else activity.CPU]) as trace:
            timed(lambda given=given: fast(*given), device)
        print(f"{name}, {row.size} x {row.frames}: ms, calls")
        events = sorted(trace.key_averages(), key=lambda event: -event.self_device_time_total)
        for event in events[:24]:
            print(f"{event.self_device_time_total / 1e3:9.2f}{event.count:7}  {event.key[:100]}", flush=True)


# --- program ---------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--what", nargs="+", choices=WHAT, default=["accuracy", "speed"])
    parser.add_argument("--models", nargs="+", choices=RELEASED, default=list(RELEASED))
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["720p"])
    parser.add_argument("--frames", nargs="+", type=int, default=[21], help="of a window, 4n+1")
    parser.add_argument("--seeds", type=int, default=3, help="of random weights and inputs, for accuracy")
    parser.add_argument("--repeats", type=int, default=3, help="of a step, whose median counts")
    parser.add_argument("--no-plain", dest="plain", action="store_false", help="without the plain path's time")


def main(chosen: argparse.Namespace) -> None:
    device, machine = begin(chosen)
    rows: list[Row] = []
    errors: list[dict[str, object]] = []
    for name in chosen.models:
        config = config_of(name, tiny=chosen.tiny).dit
        if "accuracy" in chosen.what:
            errors += accuracy(config, name, chosen)
            save(chosen.json, machine, rows=rows, errors=errors)
        if {"speed", "knobs"} & set(chosen.what):
            columns = ("step ms", "TFLOP/s", "% peak", "live", "reserved", "weights", "first s")
            print(
                f"{'':30}"
                + "".join(f"{c:>{w}}" for c, w in zip(columns, (9, 9, 7, 8, 9, 8, 8), strict=True))
                + "  (GiB)"
            )
        for what, measure in (("speed", speed), ("knobs", knobs)):
            for row in measure(config, name, chosen, machine) if what in chosen.what else ():
                show(row)
                rows.append(row)
                save(chosen.json, machine, rows=rows, errors=errors)
            free(device)
        if "profile" in chosen.what:
            profile(config, name, chosen)
            free(device)
