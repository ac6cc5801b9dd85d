"""A set of keys to work on, as controllers have it: no key is worked on twice at once, and none waits twice.

A key that is added while it is being worked on is worked on again afterwards, so no change is missed. Failures wait
exponentially longer; connection trouble does not, because it says nothing about the key.
"""

import asyncio
import heapq
import itertools
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

FIRST_BACKOFF_SECONDS: Final = 0.2
LONGEST_BACKOFF_SECONDS: Final = 60.0


class WorkQueue:
    """De-duplicating queue with delays. All methods belong to one event loop."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        is_open: bool = True,
        on_add: Callable[[], None] = lambda: None,
        on_take: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """Not open, it takes nothing in: a replica that only follows the cluster must not pile up work. `on_add` is
        called when a key begins to wait, `on_take` with the seconds it has waited; both for metrics."""
        self._clock = clock
        self._is_open = is_open
        self._on_add = on_add
        self._on_take = on_take
        self._waiting: dict[str, float] = {}
        """Keys ready to be taken, in order, with the time they became so."""
        self._working: dict[str, float] = {}
        """Keys that are worked on, with the time they were taken."""
        self._again: set[str] = set()
        self._delayed: list[tuple[float, int, str]] = []
        self._due: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._order = itertools.count()
        self._changed = asyncio.Event()

    def open(self) -> None:
        """Take keys in from now on; what was added before is not remembered."""
        self._is_open = True

    def add(self, key: str) -> None:
        """Work on `key` as soon as possible."""
        if not self._is_open:
            return
        self._due.pop(key, None)
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting[key] = self._clock()
            self._on_add()
        self._changed.set()

    def add_after(self, key: str, seconds: float) -> None:
        """Work on `key` in so many seconds, or sooner if that is planned already."""
        due = self._clock() + max(0.0, seconds)
        if not self._is_open or due >= self._due.get(key, float("inf")):
            return
        self._due[key] = due
        heapq.heappush(self._delayed, (due, next(self._order), key))
        self._changed.set()

    def retry(self, key: str, *, at_least: float = 0.0) -> float:
        """Work on `key` again after its backoff (0.2 s doubling to 60 s, with jitter); returns the seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        backoff: float = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 20), LONGEST_BACKOFF_SECONDS)
        seconds = max(backoff * random.uniform(0.5, 1.0), at_least)
        self.add_after(key, seconds)
        return seconds

    def forgive(self, key: str) -> None:
        """`key` was worked on without failure: its next backoff starts from the beginning."""
        self._failures.pop(key, None)

    async def take(self) -> str:
        """The next key; it is being worked on until `done`."""
        while True:
            self._changed.clear()
            pause = self._release()
            if self._waiting:
                key = next(iter(self._waiting))
                taken = self._clock()
                self._on_take(taken - self._waiting.pop(key))
                self._working[key] = taken
                if self._waiting:
                    self._changed.set()  # pass it on: clearing it above may have hidden it from another worker
                return key
            # Not `wait_for`: in Python 3.11 it loses a cancellation that comes in the moment a key is added.
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    def done(self, key: str) -> None:
        """Work on `key` has ended; if it was added meanwhile, it waits again."""
        self._working.pop(key, None)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def working_seconds(self) -> tuple[float, ...]:
        """How long each key that is worked on has been so."""
        now = self._clock()
        return tuple(now - taken for taken in self._working.values())

    def _release(self) -> float | None:
        """Move what is due to the waiting keys; returns the seconds until the next one is."""
        while self._delayed:
            due, _, key = self._delayed[0]
            if self._due.get(key) != due:
                heapq.heappop(self._delayed)  # added at once, or planned for sooner, since
                continue
            if due > self._clock():
                return due - self._clock()
            heapq.heappop(self._delayed)
            self.add(key)
        return None
