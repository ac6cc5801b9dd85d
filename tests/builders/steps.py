"""Every step of a process in one folder, numbered, and a real death at one of them.

The interpreter tells of every file that is opened, renamed or removed (`sys.addaudithook`), so a process can be killed
between any two steps of a protocol that is made of files, without a hook in product code. The hook stays for the life
of a process: it is for processes that are started to die, or to be counted.
"""

import os
import signal
import sys
import threading
from pathlib import Path

EVENTS = frozenset({"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir"})


class Steps:
    """Counts steps from 1; the process dies by SIGKILL just before the `fatal` one is done."""

    def __init__(self, *, fatal: int | None) -> None:
        self._fatal = fatal
        self._lock = threading.RLock()
        self.count = 0

    def happened(self, _: str = "") -> None:
        """One more step, whatever it is."""
        with self._lock:
            self.count += 1
            if self.count == self._fatal:
                os.kill(os.getpid(), signal.SIGKILL)
                signal.pause()  # the signal may take a moment to arrive at this thread

    def watch(self, folder: Path) -> None:
        """Count what is done to files below a folder from now on."""
        top = str(folder)

        def heard(event: str, arguments: tuple[object, ...]) -> None:
            path = arguments[0] if event in EVENTS else None
            if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(top):
                self.happened()

        sys.addaudithook(heard)
