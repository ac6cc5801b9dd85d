"""Which tensors Triton's kernels take here, and in which pieces.

Pieces are constants of the shape, never chosen by a stopwatch and never by the GPU's size, so that sums are added in
one order everywhere and a result depends on its input alone. Measured on one H100: normalising runs at 2.8 of the
3.0 TB/s that a copy reaches, so there is little for autotuning to find.
"""

import os

from torch import Tensor

TILE_ELEMENTS = 4096
"""Per step of a program: 16 elements for each of 256 threads."""

PROGRAMS = 528
"""Of a reduction: four for each multiprocessor of an H100."""

WARPS = 8


def takes(x: Tensor, *sizes: int) -> bool:
    """Whether a kernel computes on `x`: on a GPU (or in Triton's interpreter), with all `sizes` powers of two.

    Triton's blocks are powers of two; other numbers of channels are left to the fallbacks.
    """
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return (x.is_cuda or interpreted) and all(size > 0 and size & (size - 1) == 0 for size in sizes)


def tile_rows(channels: int) -> int:
    """Pixels of `channels` channels in one step of a program."""
    return max(1, TILE_ELEMENTS // channels)


def programs_per_frame(pixels: int, frames: int, channels: int) -> int:
    """Programs of a reduction that share one frame's tiles, each taking every so-manieth of them."""
    return min(-(-pixels // tile_rows(channels)), max(1, PROGRAMS // frames))
