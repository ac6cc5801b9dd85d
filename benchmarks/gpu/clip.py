"""Generated clips through the whole runner, file to file: probe, decode, scale, restore, colour, HEVC, verify.

The network is the released one with random weights, made on the device; everything else is what a Job does. A short
clip goes through first, to load kernels; then a long one by the clock, and once more with the GPU's own record of when
it worked. The share of the time in which the GPU was busy is counted from its first to its last kernel. With `--short`,
short clips go through as well, one after another in the same process.
Needs PyAV and ffprobe.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import av
import numpy as np
import torch

from benchmarks.gpu.busy import Busy, traced
from benchmarks.gpu.machine import begin, save
from benchmarks.gpu.networks import RELEASED, build, config_of
from benchmarks.gpu.stages import PATHS, parse_knobs
from restoration_api.defaults import Choices
from restoration_api.request import Overwrite, Precision
from restoration_runner import logs, models
from restoration_runner.job import run_job
from restoration_runner.local import LocalWish, local_request, local_target
from restoration_runner.models.device import compute_dtype, prepare_device
from restoration_runner.models.seedvr2.description import DESCRIPTION
from restoration_runner.models.seedvr2.networks import NetworkPath
from restoration_runner.models.seedvr2.restorer import SeedVr2Restorer
from restoration_runner.progress import ProgressTracker
from restoration_runner.stopping import StopSignal
from restoration_runner.task import JobContext

RATE = 24
FIRST_FRAMES = 60
"""Two windows of the models' default length."""
PICTURE = 0.005
"""Strength of the restoration: random weights make noise, which no encoder is fast with. All is computed as ever, and
the rows say how many bits the encoder made of what it was given."""


@dataclass(frozen=True)
class Run:
    """One clip. Seconds by the clock; `inference_s` is the GPU's own, the codecs' overlap with it.

    stages: where the runner said it was. before_s, after_s: around the GPU's first and last kernel, where recorded.
    """

    frames: int
    width: int
    height: int
    mbit_per_s: float
    run_s: float
    stages: dict[str, float]
    decode_s: float
    inference_s: float
    encode_s: float
    peak_gib: float | None
    busy: Busy | None = None
    before_s: float | None = None
    after_s: float | None = None

    @property
    def frames_per_s(self) -> float:
        return self.frames / self.run_s


def write_clip(path: Path, *, width: int, height: int, frames: int) -> Path:
    """Stripes and grain that move, H.264: about as hard to decode as filmed video."""
    y, x = np.mgrid[0:height, 0:width]
    grain = np.random.default_rng(1).integers(0, 24, (height, width), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "20", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            stripes = ((x + 3 * number) // 17 + (y + number) // 23) % 2 * 96
            luma = (40 + stripes + np.roll(grain, number * 7, 1)).astype(np.uint8)
            picture = np.stack([luma, np.roll(luma, number, 0), 255 - luma], axis=-1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


class Bench:
    """One model on one device, used for all runs as a pod uses it for all its segments."""

    def __init__(self, chosen: argparse.Namespace, folder: Path) -> None:
        self.chosen, self.folder = chosen, folder
        self.device = prepare_device(chosen.device)
        self.config = config_of(chosen.model, tiny=chosen.tiny)
        dtype = compute_dtype(chosen.precision)
        knobs = parse_knobs(chosen.knobs) if chosen.knobs else None
        with torch.no_grad():
            model = build(self.config, device=self.device, dtype=dtype)
            # The weights are on the device already: the folder only says which model it is.
            (folder / DESCRIPTION).write_text(model.description.model_dump_json(by_alias=True))
            self.restorer = SeedVr2Restorer(
                model, device=self.device, dtype=dtype, path=NetworkPath(chosen.path), knobs=knobs
            )

    def source(self, frames: int) -> Path:
        """A clip of that length, half as large as the output."""
        path = self.folder / f"in-{frames}.mp4"
        height = 48 if self.chosen.tiny else self.chosen.height
        if not path.exists():
            write_clip(path, frames=frames, width=height * 16 // 9 // 2, height=height // 2)
        return path

    def run(self, frames: int) -> Run:
        """A clip of so many frames through the runner."""
        source, tracker = self.source(frames), ProgressTracker()
        context = JobContext(
            request=local_request(self._wish(source)),
            scratch=self.folder,
            stop=StopSignal(),
            progress=tracker,
            owner=str(time.monotonic_ns()),
            device=self.chosen.device,
        )
        begun = time.perf_counter()
        with mock.patch.object(models, "load_restorer", lambda *_, **__: self.restorer):
            outcome = run_job(context)
        spent = time.perf_counter() - begun
        timings, output = outcome.timings, outcome.output
        size_bytes = (self.folder / "out.mp4").stat().st_size
        assert output is not None and output.width is not None and output.height is not None
        peak = timings.peak_gpu_memory_bytes
        return Run(
            frames=outcome.frames_restored,
            width=output.width,
            height=output.height,
            mbit_per_s=size_bytes * 8 * RATE / outcome.frames_restored / 1e6,
            run_s=spent,
            stages={stage.value: seconds for stage, seconds in tracker.stage_seconds().items() if seconds},
            decode_s=timings.decode_milliseconds / 1000,
            inference_s=timings.inference_milliseconds / 1000,
            encode_s=timings.encode_milliseconds / 1000,
            peak_gib=None if peak is None else peak / 2**30,
        )

    def recorded(self, frames: int) -> Run:
        """The same with the GPU's record."""
        runs: list[Run] = []
        marks: list[float] = []

        def work() -> None:
            marks.append(time.time() * 1000)
            runs.append(self.run(frames))
            marks.append(time.time() * 1000)

        busy = traced(work)
        before, after = busy.begun_ms - marks[0], marks[1] - busy.begun_ms - busy.span_ms
        return replace(runs[0], busy=busy, before_s=before / 1000, after_s=after / 1000)

    def _wish(self, source: Path) -> LocalWish:
        chosen = self.chosen
        return LocalWish(
            source=source,
            output=self.folder / "out.mp4",
            model=str(self.folder),
            choices=Choices(
                target=local_target(2, None),
                chunk_frames=chosen.window,
                segment_frames=chosen.segment_frames,
                preset=chosen.preset,
                strength=chosen.picture,
            ),
            precision=Precision(chosen.precision),
            overwrite=Overwrite.ALWAYS,
            recompute=True,
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=RELEASED, default="seedvr2-3b")
    parser.add_argument("--path", choices=PATHS, default=NetworkPath.FAST.value)
    parser.add_argument("--knobs", default="", help="exact knobs of the fast path, as in `stages`; else the plan's")
    parser.add_argument("--height", type=int, default=720, help="of the output, 16:9; the clip is half as large")
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--short", type=int, help="frames of each short clip")
    parser.add_argument("--count", type=int, default=8, help="of the short clips")
    parser.add_argument("--window", type=int, help="frames (default: the model's)")
    parser.add_argument("--segment-frames", type=int, help="(default: the model's)")
    parser.add_argument("--preset", help="of the HEVC encoder (default: the runner's)")
    parser.add_argument("--picture", type=float, default=PICTURE, help="strength of the restoration in the output")
    parser.add_argument("--precision", default="BF16")
    parser.add_argument("--scratch", type=Path, help="folder for the files (default: the system's)")
    parser.add_argument("--recorded", type=int, default=240, help="frames of the recorded clip; 0 leaves it out")


def main(chosen: argparse.Namespace) -> None:
    logs.configure(json=False, default_level="warning")
    _, machine = begin(chosen)
    found: dict[str, object] = {"model": chosen.model, "path": chosen.path}
    with tempfile.TemporaryDirectory(dir=chosen.scratch) as name:
        for what, run in measurements(Bench(chosen, Path(name)), chosen):
            show(what, run)
            found[what] = run
            save(chosen.json, machine, **found)


def measurements(bench: Bench, chosen: argparse.Namespace) -> Iterator[tuple[str, Run]]:
    yield "first", bench.run(min(chosen.frames, FIRST_FRAMES))
    yield "clip", bench.run(chosen.frames)
    if bench.device.type == "cuda" and chosen.recorded:
        yield "recorded", bench.recorded(chosen.recorded)
    if chosen.short:
        yield "first short", bench.run(chosen.short)
        yield "short clips", added([bench.run(chosen.short) for _ in range(chosen.count)])


def added(runs: list[Run]) -> Run:
    """Several as one."""
    return replace(
        runs[0],
        frames=sum(run.frames for run in runs),
        run_s=sum(run.run_s for run in runs),
        stages={stage: sum(run.stages.get(stage, 0.0) for run in runs) for stage in runs[0].stages},
        decode_s=sum(run.decode_s for run in runs),
        inference_s=sum(run.inference_s for run in runs),
        encode_s=sum(run.encode_s for run in runs),
    )


def show(what: str, run: Run) -> None:
    stages = ", ".join(f"{stage} {spent:.2f}" for stage, spent in run.stages.items())
    print(
        f"{what}: {run.frames} frames of {run.width}x{run.height} in {run.run_s:.2f} s, "
        f"{run.frames_per_s:.2f} frames/s, {run.mbit_per_s:.1f} Mbit/s; of their own decode {run.decode_s:.2f}, "
        f"inference {run.inference_s:.2f}, encode {run.encode_s:.2f} s; {stages}",
        flush=True,
    )
    if run.busy is None or run.before_s is None or run.after_s is None:
        return
    print(
        f"GPU busy {run.busy.share:.1%} of {run.busy.span_ms / 1000:.2f} s from its first to its last kernel, which "
        f"lie {run.before_s:.2f} s behind the start and {run.after_s:.2f} s before the end; longest pause "
        f"{run.busy.longest_gap_ms:.1f} ms"
    )
    for name, spent in run.busy.kernels.items():
        print(f"{spent:10.1f} ms  {name}", flush=True)
