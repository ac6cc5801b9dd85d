"""What the runner says at its end, put together from plan, manifest and object: pure functions."""

from restoration_api.ledger import Manifest, Plan
from restoration_api.outcome import (
    InputOutcome,
    Outcome,
    OutputOutcome,
    Result,
)
from restoration_runner import secrets
from restoration_runner.errors import RestorationError
from restoration_runner.storage.store import ObjectInfo

SHA256_METADATA = "vr-sha256"
MESSAGE_CHARACTERS = 1024


def input_outcome(plan: Plan) -> InputOutcome:
    """Facts of the input that status shows."""
    return InputOutcome(
        etag=plan.input.etag,
        version_id=plan.input.version_id,
        size_bytes=plan.input.size_bytes,
        width=plan.video.width,
        height=plan.video.height,
        frames=plan.frames,
        frame_rate=plan.video.frame_rate,
        duration_milliseconds=round(plan.timestamps.seconds * 1000),
        codec=plan.video.codec,
    )


def output_outcome(
    uri: str, *, manifest: Manifest | None, manifest_uri: str | None, found: ObjectInfo | None = None
) -> OutputOutcome:
    """The published object: by its manifest, or, where that is gone, by what the store says of it."""
    if manifest is None:
        assert found is not None, "an output is known by its manifest or by its object"
        return OutputOutcome(
            uri=uri,
            etag=found.etag,
            version_id=found.version_id,
            sha256=found.metadata.get(SHA256_METADATA),
            size_bytes=found.size_bytes,
        )
    return OutputOutcome(
        uri=uri,
        manifest_uri=manifest_uri,
        etag=manifest.etag,
        version_id=manifest.version_id,
        sha256=manifest.sha256,
        size_bytes=manifest.size_bytes,
        width=manifest.plan.width,
        height=manifest.plan.height,
        frames=manifest.plan.frames,
        verification=manifest.verification,
        streams=manifest.streams,
    )


def failed(error: RestorationError) -> Outcome:
    return Outcome(result=Result.FAILED, reason=error.reason.value, message=_short(error.message))


def failed_unexpectedly(message: str) -> Outcome:
    return Outcome(result=Result.FAILED, reason="Unknown", message=_short(message))


def interrupted(*, segments_done: int, segments_total: int | None, frames_restored: int) -> Outcome:
    total = f" of {segments_total}" if segments_total is not None else ""
    return Outcome(
        result=Result.INTERRUPTED,
        reason="Interrupted",
        message=f"stopped on request; {segments_done}{total} segments are finished and kept",
        segments_done=segments_done,
        segments_total=segments_total,
        frames_restored=frames_restored,
    )


def unfinished(*, segments_done: int, segments_total: int | None) -> Outcome:
    """What an earlier execution left is not enough for an output."""
    total = f" of {segments_total}" if segments_total is not None else ""
    return Outcome(
        result=Result.INTERRUPTED,
        reason="Interrupted",
        message=f"no output was published; {segments_done}{total} segments are finished and kept",
        segments_done=segments_done,
        segments_total=segments_total,
    )


def _short(message: str) -> str:
    """Cleaned before it is cut: half a secret is not recognised any more."""
    message = secrets.cleaned(message)
    return message if len(message) <= MESSAGE_CHARACTERS else message[: MESSAGE_CHARACTERS - 1] + "…"
