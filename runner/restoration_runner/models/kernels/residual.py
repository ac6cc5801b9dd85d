"""x + d + bias in one pass that also adds up what the next norm needs, written where the next layer reads it.

Biases of convolutions never get a pass of their own, and the sum is rounded once, from fp32. Measured on one H100, 4
frames of 1280×720×128 in bf16: with `group_sums.py` and `normalise.py` a residual block takes 12.0 instead of 32.6 ms.
From the frame's end to its beginning, as `group_sums.py`: 0.250 instead of 0.287 ms a frame. The encoder takes 302
instead of 386 ms, the decoder 612 instead of 717; by Winograd 217 and 225, 461 and 479.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from restoration_runner.models.kernels.group_sums import GroupSums, group_sums, store_sums
from restoration_runner.models.kernels.launch import WARPS, programs_per_frame, takes, tile_rows


@triton.jit
def _add_residual(
    x, d, bias, y, parts, pivot, P, W, y_frame, y_row, y_pixel,
    C: tl.constexpr, G: tl.constexpr, TILE: tl.constexpr, COPIES: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0)
    t = tl.num_programs(1) - 1 - tl.program_id(1)
    GROUP: tl.constexpr = C // G
    c = tl.arange(0, C)
    r = tl.arange(0, TILE)
    base = t.to(tl.int64) * P * C
    b = tl.load(bias + c)
    first_of_group = (c // GROUP) * GROUP
    # Not from d, which y may overwrite while another program still reads.
    pivot_values = tl.load(x + base + first_of_group).to(tl.float32) + tl.load(bias + first_of_group)
    s = tl.zeros((TILE, C), tl.float32)
    q = tl.zeros((TILE, C), tl.float32)
    last = (P - 1) // TILE
    for tile in range(part, last + 1, tl.num_programs(0)):
        p = (last - tile) * TILE + r
        inside = (p < P)[:, None]
        at = base + p.to(tl.int64)[:, None] * C + c[None, :]
        v = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        v = (v + tl.load(d + at, mask=inside, other=0.0).to(tl.float32) + b[None, :]).to(y.dtype.element_ty)
        y_at = ((p // W).to(tl.int64) * y_row + (p % W).to(tl.int64) * y_pixel)[:, None] + c[None, :]
        tl.store(y + t.to(tl.int64) * y_frame + y_at, v, mask=inside)
        if COPIES > 0:
            if t == 0:
                for k in tl.static_range(1, COPIES + 1):
                    tl.store(y + y_at - k * y_frame.to(tl.int64), v, mask=inside)
        if SUMS:
            v = tl.where(inside, v.to(tl.float32) - pivot_values[None, :], 0.0)
            s += v
            q += v * v
    if SUMS:
        store_sums(s, q, pivot_values, parts, pivot, t, part, tl.num_programs(0), C, G)


def add_residual(x: Tensor, d: Tensor, bias: Tensor, *, groups: int) -> GroupSums:
    """`d = x + d + bias` in place, and the sums of the result; x, d `[T, H, W, C]` contiguous, bias `[C]` fp32."""
    T, H, W, C = x.shape
    if not takes(x, C, groups):
        d.copy_(x.float() + d.float() + bias)
        return group_sums(d, torch.zeros_like(bias), groups)
    parts = x.new_empty((T, 2, groups, programs_per_frame(H * W, T, C)), dtype=torch.float32)
    pivot = x.new_empty((T, C), dtype=torch.float32)
    _add_residual[(parts.shape[3], T)](
        x, d, bias, d, parts, pivot, H * W, W, *d.stride()[:3], C, groups, tile_rows(C), 0, True, num_warps=WARPS
    )
    return GroupSums(parts, pivot, H * W * (C // groups))


def add_residual_into(buffer: Tensor, x: Tensor, d: Tensor, bias: Tensor, *, slot: int, copies: int = 0) -> None:
    """`buffer[slot + t, :H, :W] = x[t] + d[t] + bias`, and the `copies` slots before `slot` get that of frame 0.

    buffer `[slots, H', W', C]` at any distances, H' ≥ H and W' ≥ W: what lies beyond is left alone.
    """
    T, H, W, C = x.shape
    if not takes(x, C):
        buffer[slot : slot + T, :H, :W] = x.float() + d.float() + bias
        if copies:
            buffer[slot - copies : slot, :H, :W] = buffer[slot, :H, :W]
        return
    _add_residual[(programs_per_frame(H * W, T, C), T)](
        x, d, bias, buffer[slot:], bias, bias, H * W, W, *buffer.stride()[:3],
        C, 1, tile_rows(C), copies, False, num_warps=WARPS,
    )  # fmt: skip
