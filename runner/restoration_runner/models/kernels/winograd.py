"""Winograd's F(4, 3) over time: four frames of a causal convolution with three taps by six products instead of twelve.

Six maps are sums of six normalised input frames, each map is convolved in two dimensions with a sum of the three taps,
and each of four output frames is a sum of the six results (Winograd 1980; Lavin and Gray, arXiv:1509.09308). The points
are 0, 1, -1, 1/2, -2 and infinity: of those tried, the least rounding error in bf16. What surrounds the transforms
anyway, norm and SiLU before, bias, residual and the next norm's sums after, is part of their passes.

Measured on one H100 in bf16, a residual block, ms a frame: 2.49 instead of 3.04 with rings for 128 channels of
1280×720, 1.93 instead of 2.63 for 256 of 640×360, 1.50 instead of 2.40 for 512 of 320×180; then the passes were tuned
from 2.1-2.6 to 2.75-2.96 of the 3.0 TB/s of a copy, another 0.1 to 0.2 ms. The encoder takes 212 instead of 1257 ms,
the decoder 447 instead of 2215; with rings they take 297 and 611.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from restoration_runner.models.kernels.group_sums import GroupSums, group_sums, store_sums
from restoration_runner.models.kernels.launch import PROGRAMS, takes

FRAMES = 4
MAPS = 6
_INPUT = (
    (1 / 2, -3 / 4, -1, 3 / 4, 1 / 2, 0),
    (0, -1 / 3, 1 / 6, 5 / 6, 1 / 3, 0),
    (0, -1 / 3, 5 / 6, -1 / 6, -1 / 3, 0),
    (0, 16 / 15, 8 / 15, -16 / 15, -8 / 15, 0),
    (0, 8 / 15, -16 / 15, -8 / 15, 16 / 15, 0),
    (0, 1 / 2, -3 / 4, -1, 3 / 4, 1 / 2),
)
"""Maps by input frames, the two earlier ones first. The kernels spell out the same numbers."""
_TAPS = ((2, 0, 0), (1, 1, 1), (1, -1, 1), (2, 1, 1 / 2), (1 / 16, -1 / 8, 1 / 4), (0, 0, 2))
"""Maps by taps over time."""
_OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 1 / 2, -2, 0), (0, 1, 1, 1 / 4, 4, 0), (0, 1, -1, 1 / 8, -8, 1))
"""Output frames by maps."""


_WARPS = 4
_TILE_ELEMENTS = 1024
"""Of frames from maps: 16 bytes for each thread and map, ten reads at a time, and 20 warps on a multiprocessor."""


@dataclass(frozen=True)
class Raw:
    """Frames before norm and SiLU: x `[T, H, W, C]`, each frame contiguous; scale, shift `[T, C]` fp32, contiguous."""

    x: Tensor
    scale: Tensor
    shift: Tensor

    def __getitem__(self, frames: slice) -> "Raw":
        return Raw(self.x[frames], self.scale[frames], self.shift[frames])

    def __len__(self) -> int:
        return self.x.shape[0]

    def twice(self) -> "Raw":
        """One frame as two, x without a copy."""
        return Raw(self.x.expand(2, *self.x.shape[1:]), self.scale.repeat(2, 1), self.shift.repeat(2, 1))

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.x, self.scale, self.shift


def map_weights(weight: Tensor) -> list[Tensor]:
    """`[O, C, 3, 3, 3]` to one fp64 `[O, C, 1, 3, 3]` for each map."""
    taps = weight.double().movedim(2, 0)
    maps = torch.tensordot(taps.new_tensor(_TAPS), taps, 1)
    return list(maps[:, :, :, None].unbind(0))


@triton.jit
def _normalised(v, scale, shift):
    # scale and shift are read for every row, in the tile's own layout: a row of them would go through shared memory, at
    # two barriers each. SiLU with 2^x: exp would have its small results put right, which sigmoid does not need.
    v = v.to(tl.float32) * tl.load(scale) + tl.load(shift)
    return v / (1.0 + tl.exp2(v * -1.4426950408889634))


@triton.jit
def _read_four(at, distance, inside):
    # Distances are added one by one: multiples of them may not fit 32 bits.
    v0 = tl.load(at, mask=inside, other=0.0)
    at += distance
    v1 = tl.load(at, mask=inside, other=0.0)
    at += distance
    v2 = tl.load(at, mask=inside, other=0.0)
    at += distance
    v3 = tl.load(at, mask=inside, other=0.0)
    return v0, v1, v2, v3, at + distance


@triton.jit
def _to_maps(
    past, past_scale, past_shift, x, scale, shift, maps, P, fours, frame, past_frame, x_frame, map_size,
    C: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    rows = tl.arange(0, TILE)
    r = tl.program_id(0) * TILE + rows
    inside = (r < P)[:, None]
    at = r.to(tl.int64)[:, None] * C + tl.arange(0, C)[None, :]
    c = rows[:, None] * 0 + tl.arange(0, C)[None, :]
    past += at
    x += at
    maps += at
    # Every frame is read before anything is computed, or the reads would wait for one another.
    r0 = tl.load(past, mask=inside, other=0.0)
    r1 = tl.load(past + past_frame, mask=inside, other=0.0)
    d0 = _normalised(r0, past_scale + c, past_shift + c)
    d1 = _normalised(r1, past_scale + C + c, past_shift + C + c)
    for _ in range(fours):
        r2, r3, r4, r5, x = _read_four(x, x_frame, inside)
        d2 = _normalised(r2, scale + c, shift + c)
        d3 = _normalised(r3, scale + C + c, shift + C + c)
        d4 = _normalised(r4, scale + 2 * C + c, shift + 2 * C + c)
        d5 = _normalised(r5, scale + 3 * C + c, shift + 3 * C + c)
        to = maps
        tl.store(to, (0.5 * (d0 + d4) + 0.75 * (d3 - d1) - d2).to(maps.dtype.element_ty), mask=inside)
        to += map_size
        tl.store(to, ((2 * (d4 - d1) + d2 + 5 * d3) * (1 / 6)).to(maps.dtype.element_ty), mask=inside)
        to += map_size
        tl.store(to, ((5 * d2 - 2 * (d1 + d4) - d3) * (1 / 6)).to(maps.dtype.element_ty), mask=inside)
        to += map_size
        tl.store(to, ((2 * (d1 - d3) + d2 - d4) * (8 / 15)).to(maps.dtype.element_ty), mask=inside)
        to += map_size
        tl.store(to, ((d1 - d3 + 2 * (d4 - d2)) * (8 / 15)).to(maps.dtype.element_ty), mask=inside)
        to += map_size
        tl.store(to, (0.5 * (d1 + d5) + 0.75 * (d4 - d2) - d3).to(maps.dtype.element_ty), mask=inside)
        maps += frame
        scale += 4 * C
        shift += 4 * C
        d0 = d4
        d1 = d5


def to_maps(past: Raw, new: Raw) -> Tensor:
    """Maps `[6, fours, H, W, C]` of silu(x·scale + shift): past two frames, new 4·fours ones."""
    T, H, W, C = new.x.shape
    maps = new.x.new_empty((MAPS, T // FRAMES, H, W, C))
    if not takes(new.x, C):
        maps.copy_(_to_maps_fallback(past, new))
        return maps
    tile = max(1, _TILE_ELEMENTS // 2 // C)  # smaller: six maps are made of it, and nothing is kept
    _to_maps[(triton.cdiv(H * W, tile),)](
        past.x, past.scale, past.shift, new.x, new.scale, new.shift, maps, H * W, T // FRAMES,
        H * W * C, past.x.stride(0), new.x.stride(0), maps.stride(0), C, tile, num_warps=_WARPS,
    )  # fmt: skip
    return maps


def _to_maps_fallback(past: Raw, new: Raw) -> Tensor:
    x, scale, shift = (torch.cat(pair).float() for pair in zip(past.parts, new.parts, strict=True))
    d = F.silu(x * scale[:, None, None] + shift[:, None, None])
    frames = torch.stack([d[i : i + len(new) - FRAMES + 1 : FRAMES] for i in range(MAPS)])
    maps: Tensor = torch.tensordot(d.new_tensor(_INPUT), frames, 1)
    return maps


@triton.jit
def _one_frame(
    v, x, b, y, offset, inside, s, q,
    TILE: tl.constexpr, C: tl.constexpr, EACH: tl.constexpr,
    RESIDUAL: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    if RESIDUAL:
        v += x.to(tl.float32) + b
    v = v.to(y.dtype.element_ty)
    tl.store(y, v, mask=inside)
    if SUMS:
        v = tl.where(inside, v.to(tl.float32) + offset, 0.0)
        v = tl.reshape(v, (TILE, C // EACH, EACH))
        s += tl.sum(v, axis=2)
        q += tl.sum(v * v, axis=2)
    return s, q


@triton.jit
def _near_values(bias, maps, x, map_size, first_of_group, RESIDUAL: tl.constexpr):
    """Any number near the values will do, equal within a group: one for all four frames."""
    near = tl.load(bias + first_of_group)
    if RESIDUAL:
        near += tl.load(x + first_of_group).to(tl.float32)
    else:
        at = maps + first_of_group
        for _ in tl.static_range(5):
            near += tl.load(at).to(tl.float32)
            at += map_size
    return near


@triton.jit
def _to_frames(
    maps, x, bias, y, parts, pivot, P, W, frame, map_size, y_frame, y_row, y_pixel,
    C: tl.constexpr, G: tl.constexpr, TILE: tl.constexpr, EACH: tl.constexpr,
    RESIDUAL: tl.constexpr, SUMS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """EACH: so many neighbouring channels, of one group and one thread, are added before they are kept: of eight times
    [TILE, C] numbers to keep, registers would be left for 8 warps a multiprocessor. WIDE: a frame has 2^31 elements."""
    part = tl.program_id(0)
    four = tl.num_programs(1) - 1 - tl.program_id(1)
    GROUP: tl.constexpr = C // G
    c = tl.arange(0, C)
    r = tl.arange(0, TILE)
    first_of_group = (c // GROUP) * GROUP
    b = tl.load(bias + c)[None, :]
    from_maps = maps + four.to(tl.int64) * P * C
    from_x = x + 4 * four.to(tl.int64) * P * C
    to = y + 4 * four.to(tl.int64) * y_frame
    near = _near_values(bias, from_maps, from_x, map_size, first_of_group, RESIDUAL)
    offset = -near[None, :] if RESIDUAL else b - near[None, :]
    zero = tl.zeros((TILE, C // EACH), tl.float32)
    s0, q0, s1, q1, s2, q2, s3, q3 = zero, zero, zero, zero, zero, zero, zero, zero
    last = (P - 1) // TILE
    for tile in range(part, last + 1, tl.num_programs(0)):
        p = (last - tile) * TILE + r
        inside = (p < P)[:, None]
        at = (p.to(tl.int64) if WIDE else p)[:, None] * C + c[None, :]
        y_at = to + ((p // W).to(tl.int64) * y_row + (p % W).to(tl.int64) * y_pixel)[:, None] + c[None, :]
        m = from_maps + at
        # Everything is read before anything is written: no read overtakes a write, for all the compiler knows.
        m0, m1, m2, m3, m = _read_four(m, map_size, inside)
        m4 = tl.load(m, mask=inside, other=0.0).to(tl.float32)
        m5 = tl.load(m + map_size, mask=inside, other=0.0)
        x0, x1, x2, x3 = m0, m0, m0, m0
        if RESIDUAL:
            x0, x1, x2, x3, _ = _read_four(from_x + at, frame, inside)
        m1, m2, m3 = m1.to(tl.float32), m2.to(tl.float32), m3.to(tl.float32)
        even = m1 + m2
        odd = m1 - m2
        v = m0.to(tl.float32) + even + (m3 + m4)
        s0, q0 = _one_frame(v, x0, b, y_at, offset, inside, s0, q0, TILE, C, EACH, RESIDUAL, SUMS)
        y_at += y_frame
        v = odd + 0.5 * m3 - 2 * m4
        s1, q1 = _one_frame(v, x1, b, y_at, offset, inside, s1, q1, TILE, C, EACH, RESIDUAL, SUMS)
        y_at += y_frame
        v = even + 0.25 * m3 + 4 * m4
        s2, q2 = _one_frame(v, x2, b, y_at, offset, inside, s2, q2, TILE, C, EACH, RESIDUAL, SUMS)
        y_at += y_frame
        v = odd + 0.125 * m3 - 8 * m4 + m5.to(tl.float32)
        s3, q3 = _one_frame(v, x3, b, y_at, offset, inside, s3, q3, TILE, C, EACH, RESIDUAL, SUMS)
    if SUMS:
        n = tl.num_programs(0)
        store_sums(s0, q0, near, parts, pivot, 4 * four, part, n, C, G, EACH)
        store_sums(s1, q1, near, parts, pivot, 4 * four + 1, part, n, C, G, EACH)
        store_sums(s2, q2, near, parts, pivot, 4 * four + 2, part, n, C, G, EACH)
        store_sums(s3, q3, near, parts, pivot, 4 * four + 3, part, n, C, G, EACH)


def to_frames(
    maps: Tensor, bias: Tensor, y: Tensor, *, residual: Tensor | None = None, groups: int | None = None
) -> GroupSums | None:
    """Fill `y [4·fours, H', W', C]`, any distances, H' ≥ H, W' ≥ W, from `maps [6, fours, H, W, C]`: the values.

    With a residual `[4·fours, H, W, C]` (contiguous): value + residual + bias. groups: returns sums, of y with a
    residual, of y + bias without one (see `Activation`). bias `[C]` fp32.
    """
    _, fours, H, W, C = maps.shape
    if not takes(maps, C, groups or 1):
        y[:, :H, :W] = _to_frames_fallback(maps, bias, residual)
        return None if groups is None else group_sums(y, bias * (residual is None), groups)
    rows = max(1, _TILE_ELEMENTS // C)
    programs = min(triton.cdiv(H * W, rows), max(1, PROGRAMS // fours))
    together = min(8, C // (groups or 1))
    parts = maps.new_empty((FRAMES * fours, 2, groups or 1, programs), dtype=torch.float32)
    pivot = maps.new_empty((FRAMES * fours, C), dtype=torch.float32)
    _to_frames[(programs, fours)](
        maps, maps if residual is None else residual, bias, y, parts, pivot, H * W, W, H * W * C, maps.stride(0),
        *y.stride()[:3], C, groups or 1, rows, together, residual is not None, groups is not None, H * W * C >= 2**31,
        num_warps=_WARPS,
    )  # fmt: skip
    return None if groups is None else GroupSums(parts, pivot, H * W * (C // groups))


def _to_frames_fallback(maps: Tensor, bias: Tensor, residual: Tensor | None) -> Tensor:
    factors = torch.tensor(_OUTPUT, device=maps.device)
    v: Tensor = torch.tensordot(factors, maps.float(), 1).transpose(0, 1).flatten(0, 1)
    return v if residual is None else v + (residual.float() + bias)
