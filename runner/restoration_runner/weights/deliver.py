"""Filling a model folder from afar, so that it is there complete and checked or not at all.

On a pod's own volume that is simple. A volume that pods share has no locks that one could trust (NFS, a paused node),
and needs none: each runner fills a folder of its own and renames it to the final name, which the digest is part of, so
whoever comes second finds the same model there and throws its own away. What a killed runner left is taken over by
renaming it, which one of several succeeds in; a runner that was only frozen notices at its next piece, and what was
taken over is read once more before it is published.
"""

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.weights.digest import check_sums, file_sha256, invalid, store_sums
from restoration_runner.weights.shelf import Item, OnBytes, Promise, Shelf, full, unavailable

log = structlog.get_logger()

UNFINISHED = ".partial"
ROTTEN = ".rotten"
ABANDONED_SECONDS = 600.0
"""A runner that fetches writes all the time, and waits five minutes at most for a hub that asks for it. By the clock of
the volume, which both times come from."""
OnTotal = Callable[[int], None]


def deliver(
    shelf: Shelf, promise: Promise, target: Path, *, most_bytes: int | None, on_bytes: OnBytes, on_total: OnTotal
) -> None:
    """Make `target` the promised folder; every byte of it was hashed when this returns.

    Raises:
        RestorationError: see `Shelf`; `ModelInvalid` for a model larger than `most_bytes`, `StorageError` if the disk
            is too small.
    """
    items = [Item(name, shelf.size_bytes(name), sha256) for name, sha256 in promise.sums.items()]
    size_bytes = sum(item.size_bytes for item in items)
    if most_bytes is not None and size_bytes > most_bytes:
        raise invalid(
            f"{shelf.describe('')} holds {size_bytes >> 20} MiB, more than the {most_bytes >> 20} MiB of "
            "model.source.download.sizeLimit: raise it if this is the model that is meant"
        )
    on_total(size_bytes)
    with _own_folder(target) as own:
        folder = own.path
        free, there = shutil.disk_usage(folder).free, sum(path.stat().st_size for path in _files(folder))
        if free + there < size_bytes:
            raise full(size_bytes - there, folder)

        def received(count: int) -> None:
            own.check()
            on_bytes(count)

        for item in sorted(items, key=lambda item: item.size_bytes):
            _fetch(shelf, item, folder, received)
        _finish(folder, promise)
        if own.taken_over:
            check_sums(folder)
        _publish(folder, target, promise)


def is_whole(target: Path, promise_digest: str) -> bool:
    """Whether a folder that somebody published is what its name says; read in full. One that is not is set aside.

    Raises:
        RestorationError: `ModelUnavailable` if the volume cannot be read now, which says nothing of the model.
    """
    if not target.is_dir():
        return False
    try:
        found, listed = check_sums(target)
    except RestorationError as error:
        if not target.is_dir():  # a peer has set it aside meanwhile
            return False
        if error.reason is FailureReason.MODEL_UNAVAILABLE:
            raise
        log.warning("a model on the volume is damaged; it is fetched again", cause=error.message)
    else:
        if listed and found == promise_digest:
            return True
        log.warning("a model on the volume is another one than its name says; it is fetched again", digest=found)
    _set_aside(target)
    return False


def _fetch(shelf: Shelf, item: Item, folder: Path, on_bytes: OnBytes) -> None:
    target = folder / item.name
    if target.is_file():  # a predecessor's: it was checked, but did the disk keep it?
        if target.stat().st_size == item.size_bytes and file_sha256(target) == item.sha256:
            on_bytes(item.size_bytes)
            return
        target.unlink()
    begun = time.monotonic()
    shelf.fetch(item, target, on_bytes=on_bytes)
    log.info("weights arrived", file=item.name, bytes=item.size_bytes, seconds=round(time.monotonic() - begun, 1))


def _finish(folder: Path, promise: Promise) -> None:
    """What the folder holds beside the promised files is not part of it."""
    for path in folder.iterdir():
        if path.name not in promise.sums:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    store_sums(folder, promise.sums)
    folder.chmod(0o755)
    _sync(folder)


def _publish(folder: Path, target: Path, promise: Promise) -> None:
    """Give the folder its name. Where a peer was faster, theirs counts if it is whole."""
    for _ in range(3):
        try:
            folder.rename(target)  # fails where a folder that is not empty has that name
        except OSError:
            if is_whole(target, promise.digest):
                log.info("another runner has published this model first", folder=str(target))
                return
        else:
            _sync(target.parent)
            return
    raise invalid(f"{target} cannot be written: something that is no model lies there and comes back; remove it")


@dataclass(frozen=True)
class _Own:
    """A folder that only this runner fills. inode: by which it is known again."""

    path: Path
    inode: int
    taken_over: bool

    def check(self) -> None:
        """Raises:
        RestorationError: `ModelUnavailable` if another runner took this one for dead and goes on with its folder.
        """
        with contextlib.suppress(OSError):
            if self.path.stat().st_ino == self.inode:
                return
        raise unavailable(f"{self.path} was taken over by another runner, because nothing was written for long")


@contextlib.contextmanager
def _own_folder(target: Path) -> Iterator[_Own]:
    """A folder beside `target`; kept for a successor unless it was published."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}{UNFINISHED}")
        taken_over = _take_over(target, folder)
        if not taken_over:
            folder.mkdir()
    except PermissionError as error:
        message = f"{target.parent} may not be written by user {os.getuid()}: does the volume honour fsGroup?"
        raise invalid(message) from error
    yield _Own(folder, folder.stat().st_ino, taken_over)
    shutil.rmtree(folder, ignore_errors=True)  # where a peer's was published


def _take_over(target: Path, folder: Path) -> bool:
    """Make an abandoned folder ours. Of several who try, one succeeds, for the old name is gone then."""
    for left in sorted(target.parent.glob(f".{target.name}.*{UNFINISHED}")):
        with contextlib.suppress(OSError):
            if _last_written(left) + ABANDONED_SECONDS <= _volume_time(target.parent):
                os.utime(left)  # before it is ours: nobody may find it abandoned under its new name
                left.rename(folder)
                return True
    return False


def _last_written(folder: Path) -> float:
    return max(path.stat().st_mtime for path in (folder, *_files(folder)))


def _volume_time(folder: Path) -> float:
    """Now, by the clock that stamps files there."""
    probe = folder / f".{uuid.uuid4().hex[:12]}.clock"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def _set_aside(target: Path) -> None:
    """Out of the way at once, then away: who has it open keeps what it has open."""
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}{ROTTEN}")
    with contextlib.suppress(OSError):  # somebody else was faster
        target.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
