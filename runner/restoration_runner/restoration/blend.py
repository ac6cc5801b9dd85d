"""Overlapping windows become one stream of latents.

Two windows that cover a latent are two samples of the same picture; their weighted mean hides the seam. Weights depend
on the scene's windows only, never on the segment, so that both neighbours of a segment border compute the same values.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from restoration_runner.restoration.grid import SegmentWork, blend_weight


class WindowBlend:
    """Accumulates in fp32, in window order; holds no more latents than one window has."""

    def __init__(self, work: SegmentWork) -> None:
        self._work = work
        self._sums: dict[int, Tensor] = {}

    def add(self, index: int, x0: Tensor) -> Iterator[Tensor]:
        """Add the result `[W, h, w, C]` of window `index` of the scene; yields the latents `[h, w, C]` it completes.

        Over all calls these are the latents from `work.decode_from` up to the segment's last one, in order.
        """
        window = self._work.scene_windows[index]
        for latent in range(window.start, window.stop):
            weighted = self._weighted(x0[latent - window.start].float(), index, latent)
            present = self._sums.get(latent)
            self._sums[latent] = weighted if present is None else present + weighted
        is_last = index == self._work.needed[-1]
        complete = window.stop if is_last else self._work.scene_windows[index + 1].start
        for latent in sorted(number for number in self._sums if number < complete):
            value = self._sums.pop(latent)
            if self._work.decode_from <= latent < self._work.latents.stop:
                yield value

    def _weighted(self, value: Tensor, index: int, latent: int) -> Tensor:
        windows = self._work.scene_windows
        # Overlaps are shorter than half a window, and only the slid last one meets the window before its neighbour.
        near = range(max(0, index - 2), min(len(windows), index + 3))
        covering = [i for i in near if windows[i].start <= latent < windows[i].stop]
        if len(covering) == 1:
            return value  # copied, not multiplied
        total = sum(blend_weight(windows, i, latent) for i in covering)
        return torch.mul(value, blend_weight(windows, index, latent) / total)
