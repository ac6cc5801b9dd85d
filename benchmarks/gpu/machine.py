"""Where figures were taken: device, driver, versions, commit; and what this very card reaches in this very run."""

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from restoration_runner.models.device import device_name, prepare_device

GIB = 2**30
ROUNDS = 5


@dataclass(frozen=True)
class Machine:
    """matmul_tflops: a large bf16 matrix product, the ceiling of what follows. copy_gb_s: reading plus writing."""

    device: str
    memory_gib: float | None
    driver: str | None
    torch: str
    cudnn: int | None
    triton: str | None
    commit: str | None
    matmul_tflops: float
    copy_gb_s: float


def begin(chosen: argparse.Namespace) -> tuple[torch.device, Machine]:
    """The device that was asked for, and what was found of it, which is printed."""
    device = prepare_device(chosen.device)
    machine = this_machine(device, tiny=chosen.tiny)
    print(describe(machine), flush=True)
    return device, machine


def save(path: Path | None, machine: Machine, /, **found: object) -> None:
    """For `--json`, called after every row: a run that is cut short leaves what it has. found: dataclasses, too."""
    if path is not None:
        path.write_text(json.dumps({"machine": machine, **found}, indent=1, default=asdict) + "\n")


def this_machine(device: torch.device, *, tiny: bool) -> Machine:
    is_gpu = device.type == "cuda"
    return Machine(
        device=device_name(device),
        memory_gib=torch.cuda.get_device_properties(device).total_memory / GIB if is_gpu else None,
        driver=_first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") if is_gpu else None,
        torch=torch.__version__,
        cudnn=torch.backends.cudnn.version() if is_gpu else None,
        triton=_triton_version(),
        commit=os.environ.get("VR_COMMIT") or _first_line("git", "rev-parse", "--short", "HEAD"),
        matmul_tflops=matmul_tflops(device, size=256 if tiny else 8192),
        copy_gb_s=copy_gb_s(device, size=2**20 if tiny else 2**30),
    )


def matmul_tflops(device: torch.device, *, size: int) -> float:
    """Median of a few; one H100 gives 740 to 800, and less when it is warm."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(left)
    seconds = [timed(lambda: torch.mm(left, right, out=out), device) for _ in range(ROUNDS + 1)]
    return float(2 * size**3 / statistics.median(seconds[1:]) / 1e12)


def copy_gb_s(device: torch.device, *, size: int) -> float:
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = [timed(lambda: target.copy_(source), device) for _ in range(ROUNDS + 1)]
    return 2 * size / statistics.median(seconds[1:]) / 1e9


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, until the device has finished it."""
    synchronize(device)
    begun = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - begun


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def describe(machine: Machine) -> str:
    parts = [machine.device, f"torch {machine.torch}"]
    parts += [f"driver {machine.driver}"] if machine.driver else []
    parts += [f"cuDNN {machine.cudnn}"] if machine.cudnn else []
    parts += [f"commit {machine.commit}"] if machine.commit else []
    return ", ".join(parts) + f"; matmul {machine.matmul_tflops:.0f} TFLOP/s, copy {machine.copy_gb_s:.0f} GB/s"


def _triton_version() -> str | None:
    try:
        import triton
    except ImportError:
        return None
    return str(triton.__version__)


def _first_line(*command: str) -> str | None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else None
