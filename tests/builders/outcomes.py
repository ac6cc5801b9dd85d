"""What a runner writes at its end, as termination messages."""

from restoration_api.outcome import (
    FailureReason,
    InputOutcome,
    Outcome,
    OutputOutcome,
    Result,
    StreamAction,
    StreamOutcome,
    Timings,
    Verdict,
    Verification,
)


def succeeded(*, reason: str = "Completed", frames: int = 60) -> str:
    """A restoration of a short clip went well."""
    return Outcome(
        result=Result.SUCCEEDED,
        reason=reason,
        message=f"{frames} frames restored",
        cache_key="c" * 64,
        cache_hit=reason == "CacheHit",
        segments_done=3,
        segments_total=3,
        frames_restored=frames,
        gpu="cpu",
        input=InputOutcome(etag="abc", size_bytes=1000, width=160, height=90, frames=frames, frame_rate="24/1"),
        output=OutputOutcome(
            uri="s3://media/restored/clip.mp4",
            etag="def",
            sha256="a" * 64,
            width=640,
            height=360,
            frames=frames,
            verification=Verification(verdict=Verdict.PASSED, expected_frames=frames, decoded_frames=frames),
            streams=(StreamOutcome(index=0, type="video", action=StreamAction.RESTORED),),
        ),
        timings=Timings(fetch_milliseconds=120, inference_milliseconds=9000, upload_milliseconds=80),
    ).termination_message()


def planned(*, segments_done: int = 0, frames: int = 60) -> str:
    """The plan of the same clip is made."""
    return Outcome(
        result=Result.SUCCEEDED,
        reason="Planned",
        message=f"planned {frames} frames in 3 segments",
        cache_key="c" * 64,
        segments_done=segments_done,
        segments_total=3,
        input=InputOutcome(etag="abc", size_bytes=1000, width=160, height=90, frames=frames, frame_rate="24/1"),
        timings=Timings(fetch_milliseconds=300),
    ).termination_message()


def unfinished() -> str:
    """An earlier execution left too little for an output."""
    return Outcome(
        result=Result.INTERRUPTED,
        reason="Interrupted",
        message="no output was published; 1 of 3 segments are finished and kept",
        segments_done=1,
        segments_total=3,
    ).termination_message()


def failed(reason: FailureReason, message: str) -> str:
    """The runner knows what is wrong."""
    return Outcome(result=Result.FAILED, reason=reason, message=message).termination_message()
