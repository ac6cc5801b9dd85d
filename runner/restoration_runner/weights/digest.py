"""The digest of a model folder: which weights made an output.

It is in the cache key and may be pinned by a profile. It covers the files that the engine reads, by name and content,
and nothing else: a licence text or a readme beside them changes no frame.
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from restoration_api.base import canonical_json
from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError

READ_SUFFIXES = (".json", ".safetensors")
RUNNABLE_SUFFIXES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
"""Formats that run code when they are read. The engine never does, but a folder that holds one was not made for it."""
PREFIX = "sha256:"
SUMS = "SHA256SUMS"
"""The digests of single files, in the format of `sha256sum`; not part of the folder's own digest."""


def model_files(folder: Path) -> list[Path]:
    """The files of a model folder that count, by name.

    Raises:
        RestorationError: `ModelInvalid` if the folder is missing, has no `model.json`, or holds a pickle.
    """
    if not (folder / "model.json").is_file():
        raise RestorationError(
            FailureReason.MODEL_INVALID,
            f"{folder} is not a model folder: it has no model.json (needed beside it: *.safetensors)",
        )
    found = sorted(path for path in folder.iterdir() if path.is_file())
    for path in found:
        if path.suffix in RUNNABLE_SUFFIXES:
            raise RestorationError(
                FailureReason.MODEL_INVALID,
                f"{path} is a pickle, which can run code when read: convert the weights to safetensors and remove it",
            )
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
    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(zip((path.name for path in files), pool.map(file_sha256, files), strict=True))


def digest_of(sums: Mapping[str, str]) -> str:
    """The folder's digest from its files'."""
    return PREFIX + hashlib.sha256(canonical_json(sums).encode()).hexdigest()


def write_sums(folder: Path) -> str:
    """Write `SHA256SUMS` (`sha256sum -c SHA256SUMS` checks it too) and return the folder's digest."""
    sums = file_digests(folder)
    (folder / SUMS).write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))
    (folder / SUMS).chmod(0o644)
    return digest_of(sums)


def read_sums(folder: Path) -> dict[str, str] | None:
    """What `SHA256SUMS` promises; none if there is no such file.

    Raises:
        RestorationError: `ModelInvalid` if it is no list of digests.
    """
    try:
        lines = (folder / SUMS).read_text().splitlines()
    except FileNotFoundError:
        return None
    promised = {}
    for line in lines:
        digest, gap, name = line.partition("  ")
        if not gap or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            message = f"{folder / SUMS}: '{line[:80]}' is no line of sha256sum; fetch the model again"
            raise RestorationError(FailureReason.MODEL_INVALID, message)
        promised[name] = digest
    return promised


def check_sums(folder: Path) -> tuple[str, bool]:
    """The folder's digest, and whether `SHA256SUMS` was there to compare with.

    Raises:
        RestorationError: `ModelInvalid` naming the files that are missing, changed or not listed.
    """
    promised, found = read_sums(folder), file_digests(folder)
    if promised is not None and promised != found:
        parts = {
            "missing": sorted(promised.keys() - found.keys()),
            "not listed": sorted(found.keys() - promised.keys()),
            "changed": sorted(name for name in promised.keys() & found.keys() if promised[name] != found[name]),
        }
        wrong = "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names)
        message = f"{folder} is not what {SUMS} promises ({wrong}); fetch or convert the model again"
        raise RestorationError(FailureReason.MODEL_INVALID, message)
    return digest_of(found), promised is not None


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


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
