"""The digest of a model folder: which weights made an output.

It is in the cache key and may be pinned by a profile. It covers the files that the engine reads, by name and content,
and nothing else: a licence text or a readme beside them changes no frame.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from restoration_api.base import canonical_json
from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError

READ_SUFFIXES = (".json", ".safetensors")
RUNNABLE_SUFFIXES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
"""Formats that run code when they are read. The engine never does, but a folder that holds one was not made for it."""
PREFIX = "sha256:"
PIECE_BYTES = 16 << 20
SUMS = "SHA256SUMS"
"""The digests of single files, in the format of `sha256sum`; not part of the folder's own digest."""


def model_files(folder: Path) -> list[Path]:
    """The files of a model folder that count, by name.

    Raises:
        RestorationError: `ModelInvalid` if the folder is missing, has no `model.json`, or holds a pickle.
    """
    with _readable(folder):
        if not (folder / "model.json").is_file():
            raise invalid(f"{folder} is not a model folder: it has no model.json (needed beside it: *.safetensors)")
        found = sorted(path for path in folder.iterdir() if path.is_file())
    for path in found:
        refuse_pickle(path.name, where=str(folder))
    return [path for path in found if path.suffix in READ_SUFFIXES]


def folder_digest(folder: Path) -> str:
    """`sha256:…` over names and contents; files are read in parallel, as hashing is slower than a good disk.

    Raises:
        RestorationError: see `model_files`.
    """
    return digest_of(file_digests(folder))


def file_digests(folder: Path) -> dict[str, str]:
    """Name to SHA-256 of the files that count.

    Raises:
        RestorationError: see `model_files`.
    """
    files = model_files(folder)
    with _readable(folder), ThreadPoolExecutor(max_workers=4) as pool:
        return dict(zip((path.name for path in files), pool.map(file_sha256, files), strict=True))


def digest_of(sums: Mapping[str, str]) -> str:
    """The folder's digest from its files'."""
    return PREFIX + hashlib.sha256(canonical_json(sums).encode()).hexdigest()


def write_sums(folder: Path) -> str:
    """Write `SHA256SUMS` (`sha256sum -c SHA256SUMS` checks it too) and return the folder's digest."""
    sums = file_digests(folder)
    store_sums(folder, sums)
    return digest_of(sums)


def store_sums(folder: Path, sums: Mapping[str, str]) -> None:
    """Write `SHA256SUMS` from what is known already."""
    (folder / SUMS).write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))
    (folder / SUMS).chmod(0o644)


def read_sums(folder: Path) -> dict[str, str] | None:
    """What `SHA256SUMS` promises of the files that count; none if there is no such file.

    Raises:
        RestorationError: `ModelInvalid` if it is no list of digests.
    """
    try:
        text = (folder / SUMS).read_text(errors="replace")
    except FileNotFoundError:
        return None
    return parse_sums(text, where=str(folder / SUMS))


def parse_sums(text: str, *, where: str) -> dict[str, str]:
    """Name to SHA-256, from what `sha256sum *` prints. Names of files that do not count (a readme) are left out.

    Names become paths when a model is fetched, and whoever writes the list need not be who owns the disk: they name a
    file of the folder itself and nothing else.

    Raises:
        RestorationError: `ModelInvalid` naming the line: no digest, no plain name, a pickle, a name twice.
    """
    promised: dict[str, str] = {}
    for line in text.splitlines():
        digest, name = line[:64], line[66:].removeprefix("./")
        if line[64:66] not in ("  ", " *") or set(digest) - set("0123456789abcdef"):
            raise invalid(f"{where}: '{line[:80]}' is no line of sha256sum; fetch the model again")
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}", name):
            raise invalid(f"{where}: {name[:80]!r} names no file of the folder itself (letters, digits, . _ + -)")
        refuse_pickle(name, where=where)
        if name in promised:
            raise invalid(f"{where}: {name} is listed twice")
        if Path(name).suffix in READ_SUFFIXES:
            promised[name] = digest
    return promised


def promised_digest(folder: Path) -> str:
    """The digest that the folder's own list states, for who does not read the weights; else that of its files.

    Raises:
        RestorationError: `ModelInvalid` if list and names of files differ already; see `model_files`.
    """
    names, promised = {path.name for path in model_files(folder)}, read_sums(folder)
    if promised is None:
        return folder_digest(folder)
    if names != promised.keys():
        raise _differs(folder, {name: promised.get(name, "") for name in names}, promised)
    return digest_of(promised)


def is_described(folder: Path, digest: str) -> bool:
    """Whether list and description of a folder are those of the model with this digest; nothing large is read."""
    try:
        promised = read_sums(folder) or {}
        if digest_of(promised) != digest:
            return False
        return file_sha256(folder / "model.json") == promised.get("model.json")
    except (RestorationError, OSError):
        return False


def refuse_pickle(name: str, *, where: str) -> None:
    """Raises:
    RestorationError: `ModelInvalid` if a file of that name is in a format that can run code.
    """
    if Path(name).suffix.lower() in RUNNABLE_SUFFIXES:
        raise invalid(
            f"{where}: {name} is a pickle, which can run code when read: convert the weights to safetensors and "
            "remove it"
        )


def check_sums(folder: Path) -> tuple[str, bool]:
    """The folder's digest, and whether `SHA256SUMS` was there to compare with.

    Raises:
        RestorationError: `ModelInvalid` naming the files that are missing, changed or not listed.
    """
    promised, found = read_sums(folder), file_digests(folder)
    if promised is not None and promised != found:
        raise _differs(folder, found, promised)
    return digest_of(found), promised is not None


def _differs(folder: Path, found: Mapping[str, str], promised: Mapping[str, str]) -> RestorationError:
    parts = {
        "missing": sorted(promised.keys() - found.keys()),
        "not listed": sorted(found.keys() - promised.keys()),
        "changed": sorted(name for name in promised.keys() & found.keys() if promised[name] != found[name]),
    }
    wrong = "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names)
    return invalid(f"{folder} is not what {SUMS} promises ({wrong}); fetch or convert the model again")


def check_digest(folder: Path, *, expected: str | None, field: str = "model.digest") -> str:
    """The folder's digest.

    Raises:
        RestorationError: `ModelInvalid` if another one was promised.
    """
    found = folder_digest(folder)
    if expected is not None and found != expected:
        raise RestorationError(
            FailureReason.MODEL_INVALID, f"{field}: {folder} has the digest {found}, not {expected} as it should"
        )
    return found


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """A volume that fails may be well on another node; one that forbids reading will not."""
    try:
        yield
    except PermissionError as error:
        message = f"{error.filename or folder} may not be read by user {os.getuid()}: make the model readable for all"
        raise invalid(message) from error
    except OSError as error:
        message = f"{error.filename or folder} cannot be read: {error.strerror}; check the volume of model.source"
        raise RestorationError(FailureReason.MODEL_UNAVAILABLE, message) from error


def invalid(message: str) -> RestorationError:
    """The model is not what it should be, and no second try changes that."""
    return RestorationError(FailureReason.MODEL_INVALID, message)


def file_sha256(path: Path) -> str:
    """In large pieces: between two of them Python's lock has to be waited for, up to 5 ms each time while libraries are
    imported beside it, and the standard library's pieces take a quarter of a millisecond. The next piece is read while
    one is hashed: copying it out of the page cache is a fifth of the time."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes <= PIECE_BYTES:
            digest.update(file.read())
            return digest.hexdigest()
        with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
            here, there = (memoryview(bytearray(PIECE_BYTES)) for _ in range(2))
            coming = reader.submit(file.readinto, here)
            while read := coming.result():
                coming = reader.submit(file.readinto, there)
                digest.update(here[:read])
                here, there = there, here
    return digest.hexdigest()
