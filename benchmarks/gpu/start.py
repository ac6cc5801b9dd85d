"""From the start of a process to its first restored frame, with the weights in the page cache.

A folder with random weights of the real size is written once (to memory, by default), then a fresh process loads it and
restores one window. `cold` has no compiled kernels, `warm` finds those of the process before it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.gpu.networks import RELEASED

MEMORY = Path("/dev/shm")
STEPS = ("python and torch", "GPU and its self-test", "weights", "networks", "first frame", "first window")


class Compiled:
    """Counts the kernels that Triton compiles, as it tells; how many it found instead, and its seconds for both."""

    def __init__(self) -> None:
        self.made = self.found = 0
        self.seconds = 0.0

    def __call__(self, *, times: Any, cache_hit: bool, **_: object) -> None:
        self.made += not cache_hit
        self.found += cache_hit
        self.seconds += times.total / 1e6


def steps(folder: Path, chosen: argparse.Namespace) -> list[float]:
    """In the fresh process: seconds of each step."""
    import torch
    import triton

    from benchmarks.gpu.machine import synchronize
    from benchmarks.gpu.stages import SIZES, TINY, Row, moving_picture, scene
    from restoration_runner.models.device import compute_dtype, prepare_device
    from restoration_runner.models.seedvr2.folder import read_folder
    from restoration_runner.models.seedvr2.networks import NetworkPath
    from restoration_runner.models.seedvr2.restorer import SeedVr2Restorer
    from restoration_runner.models.self_test import check_device

    compiled = Compiled()
    triton.knobs.compilation.listener = compiled
    marks = [float(os.environ["BEGUN"]), time.time()]

    def mark() -> None:
        synchronize(device)
        marks.append(time.time())

    device, dtype = prepare_device(chosen.device), compute_dtype(chosen.precision)
    check_device(device, dtype)
    mark()
    with torch.no_grad():
        model = read_folder(folder, device=device, dtype=dtype)
        mark()
        restorer = SeedVr2Restorer(model, device=device, dtype=dtype, path=NetworkPath(chosen.path))
        mark()
    width, height = (TINY if chosen.tiny else SIZES)[chosen.size]
    case = Row(chosen.path, chosen.model, chosen.precision, width, height, chosen.window, chosen.window)
    for number, _ in enumerate(restorer.restore(scene(case, case.frames), moving_picture(case, device), seed=1)):
        if number == 0:
            mark()
    mark()
    print(f"kernels: {compiled.made} compiled, {compiled.found} found, {compiled.seconds:.2f} s", file=sys.stderr)
    return [later - earlier for earlier, later in pairwise(marks)]


def write_model(folder: Path, chosen: argparse.Namespace) -> None:
    """In a process of its own too, so that its GPU memory is given back."""
    import torch

    from benchmarks.gpu.networks import build, config_of
    from restoration_runner.models.device import compute_dtype
    from restoration_runner.models.seedvr2.folder import write_folder

    dtype = compute_dtype(chosen.precision)
    model = build(config_of(chosen.model, tiny=chosen.tiny), device=torch.device(chosen.device), dtype=dtype)
    write_folder(folder, model.description, model.dit, model.vae, model.text, dtype=dtype)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=RELEASED, default="seedvr2-3b")
    parser.add_argument("--path", default="fast")
    parser.add_argument("--size", default="720p")
    parser.add_argument("--window", type=int, default=21)
    parser.add_argument("--precision", default="BF16")
    parser.add_argument("--runs", nargs="+", default=["cold", "warm", "warm"], choices=["cold", "warm"])
    parser.add_argument("--scratch", type=Path, default=MEMORY if MEMORY.is_dir() else None)
    parser.add_argument("--role", choices=["write", "steps"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)


def main(chosen: argparse.Namespace) -> None:
    if chosen.role == "write":
        write_model(chosen.folder, chosen)
        return
    if chosen.role == "steps":
        print(json.dumps(steps(chosen.folder, chosen)))
        return
    rows: list[dict[str, object]] = []
    print(f"{'':6}" + "".join(f"{step:>24}" for step in (*STEPS, "in all")))
    with tempfile.TemporaryDirectory(dir=chosen.scratch) as name:
        _again("write", chosen.words, Path(name), {})
        for kind in chosen.runs:
            kernels = Path(name) / "kernels"
            if kind == "cold" and kernels.exists():
                kernels.rename(Path(name) / f"kernels-{len(rows)}")
            found: list[float] = json.loads(
                _again("steps", chosen.words, Path(name), {"TRITON_CACHE_DIR": str(kernels)})
            )
            rows.append({"run": kind, **dict(zip(STEPS, found, strict=True)), "in all": sum(found)})
            print(f"{kind:6}" + "".join(f"{spent:22.2f} s" for spent in (*found, sum(found))), flush=True)
    if chosen.json:
        from benchmarks.gpu.machine import this_machine
        from restoration_runner.models.device import prepare_device

        machine = this_machine(prepare_device(chosen.device), tiny=chosen.tiny)
        chosen.json.write_text(json.dumps({"machine": asdict(machine), "rows": rows}, indent=1) + "\n")


def _again(role: str, words: list[str], folder: Path, environment: dict[str, str]) -> str:
    """This command in a fresh process, in another role; what it printed last."""
    command = [sys.executable, "-m", "benchmarks.gpu", *words, "--role", role, "--folder", str(folder)]
    settings = {**os.environ, **environment, "BEGUN": str(time.time())}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=settings)
    if done.returncode:
        raise SystemExit(done.stderr.strip()[-2000:] or f"the process for {role} failed")
    told = [line for line in done.stderr.splitlines() if line.startswith("kernels: ")]
    print("\n".join(told), flush=True) if told else None
    lines = done.stdout.splitlines()
    return lines[-1] if lines else ""
