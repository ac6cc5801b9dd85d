"""The digest of a model folder: which weights made an output.

It is in the cache key and may be pinned by a profile. It covers the files that the engine reads, by name and content,
and nothing else: a licence text or a readme beside them changes no frame.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from restoration_api.base import canonical_json
from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError

READ_SUFFIXES = (".json", ".safetensors")
RUNNABLE_SUFFIXES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
"""Formats that run code when they are read. The engine never does, but a folder that holds one was not made for it."""
PREFIX = "sha256:"


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
    files = model_files(folder)
    with ThreadPoolExecutor(max_workers=4) as pool:
        sums = dict(zip((path.name for path in files), pool.map(_file_sha256, files), strict=True))
    return PREFIX + hashlib.sha256(canonical_json(sums).encode()).hexdigest()


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


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
