"""Locks between processes that name their holder.

`flock` is released by the kernel when the holder dies, however it dies, so no lock file ever goes stale. The holder's
name is written into the file: whoever has to wait, or is refused, can be told for whom.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hack.cluster.console import SILENT, Console
from hack.cluster.paths import CHECKOUT


@contextmanager
def file_lock(path: Path, *, purpose: str, console: Console = SILENT) -> Iterator[None]:
    """Hold `path` exclusively; while another process has it, say once whom this one is waiting for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 4096, 0).decode(errors="replace").strip()
            console.say(f"waiting for {path.name}, held by {holder or 'another process'}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} of {CHECKOUT} ({purpose})\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def try_lock(path: Path) -> int | None:
    """Take `path` without waiting. Returns the descriptor that holds it, or None if another process does.

    The lock lasts until the descriptor is closed or the process ends.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def release(descriptor: int) -> None:
    """Give back what `try_lock` returned. Harmless if it was closed already."""
    with suppress(OSError):
        os.close(descriptor)
