"""RGB to 8-bit 4:2:0 codes and back, for making training pairs and test clips.

The runner has its own conversion between decoded frames and RGB (`restoration_runner.video`), which works on whole
files with their tags. Here whole batches of short clips are converted on a GPU, always with the same layout: limited
range, BT.601 or BT.709, chroma sited left (the default of MPEG-2, H.264 and HEVC).
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Matrix = Literal["bt601", "bt709"]

# Luma weights of red and blue: ITU-R BT.601-7 section 2.5.1 and BT.709-6 section 3.
_WEIGHTS: dict[Matrix, tuple[float, float]] = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


class Yuv420(NamedTuple):
    """Limited-range codes as floats, not rounded: y [T, H, W], u and v [T, H/2, W/2]."""

    y: Tensor
    u: Tensor
    v: Tensor


def matrix_for_height(height: int) -> Matrix:
    """The matrix that players assume for untagged video."""
    return "bt601" if height <= 576 else "bt709"


def rgb_to_yuv420(rgb: Tensor, matrix: Matrix) -> Yuv420:
    """Codes 16..235 and 16..240 of `rgb` [T, 3, H, W] in [0, 1]; H and W must be even."""
    red, blue = _WEIGHTS[matrix]
    r, g, b = rgb.unbind(1)
    y = red * r + (1 - red - blue) * g + blue * b
    u = _halve_chroma((b - y) / (2 * (1 - blue)))
    v = _halve_chroma((r - y) / (2 * (1 - red)))
    return Yuv420(16 + 219 * y, 128 + 224 * u, 128 + 224 * v)


def yuv420_to_rgb(yuv: Yuv420, matrix: Matrix) -> Tensor:
    """RGB [T, 3, H, W], not clamped; the inverse of `rgb_to_yuv420` with bilinear chroma."""
    red, blue = _WEIGHTS[matrix]
    y = (yuv.y - 16) / 219
    u = _double_chroma((yuv.u - 128) / 224)
    v = _double_chroma((yuv.v - 128) / 224)
    r = y + 2 * (1 - red) * v
    b = y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    return torch.stack((r, g, b), dim=1)


def _halve_chroma(plane: Tensor) -> Tensor:
    """[T, H, W] to [T, H/2, W/2]: 1-2-1 around even columns (left siting), mean of row pairs."""
    padded = F.pad(plane.unsqueeze(1), (1, 1, 0, 0), mode="replicate").squeeze(1)
    columns = (padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:])[..., ::2] / 4
    return (columns[..., ::2, :] + columns[..., 1::2, :]) / 2


def _double_chroma(plane: Tensor) -> Tensor:
    """[T, h, w] to [T, 2h, 2w], bilinear: even columns are samples, rows lie a quarter away from them."""
    frames, height, width = plane.shape
    right = torch.cat((plane[..., 1:], plane[..., -1:]), dim=-1)
    columns = torch.stack((plane, (plane + right) / 2), dim=-1).reshape(frames, height, 2 * width)
    up = torch.cat((columns[:, :1], columns[:, :-1]), dim=1)
    down = torch.cat((columns[:, 1:], columns[:, -1:]), dim=1)
    rows = torch.stack((0.75 * columns + 0.25 * up, 0.75 * columns + 0.25 * down), dim=2)
    return rows.reshape(frames, 2 * height, 2 * width)
