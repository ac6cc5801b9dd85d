"""Rows of the two earlier frames that a convolution in strips needs, on the device or in the host's memory.

Both frames of a `Past` have a slot each; the new frame takes the older one's, strip by strip.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from restoration_runner.models.seedvr2.fast.vae_state import Past


@dataclass(frozen=True)
class Strip:
    """Rows `first … last` of an output and the rows `start … stop` of its input that exist."""

    first: int
    last: int
    start: int
    stop: int

    def buffer(self, frames: int, like: Tensor) -> Tensor:
        """`[frames, rows + 2, W, C]`, with zeros where the frame ends."""
        buffer = like.new_empty((frames, self.last - self.first + 2, *like.shape[2:]))
        if self.start == self.first:
            buffer[:, 0] = 0
        if self.stop == self.last:
            buffer[:, -1] = 0
        return buffer

    def inside(self, buffer: Tensor) -> Tensor:
        return buffer[:, self.start - self.first + 1 : self.stop - self.first + 1]

    def core(self, buffer: Tensor) -> Tensor:
        return buffer[:, 1:-1]


def strips(height: int, rows: int) -> list[Strip]:
    firsts = range(0, height, rows)
    return [Strip(a, min(a + rows, height), max(a - 1, 0), min(a + rows + 1, height)) for a in firsts]


class DevicePast:
    """Copied on the stream that computes."""

    def __init__(self, past: Past, all_strips: list[Strip], like: Tensor) -> None:
        self.strips, self.like = all_strips, like
        older = past.seen % 2
        self.before_last, self.last = past.frames[older], past.frames[1 - older]

    def load(self, strip: Strip) -> Tensor:
        """A buffer of three frames with the earlier two in it."""
        buffer = strip.buffer(3, self.like)
        inside = strip.inside(buffer)
        for slot, frame in enumerate((self.before_last, self.last)):
            inside[slot].copy_(frame[strip.start : strip.stop], non_blocking=True)
        return buffer

    def store(self, strip: Strip, buffer: Tensor) -> None:
        """The new frame's rows, in the buffer's last slot."""
        self.before_last[strip.first : strip.last].copy_(strip.core(buffer)[2], non_blocking=True)

    def finish(self) -> None:
        """Nothing is under way after this."""


@lru_cache
def side_streams(device: torch.device) -> tuple[torch.cuda.Stream, torch.cuda.Stream]:
    """For loads and stores: always the same two, because each stream keeps freed memory for itself."""
    return torch.cuda.Stream(device), torch.cuda.Stream(device)


class HostPast(DevicePast):
    """Copied beside the computation: a strip ahead from the host, a strip behind to it, each way on a stream."""

    def __init__(self, past: Past, all_strips: list[Strip], like: Tensor) -> None:
        super().__init__(past, all_strips, like)
        self.following = iter(all_strips[1:])
        self.ahead: Tensor | None = None
        if like.is_cuda:
            self.here = torch.cuda.current_stream(like.device)
            self.loads, self.stores = side_streams(like.device)

    def load(self, strip: Strip) -> Tensor:
        if not self.like.is_cuda:
            return super().load(strip)
        buffer = self._load_aside(strip) if self.ahead is None else self.ahead
        self.here.wait_stream(self.loads)
        following = next(self.following, None)
        self.ahead = None if following is None else self._load_aside(following)
        return buffer

    def _load_aside(self, strip: Strip) -> Tensor:
        # The memory may have been an earlier strip's: its convolution and its copy to the host come first.
        self.loads.wait_stream(self.here)
        self.loads.wait_stream(self.stores)
        with torch.cuda.stream(self.loads):
            return super().load(strip)

    def store(self, strip: Strip, buffer: Tensor) -> None:
        if not self.like.is_cuda:
            super().store(strip, buffer)
            return
        self.stores.wait_stream(self.here)
        with torch.cuda.stream(self.stores):
            super().store(strip, buffer)

    def finish(self) -> None:
        if self.like.is_cuda:
            self.here.wait_stream(self.stores)
