"""The decoder's upsampling as one small convolution, exactly.

Upsampling is a 1×1×1 convolution to 4rC channels, a pixel shuffle, (at a clip's start) the removal of frame 1, and a
causal 3×3×3 convolution. An output pixel sees only 2 × 2 low-resolution pixels of two (r = 2) or three (r = 1) frames,
so all of it is one convolution with kernel (2 or 3, 2, 2), padding 1 and 4rC outputs, followed by a shuffle in which
phase (sx, sy) of pixel (h, w) is found at (h + sx, w + sy). That takes 8/27 (12/27) of the operations and saves the
1×1×1 convolution. Zeros around the frame stay exact, because a tap outside at high resolution lies outside at low
resolution, too; only the first convolution's bias must be left out for such taps, so the bias becomes a table.
"""

from dataclasses import dataclass
from enum import Enum
from itertools import product

import torch
from torch import Tensor


class Position(Enum):
    """Which latent frame an upsampling over time stands at: past the start of a clip each pair of frames is alike.

    FIRST: the frame that stays one, which sees three times itself. SECOND: the pair after it, which sees frame 1's
    removal. LATER: all others, and every frame of upsamplings that leave time alone.
    """

    FIRST = "first"
    SECOND = "second"
    LATER = "later"


@dataclass(frozen=True)
class Merged:
    """weight `[4·phases·C, I, kt, 2, 2]`, outputs (sz, sx, sy, C); table `[phases, sx, sy, edge row, column, C]`."""

    weight: Tensor
    table: Tensor


def merge(
    expand: tuple[Tensor, Tensor], conv: tuple[Tensor, Tensor], r: int, position: Position = Position.LATER
) -> Merged:
    """Weight and bias of the 1×1×1 (`[4rC, I, 1, 1, 1]`) and of the 3×3×3 convolution (`[C, C, 3, 3, 3]`).

    r: frames made of one. Computed and returned in the type of the arguments.
    """
    inner, inputs = conv[0].shape[1], expand[0].shape[1]
    outputs = conv[0].shape[0]
    up, up_bias = expand[0].reshape(2, 2, r, inner, inputs), expand[1].reshape(2, 2, r, inner)
    phases, kt = _times(r, position)
    weight = conv[0].new_zeros((phases, 2, 2, outputs, inputs, kt, 2, 2))
    table = conv[1].expand(phases, 2, 2, 2, 2, outputs).clone()
    for sz in range(phases):
        for dz in range(3):
            frame, pz = _time_tap(sz, dz, r, position)
            for sx, dx, sy, dy in product(range(2), range(3), range(2), range(3)):
                (row, px), (column, py) = _space_tap(sx, dx), _space_tap(sy, dy)
                tap = conv[0][:, :, dz, dx, dy]
                weight[sz, sx, sy, :, :, frame, row, column] += tap @ up[px, py, pz]
                edges = _edges_where_inside(sx, dx, sy, dy, conv[0])
                table[sz, sx, sy] += edges[..., None] * (tap @ up_bias[px, py, pz])
    return Merged(weight.reshape(phases * 4 * outputs, inputs, kt, 2, 2), table)


def _times(r: int, position: Position) -> tuple[int, int]:
    """Frames made at once, and taps over time."""
    if position is Position.FIRST:
        return 1, 1
    return r, 3 if r == 1 else 2


def _space_tap(phase: int, tap: int) -> tuple[int, int]:
    """High-resolution tap `tap` of output phase `phase`: the merged kernel's tap, and the phase it reads there."""
    q = phase + tap - 1
    return q // 2 + 1 - phase, q % 2


def _time_tap(phase: int, tap: int, r: int, position: Position) -> tuple[int, int]:
    """The same over time. Frame 1 of a clip was removed, so SECOND reads phase 0 of the first latent throughout."""
    if r == 1:
        return tap, 0
    if position is Position.FIRST:
        return 0, 0
    q = phase + tap - 2
    frame = q // 2 + 1
    return frame, 0 if position is Position.SECOND and frame == 0 else q % 2


def _edges_where_inside(sx: int, dx: int, sy: int, dy: int, like: Tensor) -> Tensor:
    """`[edge_row, edge_column]`: 1 where the tap of a pixel on (1) or off (0) an edge lies inside the frame, else 0."""
    outside_row, outside_column = dx == 2 * sx, dy == 2 * sy
    inside = [[not (ex and outside_row) and not (ey and outside_column) for ey in (0, 1)] for ex in (0, 1)]
    return torch.tensor(inside, dtype=like.dtype, device=like.device)
