"""The clocks: one of decisions, one of leadership."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


def utc_now() -> datetime:
    """The time in whole seconds, as Kubernetes stores it: what is written compares equal to what is read back."""
    return datetime.now(UTC).replace(microsecond=0)


def boot_seconds() -> float:
    """Seconds of a clock that nobody sets and that goes on while the machine is suspended, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True)
class Clocks:
    """What the process goes by; a simulation has its own."""

    now: Callable[[], datetime] = utc_now
    """For decisions."""
    seconds: Callable[[], float] = time.monotonic
    """For waiting."""


REAL = Clocks()
