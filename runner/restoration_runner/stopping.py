"""Being told to stop: SIGTERM from Kubernetes, Ctrl-C from a person.

Python runs signal handlers between bytecodes of the main thread, and the main thread may be inside one long native
call. The wakeup descriptor is written by the C handler at once, so a thread of our own learns of the signal in time:
it sets a flag that the work checks at every frame, and ends the process when the flag was not enough. Ending it so is
safe: everything that counts is already in storage, and every step of the commit survives a kill.
"""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator

GRACE_SECONDS = 20.0
"""Kubernetes kills 30 seconds after SIGTERM; ten are left for the last words."""


class InterruptedByRequestError(Exception):
    """The work was told to stop; finished segments are kept."""


class StopSignal:
    """A flag that says whether to stop, and which signal set it."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._number = int(signal.SIGTERM)

    def set(self, number: int = signal.SIGTERM) -> None:
        if not self._event.is_set():
            self._number = number
        self._event.set()

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that ended because of a signal: 143 after SIGTERM, 130 after Ctrl-C."""
        return 128 + self._number

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raises:
        InterruptedByRequestError: it is time to stop.
        """
        if self._event.is_set():
            raise InterruptedByRequestError


@contextlib.contextmanager
def watching(
    stop: StopSignal, *, signals: tuple[signal.Signals, ...], last_words: Callable[[], None]
) -> Iterator[None]:
    """Turn signals into `stop`; after the grace period say the last words and end the process.

    Must be entered on the main thread.
    """
    receiving, sending = socket.socketpair()
    sending.setblocking(False)
    finished = threading.Event()

    def watch() -> None:
        while number := receiving.recv(1):
            if number[0] in signals:
                stop.set(number[0])
                if not finished.wait(GRACE_SECONDS):
                    last_words()
                    os._exit(stop.exit_code)
                return

    before = signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
    # A Python-level handler must exist, or the default action ends the process at once.
    handlers = {number: signal.signal(number, lambda number, _: stop.set(number)) for number in signals}
    watcher = threading.Thread(target=watch, name="signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sending.close()
        watcher.join(1.0)
        receiving.close()
