"""What `submit` creates: names, addresses and the object itself. Pure."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

from restoration_api.resources import API_VERSION
from restoration_cli.errors import CommandError

LONGEST_PREFIX: Final = 40
_PREFIX: Final = re.compile(r"^s3://[^/\s]+/(\S*/)?$")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What was asked for; None is left to profile and model."""

    input_uri: str
    output_uri: str
    input_sha256: str | None = None
    name: str | None = None
    profile: str | None = None
    namespaced_profile: bool = False
    storage: str | None = None
    scale: int | None = None
    short_side: int | None = None
    strength: float | None = None
    denoise_strength: float | None = None
    seed: int | None = None
    recompute: bool = False


def is_remote(source: str) -> bool:
    """Whether a source is an address and no local file."""
    return source.startswith(("s3://", "https://"))


def upload_uri(prefix: str, file_name: str) -> str:
    """Where a local file goes.

    Raises:
        CommandError: `prefix` is not `s3://bucket/…/`, or the file's name cannot stand in an address.
    """
    if not _PREFIX.match(prefix):
        raise CommandError(
            f"--upload-to '{prefix}': give s3://BUCKET/ or s3://BUCKET/FOLDER/, with the slash at the end"
        )
    if re.search(r"\s$|^\s|[\x00-\x1f]", file_name):
        raise CommandError(f"the name '{file_name}' cannot be an object's key; rename the file")
    return prefix + file_name


def default_output(input_uri: str) -> str:
    """`s3://media/raw/clip.mov` → `s3://media/raw/clip-restored.mp4`.

    Raises:
        CommandError: the input is not in object storage, so nothing can lie beside it.
    """
    if not input_uri.startswith("s3://"):
        raise CommandError("say where the output goes: --output s3://BUCKET/KEY")
    folder, _, name = input_uri.rpartition("/")
    return f"{folder}/{PurePosixPath(name).stem}-restored.mp4"


def name_prefix(input_uri: str) -> str:
    """A legal beginning of a name, from the input's: `Movie Night.mkv` → `movie-night-`."""
    stem = PurePosixPath(urlsplit(input_uri).path).stem.lower()
    plain = re.sub(r"[^a-z0-9]+", "-", stem)[:LONGEST_PREFIX].strip("-")
    return f"{plain or 'video'}-"


def submission(wish: Wish, namespace: str) -> dict[str, Any]:
    """The object to create. Without a name the API server completes one."""
    named = {"name": wish.name} if wish.name else {"generateName": name_prefix(wish.input_uri)}
    spec: dict[str, Any] = {
        "input": _without_none(uri=wish.input_uri, storage=wish.storage, sha256=wish.input_sha256),
        "output": _without_none(uri=wish.output_uri, storage=wish.storage),
    }
    if wish.profile is not None:
        kind = "RestorationProfile" if wish.namespaced_profile else "ClusterRestorationProfile"
        spec["profileRef"] = {"kind": kind, "name": wish.profile}
    target = _without_none(scaleFactor=wish.scale, shortSide=wish.short_side)
    restoration = _without_none(
        target=target or None, strength=wish.strength, denoiseStrength=wish.denoise_strength, seed=wish.seed
    )
    if restoration:
        spec["restoration"] = restoration
    if wish.recompute:
        spec["cache"] = "Bypass"
    metadata = {**named, "namespace": namespace}
    return {"apiVersion": API_VERSION, "kind": "VideoRestoration", "metadata": metadata, "spec": spec}


def _without_none(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
