"""q, k and v of packed windows from the rows of a qkv product: gathered, q and k normalised and rotated, in one pass.

A packed row is a token of some window: video tokens of a window side by side, then all text tokens, once per window.
As PyTorch operations this is a gather, two norms, two rotations and three copies to the layout that attention wants.
On an H100: 272 us a layer of the 3B network (1280×720, 21 frames), 2.65 TB/s; a program for each head, which reads a
row's rotation again, took 322 us. Other numbers of rows and warps gave 272 to 485 us. The step takes 207 instead of
363 ms.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from restoration_runner.models.kernels.launch import takes

ROWS = 16


@dataclass(frozen=True)
class GatherTables:
    """Where packed rows come from and how they are rotated.

    source `[packed]` int32: row of the product, video rows first, text rows from `text_from` on. angle `[packed]`
    int32: row of `cos` and `sin`, fp32 `[angles, head_dim/2]`.
    """

    source: Tensor
    angle: Tensor
    cos: Tensor
    sin: Tensor
    text_from: int


@triton.jit
def _norm_rotate_store(
    read, write, weight, cos, sin, mask, eps,
    rows: tl.constexpr, head_dim: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    value = tl.load(read, mask=mask, other=0.0).to(tl.float32)
    inverse = 1.0 / tl.sqrt(tl.sum(value * value, axis=1) / head_dim + eps)
    value = value * inverse[:, None] * weight
    even, odd = tl.split(tl.reshape(value, (rows, block // 2, 2)))
    rotated = tl.join(even * cos - odd * sin, even * sin + odd * cos)
    tl.store(write, tl.reshape(rotated, (rows, block)).to(write.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["count", "text_from"], do_not_specialize_on_alignment=["source", "angle"])
def _kernel(
    qkv, q_weight, k_weight, source, angle, cos, sin, q, k, v, count, text_from, eps,
    heads: tl.constexpr, head_dim: tl.constexpr, block: tl.constexpr, rows: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    row_mask = row < count
    taken = tl.load(source + row, mask=row_mask, other=0)
    turned = tl.load(angle + row, mask=row_mask, other=0).to(tl.int64)
    pair = tl.arange(0, block // 2)
    pair_mask = row_mask[:, None] & (pair < head_dim // 2)[None, :]
    pairs = turned[:, None] * (head_dim // 2) + pair[None, :]
    row_cos = tl.load(cos + pairs, mask=pair_mask, other=1.0)
    row_sin = tl.load(sin + pairs, mask=pair_mask, other=0.0)
    column = tl.arange(0, block)
    column_mask = column < head_dim
    mask = row_mask[:, None] & column_mask[None, :]
    stream = (taken >= text_from).to(tl.int32)[:, None] * head_dim + column[None, :]
    row_q = tl.load(q_weight + stream, mask=mask, other=0.0)
    row_k = tl.load(k_weight + stream, mask=mask, other=0.0)
    read = qkv + taken.to(tl.int64)[:, None] * (3 * heads * head_dim) + column[None, :]
    write = row.to(tl.int64)[:, None] * (heads * head_dim) + column[None, :]
    for head in range(heads):
        here = read + head * head_dim
        there = write + head * head_dim
        _norm_rotate_store(here, q + there, row_q, row_cos, row_sin, mask, eps, rows, head_dim, block)
        here += heads * head_dim
        _norm_rotate_store(here, k + there, row_k, row_cos, row_sin, mask, eps, rows, head_dim, block)
        here += heads * head_dim
        tl.store(v + there, tl.load(here, mask=mask, other=0.0), mask=mask)


def gather_windows(
    qkv: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    tables: GatherTables,
    *,
    first: int,
    count: int,
    heads: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v `[count, heads, head_dim]` of the packed rows from `first` on.

    qkv `[rows, 3·heads·head_dim]`; weights of the two norms fp32 `[2, head_dim]`: video, text.
    """
    head_dim = q_weight.shape[1]
    source, angle = tables.source[first : first + count], tables.angle[first : first + count]
    if not takes(qkv):
        return _plain(qkv, q_weight, k_weight, tables, source, angle, heads, eps)
    q, k, v = (qkv.new_empty(count, heads, head_dim) for _ in range(3))
    _kernel[(triton.cdiv(count, ROWS),)](
        qkv, q_weight, k_weight, source, angle, tables.cos, tables.sin, q, k, v, count, tables.text_from, eps,
        heads, head_dim, triton.next_power_of_2(head_dim), ROWS, num_warps=8,
    )  # fmt: skip
    return q, k, v


def _plain(
    qkv: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    tables: GatherTables,
    source: Tensor,
    angle: Tensor,
    heads: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = qkv.index_select(0, source).unflatten(-1, (3, heads, -1)).unbind(1)
    is_text = (source >= tables.text_from)[:, None]
    cos, sin = tables.cos.index_select(0, angle)[:, None], tables.sin.index_select(0, angle)[:, None]
    q, k = (
        _turned(x.float(), torch.where(is_text, weight[1], weight[0])[:, None], cos, sin, eps).to(qkv.dtype)
        for x, weight in ((q, q_weight), (k, k_weight))
    )
    return q, k, v.contiguous()


def _turned(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    normed = x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps) * weight
    even, odd = normed.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
