"""Index tables of packed windows: a pure function of the token grid and the kind of window, built once and kept.

Windows of equal length lie side by side, so each length is one batch of attention without padding. A rotation depends
on the window's shape only, and there are few shapes: their tables are joined, and a row says which line is its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from restoration_runner.models.kernels.window_gather import GatherTables
from restoration_runner.models.seedvr2.attention import RopeSpec
from restoration_runner.models.seedvr2.rope import rotation
from restoration_runner.models.seedvr2.windows import Grid, Window, partition


@dataclass(frozen=True)
class WindowRun:
    """Windows of equal length, one after another: packed rows from `first` on; `length` includes the text.

    number: of the first of these windows.
    """

    first: int
    number: int
    windows: int
    length: int

    @property
    def rows(self) -> int:
        return self.windows * self.length


@dataclass(frozen=True)
class PackedWindows:
    """One partition of a token grid of N tokens, with L text tokens in every window.

    gather: source row and rotation of each packed row. target `[packed]` int32: a video row's place 0..N-1 in the
    grid, a text row's place N + window·L + token. borders `[count + 1]` int32: first packed row of each window, then
    their end. count: number of windows.
    """

    gather: GatherTables
    target: Tensor
    borders: Tensor
    runs: tuple[WindowRun, ...]
    count: int

    def batches(self, rows: int | None) -> list[list[WindowRun]]:
        """Runs in order, in lists of at most `rows` packed rows (at least one window); None for one list."""
        if rows is None:
            return [list(self.runs)]
        batches: list[list[WindowRun]] = []
        free = 0
        for run in _split(self.runs, rows):
            if not batches or run.rows > free:
                batches.append([])
                free = rows
            batches[-1].append(run)
            free -= run.rows
        return batches


def _split(runs: Iterable[WindowRun], rows: int) -> Iterable[WindowRun]:
    """Runs longer than `rows` in pieces of whole windows."""
    for run in runs:
        most = max(1, rows // run.length)
        for start in range(0, run.windows, most):
            windows = min(most, run.windows - start)
            yield WindowRun(run.first + start * run.length, run.number + start, windows, run.length)


def pack_windows(
    grid: Grid, nominal: Sequence[int], *, shifted: bool, rope: RopeSpec, device: torch.device
) -> PackedWindows:
    """Tables for one token grid and one kind of window."""
    windows = sorted(partition(grid, nominal, shifted=shifted), key=_by_length)
    tokens = torch.arange(grid[0] * grid[1] * grid[2]).view(grid)
    words, total = torch.arange(rope.text_tokens), tokens.numel()
    angles, cos, sin = _rotations(windows, rope)
    source, target, angle, lengths = [], [], [], []
    for number, window in enumerate(windows):
        inside = tokens[window.t0 : window.t1, window.h0 : window.h1, window.w0 : window.w1].reshape(-1)
        lengths.append(len(inside) + len(words))
        source += [inside, total + words]
        target += [inside, total + number * len(words) + words]
        angle.append(angles[window.shape] + torch.arange(lengths[-1]))
    gather = GatherTables(
        source=_indices(source, device),
        angle=_indices(angle, device),
        cos=cos.to(device),
        sin=sin.to(device),
        text_from=total,
    )
    borders = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
    return PackedWindows(gather, _indices(target, device), borders, _runs(lengths), len(windows))


def _indices(parts: Sequence[Tensor], device: torch.device) -> Tensor:
    return torch.cat(list(parts)).to(device, torch.int32)


def _by_length(window: Window) -> tuple[int, Grid]:
    t, h, w = window.shape
    return (-t * h * w, window.shape)


def _rotations(windows: Sequence[Window], rope: RopeSpec) -> tuple[dict[Grid, int], Tensor, Tensor]:
    """First line of each shape in the joined tables, and the tables."""
    first, lines = {}, 0
    tables = []
    for shape in dict.fromkeys(window.shape for window in windows):
        tables.append(rotation(rope.rule, rope.rope_dim, rope.head_dim, shape, rope.text_tokens))
        first[shape] = lines
        lines += len(tables[-1][0])
    cos, sin = (torch.cat(parts).contiguous() for parts in zip(*tables, strict=True))
    return first, cos, sin


def _runs(lengths: Sequence[int]) -> tuple[WindowRun, ...]:
    runs: list[WindowRun] = []
    first = 0
    for number, length in enumerate(lengths):
        if runs and runs[-1].length == length:
            runs[-1] = replace(runs[-1], windows=runs[-1].windows + 1)
        else:
            runs.append(WindowRun(first, number, 1, length))
        first += length
    return tuple(runs)
