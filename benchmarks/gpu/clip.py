"""A generated clip through the whole runner, file to file: probe, decode, scale, restore, colour, HEVC, verify.

The network is the released one with random weights, made on the device; everything else is what a Job does. The clip
goes through three times: once to load kernels, once by the clock, once with the GPU's own record of when it worked. The
share of the time in which the GPU was busy is counted from its first to its last kernel, over the segments of a run.
Needs PyAV and ffprobe.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

import av
import numpy as np
import torch

from benchmarks.gpu.busy import Busy, traced
from benchmarks.gpu.machine import describe, this_machine
from benchmarks.gpu.networks import RELEASED, build, config_of
from benchmarks.gpu.stages import PATHS, parse_knobs
from restoration_api.defaults import Choices
from restoration_api.outcome import Outcome
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

RATE = 25
PICTURE = 0.05
"""Strength of the restoration: random weights make noise, which no encoder is fast with. All is computed as ever."""


@dataclass(frozen=True)
class Row:
    """Seconds by the clock; `inference_s` is the GPU's own, the codecs' overlap with it."""

    model: str
    path: str
    width: int
    height: int
    frames: int
    run_s: float
    restoring_s: float
    frames_per_s: float
    decode_s: float
    inference_s: float
    encode_s: float
    peak_gib: float | None
    busy: Busy | None


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
        with torch.no_grad():
            model = build(self.config, device=self.device, dtype=dtype)
            self.restorer = SeedVr2Restorer(
                model, device=self.device, dtype=dtype, path=NetworkPath(chosen.path), knobs=parse_knobs(chosen.knobs)
            )
        # The weights are on the device already: the folder only says which model it is.
        (folder / DESCRIPTION).write_text(model.description.model_dump_json(by_alias=True))
        height = 48 if chosen.tiny else chosen.height
        size = {"width": height * 16 // 9 // 2, "height": height // 2}
        self.source = write_clip(folder / "in.mp4", frames=chosen.frames, **size)

    def run(self) -> tuple[Outcome, float, float]:
        """Outcome, seconds of the whole run, and seconds in which it was restoring."""
        wish = LocalWish(
            source=self.source,
            output=self.folder / "out.mp4",
            model=str(self.folder),
            choices=Choices(
                target=local_target(2, None),
                chunk_frames=self.chosen.window,
                segment_frames=self.chosen.segment_frames,
                preset=self.chosen.preset,
                strength=PICTURE,
            ),
            precision=Precision(self.chosen.precision),
            overwrite=Overwrite.ALWAYS,
            recompute=True,
        )
        tracker = ProgressTracker()
        context = JobContext(
            request=local_request(wish),
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
        timings = outcome.timings
        return outcome, spent, spent - (timings.fetch_milliseconds + timings.assemble_milliseconds) / 1000


def measure(chosen: argparse.Namespace) -> Row:
    with tempfile.TemporaryDirectory(dir=chosen.scratch) as name:
        bench = Bench(chosen, Path(name))
        _, cold_s, _ = bench.run()
        print(f"first run, kernels not loaded yet: {cold_s:.2f} s", flush=True)
        outcome, run_s, restoring_s = bench.run()
        print(f"second run: {run_s:.2f} s; {outcome.timings}", flush=True)
        busy = None
        if bench.device.type == "cuda":
            busy = traced(bench.run)
        timings = outcome.timings
        assert outcome.output is not None and outcome.output.width is not None and outcome.output.height is not None
        return Row(
            model=bench.config.name,
            path=chosen.path,
            width=outcome.output.width,
            height=outcome.output.height,
            frames=outcome.frames_restored,
            run_s=run_s,
            restoring_s=restoring_s,
            frames_per_s=outcome.frames_restored / run_s,
            decode_s=timings.decode_milliseconds / 1000,
            inference_s=timings.inference_milliseconds / 1000,
            encode_s=timings.encode_milliseconds / 1000,
            peak_gib=None if timings.peak_gpu_memory_bytes is None else timings.peak_gpu_memory_bytes / 2**30,
            busy=busy,
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=RELEASED, default="seedvr2-3b")
    parser.add_argument("--path", choices=PATHS, default=NetworkPath.FAST.value)
    parser.add_argument("--knobs", default="", help="exact knobs of the fast path, as in `stages`")
    parser.add_argument("--height", type=int, default=720, help="of the output, 16:9; the clip is half as large")
    parser.add_argument("--frames", type=int, default=250)
    parser.add_argument("--window", type=int, default=49)
    parser.add_argument("--segment-frames", type=int, default=480)
    parser.add_argument("--preset", default="medium", help="of the HEVC encoder")
    parser.add_argument("--precision", default="BF16")
    parser.add_argument("--scratch", type=Path, help="folder for the files (default: the system's)")


def main(chosen: argparse.Namespace) -> None:
    logs.configure(json=False, default_level="warning")
    machine = this_machine(prepare_device(chosen.device), tiny=chosen.tiny)
    print(describe(machine))
    row = measure(chosen)
    print(
        f"{row.model}, {row.path}, {row.frames} frames of {row.width}x{row.height}: {row.run_s:.2f} s file to file, "
        f"{row.frames_per_s:.2f} frames/s; restoring {row.restoring_s:.2f} s; of their own decode {row.decode_s:.2f}, "
        f"inference {row.inference_s:.2f}, encode {row.encode_s:.2f} s"
    )
    if row.busy is not None:
        print(
            f"GPU busy {row.busy.share:.1%} of {row.busy.span_ms / 1000:.2f} s from its first to its last kernel; "
            f"longest pause {row.busy.longest_gap_ms:.1f} ms"
        )
        for name, spent in row.busy.kernels.items():
            print(f"{spent:10.1f} ms  {name}")
    if chosen.json:
        chosen.json.write_text(json.dumps({"machine": asdict(machine), "row": asdict(row)}, indent=1) + "\n")
