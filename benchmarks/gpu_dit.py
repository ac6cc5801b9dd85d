"""The fast transformer beside the plain one: `python -m benchmarks.gpu_dit WHAT ... [--json FILE]`.

accuracy  relative error of both in bf16 against the plain network in fp32, output and block by block, three seeds
speed     time, peak memory and TFLOP/s of one step, and the share of the matrix products' own ceiling on this GPU
knobs     what each exact knob costs in time and saves in memory, and that the result stays
profile   where the time of a step goes, kernel by kernel

Random weights of trained scale (`gpu_baseline.materialise`). `--device cpu --tiny` tries the program without a GPU.
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.gpu_baseline import GIB, TEXT_TOKENS, materialise, tiny
from restoration_runner.models.device import device_name, prepare_device
from restoration_runner.models.seedvr2.attention import RopeSpec
from restoration_runner.models.seedvr2.config import MODELS, DitConfig
from restoration_runner.models.seedvr2.dit import NaDiT
from restoration_runner.models.seedvr2.fast.dit import FastDit
from restoration_runner.models.seedvr2.fast.dit_knobs import DitKnobs
from restoration_runner.models.seedvr2.fast.dit_windows import pack_windows

SIZES = {"480p": (864, 480), "720p": (1280, 720), "1080p": (1920, 1088), "2160p": (3840, 2160)}
"""Width and height as the networks see them, multiples of 16."""


@dataclass(frozen=True)
class Row:
    """One step. Times of the device; live and reserved bytes are peaks, weights and inputs among them."""

    model: str
    path: str
    dtype: str
    size: str
    frames: int
    knobs: str = ""
    first_s: float | None = None
    step_ms: float | None = None
    tflops: float | None = None
    ceiling_share: float | None = None
    weight_bytes: int | None = None
    before_bytes: int | None = None
    live_bytes: int | None = None
    reserved_bytes: int | None = None
    problem: str | None = None


class Device:
    def __init__(self, name: str) -> None:
        self.device = prepare_device(name)
        self.is_gpu = self.device.type == "cuda"

    def wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()

    def seconds(self, run: Callable[[], object], repeats: int) -> float:
        """Median."""
        times = []
        for _ in range(repeats):
            self.wait()
            begun = time.perf_counter()
            run()
            self.wait()
            times.append(time.perf_counter() - begun)
        return statistics.median(times)

    def free(self) -> None:
        gc.collect()
        if self.is_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peaks(self) -> tuple[int, int]:
        """Live and reserved bytes."""
        if not self.is_gpu:
            return 0, 0
        return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()

    def live(self) -> int:
        return torch.cuda.memory_allocated() if self.is_gpu else 0

    def ceiling_tflops(self) -> float:
        """A large matrix product in bf16, the best of a few sizes."""
        found = []
        for n in (8192, 16384) if self.is_gpu else (256,):
            a, b = (torch.randn(n, n, device=self.device, dtype=torch.bfloat16) for _ in range(2))
            a @ b
            found.append(2 * n**3 / self.seconds(lambda a=a, b=b: a @ b, 5) / 1e12)
        return max(found)


def plain(config: DitConfig, dtype: torch.dtype, device: torch.device, seed: int = 0) -> NaDiT:
    with torch.device("meta"):
        network = NaDiT(config).eval().requires_grad_(False)
    materialise(network, device=device, dtype=dtype, generator=torch.Generator(device).manual_seed(seed))
    return network


def inputs(config: DitConfig, size: tuple[int, int], frames: int, device: torch.device, seed: int = 0) -> list[Tensor]:
    """Noise and condition as latents have them, the text and the timestep."""
    width, height = size
    generator = torch.Generator(device).manual_seed(seed)
    shape = (1, (frames - 1) // 4 + 1, height // 8, width // 8, config.in_channels)
    video = torch.randn(shape, generator=generator, device=device)
    text = torch.randn(1, TEXT_TOKENS, config.text_width, generator=generator, device=device)
    return [video, text, torch.full((1,), 1000.0, device=device)]


def step_flops(config: DitConfig, video: Tensor) -> float:
    """Of the matrix products and of attention, two for each multiplication and addition."""
    t, h, w = (n // p for n, p in zip(video.shape[1:4], config.patch, strict=True))
    tokens, text = t * h * w, TEXT_TOKENS
    mlp = (3 if config.mlp == "swiglu" else 2) * config.width * config.mlp_hidden
    matrices = 4 * config.width * config.inner + mlp
    total = 2.0 * (tokens + text) * matrices * config.layers
    rope = RopeSpec(config.rope, config.rope_dim, config.head_dim, text)
    for nominal, shifted in zip(config.window, config.shifted, strict=True):
        packed = pack_windows((t, h, w), nominal, shifted=shifted, rope=rope, device=torch.device("cpu"))
        total += sum(4.0 * run.windows * run.length**2 * config.inner for run in packed.runs)
    return total


# --- accuracy --------------------------------------------------------------------------------------------------


class WatchedFastDit(FastDit):
    """Keeps the residual stream behind every block."""

    def _add(self, x: Tensor, update: Tensor, *args: object, **kwargs: object) -> None:
        super()._add(x, update, *args, **kwargs)  # type: ignore[arg-type]
        self.seen = [*getattr(self, "seen", []), x.float().cpu().clone()]


def watched_plain(network: NaDiT, given: list[Tensor]) -> list[Tensor]:
    """The residual video stream behind every block, then the output."""
    seen: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _m, _i, out: seen.append(out[0][0].float().cpu()))
        for block in network.blocks
    ]
    out = network(*given)
    for hook in hooks:
        hook.remove()
    return [*seen, out[0].float().cpu()]


def watched_fast(network: NaDiT, given: list[Tensor], residual: torch.dtype | None) -> list[Tensor]:
    fast = WatchedFastDit(network, residual=residual)
    out = fast(*given)
    t, h, w = (n // p for n, p in zip(given[0].shape[1:4], network.config.patch, strict=True))
    return [*(x[: t * h * w] for x in fast.seen[1::2]), out[0].float().cpu()]


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


@torch.no_grad()
def accuracy(config: DitConfig, name: str, where: Device, size: tuple[int, int], seeds: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for seed in range(seeds):
        exact = plain(config, torch.float32, where.device, seed)
        given = inputs(config, size, 5, where.device, seed)
        # Both precisions start from the same bf16 numbers: weights' and inputs' own rounding is not the question.
        for parameter in exact.parameters():
            parameter.copy_(parameter.bfloat16().float())
        given[0], given[1] = given[0].bfloat16().float(), given[1].bfloat16().float()
        expected = watched_plain(exact, given)
        fp32 = watched_fast(exact, given, None)
        exact.to(torch.bfloat16)
        low = [given[0].bfloat16(), given[1].bfloat16(), given[2]]
        found = {
            "fast fp32": fp32,
            "plain bf16": watched_plain(exact, low),
            "fast bf16": watched_fast(exact, low, None),
            "fast bf16, fp32 stream": watched_fast(exact, low, torch.float32),
        }
        for path, stages in found.items():
            errors = [relative(a, b) for a, b in zip(stages, expected, strict=True)]
            rows.append({"model": name, "seed": seed, "path": path, "output": errors[-1], "blocks": errors[:-1]})
            shown = "  ".join(f"{e:.2e}" for e in [*errors[:-1:6], errors[-2]])
            print(f"{name:14} seed {seed}  {path:24} output {errors[-1]:.3e}   blocks {shown}", flush=True)
        del exact
        where.free()
    return rows


# --- speed -----------------------------------------------------------------------------------------------------


def measured(
    row: Row, network: Callable[..., Tensor], given: list[Tensor], where: Device, ceiling: float, repeats: int
) -> Row:
    """First call (kernels and plans are made), then the median of `repeats`."""
    assert isinstance(network, NaDiT | FastDit)
    try:
        where.free()
        first = where.seconds(lambda: network(*given), 1)
        where.free()
        before = where.live()
        step = where.seconds(lambda: network(*given), repeats)
        live, reserved = where.peaks()
    except torch.OutOfMemoryError as error:
        where.free()
        return replace(row, problem=str(error).splitlines()[0][:100])
    tflops = step_flops(network.config, given[0]) / step / 1e12
    return replace(
        row,
        first_s=first,
        step_ms=step * 1e3,
        tflops=tflops,
        ceiling_share=tflops / ceiling,
        before_bytes=before,
        live_bytes=live,
        reserved_bytes=reserved,
    )


def show(row: Row) -> None:
    what = f"{row.model:12} {row.path:6} {row.dtype:5} {row.size:>6} x {row.frames:<3} {row.knobs:44}"
    if row.problem or row.step_ms is None:
        print(f"{what} {row.problem}", flush=True)
        return
    print(
        f"{what} {row.step_ms:9.1f} ms  {row.tflops:6.1f} TFLOP/s  {100 * (row.ceiling_share or 0):5.1f} %  "
        f"live {(row.live_bytes or 0) / GIB:6.2f}  reserved {(row.reserved_bytes or 0) / GIB:6.2f}  "
        f"weights {(row.weight_bytes or 0) / GIB:5.2f} GiB  first {row.first_s:5.2f} s",
        flush=True,
    )


@torch.no_grad()
def speed(config: DitConfig, name: str, where: Device, chosen: argparse.Namespace, ceiling: float) -> Iterator[Row]:
    network = plain(config, torch.bfloat16, where.device)
    places = [(size, frames) for size in chosen.sizes for frames in chosen.frames]
    for size, frames in places if chosen.plain else []:
        given = low_precision(inputs(config, chosen.dimensions[size], frames, where.device))
        yield measured(Row(name, "plain", "bf16", size, frames), network, given, where, ceiling, 1)
    fast = FastDit(network, release=True)
    del network
    for size, frames in places:
        given = low_precision(inputs(config, chosen.dimensions[size], frames, where.device))
        row = Row(name, "fast", "bf16", size, frames, weight_bytes=fast.weight_bytes)
        yield measured(row, fast, given, where, ceiling, 3)


def low_precision(given: list[Tensor]) -> list[Tensor]:
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


def knob_name(knobs: DitKnobs) -> str:
    changed = [f"{name}={value}" for name, value in asdict(knobs).items() if value]
    return ", ".join(changed)


@torch.no_grad()
def knobs(config: DitConfig, name: str, where: Device, chosen: argparse.Namespace, ceiling: float) -> Iterator[Row]:
    """The result of each knob beside that of none: equal for streamed weights, nearly so where shapes change."""
    expected: dict[tuple[str, int], Tensor] = {}
    for is_streamed in (False, True):
        network = plain(config, torch.bfloat16, where.device)
        fast = FastDit(network, knobs=DitKnobs(streamed_weights=is_streamed), release=True)
        del network
        where.free()
        for chosen_knobs in (k for k in KNOBS if k.streamed_weights is is_streamed):
            fast.set_knobs(chosen_knobs)
            for size in chosen.sizes:
                for frames in chosen.frames:
                    given = low_precision(inputs(config, chosen.dimensions[size], frames, where.device))
                    row = Row(
                        name, "fast", "bf16", size, frames, knob_name(chosen_knobs), weight_bytes=fast.weight_bytes
                    )
                    yield measured(row, fast, given, where, ceiling, 3)
                    out = fast(*given).cpu()
                    wanted = expected.setdefault((size, frames), out)
                    again = torch.equal(out, fast(*given).cpu())
                    print(
                        f"{'':20} equal {torch.equal(out, wanted)}, relative {relative(out, wanted):.1e}, "
                        f"again equal {again}",
                        flush=True,
                    )
        del fast
        where.free()


# --- profile ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def profile(config: DitConfig, name: str, where: Device, chosen: argparse.Namespace) -> None:
    fast = FastDit(plain(config, torch.bfloat16, where.device), release=True)
    for size in chosen.sizes:
        given = low_precision(inputs(config, chosen.dimensions[size], chosen.frames[0], where.device))
        fast(*given)
        where.wait()
        activities = [torch.profiler.ProfilerActivity.CUDA if where.is_gpu else torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities) as trace:
            fast(*given)
            where.wait()
        print(f"{name} {size} x {chosen.frames[0]}")
        events = sorted(trace.key_averages(), key=lambda e: -e.self_device_time_total)
        for event in events[:28]:
            print(f"{event.self_device_time_total / 1e3:9.2f} ms {event.count:6}  {event.key[:110]}", flush=True)
    del fast
    where.free()


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_dit", description=__doc__.split("\n")[0])
    parser.add_argument("what", nargs="+", choices=["accuracy", "speed", "knobs", "profile"])
    parser.add_argument("--models", nargs="+", default=["seedvr2-3b"], choices=["seedvr2-3b", "seedvr2-7b"])
    parser.add_argument("--sizes", nargs="+", default=["720p"], choices=list(SIZES))
    parser.add_argument("--frames", nargs="+", type=int, default=[21], help="4n+1")
    parser.add_argument("--layers", type=int, help="of the networks, to save time where only errors count")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--no-plain", dest="plain", action="store_false", help="without the plain path's time")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks and pictures, to try the program")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    chosen = parser.parse_args(arguments)
    chosen.dimensions = dict.fromkeys(SIZES, (64, 48)) if chosen.tiny else SIZES
    return chosen


def dit_config(name: str, chosen: argparse.Namespace) -> DitConfig:
    config = (tiny(name) if chosen.tiny else MODELS[name]).dit
    layers = min(chosen.layers or config.layers, config.layers)
    return replace(
        config,
        layers=layers,
        separate_layers=min(config.separate_layers, layers),
        window=config.window[:layers],
        shifted=config.shifted[:layers],
    )


def main(arguments: list[str] | None = None) -> None:
    chosen = parsed(arguments)
    where = Device(chosen.device)
    ceiling = where.ceiling_tflops()
    print(
        f"{device_name(where.device)}, PyTorch {torch.__version__}, matrix products {ceiling:.0f} TFLOP/s", flush=True
    )
    found: dict[str, object] = {"device": device_name(where.device), "torch": torch.__version__, "ceiling": ceiling}
    rows: list[Row] = []
    errors: list[dict[str, object]] = []
    for name in chosen.models:
        config = dit_config(name, chosen)
        if "accuracy" in chosen.what:
            errors += accuracy(config, name, where, chosen.dimensions["480p"], chosen.seeds)
        for what, measure in (("speed", speed), ("knobs", knobs)):
            for row in measure(config, name, where, chosen, ceiling) if what in chosen.what else ():
                show(row)
                rows.append(row)
            where.free()
        if "profile" in chosen.what:
            profile(config, name, where, chosen)
    if chosen.json:
        found |= {"rows": [asdict(row) for row in rows], "errors": errors}
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
