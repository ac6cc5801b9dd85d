"""Attention's result from packed windows back to the rows of the token grid, and the text's mean over windows.

The text takes part in every window, and its result is the plain mean. Video rows go straight to their place; text rows
go to one row per window and token, which a second kernel averages in fixed order. On an H100, 3B, 1280×720, 21 frames:
3.1 ms of a step (2.7 TB/s) for both; one kernel whose text rows walk over all windows took 4.2 ms, behind another
2.6 ms for joining the results of several runs of windows, which this takes one by one. The step takes 204 instead of
209 ms.
"""

import triton
import triton.language as tl
from torch import Tensor

from restoration_runner.models.kernels.launch import takes

ROWS, COLUMNS = 8, 512
WINDOWS, MEAN_COLUMNS = 16, 128


@triton.jit(do_not_specialize=["count"], do_not_specialize_on_alignment=["target"])
def _scatter_kernel(packed, target, out, count, width: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr):
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    mask = (row < count)[:, None] & (column < width)[None, :]
    to = tl.load(target + row, mask=row < count, other=0).to(tl.int64)
    value = tl.load(packed + row.to(tl.int64)[:, None] * width + column[None, :], mask=mask)
    tl.store(out + to[:, None] * width + column[None, :], value, mask=mask)


@triton.jit(do_not_specialize=["windows", "tokens"])
def _mean_kernel(words, windows, tokens, width: tl.constexpr, block: tl.constexpr, columns: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    total = tl.zeros((columns,), tl.float32)
    for first in range(0, windows, block):
        window = first + tl.arange(0, block)
        mask = (window < windows)[:, None] & (column < width)[None, :]
        place = (window.to(tl.int64)[:, None] * tokens + token) * width + column[None, :]
        total += tl.sum(tl.load(words + place, mask=mask, other=0.0).to(tl.float32), axis=0)
    # Only this program reads the first window's row in these columns, and it has read it.
    tl.store(words + token * width + column, (total / windows).to(words.dtype.element_ty), mask=column < width)


def scatter_rows(packed: Tensor, target: Tensor, out: Tensor) -> None:
    """`out[target[i]] = packed[i]`; rows `[n, width]`, target int32 `[n]` without repetition."""
    count, width = packed.shape
    if takes(packed):
        grid = (triton.cdiv(count, ROWS), triton.cdiv(width, COLUMNS))
        _scatter_kernel[grid](packed, target, out, count, width, ROWS, COLUMNS, num_warps=4)
    else:
        out[target] = packed


def mean_over_windows(words: Tensor, *, windows: int) -> None:
    """`words [windows·L, width]`, window after window: the first L rows become the mean over windows, in place."""
    width = words.shape[1]
    tokens = len(words) // windows
    if takes(words):
        grid = (tokens, triton.cdiv(width, MEAN_COLUMNS))
        _mean_kernel[grid](words, windows, tokens, width, WINDOWS, MEAN_COLUMNS, num_warps=4)
    else:
        words[:tokens] = words.float().view(windows, tokens, width).mean(dim=0)
