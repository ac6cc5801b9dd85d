"""The transformer's kernels beside their plain expressions: `TRITON_INTERPRET=1 python -m tests.model.dit_kernels`.

Prints the largest error of each case as JSON. A program of its own because Triton reads the variable when a kernel is
defined. Without it, and on a machine with a GPU, the same cases run there.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from restoration_runner.models.kernels import dequantise, gated_mlp, modulated_norm, window_gather, window_scatter
from restoration_runner.models.kernels.gated_mlp import swiglu_in_place
from restoration_runner.models.kernels.modulated_norm import add_gated, add_gated_and_norm, norm_modulated
from restoration_runner.models.kernels.window_gather import GatherTables, gather_windows
from restoration_runner.models.kernels.window_scatter import mean_over_windows, scatter_rows
from restoration_runner.models.seedvr2.config import DitConfig, dit_3b_rules, dit_7b_rules
from restoration_runner.models.seedvr2.dit import NaDiT
from restoration_runner.models.seedvr2.fast.dit import FastDit
from restoration_runner.models.seedvr2.fp8 import quantise
from tests.model.kernel_cases import DEVICE, Draw, Run, print_errors

MODULES = (dequantise, gated_mlp, modulated_norm, window_gather, window_scatter)


def norm(draw: Draw, rows: int, width: int, text_from: int) -> list[Tensor]:
    x, out = draw.rows(rows, width), draw.rows(rows, width)
    norm_modulated(
        x, scale=draw.vectors(2, width), shift=draw.vectors(2, width), text_from=text_from, eps=1e-5, out=out
    )
    return [x, out]


def add(draw: Draw, rows: int, width: int, text_from: int) -> list[Tensor]:
    x, update = draw.rows(rows, width), draw.rows(rows, width)
    add_gated(x, update, bias=None, gate=draw.vectors(2, width), text_from=text_from)
    return [x, update]


def add_and_norm(draw: Draw, rows: int, width: int, text_from: int) -> list[Tensor]:
    x, update = draw.rows(rows, width), draw.rows(rows, width)
    bias, gate, scale, shift = (draw.vectors(2, width) for _ in range(4))
    add_gated_and_norm(
        x, update, bias=bias, gate=gate, scale=scale, shift=shift, text_from=text_from, eps=1e-5, out=update
    )
    return [x, update]


def eight_bits(draw: Draw, rows: int, columns: int) -> list[Tensor]:
    out = draw.rows(rows, columns)
    dequantise.dequantise(*quantise(draw.rows(rows, columns)), out=out)
    return [out]


def swiglu(draw: Draw, rows: int, hidden: int) -> list[Tensor]:
    return [swiglu_in_place(draw.rows(rows, 2 * hidden))]


def gather(draw: Draw, packed: int, heads: int, head_dim: int, first: int, count: int) -> list[Tensor]:
    rows, text_from, lines = 23, 18, 9
    angles = draw.vectors(lines, head_dim // 2)
    tables = GatherTables(draw.places(packed, rows), draw.places(packed, lines), angles.cos(), angles.sin(), text_from)
    qkv = draw.rows(rows, 3 * heads * head_dim)
    weights = draw.vectors(2, head_dim), draw.vectors(2, head_dim)
    return list(gather_windows(qkv, *weights, tables, first=first, count=count, heads=heads, eps=1e-5))


def scatter(draw: Draw, rows: int, width: int) -> list[Tensor]:
    out = draw.rows(rows + 5, width)
    order = torch.randperm(rows + 5, generator=torch.Generator().manual_seed(1))
    scatter_rows(draw.rows(rows, width), order[:rows].to(DEVICE, torch.int32), out)
    return [out]


def mean(draw: Draw, windows: int, tokens: int, width: int) -> list[Tensor]:
    words = draw.rows(windows * tokens, width)
    mean_over_windows(words, windows=windows)
    return [words[:tokens]]


def network(draw: Draw, config: DitConfig) -> list[Tensor]:
    """Windows of several lengths; every kernel in its place, against the same network without kernels."""
    torch.manual_seed(0)
    model = FastDit(NaDiT(config).to(DEVICE, draw.dtype))
    video, text = draw.rows(1, 2, 4, 8, config.in_channels), draw.rows(1, 3, config.text_width)
    return [model(video, text, torch.full((1,), 1000.0, device=DEVICE))]


SMALL_3B = dit_3b_rules(width=48, heads=2, head_dim=24, layers=2, separate_layers=1, text_width=24, expand_ratio=2)
SMALL_7B = dit_7b_rules(width=32, heads=2, head_dim=16, layers=2, text_width=24, expand_ratio=2)
FP32, BF16 = torch.float32, torch.bfloat16

Case = tuple[str, torch.dtype, Run]


def cases() -> Iterator[Case]:
    """Sizes that are no powers of two, borders inside a block, empty streams and both types."""
    yield "norm", FP32, lambda d: norm(d, 5, 48, 3)
    yield "norm without text", FP32, lambda d: norm(d, 3, 64, 3)
    yield "norm in bf16", BF16, lambda d: norm(d, 4, 40, 2)
    yield "add", FP32, lambda d: add(d, 5, 48, 0)
    yield "add and norm", FP32, lambda d: add_and_norm(d, 6, 48, 4)
    yield "add and norm in bf16", BF16, lambda d: add_and_norm(d, 6, 192, 4)
    yield "swiglu", FP32, lambda d: swiglu(d, 3, 1100)
    yield "swiglu in bf16", BF16, lambda d: swiglu(d, 3, 256)
    yield "gather", FP32, lambda d: gather(d, 37, 2, 32, 0, 37)
    yield "gather, odd head", FP32, lambda d: gather(d, 20, 3, 24, 0, 20)
    yield "gather, part", FP32, lambda d: gather(d, 37, 1, 128, 11, 19)
    yield "gather in bf16", BF16, lambda d: gather(d, 20, 2, 64, 0, 20)
    yield "eight bits", FP32, lambda d: eight_bits(d, 5, 1100)
    yield "eight bits to bf16", BF16, lambda d: eight_bits(d, 3, 64)
    yield "scatter", FP32, lambda d: scatter(d, 21, 48)
    yield "scatter in bf16", BF16, lambda d: scatter(d, 9, 520)
    yield "mean", FP32, lambda d: mean(d, 3, 4, 48)
    yield "mean over many windows", FP32, lambda d: mean(d, 35, 2, 130)
    yield "network 3b", FP32, lambda d: network(d, SMALL_3B)
    yield "network 7b", FP32, lambda d: network(d, SMALL_7B)
    yield "mean in bf16", BF16, lambda d: mean(d, 17, 3, 32)


if __name__ == "__main__":
    print_errors(cases(), MODULES)
