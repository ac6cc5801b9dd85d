"""What software and machine make the frames: the part that is in the cache key, and the part that is not.

Library versions decide pixels and are never mixed inside one work prefix. The GPU model and the CPU decide the last
bits; they are not in the key but in each marker's fingerprint, so that work can go on elsewhere.
"""

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path

import av
import torch

from restoration_api.base import canonical_json
from restoration_runner.models.restorer import Restorer

CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def library_versions() -> dict[str, str]:
    """Name to version of everything that computes, decodes or encodes."""
    versions = {"torch": torch.__version__, "av": av.__version__, "numpy": metadata.version("numpy")}
    versions |= {name: ".".join(map(str, number)) for name, number in av.library_versions.items()}
    if torch.version.cuda:
        versions["cuda"] = torch.version.cuda
        versions["cudnn"] = str(torch.backends.cudnn.version())
    return versions


def environment(restorer: Restorer) -> dict[str, str]:
    """What besides the plan may decide the last bits of this process's frames."""
    return {
        **restorer.environment(),
        "image": os.environ.get("VR_IMAGE", f"video-restoration {metadata.version('video-restoration')}"),
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
    }


def fingerprint(values: dict[str, str]) -> str:
    """Hash of an environment: equal fingerprints promise equal bytes."""
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()[:16]


def usable_cpus() -> int:
    """Cores this process may use: its affinity, capped by the container's quota.

    A pod limited to 4 CPUs on a machine of 128 sees all of them; 128 threads on 4 CPUs would mostly wait.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = CGROUP_CPU_MAX.read_text().split()
        if quota != "max":
            cores = min(cores, -(-int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return max(1, cores)


def gpu_name(restorer: Restorer) -> str | None:
    """For people: the GPU's model; none on a CPU."""
    return torch.cuda.get_device_name(restorer.device) if restorer.device.type == "cuda" else None
