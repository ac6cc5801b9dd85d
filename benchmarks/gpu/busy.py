"""When the GPU worked, from a trace of its own: CUPTI's records of kernels and copies, through torch.profiler."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

LISTED = 12
"""Kernels that are named: those that took most."""


@dataclass(frozen=True)
class Busy:
    """Milliseconds from the first kernel's start to the last one's end, and of them those in which any ran.

    begun_ms: when that was, since the epoch. kernels: by name, the milliseconds of the most expensive ones.
    """

    begun_ms: float
    span_ms: float
    busy_ms: float
    longest_gap_ms: float
    kernels: dict[str, float]

    @property
    def share(self) -> float:
        return self.busy_ms / self.span_ms if self.span_ms else 0.0


def traced(work: Callable[[], object]) -> Busy:
    """Run `work` and see when the GPU was busy. Adds a few percent to the host's time of starting a kernel."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True) as profiler:
        work()
        torch.cuda.synchronize()
    inner: Any = profiler.profiler
    events = [event for event in inner.kineto_results.events() if "CUDA" in str(event.device_type())]
    return summed([(event.start_ns() / 1e6, event.duration_ns() / 1e6, event.name()) for event in events])


def summed(events: list[tuple[float, float, str]]) -> Busy:
    """Of records (start, duration, name) in milliseconds that may overlap."""
    if not events:
        return Busy(0.0, 0.0, 0.0, 0.0, {})
    by_name: Counter[str] = Counter()
    busy = gap = 0.0
    begun = end = min(start for start, _, _ in events)
    for start, duration, name in sorted(events):
        by_name[name] += duration  # type: ignore[assignment]
        gap = max(gap, start - end)
        busy += max(0.0, start + duration - max(start, end))
        end = max(end, start + duration)
    kernels = {name[:100]: float(spent) for name, spent in by_name.most_common(LISTED)}
    return Busy(begun, end - begun, busy, gap, kernels)
