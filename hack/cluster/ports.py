"""Free TCP ports that stay ours between choosing them and listening on them.

Binding port 0 and closing the socket again hands out a port that the next process, or any outgoing connection, may get
before the server starts: with several control planes on a loaded machine that happens. So ports come from a range below
the kernel's ephemeral ports, and each is guarded by a file lock for as long as the cluster lives.
"""

from __future__ import annotations

import os
import random
import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from hack.cluster.errors import ClusterError
from hack.cluster.locks import release, try_lock

# Linux hands out ephemeral ports from 32768 on; below 20000 live well-known services.
FIRST_PORT, LAST_PORT = 20_000, 32_000
_IP_FREEBIND = 15  # from linux/in.h; Python 3.11 has no name for it


class PortLeases:
    """Ports reserved by this process until `close` (or its death)."""

    def __init__(self, *, address: str = "127.0.0.1", folder: Path | None = None) -> None:
        self._address = address
        self._folder = folder or Path(tempfile.gettempdir()) / f"video-restoration-ports-{os.getuid()}"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._descriptors: list[int] = []

    def take(self) -> int:
        """Reserve one port that no other lease holder has and nothing listens on."""
        candidates = list(range(FIRST_PORT, LAST_PORT))
        random.shuffle(candidates)
        for port in candidates:
            descriptor = try_lock(self._folder / str(port))
            if descriptor is None:
                continue
            if port_is_free(self._address, port):
                self._descriptors.append(descriptor)
                return port
            release(descriptor)
        raise ClusterError(
            f"No TCP port between {FIRST_PORT} and {LAST_PORT} is free on {self._address}; end some servers."
        )

    def close(self) -> None:
        """Give all ports back."""
        while self._descriptors:
            release(self._descriptors.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def port_is_free(address: str, port: int, *, kind: socket.SocketKind = socket.SOCK_STREAM) -> bool:
    """Whether a server could listen on `address:port` now, even if this machine gets the address only later."""
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind is socket.SOCK_STREAM:
            # A server that has just ended leaves connections behind; they do not keep the next one from listening.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
