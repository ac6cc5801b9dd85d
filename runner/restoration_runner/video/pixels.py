"""Planar YUV in memory: which pixel formats are read, and how a frame's planes are seen without a copy.

Only formats whose meaning is fully known are listed; nothing goes through swscale, whose defaults guess matrix and
range and round to 8 bit. Planes are arrays here and become tensors in `read`: planning and checking a video need no
torch, which takes seconds and half a gigabyte to load.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

Plane = NDArray[Any]
"""`[h, w]`, uint8, or uint16 above 8 bit with the sample in the low bits."""


@dataclass(frozen=True)
class PixelLayout:
    """Three planes Y, U, V of `bit_depth` bits in the low bits of each sample."""

    name: str
    bit_depth: int
    chroma_width_divisor: int
    chroma_height_divisor: int

    def chroma_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of U and V: rounded up, as codecs do for odd sizes."""
        return -(-width // self.chroma_width_divisor), -(-height // self.chroma_height_divisor)


def _family(suffix: str, bit_depth: int) -> list[PixelLayout]:
    return [
        PixelLayout(f"yuv420p{suffix}", bit_depth, 2, 2),
        PixelLayout(f"yuv422p{suffix}", bit_depth, 2, 1),
        PixelLayout(f"yuv444p{suffix}", bit_depth, 1, 1),
    ]


LAYOUTS: Final = {layout.name: layout for layout in [*_family("", 8), *_family("10le", 10), *_family("12le", 12)]} | {
    # FFmpeg's old names for full-range 8 bit; the range itself travels in the colour facts.
    "yuvj420p": PixelLayout("yuvj420p", 8, 2, 2),
    "yuvj422p": PixelLayout("yuvj422p", 8, 2, 1),
    "yuvj444p": PixelLayout("yuvj444p", 8, 1, 1),
}
"""Pixel formats that are read exactly, by FFmpeg's name."""


def planes(frame: VideoFrame) -> tuple[Plane, Plane, Plane]:
    """Y `[H, W]`, U and V `[h, w]` of a decoded frame, sharing its memory.

    The arrays keep the frame's buffers alive: FFmpeg's buffers are reference-counted and DLPack holds a reference.
    """
    y, u, v = (np.from_dlpack(plane) for plane in frame.planes)
    return y, u, v


def fill(frame: VideoFrame, values: tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint16]]) -> None:
    """Copy planes `[h, w]` into a frame that was just allocated."""
    for plane, value in zip(frame.planes, values, strict=True):
        rows = np.frombuffer(memoryview(plane), dtype=np.uint16).reshape(plane.height, plane.line_size // 2)
        rows[:, : plane.width] = value
