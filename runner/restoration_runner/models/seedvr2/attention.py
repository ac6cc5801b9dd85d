"""Softmax attention: inside windows for the transformer, over one frame for the VAE.

Windows are independent, so windows of equal shape are computed as one batch. A `Layout` holds the index and rotation
tables of one token grid; it is a pure function of the grid and is built once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from restoration_runner.models.seedvr2.config import RopeRule
from restoration_runner.models.seedvr2.half import unit_scale
from restoration_runner.models.seedvr2.rope import rotate, rotation
from restoration_runner.models.seedvr2.windows import Grid, partition

# Some attention backends materialise the scores. Queries are split so that this stays below one GiB of fp32; the split
# is exact in mathematics.
MAX_SCORES = 2**28


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Full softmax attention `[B, heads, n, D]`, scale 1/sqrt(D), no mask."""
    scores = q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
    if scores <= MAX_SCORES:
        return F.scaled_dot_product_attention(q, k, v)
    # Equal chunks: unequal ones were measured up to four times slower on a GPU.
    pieces = q.chunk(-(-scores // MAX_SCORES), dim=2)
    return torch.cat([F.scaled_dot_product_attention(piece, k, v) for piece in pieces], dim=2)


@dataclass(frozen=True)
class WindowGroup:
    """Windows of equal shape.

    numbers: their places in the order of `partition`. index `[windows, n]`: video tokens in raster order of the grid.
    cos, sin `[n + L, head_dim/2]`: rotation of the packed sequence.
    """

    numbers: tuple[int, ...]
    index: Tensor
    cos: Tensor
    sin: Tensor

    def to(self, device: torch.device) -> "WindowGroup":
        return WindowGroup(self.numbers, self.index.to(device), self.cos.to(device), self.sin.to(device))


@dataclass(frozen=True)
class WindowLayout:
    """One partition of a token grid. `inverse [N]`: where each token is found in the groups' concatenated tokens."""

    groups: tuple[WindowGroup, ...]
    inverse: Tensor
    count: int


@dataclass(frozen=True)
class RopeSpec:
    """What the rotation tables depend on besides the window's shape."""

    rule: RopeRule
    rope_dim: int
    head_dim: int
    text_tokens: int


def window_layout(
    grid: Grid, nominal: Sequence[int], *, shifted: bool, rope: RopeSpec, device: torch.device
) -> WindowLayout:
    """Tables for one token grid and one kind of window, windows of equal shape side by side."""
    windows = partition(grid, nominal, shifted=shifted)
    tokens = torch.arange(grid[0] * grid[1] * grid[2]).view(grid)
    by_shape: dict[Grid, list[int]] = {}
    for number, window in enumerate(windows):
        by_shape.setdefault(window.shape, []).append(number)
    groups = []
    for shape, numbers in by_shape.items():
        boxes = [windows[number] for number in numbers]
        index = torch.stack([tokens[b.t0 : b.t1, b.h0 : b.h1, b.w0 : b.w1].reshape(-1) for b in boxes])
        cos, sin = rotation(rope.rule, rope.rope_dim, rope.head_dim, shape, rope.text_tokens)
        groups.append(WindowGroup(tuple(numbers), index, cos, sin))
    order = torch.cat([group.index.reshape(-1) for group in groups])
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order))
    return WindowLayout(tuple(group.to(device) for group in groups), inverse.to(device), len(windows))


def window_attention(
    video: Tensor, text: Tensor, layout: WindowLayout, *, products: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Attention of every window over its own video tokens and all text tokens.

    video `[B, N, 3, heads, D]` and text `[B, L, 3, heads, D]` hold normalised, not yet rotated q and k, and v. Returns
    video `[B, N, heads·D]` in raster order and text `[B, L, heads·D]`, the plain mean of the text's rows over windows.
    products: type of the two matrix products, where it is not that of the activations (`half.py`).
    """
    video_out: list[Tensor] = []
    text_sum: Tensor | None = None
    for group in layout.groups:
        mixed, words = _attend_group(video, text, group, products)
        video_out.append(mixed.flatten(1, 2))
        total = words.sum(dim=1)
        text_sum = total if text_sum is None else text_sum + total
    assert text_sum is not None  # a grid has at least one window
    tokens = torch.cat(video_out, dim=1).index_select(1, layout.inverse)
    return tokens.flatten(2), (text_sum / layout.count).to(text.dtype).flatten(2)


def _attend_group(video: Tensor, text: Tensor, group: WindowGroup, products: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns video rows `[B, windows, n, heads, D]` and text rows `[B, windows, L, heads, D]` (fp32 for the mean)."""
    B = text.shape[0]
    count, n = group.index.shape
    rows = video.index_select(1, group.index.reshape(-1)).unflatten(1, (count, n))
    words = text.unsqueeze(1).expand(B, count, *text.shape[1:])
    packed = torch.cat([rows, words], dim=2).flatten(0, 1)
    q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
    q, k = rotate(q, group.cos, group.sin), rotate(k, group.cos, group.sin)
    out = attend(q, k, v) if v.dtype is products else _attend_half(q, k, v)
    out = out.transpose(1, 2).unflatten(0, (B, count))
    return out[:, :, :n], out[:, :, n:].float()


def _attend_half(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """fp32 in and out, fp16 products: q and k are normalised, v is brought into range."""
    scale = unit_scale(v)
    half = [x.to(torch.float16) for x in (q, k, v / scale)]
    return attend(*half).float() * scale
