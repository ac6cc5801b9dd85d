"""From finished segments to a verified local file."""

from pathlib import Path

from restoration_api.ledger import Marker, Plan
from restoration_api.outcome import StreamOutcome, Verification
from restoration_runner.tracing import NONE, Span
from restoration_runner.video import streams
from restoration_runner.video.join import join
from restoration_runner.video.timeline import timeline
from restoration_runner.video.verify import Expected, verify


def assemble(
    plan: Plan,
    source: Path,
    *,
    segments: list[Path],
    markers: dict[int, Marker],
    outcomes: tuple[StreamOutcome, ...],
    folder: Path,
    span: Span = NONE,
) -> tuple[Path, Verification]:
    """Join the segments with the plan's times and the input's sound, then decode all of it and compare.

    Both steps are told below `span`.

    Raises:
        RestorationError: `VerificationFailed`, with the first difference.
    """
    path = folder / "output.mp4"
    kept = streams.copied(outcomes)
    times = timeline(plan.timestamps, plan.video, kept=kept)
    with span.around("join"):
        join(
            segments,
            path,
            timeline=times,
            color=plan.color,
            facts=plan.video,
            source=source,
            kept=kept,
            name=plan.input.uri,
        )
    promised = tuple((markers[segment.index].frames, markers[segment.index].frames_sha256) for segment in plan.segments)
    expected = Expected(
        width=plan.width,
        height=plan.height,
        color=plan.color,
        timeline=times,
        segments=promised,
        source=source,
        kept=kept,
    )
    with span.around("verify"):
        return path, verify(path, expected)
