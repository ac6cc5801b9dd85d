"""How a token grid is cut into attention windows.

The released networks take their window side from the grid a 720p picture of the same shape would have (45 × 80 tokens),
so a window covers the same picture area at every resolution. Odd layers use windows shifted by half a side; border
windows are then smaller, nothing wraps around and nothing is masked.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

TOKENS_AT_720P = 45 * 80
# Longer clips do not get longer windows: the window's time side is derived from at most this many latent frames.
LONGEST_TIME_GRID = 30

Grid = tuple[int, int, int]


class Window(NamedTuple):
    """Half-open box of tokens."""

    t0: int
    t1: int
    h0: int
    h1: int
    w0: int
    w1: int

    @property
    def shape(self) -> Grid:
        return (self.t1 - self.t0, self.h1 - self.h0, self.w1 - self.w0)


def window_sides(grid: Grid, nominal: Grid) -> Grid:
    """Tokens per window along (time, height, width). `round` is half to even, as in the released code."""
    t, h, w = grid
    scale = math.sqrt(TOKENS_AT_720P / (h * w))
    return (
        math.ceil(min(t, LONGEST_TIME_GRID) / nominal[0]),
        math.ceil(round(h * scale) / nominal[1]),
        math.ceil(round(w * scale) / nominal[2]),
    )


def cut_axis(size: int, side: int, *, shifted: bool) -> list[tuple[int, int]]:
    """Half-open pieces of one axis. Shifted cuts lie at floor((2i+1)·side/2); empty pieces are dropped."""
    if not shifted:
        cuts = list(range(0, size, side))
    elif side >= size:
        cuts = [0]
    else:
        inner = ((2 * i + 1) * side // 2 for i in range(size // side + 1))
        cuts = sorted({0, *(cut for cut in inner if cut < size)})
    return list(zip(cuts, [*cuts[1:], size], strict=True))


def partition(grid: Grid, nominal: Sequence[int], *, shifted: bool) -> list[Window]:
    """All windows of a grid: width index outermost, then height, time innermost."""
    sides = window_sides(grid, (nominal[0], nominal[1], nominal[2]))
    times, rows, columns = (cut_axis(size, side, shifted=shifted) for size, side in zip(grid, sides, strict=True))
    return [Window(*t, *h, *w) for w in columns for h in rows for t in times]
