"""Statistics of GroupNorm over frames `[T, H, W, C]`: partial sums in one read, then a scale and a shift per channel.

GroupNorm of the VAE looks at each frame alone, so the sums are indexed by frame and group. They are sums of differences
to a pivot, the frame's first pixel: squares of large means would cancel in fp32 (mean/std = 15 is exact to rounding).
Measured on one H100, bf16, 4 frames of 1280×720×128: a residual block with these kernels takes 12.0 ms, 9 of them
its convolutions, against 32.6 ms eager and 17.2 ms with torch.compile's max-autotune. The encoder takes 297 instead
of 663 ms, the decoder 611 instead of 1043; by Winograd, whose passes make most sums, 216 and 335, 461 and 512.

Sums run from a frame's end to its beginning: what the convolution before wrote last is still in the L2 cache, and what
is read last here is what `normalise.py`, which runs forwards, reads first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from restoration_runner.models.kernels.launch import WARPS, programs_per_frame, takes, tile_rows


@dataclass(frozen=True)
class GroupSums:
    """Sums over each frame's groups, in parts.

    parts `[T, 2, G, parts]` fp32: of v - pivot and of its square. pivot `[T, C]` fp32, equal within a group.
    count: elements of one group in one frame.
    """

    parts: Tensor
    pivot: Tensor
    count: int

    def frames(self, start: int, stop: int) -> "GroupSums":
        return GroupSums(self.parts[start:stop], self.pivot[start:stop], self.count)


@dataclass(frozen=True)
class GroupNormWeights:
    """weight, bias `[C]` fp32."""

    weight: Tensor
    bias: Tensor
    groups: int
    eps: float


@triton.jit
def store_sums(
    s, q, pivot_values, parts, pivot, t, part, number_of_parts, C: tl.constexpr, G: tl.constexpr, EACH: tl.constexpr = 1
):  # fmt: skip
    """Reduce sums per channel, or per EACH channels of a group, `[rows, C / EACH]`, to groups and store them as one
    part; part 0 stores the pivot too."""
    GROUP: tl.constexpr = C // G // EACH
    g = tl.arange(0, G)
    group_s = tl.sum(tl.reshape(tl.sum(s, axis=0), (G, GROUP)), axis=1)
    group_q = tl.sum(tl.reshape(tl.sum(q, axis=0), (G, GROUP)), axis=1)
    at = parts + (t * 2 * G + g) * number_of_parts + part
    tl.store(at, group_s)
    tl.store(at + G * number_of_parts, group_q)
    if part == 0:
        tl.store(pivot + t * C + tl.arange(0, C), pivot_values)


@triton.jit
def _group_sums(x, bias, parts, pivot, P, C: tl.constexpr, G: tl.constexpr, TILE: tl.constexpr):
    part = tl.program_id(0)
    t = tl.num_programs(1) - 1 - tl.program_id(1)
    GROUP: tl.constexpr = C // G
    c = tl.arange(0, C)
    r = tl.arange(0, TILE)
    frame = x + t.to(tl.int64) * P * C
    first_of_group = (c // GROUP) * GROUP
    pivot_values = tl.load(frame + first_of_group).to(tl.float32) + tl.load(bias + first_of_group)
    offset = tl.load(bias + c) - pivot_values
    s = tl.zeros((TILE, C), tl.float32)
    q = tl.zeros((TILE, C), tl.float32)
    last = (P - 1) // TILE
    for tile in range(part, last + 1, tl.num_programs(0)):
        p = (last - tile) * TILE + r
        inside = (p < P)[:, None]
        at = p.to(tl.int64)[:, None] * C + c[None, :]
        v = tl.load(frame + at, mask=inside, other=0.0).to(tl.float32) + offset[None, :]
        v = tl.where(inside, v, 0.0)
        s += v
        q += v * v
    store_sums(s, q, pivot_values, parts, pivot, t, part, tl.num_programs(0), C, G)


@triton.jit
def _scale_and_shift(
    parts, pivot, bias, weight, beta, scale, shift, number_of_parts, count, eps,
    C: tl.constexpr, G: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program adds up the parts of one group."""
    t = tl.program_id(0)
    g = tl.program_id(1)
    GROUP: tl.constexpr = C // G
    i = tl.arange(0, BLOCK)
    s = tl.zeros((BLOCK,), tl.float32)
    q = tl.zeros((BLOCK,), tl.float32)
    base = parts + (t * 2 * G + g) * number_of_parts
    for first in range(0, number_of_parts, BLOCK):
        inside = first + i < number_of_parts
        s += tl.load(base + first + i, mask=inside, other=0.0)
        q += tl.load(base + G * number_of_parts + first + i, mask=inside, other=0.0)
    mean = tl.sum(s, axis=0) / count
    variance = tl.maximum(tl.sum(q, axis=0) / count - mean * mean, 0.0)
    c = g * GROUP + tl.arange(0, GROUP)
    a = tl.load(weight + c) / tl.sqrt(variance + eps)
    tl.store(scale + t * C + c, a)
    tl.store(shift + t * C + c, tl.load(beta + c) + (tl.load(bias + c) - tl.load(pivot + t * C + c) - mean) * a)


def group_sums(x: Tensor, bias: Tensor, groups: int) -> GroupSums:
    """Sums of `x + bias`; x `[T, H, W, C]` contiguous, bias `[C]` fp32."""
    T, H, W, C = x.shape
    count = H * W * (C // groups)
    if not takes(x, C, groups):
        return _group_sums_fallback(x, bias, groups)
    programs = programs_per_frame(H * W, T, C)
    parts = x.new_empty((T, 2, groups, programs), dtype=torch.float32)
    pivot = x.new_empty((T, C), dtype=torch.float32)
    _group_sums[(programs, T)](x, bias, parts, pivot, H * W, C, groups, tile_rows(C), num_warps=WARPS)
    return GroupSums(parts, pivot, count)


def _group_sums_fallback(x: Tensor, bias: Tensor, groups: int) -> GroupSums:
    T, H, W, C = x.shape
    v = (x.float() + bias).view(T, H * W, groups, C // groups)
    pivot = v[:, :1, :, :1]
    v = v - pivot
    # In double precision: PyTorch adds numbers that do not lie side by side one after the other, which at 336×336 costs
    # the variance five digits. The kernel adds in a tree.
    sums = [part.sum((1, 3), dtype=torch.float64) for part in (v, v.square())]
    parts = torch.stack(sums, dim=1).float()[..., None]
    return GroupSums(parts, pivot.expand(T, 1, groups, C // groups).reshape(T, C), H * W * (C // groups))


def join_sums(pieces: Sequence[GroupSums]) -> GroupSums:
    """Of consecutive frames; where they have different numbers of parts, the missing ones are zeros."""
    if len(pieces) == 1:
        return pieces[0]
    most = max(p.parts.shape[3] for p in pieces)
    parts = torch.cat([F.pad(p.parts, (0, most - p.parts.shape[3])) for p in pieces])
    return GroupSums(parts, torch.cat([p.pivot for p in pieces]), pieces[0].count)


def scale_and_shift(sums: GroupSums, bias: Tensor, norm: GroupNormWeights) -> tuple[Tensor, Tensor]:
    """Returns fp32 `[T, C]` twice, such that the norm of x + bias is x·scale + shift."""
    (T, C), parts = sums.pivot.shape, sums.parts
    if not takes(parts, C, norm.groups):
        return _scale_and_shift_fallback(sums, bias, norm)
    scale, shift = torch.empty_like(sums.pivot), torch.empty_like(sums.pivot)
    _scale_and_shift[(T, norm.groups)](
        parts, sums.pivot, bias, norm.weight, norm.bias, scale, shift, parts.shape[3], sums.count, norm.eps,
        C, norm.groups, 1024,
    )  # fmt: skip
    return scale, shift


def _scale_and_shift_fallback(sums: GroupSums, bias: Tensor, norm: GroupNormWeights) -> tuple[Tensor, Tensor]:
    T, C = sums.pivot.shape
    mean, square = (sums.parts.sum(3) / sums.count).unbind(1)
    inverse = 1 / torch.sqrt((square - mean * mean).clamp_min(0) + norm.eps)
    mean, inverse = (v[:, :, None].expand(T, norm.groups, C // norm.groups).reshape(T, C) for v in (mean, inverse))
    scale = norm.weight * inverse
    return scale, norm.bias + (bias - sums.pivot - mean) * scale
