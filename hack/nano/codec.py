"""Real H.264 for training clips: libx264 called in memory from a pool of threads.

The foreign call releases the interpreter lock, so encoding runs beside training. `x264_roundtrip.c` says how the
library is built and why the encoder's own reconstruction replaces a decoder.
"""

import ctypes
import os
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_SOURCE = Path(__file__).with_name("x264_roundtrip.c")
BUILD_COMMAND = ["gcc", "-O2", "-shared", "-fPIC", str(_SOURCE), "-lx264", "-Wl,-rpath,$ORIGIN", "-o"]


def build_library(target: Path) -> Path:
    """Compile the shared library; needs gcc and libx264-dev."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([*BUILD_COMMAND, str(target)], check=True)
    return target


class H264Pool:
    """Encodes and reconstructs clips on a few threads."""

    def __init__(self, library: Path, *, threads: int = (os.cpu_count() or 2)) -> None:
        loaded = ctypes.CDLL(str(library.resolve()))  # a bare name would be searched for in the system
        loaded.x264_roundtrip.restype = ctypes.c_long
        pointer = ctypes.POINTER(ctypes.c_uint8)
        loaded.x264_roundtrip.argtypes = [pointer, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_float]
        self._call = loaded.x264_roundtrip
        self._pointer = pointer
        self._executor = ThreadPoolExecutor(threads)

    def submit(self, clip: NDArray[np.uint8], *, width: int, height: int, crf: float) -> "Future[NDArray[np.uint8]]":
        """`clip` [frames, width·height·3/2], planar 4:2:0, is replaced by its decoded form; the future returns it."""
        return self._executor.submit(self._run, clip, width, height, crf)

    def _run(self, clip: NDArray[np.uint8], width: int, height: int, crf: float) -> NDArray[np.uint8]:
        if not clip.flags.c_contiguous or clip.shape[1] != width * height * 3 // 2:
            raise ValueError(f"clip of shape {clip.shape} is not packed 4:2:0 of {width}x{height}")
        coded_bytes = self._call(clip.ctypes.data_as(self._pointer), len(clip), width, height, crf)
        if coded_bytes < 0:
            raise RuntimeError(f"libx264 refused a clip of {width}x{height} at CRF {crf}")
        return clip
