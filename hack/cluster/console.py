"""Progress for a person: every step with the time since the command began and the time it took itself.

A cold start compiles Kubernetes, which takes minutes; a line that says what is being waited for is the difference
between "working" and "hung".
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Console:
    """Prints steps to standard error, so that standard output stays free for results such as an image's digest."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._started_at = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line, prefixed by the seconds since this console was made."""
        if not self._quiet:
            print(f"{time.monotonic() - self._started_at:8.1f} s  {text}", file=sys.stderr, flush=True)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Announce a step that may be slow, and say afterwards how long it took (nothing more if it failed)."""
        started_at = time.monotonic()
        self.say(f"{text} …")
        yield
        self.say(f"{text}: {time.monotonic() - started_at:.1f} s")


SILENT = Console(quiet=True)
