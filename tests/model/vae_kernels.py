"""The VAE's kernels beside their fallbacks: `TRITON_INTERPRET=1 python -m tests.model.vae_kernels`.

Prints the largest error of each case as JSON. A program of its own because Triton reads the variable when a kernel is
defined. Without it, and on a machine with a GPU, the same cases run there.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from restoration_runner.models.kernels import (
    group_sums,
    normalise,
    pixel_shuffle,
    residual,
    softmax_rows,
    unfold_taps,
    winograd,
)
from restoration_runner.models.kernels.group_sums import GroupNormWeights, scale_and_shift
from tests.model.kernel_cases import Draw, Run, print_errors

MODULES = (group_sums, normalise, pixel_shuffle, residual, softmax_rows, unfold_taps, winograd)
FP32, BF16 = torch.float32, torch.bfloat16
EPS = 1e-6


def normed(sums: group_sums.GroupSums, bias: Tensor, draw: Draw, groups: int) -> list[Tensor]:
    channels = bias.shape[0]
    return list(
        scale_and_shift(sums, bias, GroupNormWeights(draw.vectors(channels), draw.vectors(channels), groups, EPS))
    )


def statistics(draw: Draw, shape: tuple[int, int, int, int], groups: int, mean: float = 0) -> list[Tensor]:
    x, bias = draw.rows(*shape) + mean, draw.vectors(shape[-1])
    return normed(group_sums.group_sums(x, bias, groups), bias, draw, groups)


def normalised(
    draw: Draw, shape: tuple[int, int, int, int], slot: int, copies: int, *, silu: bool = True
) -> list[Tensor]:
    T, H, W, C = shape
    x, buffer = draw.rows(T, H + 2, W, C)[:, 1:-1], draw.rows(T + slot, H + 1, W, C)[:, 1:]
    normalise.normalise_into(buffer, x, draw.vectors(T, C), draw.vectors(T, C), slot=slot, copies=copies, silu=silu)
    return [buffer]


def side_by_side(draw: Draw, shape: tuple[int, int, int, int]) -> list[Tensor]:
    """Into a ring, whose frames lie side by side as channels."""
    _, H, W, C = shape
    x, ring = draw.rows(*shape), draw.rows(H, W, 3, C).permute(2, 0, 1, 3)
    normalise.normalise_into(ring, x, draw.vectors(1, C), draw.vectors(1, C), slot=1, copies=1)
    residual.add_residual_into(ring, x, draw.rows(*shape), draw.vectors(C), slot=2)
    return [ring]


def added(draw: Draw, shape: tuple[int, int, int, int], groups: int) -> list[Tensor]:
    x, d, bias = draw.rows(*shape), draw.rows(*shape), draw.vectors(shape[-1])
    sums = residual.add_residual(x, d, bias, groups=groups)
    return [d, *normed(sums, torch.zeros_like(bias), draw, groups)]


def added_into(draw: Draw, shape: tuple[int, int, int, int], slot: int, copies: int) -> list[Tensor]:
    T, H, W, C = shape
    buffer = draw.rows(T + slot, H + 1, W + 1, C)
    residual.add_residual_into(buffer, draw.rows(*shape), draw.rows(*shape), draw.vectors(C), slot=slot, copies=copies)
    return [buffer]


def shuffled(draw: Draw, frames: int, size: tuple[int, int], channels: int, r: int, groups: int) -> list[Tensor]:
    H, W = size
    z, table = draw.rows(frames, H + 1, W + 1, 4 * r * channels), draw.vectors(r, 2, 2, 2, 2, channels)
    y = draw.rows(r * frames, 2 * H, 2 * W, channels)
    sums = pixel_shuffle.shuffle_into(y, z, table, groups=groups)
    return [y, *normed(sums, draw.vectors(channels), draw, groups)]


def unfolded(draw: Draw, shape: tuple[int, int, int, int]) -> list[Tensor]:
    return [unfold_taps.unfold_taps(draw.rows(*shape))]


def softmax(draw: Draw, rows: int, width: int) -> list[Tensor]:
    return [softmax_rows.softmax_rows(draw.vectors(rows, width) * 100, 0.1, draw.dtype)]


def mapped(draw: Draw, fours: int, size: tuple[int, int], channels: int, *, at_start: bool = False) -> list[Tensor]:
    H, W = size

    def raw(frames: int) -> winograd.Raw:
        x = draw.rows(frames, H + 2, W, channels)[:, 1:-1]
        return winograd.Raw(x, draw.vectors(frames, channels), draw.vectors(frames, channels))

    past = raw(1).twice() if at_start else raw(2)
    return [winograd.to_maps(past, raw(4 * fours))]


def framed(draw: Draw, fours: int, size: tuple[int, int], channels: int, groups: int, *, onto: bool) -> list[Tensor]:
    H, W = size
    maps, bias = draw.rows(6, fours, H, W, channels), draw.vectors(channels)
    y, x = draw.rows(4 * fours, H, W, channels), draw.rows(4 * fours, H, W, channels) if onto else None
    sums = winograd.to_frames(maps, bias, y, residual=x, groups=groups)
    assert sums is not None
    return [y, *normed(sums, bias * (not onto), draw, groups)]


def framed_into(draw: Draw, fours: int, size: tuple[int, int], channels: int) -> list[Tensor]:
    """Into frames that have a row and a column more."""
    H, W = size
    maps, buffer = draw.rows(6, fours, H, W, channels), draw.rows(4 * fours + 1, H + 1, W + 1, channels)
    winograd.to_frames(maps, draw.vectors(channels), buffer[1:], residual=draw.rows(4 * fours, H, W, channels))
    return [buffer]


Case = tuple[str, torch.dtype, Run]


def cases() -> Iterator[Case]:
    """Sizes that fill no tile, several programs a frame, and both types."""
    yield "statistics", FP32, lambda d: statistics(d, (2, 5, 7, 8), 4)
    yield "statistics of several programs", FP32, lambda d: statistics(d, (1, 70, 33, 8), 2)
    yield "statistics, mean far from zero", FP32, lambda d: statistics(d, (2, 9, 7, 32), 4, mean=50)
    yield "statistics in bf16", BF16, lambda d: statistics(d, (3, 11, 13, 64), 32)
    yield "normalise", FP32, lambda d: normalised(d, (3, 5, 7, 8), 2, 0)
    yield "normalise with copies", FP32, lambda d: normalised(d, (2, 33, 40, 16), 2, 2)
    yield "normalise without SiLU", FP32, lambda d: normalised(d, (1, 3, 3, 4), 0, 0, silu=False)
    yield "normalise in bf16", BF16, lambda d: normalised(d, (2, 5, 7, 64), 1, 1)
    yield "add", FP32, lambda d: added(d, (2, 5, 7, 8), 4)
    yield "add, several programs", FP32, lambda d: added(d, (1, 70, 33, 8), 8)
    yield "add in bf16", BF16, lambda d: added(d, (2, 5, 7, 64), 32)
    yield "add into a room", FP32, lambda d: added_into(d, (2, 5, 7, 8), 1, 0)
    yield "add into a room with copies", BF16, lambda d: added_into(d, (2, 33, 17, 16), 2, 2)
    yield "into a ring", FP32, lambda d: side_by_side(d, (1, 40, 21, 8))
    yield "shuffle in space", FP32, lambda d: shuffled(d, 2, (9, 5), 8, 1, 4)
    yield "shuffle in space and time", FP32, lambda d: shuffled(d, 2, (3, 4), 16, 2, 2)
    yield "shuffle of one row", FP32, lambda d: shuffled(d, 1, (1, 1), 8, 2, 4)
    yield "shuffle in bf16", BF16, lambda d: shuffled(d, 1, (10, 70), 64, 1, 32)
    yield "unfold", FP32, lambda d: unfolded(d, (5, 7, 20, 3))
    yield "unfold one column", BF16, lambda d: unfolded(d, (3, 5, 1, 4))
    yield "maps of four frames", FP32, lambda d: mapped(d, 1, (5, 7), 8)
    yield "maps at a start", FP32, lambda d: mapped(d, 2, (9, 5), 4, at_start=True)
    yield "maps in bf16", BF16, lambda d: mapped(d, 2, (7, 6), 32)
    yield "frames of maps", FP32, lambda d: framed(d, 1, (5, 7), 8, 4, onto=False)
    yield "frames of maps, several programs", FP32, lambda d: framed(d, 2, (40, 33), 8, 2, onto=False)
    yield "frames of maps onto others", FP32, lambda d: framed(d, 2, (9, 7), 16, 4, onto=True)
    yield "frames of maps in bf16", BF16, lambda d: framed(d, 1, (5, 7), 64, 32, onto=True)
    yield "frames of maps into a room", BF16, lambda d: framed_into(d, 2, (5, 7), 8)
    yield "softmax", FP32, lambda d: softmax(d, 3, 5000)
    yield "softmax in bf16", BF16, lambda d: softmax(d, 4, 35)


if __name__ == "__main__":
    print_errors(cases(), MODULES)
