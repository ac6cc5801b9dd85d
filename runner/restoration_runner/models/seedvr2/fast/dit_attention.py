"""Window attention over packed rows: gather, attend, scatter.

Which attention is a rule of the token grid and of the GPU's generation, never of a clock, and the same for all parts of
a layer. cuDNN computes one run of equal windows a call, PyTorch's flash attention windows of all lengths in one. On an
H100, one layer of 3B, GPU time: 720p, 21 frames 404 us by runs and 641 us in one call; 81 frames, shifted 2463 and
3931 us; 1080p, shifted, 15 runs 869 and 1178 us. But a call of cuDNN takes the host 130 us, and a shape that it sees
first 65 ms, so runs must be worth it: 720p, shifted, 12 runs 409 and 471 us; one picture, 2 runs 63 and 87 us.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from restoration_runner.models.kernels.window_gather import gather_windows
from restoration_runner.models.kernels.window_scatter import mean_over_windows, scatter_rows
from restoration_runner.models.seedvr2.attention import attend
from restoration_runner.models.seedvr2.fast.dit_weights import Vectors
from restoration_runner.models.seedvr2.fast.dit_windows import PackedWindows, WindowRun

FLASH, CUDNN = (8, 0), (9, 0)
"""Compute capabilities from which each is used: where they exist, and where cuDNN's was measured to be faster."""

WORTH_A_CALL = 16e9
"""Operations: where a run has fewer of them on average, all windows are one call of variable lengths."""


def packed_attention(
    held: list[Tensor],
    vectors: Vectors,
    windows: PackedWindows,
    *,
    heads: int,
    eps: float,
    text_tokens: int,
    batch_rows: int | None,
) -> Tensor:
    """`qkv [N + L, 3·inner]` to `[N + L, inner]`: video rows in raster order, then the text's mean over windows.

    held: qkv alone, taken out of the list so that its memory is free as soon as the last rows are gathered.
    """
    qkv = held.pop()
    tokens, inner = len(qkv) - text_tokens, qkv.shape[1] // 3
    mixed = None
    batches = windows.batches(batch_rows)
    for batch in batches:
        first, count = batch[0].first, sum(run.rows for run in batch)
        q, k, v = gather_windows(
            qkv, vectors.q_norm, vectors.k_norm, windows.gather, first=first, count=count, heads=heads, eps=eps
        )
        if batch is batches[-1]:
            del qkv
        if mixed is None:
            mixed = q.new_empty(tokens + windows.count * text_tokens, inner)
        _attend_batch(q, k, v, batch, windows, mixed)
        del q, k, v  # before the next batch's are made
    assert mixed is not None  # a grid has at least one window
    mean_over_windows(mixed[tokens:], windows=windows.count)
    return mixed[: tokens + text_tokens]


def _attend_batch(
    q: Tensor, k: Tensor, v: Tensor, batch: Sequence[WindowRun], windows: PackedWindows, mixed: Tensor
) -> None:
    """`[rows, heads, head_dim]` each; the results go to their places in `mixed`."""
    first = batch[0].first
    if not _runs_are_long(windows, q.shape[1] * q.shape[2]) and _is_fast(q, FLASH):
        out = attend_lengths(q, k, v, batch, windows.borders).flatten(1)
        scatter_rows(out, windows.target[first : first + len(out)], mixed)
        return
    for run in batch:
        start, stop = run.first - first, run.first - first + run.rows
        out = attend_run(q[start:stop], k[start:stop], v[start:stop], run)
        scatter_rows(out, windows.target[run.first : run.first + run.rows], mixed)


def _runs_are_long(windows: PackedWindows, inner: int) -> bool:
    return sum(4 * inner * run.windows * run.length**2 for run in windows.runs) >= WORTH_A_CALL * len(windows.runs)


def attend_lengths(q: Tensor, k: Tensor, v: Tensor, batch: Sequence[WindowRun], borders: Tensor) -> Tensor:
    """Windows of any lengths in one call."""
    begin, end = batch[0].number, batch[-1].number + batch[-1].windows
    inside = borders[begin : end + 1] - batch[0].first
    return _flash(q, k, v, inside, max(run.length for run in batch))


def _flash(q: Tensor, k: Tensor, v: Tensor, borders: Tensor, longest: int) -> Tensor:
    out: Tensor = torch.ops.aten._flash_attention_forward(
        q, k, v, borders, borders, longest, longest, 0.0, False, False, scale=q.shape[-1] ** -0.5
    )[0]
    return out


def attend_run(q: Tensor, k: Tensor, v: Tensor, run: WindowRun) -> Tensor:
    """Windows of one length, to `[rows, heads·head_dim]`.

    cuDNN is called by name because PyTorch does not choose it in deterministic mode; that concerns its backward pass.
    """
    q, k, v = (x.unflatten(0, (run.windows, run.length)).transpose(1, 2) for x in (q, k, v))
    out: Tensor
    if _is_fast(q, CUDNN):
        out = torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, False)[0]
    else:
        out = attend(q, k, v)
    return out.transpose(1, 2).reshape(run.rows, -1)


def _is_fast(q: Tensor, capability: tuple[int, int]) -> bool:
    """Whether a fused attention of that generation takes these heads here."""
    if not q.is_cuda or q.dtype not in (torch.bfloat16, torch.float16):
        return False
    return q.shape[-1] % 8 == 0 and q.shape[-1] <= 128 and torch.cuda.get_device_capability(q.device) >= capability
