"""The final status for people: what came out, verified how, and where the time went."""

from __future__ import annotations

from restoration_api.resources.status import VideoRestorationStatus

TIMINGS = (
    ("waiting for a place", "queued_milliseconds"),
    ("starting the pod", "startup_milliseconds"),
    ("fetching the input", "fetch_milliseconds"),
    ("waiting for weights", "model_fetch_milliseconds"),
    ("loading the model", "model_load_milliseconds"),
    ("decoding", "decode_milliseconds"),
    ("inference", "inference_milliseconds"),
    ("encoding", "encode_milliseconds"),
    ("joining and checking", "assemble_milliseconds"),
    ("uploading", "upload_milliseconds"),
    ("total, from apply on", "total_milliseconds"),
)


def summary(status: VideoRestorationStatus) -> str:
    """Some lines of plain text."""
    lines = [f"{status.phase}: " + "; ".join(c.message for c in status.conditions if c.type == "Succeeded")]
    if status.input:
        found = status.input
        lines.append(
            f"input    {found.width}x{found.height}, {found.frames} frames, {found.frame_rate} fps, {found.codec}"
        )
    if status.output:
        made, check = status.output, status.output.verification
        verdict = f", verification {check.verdict}: {check.decoded_frames} frames decoded" if check else ""
        lines.append(f"output   {made.width}x{made.height}, {made.frames} frames, {made.size_bytes} bytes{verdict}")
    if status.timings:
        for label, field in TIMINGS:
            value = getattr(status.timings, field)
            if value is not None:
                lines.append(f"  {label:<22} {value / 1000:8.1f} s")
    return "\n".join(lines)
