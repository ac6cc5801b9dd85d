"""The role `assemble`: finish what needs no more frames, or find out what became of an execution that left no word.

A pod's report can be lost with the pod. Storage knows better: an output that is there was verified before it was
published, and segments that are all there only need joining. Anything less is said to be unfinished.
"""

from restoration_api.outcome import Outcome
from restoration_runner import outcomes
from restoration_runner.finish import assemble_and_publish
from restoration_runner.inputs import check_unchanged
from restoration_runner.storage.store import ObjectInfo, ObjectMissingError, PreconditionError
from restoration_runner.task import JobContext, Task, scratch_folder


def assemble_job(context: JobContext) -> Outcome:
    """Publish what is finished, or report what is published.

    Returns:
        `Completed`, as the execution that made the output would have said it; or `Interrupted`: segments are missing
        and have to be computed.

    Raises:
        RestorationError: with its class.
        InterruptedByRequestError: told to stop.
    """
    with scratch_folder(context) as folder:
        task = Task(context, folder)
        seen = task.look()
        if seen.hit is not None:
            return _found(task, seen.hit)
        plan = task.stored_plan()
        markers = task.finished(plan) if plan else {}
        if plan is None or len(markers) < len(plan.segments):
            total = len(plan.segments) if plan else None
            return outcomes.unfinished(segments_done=len(markers), segments_total=total)
        for segment in plan.segments:
            task.count_reused(segment)
        source = task.fetch()
        check_unchanged(task.input)
        try:
            return assemble_and_publish(task, plan, source, markers, seen)
        except (ObjectMissingError, PreconditionError):
            return _after_a_peer(task)


def _after_a_peer(task: Task) -> Outcome:
    """Segments vanished meanwhile: somebody has published and cleared up, or cleaned by hand."""
    seen = task.destination.look()
    if seen.hit is not None:
        return _found(task, seen.hit)
    return outcomes.unfinished(segments_done=0, segments_total=None)


def _found(task: Task, hit: ObjectInfo) -> Outcome:
    """The success that it was: times and facts are those of the execution that published it."""
    outcome = task.already_there(hit)
    _, manifest = task.manifest(hit)
    timings = manifest.timings if manifest is not None else outcome.timings
    return outcome.model_copy(
        update={"reason": "Completed", "cache_hit": False, "timings": timings, "message": "the output was published"}
    )
