"""Which software makes the frames: the part of a fingerprint that is in the cache key.

Library versions decide pixels and are never mixed inside one work prefix. They are read without loading torch, so that
whoever only plans names the work exactly as the one who computes it does.
"""

import contextlib
import os
import runpy
from importlib import metadata, util
from pathlib import Path

import av

CPU_THREADS = 4
"""On a CPU some matrix products round differently with another number of threads, so the number is fixed and in the
cache key; it may exceed the cores that are there."""


def cpu_threads() -> int:
    """`VR_CPU_THREADS` in a profile's environment is for large CPU machines; it makes another cache key."""
    return int(os.environ.get("VR_CPU_THREADS", CPU_THREADS))


def library_versions() -> dict[str, str]:
    """Name to version of everything that computes, decodes or encodes."""
    versions = {"av": av.__version__, "numpy": metadata.version("numpy")}
    versions |= {name: ".".join(map(str, number)) for name, number in av.library_versions.items()}
    return versions | _torch_versions()


def _torch_versions() -> dict[str, str]:
    """What `torch.__version__` and `torch.version.cuda` would say: a file of their own that imports nothing."""
    found = util.find_spec("torch")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    build = runpy.run_path(str(Path(found.origin).with_name("version.py")))
    versions = {"torch": str(build["__version__"])}
    if build["cuda"]:
        cuda = str(build["cuda"])
        versions["cuda"] = cuda
        with contextlib.suppress(metadata.PackageNotFoundError):  # a torch that was built with the image's own
            versions["cudnn"] = metadata.version(f"nvidia-cudnn-cu{cuda.partition('.')[0]}")
    return versions
