"""Choosing and preparing the device: the one place where determinism is switched on.

The same input must give the same bytes on the same kind of machine, however often a segment is computed. So nothing may
be chosen by clock (no autotuning), no kernel may add in changing order, and matrix products must not be rounded more
than their type says.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from restoration_api.outcome import FailureReason
from restoration_api.request import Precision
from restoration_runner.errors import RestorationError

DTYPES = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}
"""Of the weights."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -3, -4, -8
"""Options of glibc's `mallopt`."""

WEIGHTS_DO_NOT_FIT = "The model's weights do not fit into the GPU's memory: choose a smaller model or a larger GPU"
FRAMES_DO_NOT_FIT = (
    "The GPU's memory is too small for this frame size and window: choose a smaller target, fewer chunk frames or a "
    "larger GPU"
)


def prepare_device(device: str, *, threads: int | None = None, spare_host: bool = False) -> torch.device:
    """`auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`, ready for reproducible work.

    spare_host: rather slower than with more of the host's memory.
    threads: of the CPU. Matrix products of some sizes round differently with another number (measured for 5, 7 and 11
    rows, and for 24 columns), so whoever promises bytes pins it; it may exceed the cores that are there.

    Raises RestorationError(GPUFault) if a GPU is asked for and none is usable.
    """
    # Read when CUDA's allocator starts: what it reserves is otherwise up to half as much again as what is used.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise RestorationError(
            FailureReason.GPU_FAULT,
            "A GPU was asked for, but CUDA finds none: check the node's driver, or run with the CPU device.",
        )
    chosen = torch.device(device)
    if chosen.index is not None and chosen.index >= torch.cuda.device_count():
        raise RestorationError(
            FailureReason.GPU_FAULT,
            f"{device}: CUDA finds {torch.cuda.device_count()} GPU(s) here, counted from 0; name one of them.",
        )
    use_device(chosen)
    if threads is not None:
        torch.set_num_threads(threads)
    if spare_host:
        return_freed_memory()
    elif device == "cpu":
        keep_freed_memory()
    # Read by cuBLAS when it starts: its default workspace makes results depend on what else runs.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # The same switch as `use_deterministic_algorithms`, which also imports the compiler (three seconds at every start).
    torch.set_deterministic_debug_mode("error")
    # Filling fresh memory is a debugging aid that costs a pass over it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    return chosen


def use_device(device: torch.device) -> None:
    """Make a GPU the calling thread's own: kernels start and page-locked memory is made on the thread's current GPU,
    which is the first one in every new thread. Without a number it is that one anyway."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)


def keep_freed_memory() -> None:
    """Let the C library keep large blocks that were freed instead of returning each one to the kernel.

    A network asks for the same few sizes again and again; fresh pages cost 15 % of the time of the small model on a
    CPU. Other C libraries than glibc have no such switch, and do without.
    """
    _tune_malloc((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1))


def return_freed_memory() -> None:
    """The opposite, where memory is short: a third more time on a CPU, and no block that is freed stays.

    A fixed threshold, because glibc otherwise raises it to the largest block that was ever freed. One arena, because
    each thread's own keeps what that thread freed.
    """
    _tune_malloc((M_MMAP_MAX, 2**31 - 1), (M_MMAP_THRESHOLD, 64 << 10), (M_TRIM_THRESHOLD, 64 << 10), (M_ARENA_MAX, 1))


def _tune_malloc(*options: tuple[int, int]) -> None:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for parameter, value in options:
        mallopt(ctypes.c_int(parameter), ctypes.c_int(value))


def compute_dtype(precision: str) -> torch.dtype:
    """Of weights and activations; FP8 is BF16 with a transformer whose matrices are stored in 8 bits.

    Raises RestorationError(InvalidParameters) for a precision that is not built.
    """
    if precision == Precision.FP8:
        return torch.bfloat16
    if precision not in DTYPES:
        offered = ", ".join(Precision)
        raise RestorationError(
            FailureReason.INVALID_PARAMETERS, f"Precision {precision} is not built yet: choose one of {offered}."
        )
    return DTYPES[Precision(precision)]


@contextmanager
def device_faults(too_large: str) -> Iterator[None]:
    """The device's own errors as sentences; `too_large` says what does not fit into its memory, and the remedy."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        first_line = str(error).splitlines()[0]
        raise RestorationError(FailureReason.INSUFFICIENT_GPU_MEMORY, f"{too_large} ({first_line})") from error
    except torch.AcceleratorError as error:
        raise RestorationError(FailureReason.GPU_FAULT, f"The GPU failed: {str(error).splitlines()[0]}") from error


def host_memory_bytes(root: Path = Path("/")) -> int:
    """What this process may use: the container's limit, else all of the machine. 0 where neither can be read."""
    limits = [_number(root / file) for file in CGROUP_LIMITS]
    total = _number(root / "proc/meminfo", after="MemTotal:", unit=1024)
    return min((limit for limit in (*limits, total) if limit), default=0)


CGROUP_LIMITS = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Of the second and the first version of control groups; as a container sees its own."""


def _number(file: Path, *, after: str = "", unit: int = 1) -> int:
    """The first number behind a word; 0 where there is none (`max`) or no such file."""
    try:
        words = file.read_text().partition(after)[2].split() if after else file.read_text().split()
    except OSError:
        return 0
    return int(words[0]) * unit if words and words[0].isdigit() else 0


def device_name(device: torch.device) -> str:
    """What decides bits besides software: the GPU's model, or the CPU's maker and vector instructions."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.multi_processor_count} SM"
    return f"cpu {_cpu_maker()} {torch.backends.cpu.get_cpu_capability()}{_matrix_instructions()}"


def _cpu_maker() -> str:
    """Mathematics libraries pick their code by the maker too."""
    return _cpuinfo("vendor_id") or "unknown"


def _matrix_instructions() -> str:
    present = set(_cpuinfo("flags").split())
    return "".join(f" {name}" for name in ("avx512_bf16", "amx_bf16") if name in present)


def _cpuinfo(field: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.split(":")[0].strip() == field), "")
