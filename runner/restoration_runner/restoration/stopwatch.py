"""How long a stage was busy, on the host or on the GPU.

The host only queues the GPU's work: a host clock around a call measures how long the queueing took. So the GPU's own
clock is read, by events in its queue; what it finds between two of them includes the time in which it had nothing to
do because the host was late, and that belongs to the stage.
"""

import time
from collections.abc import Iterator
from typing import Protocol, Self, TypeVar

import torch

from restoration_runner.restoration.copies import is_gpu

T = TypeVar("T")


class Stopwatch(Protocol):
    """Adds up the time of one stage."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def milliseconds(self) -> int:
        """Of all the passes that are over; the GPU must have come to the end of them."""
        ...


class HostStopwatch:
    """By the host's clock."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def __enter__(self) -> Self:
        self._begun = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._seconds += time.perf_counter() - self._begun

    @property
    def milliseconds(self) -> int:
        return round(self._seconds * 1000)


class GpuStopwatch:
    """By the GPU's clock: from when it had done what was queued before a pass to when it had done the pass itself."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.current_stream(device)
        self._passes: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def __enter__(self) -> Self:
        self._begun = self._mark()
        return self

    def __exit__(self, *_: object) -> None:
        self._passes.append((self._begun, self._mark()))

    @property
    def milliseconds(self) -> int:
        spent: list[float] = [begun.elapsed_time(ended) for begun, ended in self._passes]
        return round(sum(spent))

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(self._stream)
        return event


def stopwatch(device: torch.device) -> Stopwatch:
    """For work on `device`."""
    return GpuStopwatch(device) if is_gpu(device) else HostStopwatch()


def timed(items: Iterator[T], watch: Stopwatch) -> Iterator[T]:
    """The same items, with the time it takes to get them."""
    while True:
        with watch:
            item = next(items, None)
        if item is None:
            return
        yield item
