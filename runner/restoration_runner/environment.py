"""Which machine makes the frames: the part of a fingerprint that is not in the cache key (`software` is).

The GPU model and the CPU decide the last bits; they are in each marker's fingerprint, so that work can go on elsewhere.
"""

import hashlib
import os
import platform
from importlib import metadata

import torch

from restoration_api.base import canonical_json
from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.models.restorer import Restorer


def environment(restorer: Restorer) -> dict[str, str]:
    """What besides the plan may decide the last bits of this process's frames."""
    return {
        **restorer.environment(),
        "image": os.environ.get("VR_IMAGE") or _own_version(),
        "machine": platform.machine(),
    }


def _own_version() -> str:
    try:
        return f"video-restoration {metadata.version('video-restoration')}"
    except metadata.PackageNotFoundError:  # run from a source tree
        return "video-restoration, not installed"


def fingerprint(values: dict[str, str]) -> str:
    """Hash of an environment: equal fingerprints promise equal bytes."""
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()[:16]


def gpu_name(restorer: Restorer) -> str | None:
    """For people: the GPU's model; none on a CPU."""
    return torch.cuda.get_device_name(restorer.device) if restorer.device.type == "cuda" else None


def check_gpu_memory(restorer: Restorer, *, least_mib: int) -> None:
    """The profile may ask for a GPU of some size; Kubernetes counts GPUs, not their memory.

    Raises:
        RestorationError: `InsufficientGPUMemory`.
    """
    if restorer.device.type != "cuda":
        return
    total_mib = torch.cuda.get_device_properties(restorer.device).total_memory >> 20
    if total_mib < least_mib:
        raise RestorationError(
            FailureReason.INSUFFICIENT_GPU_MEMORY,
            f"gpu.minMemoryMiB: {gpu_name(restorer)} has {total_mib} MiB, the profile asks for {least_mib}; choose "
            "larger GPUs with the profile's pod.nodeSelector",
        )
