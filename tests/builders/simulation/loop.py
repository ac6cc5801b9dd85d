"""An event loop whose clock jumps to the next timer instead of waiting for it, and dice that need no state."""

from __future__ import annotations

import asyncio
import selectors
import zlib
from typing import Any, NoReturn

_MASK = (1 << 64) - 1
TICK_SECONDS = 1e-6


class _NoWaiting(selectors.SelectSelector):
    """Never looks at a file: nothing simulated has one. Waiting is what moves the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen again: a coroutine waits for what nobody does")
        if timeout > 0:
            self.now += timeout + TICK_SECONDS  # a little too late, as clocks are: what was due then is due
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0 and moves only when nothing is left to do at the present moment."""

    def __init__(self) -> None:
        self._clock = _NoWaiting()
        super().__init__(self._clock)
        self._clock_resolution = TICK_SECONDS / 2

    def time(self) -> float:
        return self._clock.now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> NoReturn:
        """Hours may pass here while a thread does nothing yet: what it does would come at another time in every run."""
        raise RuntimeError(f"{func} in a thread: the clock is simulated, threads are not")

    def run_for(self, seconds: float) -> None:
        """Let so much time pass."""
        self.run_until_complete(asyncio.sleep(seconds))


def noise(*parts: Any) -> float:
    """A number in [0, 1) that depends on the parts alone: chance without a state that one more draw would shift."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        number = part if isinstance(part, int) else zlib.crc32(str(part).encode())
        state = (state ^ number) * 0xBF58476D1CE4E5B9 & _MASK
        state ^= state >> 29
        state = state * 0x94D049BB133111EB & _MASK
        state ^= state >> 32
    return (state >> 11) / (1 << 53)
