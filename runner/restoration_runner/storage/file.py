"""The storage protocol on a file system, with the same meaning as on S3: whole objects, conditions, metadata.

A write goes to a temporary file in the same folder, is synced, and gets its name in one step. Conditions are checked
under a lock that all runners of this machine share. What a file system has no place for (user metadata) lies beside
the work, in `.vr/.store/`, bound to the file by its etag: a file that somebody replaced has no metadata.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.storage.store import (
    Absent,
    ObjectInfo,
    ObjectMissingError,
    OnBytes,
    PreconditionError,
    Unchanged,
    When,
)

STATE_FOLDER = ".vr"
OWN_FOLDER = ".store"
"""Inside `.vr`: the lock and the metadata. Not objects, hence never listed."""
PARTIAL_SUFFIX = ".partial"
PIECE_BYTES = 1 << 20


class FileStore:
    """All files below `root`; a key is a path relative to it, with slashes."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def uri(self, key: str) -> str:
        return f"file://{self._path(key)}"

    def describe(self, key: str) -> str:
        return str(self._path(key))

    def local_path(self, key: str) -> Path | None:
        return self._path(key)

    def head(self, key: str, *, version_id: str | None = None) -> ObjectInfo | None:
        path = self._path(key)
        with _as_sentence(path):
            try:
                stat = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            if not path.is_file():
                return None
            return self._info(key, stat)

    def stream(self, key: str, *, if_match: str | None = None, version_id: str | None = None) -> Iterator[bytes]:
        with self._opened(key, if_match) as file:
            while piece := file.read(PIECE_BYTES):
                yield piece

    @contextlib.contextmanager
    def _opened(self, key: str, if_match: str | None) -> Iterator[BinaryIO]:
        """The file, if it is there and the one that is meant."""
        path = self._path(key)
        with _as_sentence(path):
            try:
                file = path.open("rb")
            except (FileNotFoundError, NotADirectoryError):
                raise ObjectMissingError(f"{path} does not exist") from None
            with file:
                if if_match is not None and _etag(os.fstat(file.fileno())) != if_match:
                    raise PreconditionError(f"{path} is not the file it was: it changed while it was worked on")
                yield file

    def part(self, key: str, *, start: int, size_bytes: int, if_match: str | None = None) -> bytes:
        with self._opened(key, if_match) as file:
            file.seek(start)
            data = file.read(size_bytes)
        if len(data) != size_bytes:
            raise PreconditionError(f"{self._path(key)} ends before byte {start + size_bytes}")
        return data

    def put(
        self, key: str, data: bytes, *, when: When | None = None, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        path = self._path(key)
        with _as_sentence(path), self._partial(path) as partial:
            with partial.open("wb") as file:
                file.write(data)
                os.fsync(file.fileno())
            return self._name(partial, key, when=when, metadata=metadata)

    def upload(
        self,
        key: str,
        path: Path,
        *,
        when: When | None = None,
        metadata: Mapping[str, str] | None = None,
        on_bytes: OnBytes | None = None,
    ) -> ObjectInfo:
        target = self._path(key)
        with _as_sentence(target), self._partial(target) as partial:
            with path.open("rb") as source, partial.open("wb") as file:
                while piece := source.read(PIECE_BYTES):
                    file.write(piece)
                    if on_bytes:
                        on_bytes(len(piece))
                os.fsync(file.fileno())
            return self._name(partial, key, when=when, metadata=metadata)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        top = self._path(prefix)
        folder = top if prefix.endswith("/") else top.parent
        with _as_sentence(folder):
            for path in sorted(folder.rglob("*")):
                key = path.relative_to(self._root).as_posix()
                if not key.startswith(prefix) or path.name.endswith(PARTIAL_SUFFIX) or OWN_FOLDER in path.parts:
                    continue
                with contextlib.suppress(FileNotFoundError):  # somebody else cleans up meanwhile
                    if path.is_file():
                        yield self._info(key, path.stat(), with_metadata=False)

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        path = self._path(key)
        if not path.exists():
            return
        with _as_sentence(path), _locked(path):
            if if_match is not None and self._etag_now(path) != if_match:
                return
            path.unlink(missing_ok=True)
            _sidecar(path).unlink(missing_ok=True)
            if STATE_FOLDER in path.parts:
                _remove_empty(path.parent)

    def abort_uploads(self, key: str, *, older_than: timedelta) -> int:
        path = self._path(key)
        limit = datetime.now(UTC) - older_than
        aborted = 0
        with _as_sentence(path):
            for partial in _partials(path, below=key.endswith("/")):
                with contextlib.suppress(FileNotFoundError):
                    if datetime.fromtimestamp(partial.stat().st_mtime, UTC) <= limit:
                        partial.unlink()
                        aborted += 1
                        _remove_empty(partial.parent)
        return aborted

    def conditional(self, probe_prefix: str) -> bool:
        return True

    def _path(self, key: str) -> Path:
        return self._root / key

    def _info(self, key: str, stat: os.stat_result, *, with_metadata: bool = True) -> ObjectInfo:
        etag = _etag(stat)
        return ObjectInfo(
            key=key,
            size_bytes=stat.st_size,
            etag=etag,
            metadata=_read_sidecar(self._path(key), etag) if with_metadata else {},
            modified=datetime.fromtimestamp(stat.st_mtime, UTC),
        )

    @staticmethod
    def _etag_now(path: Path) -> str | None:
        try:
            return _etag(path.stat())
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def _partial(self, path: Path) -> Iterator[Path]:
        """A temporary name in the same folder; gone afterwards, unless the process is killed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.parent / f".{path.name}.{uuid.uuid4().hex[:12]}{PARTIAL_SUFFIX}"
        try:
            yield partial
        finally:
            partial.unlink(missing_ok=True)

    def _name(self, partial: Path, key: str, *, when: When | None, metadata: Mapping[str, str] | None) -> ObjectInfo:
        """Give the finished temporary file its name, if the condition holds."""
        path = self._path(key)
        with _locked(path):
            now = self._etag_now(path)
            if isinstance(when, Absent) and now is not None:
                raise PreconditionError(f"{path} exists already")
            if isinstance(when, Unchanged) and now != when.etag:
                raise PreconditionError(f"{path} was changed or removed by somebody else")
            try:
                stat = partial.stat()
            except FileNotFoundError:
                raise PreconditionError(f"{path}: the write was given up by somebody else") from None
            # Metadata first: it names the etag that the file keeps when it is renamed, so it never lies.
            _write_sidecar(path, _etag(stat), metadata or {})
            partial.replace(path)
            _sync_folder(path.parent)
        return self._info(key, stat)


def _partials(path: Path, *, below: bool) -> list[Path]:
    """Temporary files for one file, or for all files below a folder."""
    if below:
        return list(path.rglob(f".*{PARTIAL_SUFFIX}"))
    return list(path.parent.glob(f".{_glob_escape(path.name)}.*{PARTIAL_SUFFIX}"))


def _etag(stat: os.stat_result) -> str:
    """Changes with every write, survives a rename. The inode tells apart files written within one clock tick."""
    return f"{stat.st_mtime_ns:x}-{stat.st_size:x}-{stat.st_ino:x}"


def _state_folder(path: Path) -> Path:
    """Where lock and metadata of a path live."""
    for parent in path.parents:
        if parent.name == STATE_FOLDER:
            return parent / OWN_FOLDER
    return path.parent / STATE_FOLDER / OWN_FOLDER


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    folder = _state_folder(path)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sidecar(path: Path) -> Path:
    return _state_folder(path) / f"{path.name}.json"


def _write_sidecar(path: Path, etag: str, metadata: Mapping[str, str]) -> None:
    sidecar = _sidecar(path)
    if not metadata:
        sidecar.unlink(missing_ok=True)
        return
    sidecar.parent.mkdir(parents=True, exist_ok=True)
    partial = sidecar.with_name(f".{sidecar.name}{PARTIAL_SUFFIX}")
    partial.write_text(json.dumps({"etag": etag, "metadata": dict(metadata)}))
    partial.replace(sidecar)


def _read_sidecar(path: Path, etag: str) -> dict[str, str]:
    try:
        content = json.loads(_sidecar(path).read_text())
        return {str(k): str(v) for k, v in content["metadata"].items()} if content["etag"] == etag else {}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}


def _remove_empty(folder: Path) -> None:
    """Folders that our own files needed, up to `.vr` itself."""
    while folder.name != STATE_FOLDER and STATE_FOLDER in folder.parts:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _glob_escape(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


@contextlib.contextmanager
def _as_sentence(path: Path) -> Iterator[None]:
    """Whatever the operating system says, in one sentence with the path and a class."""
    try:
        yield
    except PermissionError as error:
        raise RestorationError(FailureReason.ACCESS_DENIED, f"no permission: {error.filename or path}") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            free_mib = _free_mib(path)
            message = f"the disk of {path} is full ({free_mib} MiB free): free some space and run it again"
        else:
            message = f"{error.filename or path}: {error.strerror or error}"
        raise RestorationError(FailureReason.STORAGE_ERROR, message) from error


def _free_mib(path: Path) -> int:
    for folder in path.parents:
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free >> 20
    return 0
