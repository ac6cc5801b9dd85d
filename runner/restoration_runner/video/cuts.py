"""Where one scene ends and the next begins: a simple measure, named and versioned, that rather misses a cut than
invents one.

A missed cut costs a soft first frame of the new scene (context crosses it). An invented cut is a cold start in the
middle of a shot, which shows. So a cut must be large, must stand out from its neighbours, and must last: a flash, a
dropped frame or an explosion looks like a cut for one or two frames, but the picture before it comes back.

Everything is counted in integers, so the same frames give the same cuts on every machine. Changing anything here that
can move a cut means a new `NAME`: it is in the plan and in the cache key.
"""

import itertools
import math
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from restoration_runner.video.pixels import Plane

BLOCKS_WIDE: Final = 16
BLOCKS_HIGH: Final = 12
SAMPLES_PER_BLOCK: Final = 8
"""At most 8×8 samples of each block are looked at: 12,288 in all, whatever the size of the frame."""
BINS: Final = 32

THRESHOLD: Final = 0.14
"""Least distance across a cut. Pans and handheld action stay below 0.1, cuts between shots lie at 0.15 to 0.5."""
LASTING: Final = 0.75
"""How much of the threshold must remain between pictures further apart: the flash test."""
OUTSTANDING: Final = 2.0
"""A cut is at least this many times as far as any neighbouring step: in fast action every step is large."""
REACH: Final = 3
"""Frames on each side of a cut that are looked at, hence the shortest scene."""


@dataclass(frozen=True)
class Cut:
    """`frame` is the first of the new scene; `score` is the distance across, 0 to 1."""

    frame: int
    score: float


@dataclass(frozen=True)
class Signature:
    """A frame, as small as the measure needs it: block means ×1, and a histogram of luma."""

    blocks: NDArray[np.int64]
    histogram: NDArray[np.int64]


def signature(luma: Plane, *, bit_depth: int) -> Signature:
    """Summary of a luma plane `[H, W]` (integers of `bit_depth` bits)."""
    height, width = luma.shape
    high, wide = min(BLOCKS_HIGH, height), min(BLOCKS_WIDE, width)
    step_y = max(1, height // (high * SAMPLES_PER_BLOCK))
    step_x = max(1, width // (wide * SAMPLES_PER_BLOCK))
    picked = luma[::step_y, ::step_x]
    rows, columns = picked.shape[0] // high, picked.shape[1] // wide
    values = picked[: rows * high, : columns * wide].astype(np.int64) >> (bit_depth - 8)
    values = np.clip(values, 0, 255)
    blocks = values.reshape(high, rows, wide, columns).sum(axis=(1, 3)) // (rows * columns)
    return Signature(blocks=blocks.ravel(), histogram=np.bincount(values.ravel() * BINS >> 8, minlength=BINS))


def distance(a: Signature, b: Signature) -> float:
    """How different two pictures are, 0 to 1: the geometric mean of "other places" and "other brightnesses".

    Motion changes the places and keeps the brightnesses; a fade changes the brightnesses little by little; only
    another picture changes both at once.
    """
    places = int(np.abs(a.blocks - b.blocks).sum()) / (255 * a.blocks.size)
    brightnesses = int(np.abs(a.histogram - b.histogram).sum()) / (2 * int(a.histogram.sum()))
    return math.sqrt(places * brightnesses)


class CutDetector:
    """Feed it every frame in order; `cuts` holds what is certain so far. Memory: six signatures."""

    def __init__(self) -> None:
        self.cuts: list[Cut] = []
        self._recent: deque[Signature] = deque(maxlen=2 * REACH)
        self._count = 0

    def push(self, frame: Signature) -> None:
        self._recent.append(frame)
        self._count += 1
        if len(self._recent) == 2 * REACH:
            score = cut_score(list(self._recent))
            if score is not None:
                self.cuts.append(Cut(frame=self._count - REACH, score=round(score, 4)))


def cut_score(frames: list[Signature]) -> float | None:
    """The distance across the middle of six frames if it is a cut, else None."""
    before, after = frames[:REACH], frames[REACH:]
    score = distance(before[-1], after[0])
    if score < THRESHOLD:
        return None
    steps = [distance(a, b) for side in (before, after) for a, b in itertools.pairwise(side)]
    if score < OUTSTANDING * max(steps):
        return None
    # A flash returns to what was: then some picture after it resembles one from before it.
    lasting = min(distance(a, b) for a in before for b in after)
    return score if lasting >= LASTING * THRESHOLD else None
