"""From the start of a runner's process to its first restored frame, with the weights in the page cache.

A folder with random weights of the real size is written once (to memory, by default) with its digest, then a fresh
process restores a short clip from it, file to file, as `restore` does, and says when it came where. Loading the model
runs beside planning. `cold` has no compiled kernels, `warm` finds those of the process before it. Needs PyAV and
ffprobe.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from benchmarks.gpu import RELEASED

if TYPE_CHECKING:
    from restoration_api.request import Request

MEMORY = Path("/dev/shm")
MARKS = ("imported", "planned", "libraries", "loaded", "restoring", "first frame", "last frame", "end")
"""planned: what is to do is known. libraries: torch is there, the GPU is about to start. restoring: plan and model
are there. first frame: of the first window, restored and on the host."""
WEIGHTS, DIGEST = "weights", "digest"
PICTURE = 0.05
"""As in `clip`: random weights make noise, which no encoder is fast with."""
ENVIRONMENT_BEGUN = "BEGUN"


class Marks:
    """When this process came where for the first time, in seconds since it was started."""

    def __init__(self) -> None:
        self._begun = float(os.environ[ENVIRONMENT_BEGUN])
        self.found: dict[str, float] = {}

    def __call__(self, name: str) -> None:
        self.found.setdefault(name, time.time() - self._begun)


class Compiled:
    """Counts the kernels that Triton compiles, as it tells; how many it found instead, and its seconds for both."""

    def __init__(self) -> None:
        self.made = self.found = 0
        self.seconds = 0.0

    def __call__(self, *, times: Any, cache_hit: bool, **_: object) -> None:
        self.made += not cache_hit
        self.found += cache_hit
        self.seconds += times.total / 1e6


def run(folder: Path, chosen: argparse.Namespace) -> dict[str, float]:
    """In the fresh process: seconds until each mark, and what was compiled."""
    from restoration_api.outcome import Stage
    from restoration_runner import logs, models
    from restoration_runner.job import run_job
    from restoration_runner.progress import ProgressTracker
    from restoration_runner.stopping import StopSignal
    from restoration_runner.task import JobContext

    mark, compiled = Marks(), Compiled()
    mark("imported")
    logs.configure(json=False, default_level="warning")

    class Marking(ProgressTracker):
        def enter(self, stage: Stage) -> None:
            mark({Stage.LOADING_MODEL: "planned", Stage.RESTORING: "restoring"}.get(stage, stage.value))
            super().enter(stage)

        def restored_frame(self, segment: int, number: int) -> None:
            mark("first frame")
            super().restored_frame(segment, number)

    load = models.load_restorer

    def marked(*arguments: Any, **named: Any) -> Any:
        import triton

        import restoration_runner.models.seedvr2.restorer  # noqa: F401  with torch

        triton.knobs.compilation.listener = compiled
        mark("libraries")
        restorer = load(*arguments, **named)
        mark("loaded")
        return restorer

    with mock.patch.object(models, "load_restorer", marked):
        run_job(
            JobContext(
                request=wanted(folder, chosen),
                scratch=folder,
                stop=StopSignal(),
                progress=Marking(),
                owner=str(time.time_ns()),
                device=chosen.device,
            )
        )
    mark("end")
    mark.found["last frame"] = mark.found[Stage.ASSEMBLING.value]
    shown = {name: mark.found[name] for name in MARKS}
    return {**shown, "compiled": compiled.made, "found": compiled.found, "compiling": compiled.seconds}


def wanted(folder: Path, chosen: argparse.Namespace) -> "Request":
    """The short clip, enlarged, with the weights of the folder."""
    from restoration_api.defaults import Choices
    from restoration_api.request import Overwrite, Precision
    from restoration_runner.local import LocalWish, local_request, local_target

    wish = LocalWish(
        source=folder / "in.mp4",
        output=folder / "out.mp4",
        model=str(folder / WEIGHTS),
        choices=Choices(target=local_target(2, None), chunk_frames=chosen.window, strength=PICTURE),
        precision=Precision(chosen.precision),
        overwrite=Overwrite.ALWAYS,
        recompute=True,
    )
    request = local_request(wish)
    if chosen.without_digest:
        return request
    pinned = request.model.model_copy(update={"digest": (folder / DIGEST).read_text()})
    return request.model_copy(update={"model": pinned})


def write_model(folder: Path, chosen: argparse.Namespace) -> None:
    """In a process of its own too, so that its GPU memory is given back."""
    import torch

    from benchmarks.gpu.clip import write_clip
    from benchmarks.gpu.networks import build, config_of
    from restoration_runner.models.device import compute_dtype
    from restoration_runner.models.seedvr2.folder import write_folder
    from restoration_runner.weights.digest import folder_digest

    dtype = compute_dtype(chosen.precision)
    model = build(config_of(chosen.model, tiny=chosen.tiny), device=torch.device(chosen.device), dtype=dtype)
    write_folder(folder / WEIGHTS, model.description, model.dit, model.vae, model.text, dtype=dtype)
    begun = time.perf_counter()
    (folder / DIGEST).write_text(folder_digest(folder / WEIGHTS))
    print(f"digest of the weights: {time.perf_counter() - begun:.2f} s", file=sys.stderr)
    height = 48 if chosen.tiny else chosen.height
    write_clip(folder / "in.mp4", width=height * 16 // 9 // 2, height=height // 2, frames=chosen.frames)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=RELEASED, default="seedvr2-3b")
    parser.add_argument("--height", type=int, default=720, help="of the output, 16:9; the clip is half as large")
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--window", type=int, help="frames (default: the model's)")
    parser.add_argument("--precision", default="BF16")
    parser.add_argument("--runs", nargs="+", default=["cold", "warm", "warm"], choices=["cold", "warm"])
    parser.add_argument("--scratch", type=Path, default=MEMORY if MEMORY.is_dir() else None)
    parser.add_argument("--kernels", type=Path, help="folder with compiled kernels of another program's run")
    parser.add_argument("--without-digest", action="store_true", help="as where a profile pins none")
    parser.add_argument("--role", choices=["write", "run"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)


def main(chosen: argparse.Namespace) -> None:
    if chosen.role == "write":
        write_model(chosen.folder, chosen)
        return
    if chosen.role == "run":
        print(json.dumps(run(chosen.folder, chosen)))
        return
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(dir=chosen.scratch) as name:
        _again("write", chosen.words, Path(name), {})
        print(f"{'':6}" + "".join(f"{mark:>14}" for mark in MARKS) + "  seconds since the start of the process")
        for kind in chosen.runs:
            kernels = chosen.kernels or Path(name) / "kernels"
            if kind == "cold" and kernels.exists():
                kernels.rename(Path(name) / f"kernels-{len(rows)}")
            found: dict[str, float] = json.loads(
                _again("run", chosen.words, Path(name), {"TRITON_CACHE_DIR": str(kernels)})
            )
            rows.append({"run": kind, **found})
            cells = "".join(f"{found[mark]:14.2f}" for mark in MARKS)
            compiled = f"{found['compiled']:.0f} kernels compiled, {found['found']:.0f} found"
            print(f"{kind:6}{cells}  {compiled}, {found['compiling']:.2f} s", flush=True)
    if chosen.json:
        from benchmarks.gpu.machine import save, this_machine
        from restoration_runner.models.device import prepare_device

        save(chosen.json, this_machine(prepare_device(chosen.device), tiny=chosen.tiny), rows=rows)


def _again(role: str, words: list[str], folder: Path, environment: dict[str, str]) -> str:
    """This command in a fresh process, in another role; what it printed last."""
    command = [sys.executable, "-m", "benchmarks.gpu", *words, "--role", role, "--folder", str(folder)]
    settings = {**os.environ, **environment, ENVIRONMENT_BEGUN: str(time.time())}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=settings)
    if done.returncode:
        raise SystemExit(done.stderr.strip()[-2000:] or f"the process for {role} failed")
    told = [line for line in done.stderr.splitlines() if line.startswith("digest of")]
    print("\n".join(told), flush=True) if told else None
    lines = done.stdout.splitlines()
    return lines[-1] if lines else ""
