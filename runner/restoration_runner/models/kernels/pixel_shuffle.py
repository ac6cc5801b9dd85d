"""The pixel shuffle behind a merged upsampling (`seedvr2/fast/vae_merge.py`), its bias and the next norm's sums.

Phase (sx, sy) of pixel (h, w) is found at (h + sx, w + sy) of the convolution's output, and the bias depends on whether
the pixel lies on an edge. Measured on one H100: merging takes decoding of 21 frames 1280×720 from 845 to 658 ms, and
reading as memory lies one call of two frames 640×360×512 from 0.563 to 0.416 ms. The decoder takes 615 instead of
758 ms, by Winograd 455 instead of 588.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from restoration_runner.models.kernels.group_sums import GroupSums, group_sums
from restoration_runner.models.kernels.launch import WARPS, takes, tile_rows

ROWS_PER_PROGRAM = 8
"""Rows of the convolution's output that share one set of sums."""


@triton.jit
def _shuffle(
    z, table, y, parts, pivot, H, W,
    C: tl.constexpr, G: tl.constexpr, R: tl.constexpr, TILE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A program reads TILE columns in ROWS rows of z, for one of the R frames made of it; both as they lie in memory.

    The two phases of a column w that lie side by side in z are the neighbours 2w - 1 and 2w in a row of y.
    """
    columns = tl.program_id(0)
    rows = tl.num_programs(1) - 1 - tl.program_id(1)
    t = tl.num_programs(2) - 1 - tl.program_id(2)
    GROUP: tl.constexpr = C // G
    ZC: tl.constexpr = R * 4 * C
    j = tl.arange(0, 2 * C)
    sy = j // C
    first_of_group = ((j % C) // GROUP) * GROUP
    w = columns * TILE + tl.arange(0, TILE)
    column = 2 * w[:, None] - sy[None, :]
    inside = (w <= W)[:, None] & (column >= 0) & (column < 2 * W)
    on_edge = column == tl.where(sy == 0, 0, 2 * W - 1)[None, :]
    frame = z + (t // R).to(tl.int64) * (H + 1) * (W + 1) * ZC + (t % R) * 4 * C
    phase_table = table + (t % R) * 16 * C
    # The first pixel: phase (0, 0), on both edges.
    pivot_values = tl.load(frame + first_of_group).to(tl.float32) + tl.load(phase_table + 3 * C + first_of_group)
    s = tl.zeros((TILE, 2 * C), tl.float32)
    q = tl.zeros((TILE, 2 * C), tl.float32)
    first_row = rows * ROWS
    for step in range(2 * tl.minimum(ROWS, H + 1 - first_row)):
        sx = step % 2
        z_row = first_row + step // 2
        row = 2 * z_row - sx
        there = inside & (row >= 0) & (row < 2 * H)
        edge_row = ((row == 0) | (row == 2 * H - 1)).to(tl.int32)
        biases = phase_table + ((sx * 2 + sy) * 4 + edge_row * 2) * C + j % C
        b = tl.where(on_edge, tl.load(biases + C)[None, :], tl.load(biases)[None, :])
        at = (z_row * (W + 1) + w).to(tl.int64)[:, None] * ZC + sx * 2 * C + j[None, :]
        v = (tl.load(frame + at, mask=there, other=0.0).to(tl.float32) + b).to(y.dtype.element_ty)
        y_at = ((t.to(tl.int64) * 2 * H + row) * 2 * W + column) * C + (j % C)[None, :]
        tl.store(y + y_at, v, mask=there)
        v = tl.where(there, v.to(tl.float32) - pivot_values[None, :], 0.0)
        s += v
        q += v * v
    part = rows * tl.num_programs(0) + columns
    number_of_parts = tl.num_programs(0) * tl.num_programs(1)
    g = tl.arange(0, G)
    at = parts + (t * 2 * G + g) * number_of_parts + part
    tl.store(at, tl.sum(tl.sum(tl.reshape(tl.sum(s, axis=0), (2, G, GROUP)), axis=2), axis=0))
    tl.store(at + G * number_of_parts, tl.sum(tl.sum(tl.reshape(tl.sum(q, axis=0), (2, G, GROUP)), axis=2), axis=0))
    if part == 0:
        tl.store(pivot + t * C + j, pivot_values, mask=j < C)


def shuffle_into(y: Tensor, z: Tensor, table: Tensor, *, groups: int) -> GroupSums:
    """Fill `y [rF, 2H, 2W, C]` from `z [F, H+1, W+1, 4rC]` and return y's sums.

    Channels of z are (sz, sx, sy, C). table `[r, sx, sy, edge_row, edge_column, C]` fp32: the bias.
    """
    T, H2, W2, C = y.shape
    H, W, r = H2 // 2, W2 // 2, table.shape[0]
    if not takes(z, C, groups):
        y.copy_(_fallback(z, table))
        return group_sums(y, table.new_zeros(C), groups)
    tile = tile_rows(2 * C)
    grid = (triton.cdiv(W + 1, tile), triton.cdiv(H + 1, ROWS_PER_PROGRAM), T)
    parts = z.new_empty((T, 2, groups, grid[0] * grid[1]), dtype=torch.float32)
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
