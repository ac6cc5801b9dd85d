"""A limit on how often something may happen, evenly spaced."""

import time
from collections.abc import Callable


class Pace:
    """A token bucket that holds one token: the strictest form, without bursts."""

    def __init__(self, *, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._spacing_seconds = 1 / per_second
        self._clock = clock
        self._next = clock()

    def claim(self) -> float:
        """Take the next place; returns the seconds to wait until it comes."""
        now = self._clock()
        place = max(now, self._next)
        self._next = place + self._spacing_seconds
        return place - now

    def try_claim(self) -> bool:
        """Take a place if it is free now."""
        if self._next > self._clock():
            return False
        self.claim()
        return True
