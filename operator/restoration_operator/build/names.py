"""Names of the objects that belong to one restoration.

Requirements:

* valid for every legal name of a VideoRestoration (a DNS subdomain of up to 253 characters);
* at most 63 characters with a five-digit execution number and the longest role, as label values and host names have;
* derived from the uid: an object that is deleted and created again under its name never meets the old one's children;
* readable: a short plain name appears unchanged;
* different restorations of one namespace never share a name, except by a collision of 32 bits of their random uids.
"""

import hashlib
import re
from enum import StrEnum
from typing import Final

SLUG_CHARACTERS: Final = 30
"""`vr-` + 30 + `-` + 8 + `-e99999-assemble` (16) = 58."""
UID_CHARACTERS: Final = 8
LABEL_CHARACTERS: Final = 63
_PLAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_HASH_CHARACTERS: Final = 6


def slug(name: str) -> str:
    """`name` itself where it is short and plain, else its beginning and a hash that keeps long names apart."""
    if len(name) <= SLUG_CHARACTERS and _PLAIN.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_CHARACTERS]
    kept = re.sub(r"[^a-z0-9]+", "-", name.lower())[: SLUG_CHARACTERS - _HASH_CHARACTERS - 1].strip("-")
    return f"{kept or 'x'}-{digest}"


def base_name(name: str, uid: str) -> str:
    """What all children of one restoration begin with: `vr-movie-night-7f3c9a1b`.

    The last eight hexadecimal digits of the uid are taken: a random (version 4) uid has its fixed bits further left.
    """
    return f"vr-{slug(name)}-{uid.replace('-', '')[-UID_CHARACTERS:]}"


class Role(StrEnum):
    """What a Job of an execution does; also the runner's command."""

    PLAN = "plan"
    """Finds out, without a GPU, whether the request can be served, and writes the plan."""
    RUN = "run"
    """Restores, or does what is left of it."""
    ASSEMBLE = "assemble"
    """Publishes, without a GPU, what is finished, or reports what is published."""

    @classmethod
    def of(cls, text: str) -> "Role":
        """The role of that name; `run`, the first there ever was, for anything else."""
        return next((role for role in cls if role.value == text), cls.RUN)


def job_name(name: str, uid: str, *, execution: int, role: str = Role.RUN) -> str:
    """`vr-<slug>-<8 hex of uid>-e<execution>-<role>`."""
    return f"{base_name(name, uid)}-e{execution}-{role}"


def snapshot_name(name: str, uid: str, *, take: int = 1) -> str:
    """The ConfigMap of the request: the first take is the base name, a replacement for a spoilt one is `…-2`."""
    return base_name(name, uid) if take == 1 else f"{base_name(name, uid)}-{take}"


def volume_name(kind: str, entry: str) -> str:
    """`storage-default`: a pod's volume for a storage entry, cut to the 63 characters that a volume name may have."""
    name = f"{kind}-{entry}"
    if len(name) <= LABEL_CHARACTERS:
        return name
    digest = hashlib.sha256(entry.encode()).hexdigest()[:_HASH_CHARACTERS]
    return f"{name[: LABEL_CHARACTERS - _HASH_CHARACTERS - 1].rstrip('-')}-{digest}"


def next_snapshot_name(current: str, name: str, uid: str) -> str:
    """The name after `current`."""
    first = base_name(name, uid)
    take = 1 if current == first else int(current.removeprefix(f"{first}-"))
    return snapshot_name(name, uid, take=take + 1)
