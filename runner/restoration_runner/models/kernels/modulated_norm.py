"""Residual addition, RMSNorm and modulation of two streams in one pass over the rows.

Written as PyTorch operations this is six passes over `[rows, width]`; here each value is read once and written once.
Rows from `text_from` on belong to the text and take the second row of every vector. On an H100 the pass runs at the
memory's speed, 2.9 TB/s, whatever the number of warps: 14.6 ms of a 206 ms step of the 3B network with its residual
stream in fp32 (1280×720, 21 frames, 64 calls), which otherwise takes 328 ms.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from restoration_runner.models.kernels.launch import takes


@triton.jit(do_not_specialize=["text_from"])
def _kernel(
    x, update, bias, gate, scale, shift, out, text_from, eps,
    width: tl.constexpr, block: tl.constexpr, ADDS: tl.constexpr, BIASED: tl.constexpr, NORMS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    mask = column < width
    vector = tl.where(row >= text_from, width, 0) + column
    value = tl.load(x + row * width + column, mask=mask, other=0.0).to(tl.float32)
    if ADDS:
        added = tl.load(update + row * width + column, mask=mask, other=0.0).to(tl.float32)
        if BIASED:
            added += tl.load(bias + vector, mask=mask, other=0.0)
        value += added * tl.load(gate + vector, mask=mask, other=0.0)
        rounded = value.to(x.dtype.element_ty)
        tl.store(x + row * width + column, rounded, mask=mask)
        value = rounded.to(tl.float32)  # what the next layer will read is what is normalised
    if NORMS:
        inverse = 1.0 / tl.sqrt(tl.sum(value * value, axis=0) / width + eps)
        factor = tl.load(scale + vector, mask=mask, other=0.0)
        value = value * inverse * factor + tl.load(shift + vector, mask=mask, other=0.0)
        tl.store(out + row * width + column, value.to(out.dtype.element_ty), mask=mask)


def add_gated(x: Tensor, update: Tensor, *, bias: Tensor | None, gate: Tensor, text_from: int) -> None:
    """`x += (update + bias) · gate` in place, `x` and `update` `[rows, width]`, vectors fp32 `[2, width]`."""
    if takes(x):
        _launch(x, update, bias, gate, None, None, None, text_from, 0.0)
    else:
        _add(x, update, bias, gate, text_from)


def norm_modulated(x: Tensor, *, scale: Tensor, shift: Tensor, text_from: int, eps: float, out: Tensor) -> None:
    """`out = RMSNorm(x) · scale + shift`, `x` and `out` `[rows, width]`, vectors fp32 `[2, width]`."""
    if takes(x):
        _launch(x, None, None, None, scale, shift, out, text_from, eps)
    else:
        _norm(x, scale, shift, text_from, eps, out)


def add_gated_and_norm(
    x: Tensor,
    update: Tensor,
    *,
    bias: Tensor | None,
    gate: Tensor,
    scale: Tensor,
    shift: Tensor,
    text_from: int,
    eps: float,
    out: Tensor,
) -> None:
    """`add_gated`, then `norm_modulated` of the sum; `out` may be `update`."""
    if takes(x):
        _launch(x, update, bias, gate, scale, shift, out, text_from, eps)
    else:
        _add(x, update, bias, gate, text_from)
        _norm(x, scale, shift, text_from, eps, out)


def _launch(
    x: Tensor,
    update: Tensor | None,
    bias: Tensor | None,
    gate: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    out: Tensor | None,
    text_from: int,
    eps: float,
) -> None:
    rows, width = x.shape
    _kernel[(rows,)](
        x, update, bias, gate, scale, shift, out, text_from, eps, width, triton.next_power_of_2(width),
        ADDS=update is not None, BIASED=bias is not None, NORMS=out is not None, num_warps=4,
    )  # fmt: skip


def per_stream(rows: Tensor, text_from: int, vector: Tensor) -> Tensor:
    """The vector of each row `[rows, width]`, as the kernels pick it."""
    is_text = torch.arange(len(rows), device=rows.device) >= text_from
    return torch.where(is_text[:, None], vector[1], vector[0])


def _add(x: Tensor, update: Tensor, bias: Tensor | None, gate: Tensor, text_from: int) -> None:
    added = update.float()
    if bias is not None:
        added = added + per_stream(x, text_from, bias)
    x.copy_(x.float() + added * per_stream(x, text_from, gate))


def _norm(x: Tensor, scale: Tensor, shift: Tensor, text_from: int, eps: float, out: Tensor) -> None:
    wide = x.float()
    normed = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
    out.copy_(normed * per_stream(x, text_from, scale) + per_stream(x, text_from, shift))
