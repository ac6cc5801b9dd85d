"""Whether a restoration may run at all: what CEL cannot say, because it needs the profile or the other restorations.

A refusal is not a failure. It is shown at once and taken back as soon as its cause is gone: a profile appears, an
administrator widens a prefix, the other restoration finishes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from restoration_api.request import Request
from restoration_api.resources import ProfileSpec, VideoRestoration
from restoration_api.resources.profile import Limits, Storage
from restoration_operator.build.request import ContradictionError, resolve_request, storage_entry
from restoration_operator.build.snapshot import Snapshot, take_snapshot
from restoration_operator.decide.types import NoProfile, Observation, Profile, Rival

PROFILE_PATIENCE: Final = timedelta(seconds=60)
"""A profile may come a little later in the same apply; before that nothing has gone wrong, and Flux or `helm --wait`
must not be told so."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """Not now; `blocked` if it is the user's or administrator's turn, `again_at` if that changes with time alone."""

    reason: str
    message: str
    blocked: bool = True
    again_at: datetime | None = None


@dataclass(frozen=True)
class Impossible:
    """Never: the restoration contradicts itself, and its spec cannot change."""

    message: str


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What is agreed on: the profile and the request, as text with hashes, and where they come from."""

    profile: Profile
    request: Request
    snapshot: Snapshot


Verdict = Terms | Refused | Impossible


def admit(seen: Observation, now: datetime) -> Verdict:
    """Check everything against the profile as it is now."""
    if isinstance(seen.profile, NoProfile):
        return _without_profile(seen.restoration, seen.profile, now)
    spec, profile = seen.restoration.spec, seen.profile
    for rule in _RULES:
        refused = rule(seen.restoration, profile)
        if refused is not None:
            return refused
    claimed = _claimed(seen)
    if claimed is not None:
        return claimed
    try:
        request = resolve_request(spec, profile.spec)
    except ContradictionError as error:
        return Impossible(str(error))
    return Terms(profile=profile, request=request, snapshot=take_snapshot(profile.text, request))


def output_endpoint(restoration: VideoRestoration, profile: ProfileSpec) -> str | None:
    """Where the output's bucket lives: the same bucket name at two endpoints is two buckets."""
    entry = storage_entry(restoration.spec.output.storage, profile)
    return None if entry is None else entry.endpoint or f"aws:{entry.region or ''}"


def claimant(rivals: tuple[Rival, ...], *, me: VideoRestoration, endpoint: str | None) -> Rival | None:
    """Who holds the output object, if it is not `me`: whoever was accepted first, else whoever is older."""
    status, meta = me.status, me.metadata
    mine = (status.attempts.executions == 0, _age(meta.creation_timestamp), meta.uid)
    for rival in rivals:
        theirs = (not rival.reserved, _age(rival.created), rival.uid)
        if rival.endpoint == endpoint and theirs < mine:
            return rival
    return None


def _without_profile(restoration: VideoRestoration, missing: NoProfile, now: datetime) -> Refused:
    created = restoration.metadata.creation_timestamp or now
    patience_ends = created + PROFILE_PATIENCE
    waits = missing.reason == "ProfileNotFound" and now < patience_ends
    return Refused(
        reason=missing.reason,
        message=missing.message,
        blocked=not waits,
        again_at=patience_ends if waits else None,
    )


def _storage_exists(restoration: VideoRestoration, profile: Profile) -> Refused | None:
    spec = restoration.spec
    named = {"spec.output.storage": spec.output.storage}
    if spec.input.uri.startswith("s3://"):
        named["spec.input.storage"] = spec.input.storage
    for field, name in named.items():
        if storage_entry(name, profile.spec) is None:
            known = ", ".join(entry.name for entry in profile.spec.storage)
            return Refused(
                reason="ProfileNotReady",
                message=f"{field} is {name!r}, but {_called(profile)} has no such storage entry, only {known}",
            )
    return None


def _one_identity(restoration: VideoRestoration, profile: Profile) -> Refused | None:
    del restoration
    accounts = {
        entry.workload_identity.service_account_name for entry in profile.spec.storage if entry.workload_identity
    }
    if profile.spec.pod and profile.spec.pod.service_account_name and accounts:
        accounts.add(profile.spec.pod.service_account_name)
    if len(accounts) < 2:
        return None
    return Refused(
        reason="ProfileNotReady",
        message=f"{_called(profile)} names several service accounts ({', '.join(sorted(accounts))}), a pod has one: "
        "make all storage[].workloadIdentity entries and pod.serviceAccountName agree",
    )


def _supported(restoration: VideoRestoration, profile: Profile) -> Refused | None:
    del restoration
    download = profile.spec.model.source.download
    unsupported = {
        "model.source.download with https://": (
            download is not None and download.uri.startswith("https://"),
            "put the model's folder into a bucket (s3://), a repository (hf://), an image or a volume",
        ),
        "gpu.multiGPU: SequenceParallel": (profile.spec.gpu.multi_gpu == "SequenceParallel", "remove it"),
    }
    for field, (used, remedy) in unsupported.items():
        if used:
            message = f"{_called(profile)} uses {field}, which this version does not support; {remedy}"
            return Refused(reason="ProfileNotReady", message=message)
    return None


def _download_complete(restoration: VideoRestoration, profile: Profile) -> Refused | None:
    """What a runner fetches must be pinned: bytes that come over a network are not taken on trust."""
    del restoration
    model = profile.spec.model
    if model.source.download is None:
        return None
    if model.digest is None:
        message = (
            f"{_called(profile)} uses model.source.download, which needs model.digest; 'video-restoration models "
            "verify FOLDER' prints it"
        )
        return Refused(reason="ProfileNotReady", message=message)
    name = model.source.download.storage
    if model.source.download.uri.startswith("s3://") and storage_entry(name, profile.spec) is None:
        known = ", ".join(entry.name for entry in profile.spec.storage)
        message = f"model.source.download.storage is {name!r}, but {_called(profile)} has only {known}"
        return Refused(reason="ProfileNotReady", message=message)
    return None


def _https_allowed(restoration: VideoRestoration, profile: Profile) -> Refused | None:
    uri = restoration.spec.input.uri
    if not uri.startswith("https://") or profile.spec.input.allow_https:
        return None
    message = f"spec.input.uri is {uri}, but {_called(profile)} does not set input.allowHTTPS"
    return Refused(reason="NotPermitted", message=message)


def _prefixes_allow(restoration: VideoRestoration, profile: Profile) -> Refused | None:
    spec = restoration.spec
    source = storage_entry(spec.input.storage, profile.spec)
    target = storage_entry(spec.output.storage, profile.spec)
    checks: list[tuple[str, str, Storage | None, tuple[str, ...] | None]] = [
        ("spec.output.uri", spec.output.uri, target, target.allowed_output_prefixes if target else None)
    ]
    if spec.input.uri.startswith("s3://"):
        allowed = source.allowed_input_prefixes if source else None
        checks.insert(0, ("spec.input.uri", spec.input.uri, source, allowed))
    for field, uri, entry, allowed in checks:
        if entry is None or not allowed:
            continue
        # Byte for byte, nothing normalised: prefixes end in a slash, and keys are no paths.
        if not uri.startswith(allowed):
            permitted = f"storage {entry.name!r} of {_called(profile)} permits only {', '.join(allowed)}"
            return Refused(reason="NotPermitted", message=f"{field} is {uri}, but {permitted}")
        if any(segment.lower().replace("%2e", ".") in (".", "..") for segment in uri.split("/")):
            # To S3 that is a key like any other; HTTP clients, proxies and servers on file systems resolve it.
            message = (
                f"{field} is {uri}: a key with a segment . or .. could leave the permitted prefix; rename the object"
            )
            return Refused(reason="NotPermitted", message=message)
    return None


def _belongs_to_administrators(restoration: VideoRestoration, profile: Profile) -> Refused | None:
    """The schema has no such fields in the namespaced kind; a CRD that somebody changed may let them through."""
    del restoration
    if profile.kind != "RestorationProfile":
        return None
    pod = profile.spec.pod
    fields = {
        "model.source.hostPath": profile.spec.model.source.host_path is not None,
        "pod.specPatch": pod is not None and pod.spec_patch is not None,
    }
    for field, used in fields.items():
        if used:
            message = f"{_called(profile)} uses {field}, which only a ClusterRestorationProfile may; remove it"
            return Refused(reason="ProfileNotReady", message=message)
    return None


def _within_limits(restoration: VideoRestoration, profile: Profile) -> Refused | None:
    execution = restoration.spec.execution
    wanted = (execution.parallelism if execution else None) or 1
    most = (profile.spec.limits or Limits()).max_parallelism
    if wanted <= most:
        return None
    return Refused(
        reason="LimitExceeded",
        message=f"spec.execution.parallelism is {wanted}, but {_called(profile)} allows at most {most}",
    )


def profile_problem(sample: VideoRestoration, profile: Profile) -> str | None:
    """What is wrong with a profile whoever uses it; None if nothing is."""
    rules = (_belongs_to_administrators, _supported, _download_complete, _one_identity)
    verdicts = (rule(sample, profile) for rule in rules)
    return next((refused.message for refused in verdicts if refused is not None), None)


_RULES: tuple[Callable[[VideoRestoration, Profile], Refused | None], ...] = (
    _belongs_to_administrators,
    _supported,
    _download_complete,
    _one_identity,
    _storage_exists,
    _https_allowed,
    _prefixes_allow,
    _within_limits,
)


def _claimed(seen: Observation) -> Refused | None:
    assert isinstance(seen.profile, Profile)
    endpoint = output_endpoint(seen.restoration, seen.profile.spec)
    holder = claimant(seen.rivals, me=seen.restoration, endpoint=endpoint)
    if holder is None:
        return None
    return Refused(
        reason="OutputClaimed",
        message=f"{seen.restoration.spec.output.uri} is being written by VideoRestoration "
        f"{holder.namespace}/{holder.name}; this one waits until that has finished",
        blocked=False,
    )


def _called(profile: Profile) -> str:
    return "the built-in profile" if profile.kind == "Builtin" else f"{profile.kind} {profile.name!r}"


def _age(created: datetime | None) -> float:
    return created.timestamp() if created else float("inf")
