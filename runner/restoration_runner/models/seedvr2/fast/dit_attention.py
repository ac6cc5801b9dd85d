"""Window attention over packed rows: gather, attend each run of equal windows, scatter."""

import torch
from torch import Tensor

from restoration_runner.models.kernels.window_gather import gather_windows
from restoration_runner.models.kernels.window_scatter import mean_over_windows, scatter_rows
from restoration_runner.models.seedvr2.attention import attend
from restoration_runner.models.seedvr2.fast.dit_weights import Vectors
from restoration_runner.models.seedvr2.fast.dit_windows import PackedWindows, WindowRun

HOPPER = (9, 0)


def packed_attention(
    qkv: Tensor,
    vectors: Vectors,
    windows: PackedWindows,
    *,
    heads: int,
    eps: float,
    text_tokens: int,
    batch_rows: int | None,
) -> Tensor:
    """`qkv [N + L, 3·inner]` to `[N + L, inner]`: video rows in raster order, then the text's mean over windows."""
    tokens, inner = len(qkv) - text_tokens, qkv.shape[1] // 3
    mixed = qkv.new_empty(tokens + windows.count * text_tokens, inner)
    for batch in windows.batches(batch_rows):
        first, count = batch[0].first, sum(run.rows for run in batch)
        q, k, v = gather_windows(
            qkv, vectors.q_norm, vectors.k_norm, windows.gather, first=first, count=count, heads=heads, eps=eps
        )
        for run in batch:
            start = run.first - first
            stop = start + run.rows
            out = attend_run(q[start:stop], k[start:stop], v[start:stop], run)
            scatter_rows(out, windows.target[run.first : run.first + run.rows], mixed)
    mean_over_windows(mixed[tokens:], windows=windows.count)
    return mixed[: tokens + text_tokens]


def attend_run(q: Tensor, k: Tensor, v: Tensor, run: WindowRun) -> Tensor:
    """`[rows, heads, head_dim]` each, whole windows side by side, to `[rows, heads·head_dim]`."""
    q, k, v = (x.unflatten(0, (run.windows, run.length)).transpose(1, 2) for x in (q, k, v))
    out = _cudnn(q, k, v) if _has_fast_cudnn(q) else attend(q, k, v)
    return out.transpose(1, 2).reshape(run.rows, -1)


def _has_fast_cudnn(q: Tensor) -> bool:
    """cuDNN's attention was 15.5 ms where PyTorch's flash attention was 20.6 (3B, 720p, 21 frames, H100).

    By compute capability, never by clock. It is called by name because PyTorch does not choose it in deterministic
    mode: that concerns its backward pass.
    """
    if not q.is_cuda or q.dtype not in (torch.bfloat16, torch.float16):
        return False
    return q.shape[-1] % 8 == 0 and q.shape[-1] <= 128 and torch.cuda.get_device_capability(q.device) >= HOPPER


def _cudnn(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out: Tensor = torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, False)[0]
    return out
