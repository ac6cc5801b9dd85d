"""Merges a VideoRestoration with its profile into `request.json`, the one thing the runner is told.

Only the storage entries in use are named: a runner that restores from one bucket into another has no business with the
credentials of a third.
"""

from pydantic import ValidationError

from restoration_api.defaults import Choices, Resolved, resolve
from restoration_api.request import (
    Clip,
    CredentialSource,
    GpuRequest,
    InputRequest,
    Limits,
    OutputRequest,
    Request,
    ResolvedExecution,
    StorageRequest,
    Target,
)
from restoration_api.resources import ProfileSpec, VideoRestorationSpec
from restoration_api.resources.profile import Defaults, Storage
from restoration_operator.build.model import model_request


class ContradictionError(ValueError):
    """Values that are legal one by one exclude each other once they are merged; the message names the fields."""


def resolve_request(spec: VideoRestorationSpec, profile: ProfileSpec) -> Request:
    """The request with every default applied; the same arguments always give the same text.

    The caller has checked that the storage entries exist (`decide.admission`).

    Raises:
        ContradictionError: the merged values exclude each other.
    """
    chosen, execution = resolved_choices(spec, profile), spec.execution
    return Request(
        input=_input(spec, profile),
        output=_output(spec, profile, chosen),
        restoration=chosen.restoration,
        execution=ResolvedExecution(
            segment_frames=chosen.segment_frames,
            **({} if execution is None else {"mode": execution.mode, "parallelism": execution.parallelism or 1}),
        ),
        model=model_request(profile.model, default_storage=profile.storage[0].name),
        gpu=GpuRequest(count=profile.gpu.count, min_memory_mib=profile.gpu.min_memory_mib or 0),
        storage=tuple(_storage(entry) for entry in storage_in_use(spec, profile)),
        limits=_limits(profile),
        allow_https=profile.input.allow_https,
        cache=spec.cache,
        cleanup_segments=spec.cleanup.segments,
    )


def storage_entry(name: str | None, profile: ProfileSpec) -> Storage | None:
    """The entry of that name, the first for no name, None where the profile has no such entry."""
    if name is None:
        return profile.storage[0]
    return next((entry for entry in profile.storage if entry.name == name), None)


def storage_in_use(spec: VideoRestorationSpec, profile: ProfileSpec) -> tuple[Storage, ...]:
    """Entries that input, output and the model's download refer to, each once, in the profile's order."""
    wanted = {_name(spec.output.storage, profile)}
    if spec.input.uri.startswith("s3://"):
        wanted.add(_name(spec.input.storage, profile))
    download = profile.model.source.download
    if download is not None and download.uri.startswith("s3://"):
        wanted.add(_name(download.storage, profile))
    return tuple(entry for entry in profile.storage if entry.name in wanted)


def resolved_choices(spec: VideoRestorationSpec, profile: ProfileSpec) -> Resolved:
    """What the network and the encoder are told, after all defaults.

    Raises:
        ContradictionError: as `resolve_request`.
    """
    try:
        return resolve(profile.model.name, _user_choices(spec), _profile_choices(profile.defaults))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = first["msg"].removeprefix("Value error, ")
        raise ContradictionError(
            f"spec and profile together give an impossible request: {reason}; set the field in the restoration"
        ) from error


def _user_choices(spec: VideoRestorationSpec) -> Choices:
    wish, output = spec.restoration, spec.output
    encoder = Choices(codec=output.codec, crf=output.crf, preset=output.preset)
    segment_frames = spec.execution.segment_frames if spec.execution else None
    if wish is None:
        return encoder.model_copy(update={"segment_frames": segment_frames})
    return encoder.model_copy(
        update={
            "segment_frames": segment_frames,
            "target": None if wish.target is None else Target(**dict(wish.target)),
            "chunk_frames": wish.chunk.frames if wish.chunk else None,
            "overlap_frames": wish.chunk.overlap_frames if wish.chunk else None,
            "seed": wish.seed,
            "color_correction": wish.color_correction,
            "denoise_strength": wish.denoise_strength,
            "strength": wish.strength,
        }
    )


def _profile_choices(defaults: Defaults | None) -> Choices:
    if defaults is None:
        return Choices()
    shared = set(Choices.model_fields) & set(Defaults.model_fields) - {"target"}
    target = defaults.target if defaults.target is not None and any(dict(defaults.target).values()) else None
    return Choices(
        target=None if target is None else Target(**dict(target)),
        **{name: getattr(defaults, name) for name in shared},
    )


def _input(spec: VideoRestorationSpec, profile: ProfileSpec) -> InputRequest:
    source = spec.input
    return InputRequest(
        uri=source.uri,
        storage=_name(source.storage, profile) if source.uri.startswith("s3://") else None,
        version_id=source.version_id,
        etag=source.etag,
        sha256=source.sha256,
        clip=None if source.clip is None else Clip(**dict(source.clip)),
    )


def _output(spec: VideoRestorationSpec, profile: ProfileSpec, chosen: Resolved) -> OutputRequest:
    return OutputRequest(
        uri=spec.output.uri,
        storage=_name(spec.output.storage, profile),
        overwrite=spec.output.overwrite,
        container=spec.output.container,
        codec=chosen.codec,
        crf=chosen.crf,
        preset=chosen.preset,
        pixel_format=spec.output.pixel_format,
        audio=spec.output.audio,
    )


def _storage(entry: Storage) -> StorageRequest:
    if entry.secret_name:
        credentials = CredentialSource.FILES
    elif entry.workload_identity:
        credentials = CredentialSource.WORKLOAD_IDENTITY
    else:
        credentials = CredentialSource.ANONYMOUS
    return StorageRequest(
        name=entry.name,
        endpoint=entry.endpoint,
        region=entry.region,
        addressing=entry.addressing,
        credentials=credentials,
        custom_ca=bool(entry.ca_config_map_name or entry.ca_secret_name),
    )


def _limits(profile: ProfileSpec) -> Limits:
    caps = profile.limits
    if caps is None:
        return Limits()
    return Limits(max_output_megapixels=caps.max_output_megapixels, max_input_bytes=caps.max_input_bytes)


def _name(name: str | None, profile: ProfileSpec) -> str:
    return name or profile.storage[0].name
