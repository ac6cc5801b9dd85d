"""The role `plan`: everything that can be found out without computing a frame, before a GPU is waited for.

Request, input, permissions, what lies at the output, the whole input decoded once: whatever ends a restoration at once
ends it here. What it leaves is `plan.json`, and the role `run` works by it.
"""

from restoration_api.outcome import Outcome
from restoration_runner.task import JobContext, Task, scratch_folder


def plan_job(context: JobContext) -> Outcome:
    """Look, and write the plan if there is none.

    Returns:
        `CacheHit` if the output is there; else `Planned`, with how many segments are finished already: where all are,
        nothing is left to compute.

    Raises:
        RestorationError: what keeps the request from being served, with its class.
        InterruptedByRequestError: told to stop.
    """
    with scratch_folder(context) as folder:
        task = Task(context, folder)
        seen = task.look()
        if seen.hit is not None:
            return task.already_there(seen.hit)
        plan = task.plan(task.fetch)
        finished = task.finished(plan)
        outcome = task.outcome(plan, message=f"planned {plan.frames} frames in {len(plan.segments)} segments")
        return outcome.model_copy(update={"reason": "Planned", "segments_done": len(finished)})
