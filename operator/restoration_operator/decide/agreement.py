"""Which profile a restoration runs with: the one it was accepted with, whatever became of that since.

`status.profile.hash` is the authority. It is met by the live profile, where that did not change, or by the snapshot
ConfigMap, which users can delete and replace but not make hash to something else.
"""

from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from restoration_api.resources import ProfileSpec
from restoration_api.resources.status import ProfileSnapshot
from restoration_operator.build.names import base_name, next_snapshot_name
from restoration_operator.build.request import ContradictionError, resolve_request
from restoration_operator.build.snapshot import Snapshot, take_snapshot
from restoration_operator.decide.admission import Impossible, Refused, Terms, admit
from restoration_operator.decide.types import LookAtSnapshot, NoProfile, Observation, Profile


@dataclass(frozen=True)
class Unread:
    """The snapshot has to be read first."""

    look: LookAtSnapshot


@dataclass(frozen=True)
class Tampered:
    """The profile that was agreed on is nowhere to be found."""

    message: str


def terms(seen: Observation, now: datetime) -> Terms | Refused | Impossible | Unread | Tampered:
    """What the next Job is built from."""
    agreed = seen.restoration.status.profile
    if agreed is None or agreed.hash is None:
        return admit(seen, now)
    live = _live(seen)
    if live is not None and live.snapshot.profile_hash == agreed.hash:
        return live
    name = snapshot_name(seen)
    if seen.snapshot is None or seen.snapshot.name != name:
        return Unread(LookAtSnapshot(name))
    stored = _stored(seen, agreed)
    if stored is not None:
        return stored
    if not seen.restoration.status.attempt_history:
        # Nothing ever ran: the operator stopped between reserving a number and writing the snapshot.
        return admit(seen, now)
    return Tampered(
        f"ConfigMap {name} does not hold the profile that this restoration was accepted with, and that profile has "
        "changed since; create the restoration again"
    )


def snapshot_name(seen: Observation) -> str:
    """Name of the ConfigMap in use: the first one, unless something strange lies there."""
    meta, agreed = seen.restoration.metadata, seen.restoration.status.profile
    return (agreed.snapshot_name if agreed else None) or base_name(meta.name, meta.uid)


def recorded(seen: Observation, settled: Terms) -> ProfileSnapshot:
    """`status.profile` for these terms; the next free name if another snapshot lies at the current one."""
    meta, name = seen.restoration.metadata, snapshot_name(seen)
    if seen.snapshot is not None and seen.snapshot.name == name and seen.snapshot.content != settled.snapshot:
        name = next_snapshot_name(name, meta.name, meta.uid)
    return ProfileSnapshot(
        kind=settled.profile.kind,
        name=settled.profile.name,
        generation=settled.profile.generation,
        hash=settled.snapshot.profile_hash,
        snapshot_name=name,
    )


def _live(seen: Observation) -> Terms | None:
    if isinstance(seen.profile, NoProfile):
        return None
    agreed = seen.restoration.status.profile
    # Kind and generation are those of the acceptance; the same content under another generation is the same profile.
    profile = seen.profile if agreed is None else _agreed(agreed, seen.profile.spec)
    try:
        request = resolve_request(seen.restoration.spec, profile.spec)
    except (ContradictionError, IndexError):
        return None
    return Terms(profile=profile, request=request, snapshot=take_snapshot(seen.profile.text, request))


def _stored(seen: Observation, agreed: ProfileSnapshot) -> Terms | None:
    content = seen.snapshot.content if seen.snapshot else None
    if content is None or content.profile_hash != agreed.hash:
        return None
    try:
        spec = content.profile()
        request = resolve_request(seen.restoration.spec, spec)
    except (ValidationError, ContradictionError):
        return None
    return Terms(
        profile=_agreed(agreed, spec),
        request=request,
        snapshot=Snapshot(profile_json=content.profile_json, request_json=request.to_json()),
    )


def _agreed(agreed: ProfileSnapshot, spec: ProfileSpec) -> Profile:
    return Profile(
        kind=agreed.kind or "Builtin", name=agreed.name or "default", generation=agreed.generation, spec=spec
    )
