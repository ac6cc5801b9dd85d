"""The pixel shuffle behind a merged upsampling (`seedvr2/fast/vae_merge.py`), its bias and the next norm's sums.

Phase (sx, sy) of pixel (h, w) is found at (h + sx, w + sy) of the convolution's output, and the bias depends on whether
the pixel lies on an edge. Measured on one H100: merging takes decoding of 21 frames 1280×720 from 845 to 658 ms.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from restoration_runner.models.kernels.group_sums import GroupSums, group_sums, store_sums
from restoration_runner.models.kernels.launch import WARPS, takes, tile_rows

ROWS_PER_PROGRAM = 16
"""Output rows that share one set of sums."""


@triton.jit
def _shuffle(
    z, table, y, parts, pivot, H, W,
    C: tl.constexpr, G: tl.constexpr, R: tl.constexpr, TILE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A program writes one parity of columns: TILE of them, in ROWS rows of one frame."""
    columns = tl.program_id(0)
    rows = tl.program_id(1)
    t = tl.program_id(2)
    sy = columns % 2
    GROUP: tl.constexpr = C // G
    ZC: tl.constexpr = R * 4 * C
    c = tl.arange(0, C)
    first_of_group = (c // GROUP) * GROUP
    w = (columns // 2) * TILE + tl.arange(0, TILE)
    inside = (w < W)[:, None]
    frame = z + (t // R).to(tl.int64) * (H + 1) * (W + 1) * ZC + (t % R) * 4 * C
    phase_table = table + (t % R) * 16 * C
    on_edge = (w == tl.where(sy == 0, 0, W - 1))[:, None]
    # The first pixel: phase (0, 0), on both edges.
    pivot_values = tl.load(frame + first_of_group).to(tl.float32) + tl.load(phase_table + 3 * C + first_of_group)
    s = tl.zeros((TILE, C), tl.float32)
    q = tl.zeros((TILE, C), tl.float32)
    for row in range(rows * ROWS, tl.minimum(rows * ROWS + ROWS, 2 * H)):
        sx = row % 2
        edge_row = ((row == 0) | (row == 2 * H - 1)).to(tl.int32)
        biases = phase_table + ((sx * 2 + sy) * 4 + edge_row * 2) * C + c
        b = tl.where(on_edge, tl.load(biases + C)[None, :], tl.load(biases)[None, :])
        at = (((row // 2) + sx) * (W + 1) + w + sy).to(tl.int64)[:, None] * ZC + (sx * 2 + sy) * C + c[None, :]
        v = (tl.load(frame + at, mask=inside, other=0.0).to(tl.float32) + b).to(y.dtype.element_ty)
        y_at = ((t.to(tl.int64) * 2 * H + row) * 2 * W + 2 * w + sy)[:, None] * C + c[None, :]
        tl.store(y + y_at, v, mask=inside)
        v = tl.where(inside, v.to(tl.float32) - pivot_values[None, :], 0.0)
        s += v
        q += v * v
    part = rows * tl.num_programs(0) + columns
    store_sums(s, q, pivot_values, parts, pivot, t, part, tl.num_programs(0) * tl.num_programs(1), C, G)


def shuffle_into(y: Tensor, z: Tensor, table: Tensor, *, groups: int) -> GroupSums:
    """Fill `y [rF, 2H, 2W, C]` from `z [F, H+1, W+1, 4rC]` and return y's sums.

    Channels of z are (sz, sx, sy, C). table `[r, sx, sy, edge_row, edge_column, C]` fp32: the bias.
    """
    T, H2, W2, C = y.shape
    H, W, r = H2 // 2, W2 // 2, table.shape[0]
    if not takes(z, C, groups):
        y.copy_(_fallback(z, table))
        return group_sums(y, table.new_zeros(C), groups)
    tile = tile_rows(C)
    grid = (2 * triton.cdiv(W, tile), triton.cdiv(H2, ROWS_PER_PROGRAM), T)
    parts = z.new_empty((T, grid[0] * grid[1], 2, groups), dtype=torch.float32)
    pivot = z.new_empty((T, C), dtype=torch.float32)
    _shuffle[grid](z, table, y, parts, pivot, H, W, C, groups, r, tile, ROWS_PER_PROGRAM, num_warps=WARPS)
    return GroupSums(parts, pivot, H2 * W2 * (C // groups))


def _fallback(z: Tensor, table: Tensor) -> Tensor:
    r, C = table.shape[0], table.shape[-1]
    F, H, W = z.shape[0], z.shape[1] - 1, z.shape[2] - 1
    phases = z.view(F, H + 1, W + 1, r, 2, 2, C)
    y = z.new_empty((F, r, H, 2, W, 2, C), dtype=torch.float32)
    for sx in range(2):
        for sy in range(2):
            rows = torch.zeros(H, dtype=torch.long, device=z.device)
            columns = torch.zeros(W, dtype=torch.long, device=z.device)
            rows[-sx], columns[-sy] = 1, 1  # phase 0 lies on the first row, phase 1 on the last one
            bias = table[:, sx, sy][:, rows[:, None], columns[None, :]]
            part = phases[:, sx : sx + H, sy : sy + W, :, sx, sy]
            y[:, :, :, sx, :, sy] = part.permute(0, 3, 1, 2, 4).float() + bias
    return y.view(F * r, 2 * H, 2 * W, C)
