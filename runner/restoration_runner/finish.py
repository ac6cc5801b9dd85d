"""The last steps of a piece of work, whichever role makes them: segments become one verified, visible output."""

from pathlib import Path

from restoration_api.ledger import Marker, Plan
from restoration_api.outcome import Outcome, Stage
from restoration_runner.errors import RestorationError
from restoration_runner.publish import Seen
from restoration_runner.storage.store import ObjectMissingError
from restoration_runner.task import Task
from restoration_runner.video import streams


def assemble_and_publish(task: Task, plan: Plan, source: Path, markers: dict[int, Marker], seen: Seen) -> Outcome:
    """Join all segments, verify the file, publish it, leave the manifest and clear up.

    Raises:
        ObjectMissingError, PreconditionError: a segment is no longer what its marker says.
        RestorationError: `VerificationFailed`, `OutputConflict`, and what storage says.
    """
    from restoration_runner.assemble import assemble  # loads what decodes

    task.stop.check()
    task.progress.enter(Stage.ASSEMBLING)
    fates = streams.decide(plan.video, audio=plan.audio)
    with task.clock.step("assemble"):
        segments = [task.work.fetch(markers[segment.index], task.folder) for segment in plan.segments]
        try:
            path, verification = assemble(
                plan,
                source,
                segments=segments,
                markers=markers,
                outcomes=fates,
                folder=task.folder,
                span=task.context.spans.current,
            )
        except RestorationError as error:
            gone = [segment.name for segment in segments if not segment.exists()]
            if gone:  # in a folder they are read where they lie, and a peer may clear up at any time
                raise ObjectMissingError(f"{gone[0]} vanished while it was joined") from error
            raise
    task.stop.check()
    task.progress.enter(Stage.UPLOADING)
    with task.clock.step("upload"):
        published = task.destination.publish(path, before=seen.before, on_bytes=lambda _: task.stop.check())
    if published.adopted:
        return task.already_there(published.info)
    manifest = task.publish_manifest(plan, published.info, published.sha256, verification, fates, markers)
    task.clear()
    return task.outcome(plan, manifest=manifest, message=f"restored {plan.frames} frames")
