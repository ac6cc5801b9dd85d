"""Wavelet colour transfer: the restored frame keeps its detail and takes its slow colour from the input.

The published form splits both pictures into five bands, `content - B(content) + B(style)`, where B blurs with radius 1,
2, 4, 8 and 16 in turn. B is linear, so this is `content + B(style - content)`: half the work. Its 3×3 kernel is the
product of two [1, 2, 1] / 4, and replicated borders separate as well, so each blur is two passes along one axis.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

RADII = (1, 2, 4, 8, 16)


def wavelet_transfer(content: Tensor, style: Tensor) -> Tensor:
    """`content` with the low frequencies of `style`; both `[..., C, H, W]`, result float32, not clamped."""
    return content.float() + low_pass(style.float() - content.float())


def low_pass(x: Tensor, radii: Sequence[int] = RADII) -> Tensor:
    """B: blurs of these radii in turn over the last two axes of `[..., C, H, W]`; a radius r has variance r² / 2."""
    for radius in radii:
        x = _blur(_blur(x, radius, axis=-1), radius, axis=-2)
    return x


def _blur(x: Tensor, radius: int, *, axis: int) -> Tensor:
    """(x[i - r] + 2 x[i] + x[i + r]) / 4 along one axis, indices clamped to the picture."""
    size = x.shape[axis]
    padded = repeat_border(x, radius, axis=axis)
    outer = padded.narrow(axis, 0, size) + padded.narrow(axis, 2 * radius, size)
    return outer.add_(x, alpha=2).mul_(0.25)


def repeat_border(x: Tensor, times: int, *, axis: int) -> Tensor:
    """`x` with its first and last row along one axis so many times more.

    Not by `F.pad`: where algorithms must be deterministic it looks up every pixel's index on a GPU, and imports the
    compiler for that.
    """
    shape = [*x.shape]
    shape[axis] = times
    first, last = x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1)
    return torch.cat((first.expand(shape), x, last.expand(shape)), axis)
