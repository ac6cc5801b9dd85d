"""YUV to RGB and back, exact: matrix, range, depth and chroma position are always given, never guessed.

Formulas are those of ITU-T H.273 (equations 20-28 for range, 38-40 for the matrix), in float32 on whichever device the
planes are on. Chroma is interpolated linearly between its true sample positions and, going down, filtered by the
matching tent, so that a picture is not shifted by half a sample, as happens when "left" chroma is treated as centred.

The RGB here is non-linear (gamma-coded) R'G'B' in the file's own primaries: the model works in display-coded values,
and primaries and transfer are carried as tags, not converted.
"""

from typing import Final

import torch
from torch import Tensor

from restoration_api.ledger import ColorFacts, ColorRange
from restoration_runner.video.colorimetry import CHROMA_OFFSETS, LUMA_WEIGHTS
from restoration_runner.video.pixels import PixelLayout

OUTPUT_DEPTH: Final = 10


def to_rgb(
    planes: tuple[Tensor, Tensor, Tensor], layout: PixelLayout, color: ColorFacts, *, device: torch.device | str = "cpu"
) -> Tensor:
    """One frame as non-linear RGB.

    Args:
        planes: Y `[H, W]`, U and V `[h, w]` of `layout`, integers.
        device: where the arithmetic is done; the integers are what is moved.

    Returns:
        `[3, H, W]` float32, clamped to [0, 1].
    """
    luma_offset, luma_span, chroma_span = _scales(color.range, layout.bit_depth)
    y, u, v = (_floats(plane, device) for plane in planes)
    height, width = y.shape
    y = (y - luma_offset) / luma_span
    middle = float(1 << (layout.bit_depth - 1))
    offset_x, offset_y = CHROMA_OFFSETS[color.chroma_location]
    pb, pr = (
        _upsample(
            (chroma - middle) / chroma_span,
            size=(height, width),
            offset_x=offset_x if layout.chroma_width_divisor == 2 else None,
            offset_y=offset_y if layout.chroma_height_divisor == 2 else None,
        )
        for chroma in (u, v)
    )
    kr, kb = LUMA_WEIGHTS[color.matrix]
    kg = 1 - kr - kb
    r = y + 2 * (1 - kr) * pr
    b = y + 2 * (1 - kb) * pb
    g = y - (2 * kb * (1 - kb) / kg) * pb - (2 * kr * (1 - kr) / kg) * pr
    return torch.stack((r, g, b)).clamp_(0, 1)


def to_yuv420p10(rgb: Tensor, color: ColorFacts) -> tuple[Tensor, Tensor, Tensor]:
    """One frame as 10-bit 4:2:0 planes.

    Args:
        rgb: `[3, H, W]` float32, H and W even; values outside [0, 1] are clamped first.

    Returns:
        Y `[H, W]`, U and V `[H/2, W/2]`, int16 on the device of `rgb` (CUDA has no arithmetic on uint16).
    """
    luma_offset, luma_span, chroma_span = _scales(color.range, OUTPUT_DEPTH)
    kr, kb = LUMA_WEIGHTS[color.matrix]
    r, g, b = rgb.clamp(0, 1)
    y = kr * r + (1 - kr - kb) * g + kb * b
    pb = (b - y) / (2 * (1 - kb))
    pr = (r - y) / (2 * (1 - kr))
    offset_x, offset_y = CHROMA_OFFSETS[color.chroma_location]
    u, v = (_downsample(chroma, offset_x=offset_x, offset_y=offset_y) for chroma in (pb, pr))
    middle = float(1 << (OUTPUT_DEPTH - 1))
    return (
        _integers(y * luma_span + luma_offset),
        _integers(u * chroma_span + middle),
        _integers(v * chroma_span + middle),
    )


def _scales(color_range: ColorRange, bit_depth: int) -> tuple[float, float, float]:
    """(black level, luma span, chroma span) in code values."""
    if color_range is ColorRange.FULL:
        top = float((1 << bit_depth) - 1)
        return 0.0, top, top
    step = float(1 << (bit_depth - 8))
    return 16 * step, 219 * step, 224 * step


def _floats(plane: Tensor, device: torch.device | str) -> Tensor:
    # CUDA cannot compute on uint16. The values fit into int16 up to 15 bit, so the bits are only renamed.
    if plane.dtype == torch.uint16:
        plane = plane.view(torch.int16)
    return plane.to(device, non_blocking=True).to(torch.float32)  # only queued, if the plane is page-locked


def _integers(values: Tensor) -> Tensor:
    return values.round_().clamp_(0, (1 << OUTPUT_DEPTH) - 1).to(torch.int16)


def _upsample(chroma: Tensor, *, size: tuple[int, int], offset_x: float | None, offset_y: float | None) -> Tensor:
    """Linear interpolation to luma positions; an offset of None means this direction is not subsampled."""
    height, width = size
    if offset_y is not None:
        chroma = _double(chroma, offset_y, dim=0)[:height]
    if offset_x is not None:
        chroma = _double(chroma, offset_x, dim=1)[:, :width]
    return chroma


def _double(values: Tensor, offset: float, *, dim: int) -> Tensor:
    """Values at 0, 1, 2, … from samples at `offset`, `offset + 2`, …, in [0, 1]; the border sample is repeated."""
    last = values.shape[dim] - 1
    count = last + 1
    before = torch.cat((values.narrow(dim, 0, 1), values.narrow(dim, 0, last)), dim)
    after = torch.cat((values.narrow(dim, 1, last), values.narrow(dim, last, 1)), dim)
    # Position 2i lies offset/2 chroma steps before sample i; position 2i+1 lies (1 - offset)/2 steps after it.
    even = torch.lerp(values, before, offset / 2) if offset else values
    odd = torch.lerp(values, after, (1 - offset) / 2) if offset != 1 else values
    stacked = torch.stack((even, odd), dim + 1)
    shape = list(values.shape)
    shape[dim] = 2 * count
    return stacked.reshape(shape)


def _downsample(chroma: Tensor, *, offset_x: float, offset_y: float) -> Tensor:
    return _halve(_halve(chroma, offset_y, dim=0), offset_x, dim=1)


def _halve(values: Tensor, offset: float, *, dim: int) -> Tensor:
    """Samples at `offset`, `offset + 2`, … : the mean of two between samples, a 1-2-1 tent on a sample."""
    count = values.shape[dim] // 2
    shape = list(values.shape)
    shape[dim : dim + 1] = [count, 2]
    pairs = values.reshape(shape)
    even: Tensor = pairs.select(dim + 1, 0)
    odd: Tensor = pairs.select(dim + 1, 1)
    if offset == 0.5:
        return (even + odd) / 2
    if offset == 0:
        before = torch.cat((even.narrow(dim, 0, 1), odd.narrow(dim, 0, count - 1)), dim)
        return (before + 2 * even + odd) / 4
    after = torch.cat((even.narrow(dim, 1, count - 1), odd.narrow(dim, count - 1, 1)), dim)
    return (even + 2 * odd + after) / 4
