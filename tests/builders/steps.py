"""Every step of a process in one folder or on the network, numbered, and a real death at one of them.

The interpreter tells of every file that is opened, renamed or removed and of everything that is sent by HTTP
(`sys.addaudithook`), so a process can be killed between any two steps of a protocol that is made of files or of
requests, without a hook in product code. The hooks stay for the life of a process: it is for processes that are started
to die, or to be counted.
"""

import http.client
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

    def watch_requests(self) -> None:
        """Count, from now on, every piece of every HTTP request before it is sent, and every answer that has come.

        A request's body is a piece of its own: death before it leaves the server with a request that is cut off. Death
        while an answer is awaited is no step: the server either has carried the request out by then or has not, and
        both are steps already, without the race.
        """

        def heard(event: str, _: tuple[object, ...]) -> None:
            if event == "http.client.send":
                self.happened()

        answered = http.client.HTTPConnection.getresponse

        def then_counted(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
            response = answered(connection)
            self.happened()
            return response

        sys.addaudithook(heard)
        http.client.HTTPConnection.getresponse = then_counted  # type: ignore[method-assign]
