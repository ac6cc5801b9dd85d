"""A model folder that lies elsewhere: what its list promises, and a file of it arriving whole or not at all.

The list (`SHA256SUMS`) comes first and is small. A profile pins its digest, so from then on every byte that arrives is
known: a wrong model is refused before the first gigabyte, a file is hashed while it is written, and what an earlier
try left of it is hashed again and continued.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.weights.digest import SUMS, digest_of, invalid, parse_sums

OnBytes = Callable[[int], None]
"""Called with the number of bytes just received, negative where they are thrown away again; may raise to stop it."""
Pieces = Callable[[int], Iterator[bytes]]
"""The content of a file from an offset on."""

NEEDED = ("model.json", "dit.safetensors", "vae.safetensors", "text.safetensors")
MOST_LIST_BYTES = 64 << 10
MOST_DESCRIPTION_BYTES = 1 << 20
PARTIAL = ".partial"
PIECE_BYTES = 4 << 20


@dataclass(frozen=True)
class Promise:
    """What a model folder is to hold. sums: name to SHA-256. digest: of the folder, as a profile pins it."""

    digest: str
    sums: Mapping[str, str]


@dataclass(frozen=True)
class Item:
    """One file of it, now that its size is known."""

    name: str
    size_bytes: int
    sha256: str


class Shelf(Protocol):
    """Where the folder lies. Every method raises `RestorationError`: `ModelInvalid` for what is not there,
    `ModelUnavailable` for who does not answer, `AccessDenied`.
    """

    def describe(self, name: str) -> str:
        """A file of it, for messages."""
        ...

    def read(self, name: str, *, most_bytes: int) -> bytes:
        """A small file."""
        ...

    def size_bytes(self, name: str) -> int: ...

    def fetch(self, item: Item, target: Path, *, on_bytes: OnBytes) -> None:
        """Make `target` the file, verified; whatever an earlier try left beside it is continued."""
        ...


def small_size(shelf: Shelf, name: str, *, most_bytes: int) -> int:
    """The size of a file that is to be read whole.

    Raises:
        RestorationError: see `Shelf`; `ModelInvalid` for one of more than `most_bytes`.
    """
    size_bytes = shelf.size_bytes(name)
    if size_bytes > most_bytes:
        raise invalid(f"{shelf.describe(name)} has {size_bytes} bytes; {most_bytes} are the most that make sense")
    return size_bytes


def missing(where: str) -> RestorationError:
    """A file that the list promises, or the list, is not there."""
    return invalid(f"model.source.download.uri: {where} does not exist")


def read_promise(shelf: Shelf, *, digest: str) -> Promise:
    """The list of a folder, if it is the one that is meant.

    Raises:
        RestorationError: `ModelInvalid` if there is none, or it promises something else; see `Shelf`.
    """
    where = shelf.describe(SUMS)
    text = shelf.read(SUMS, most_bytes=MOST_LIST_BYTES).decode(errors="replace")
    sums = parse_sums(text, where=where)
    unlisted = [name for name in NEEDED if name not in sums]
    if unlisted:
        raise invalid(f"{where} lists no {', '.join(unlisted)}: this is no model folder")
    found = digest_of(sums)
    if found != digest:
        raise invalid(f"model.digest: {where} promises a model with the digest {found}, not {digest} as it should")
    return Promise(digest, sums)


def read_description(shelf: Shelf, promise: Promise) -> bytes:
    """`model.json`, checked.

    Raises:
        RestorationError: see `Shelf`; `ModelInvalid` for another content than promised.
    """
    data = shelf.read("model.json", most_bytes=MOST_DESCRIPTION_BYTES)
    _compare(hashlib.sha256(data).hexdigest(), promise.sums["model.json"], shelf.describe("model.json"))
    return data


def receive(item: Item, target: Path, pieces: Pieces, *, where: str, on_bytes: OnBytes) -> None:
    """Write what `pieces` gives to `target`, hashing it on the way.

    Raises:
        RestorationError: `ModelInvalid` for another content, which is removed; `StorageError` if the disk is full.
    """
    partial = target.with_name(target.name + PARTIAL)
    partial.touch()
    # Never appended: should two runners take the file for theirs, both write the same bytes to the same places.
    with partial.open("r+b") as file:
        digest = _digest_of_rest(file, partial, item)
        done = file.tell()
        on_bytes(done)
        try:
            for piece in pieces(done):
                digest.update(piece)
                file.write(piece)
                done += len(piece)
                on_bytes(len(piece))
                if done > item.size_bytes:
                    break
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise full(item.size_bytes, target.parent) from error
    try:
        if done != item.size_bytes:
            raise unavailable(f"{where}: {done} of {item.size_bytes} bytes arrived")
        _compare(digest.hexdigest(), item.sha256, where)
    except RestorationError as error:
        if error.reason is FailureReason.MODEL_INVALID or done > item.size_bytes:
            partial.unlink()
            on_bytes(-done)
        raise
    partial.chmod(0o644)
    partial.rename(target)


def _digest_of_rest(file: BinaryIO, partial: Path, item: Item) -> "hashlib._Hash":
    """The hash of what is there already; nothing is kept that cannot be a beginning of the file."""
    digest = hashlib.sha256()
    if file.seek(0, os.SEEK_END) > item.size_bytes:
        file.truncate(0)
    with partial.open("rb") as written:
        while piece := written.read(PIECE_BYTES):
            digest.update(piece)
    file.seek(0, os.SEEK_END)
    return digest


def _compare(found: str, promised: str, where: str) -> None:
    if found != promised:
        raise invalid(f"{where} has the digest {found}, not {promised} as {SUMS} promises; put the model there again")


def full(needed_bytes: int, folder: Path) -> RestorationError:
    """The disk is too small now; perhaps another node's is not."""
    message = (
        f"{folder} has no room for {needed_bytes >> 20} MiB of weights: free some space, raise "
        "model.source.download.sizeLimit, or give a larger claim"
    )
    return RestorationError(FailureReason.STORAGE_ERROR, message)


def unavailable(message: str) -> RestorationError:
    return RestorationError(FailureReason.MODEL_UNAVAILABLE, message)
