"""The role `run`: find, plan, restore, assemble, verify, publish, report; or what is left of it.

The steps are in the order of the commit protocol. The libraries that compute are loaded when a segment has to be made:
a result that is there already is found within a second.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from restoration_api.ledger import Marker, Plan
from restoration_api.outcome import FailureReason, Outcome
from restoration_runner.errors import RestorationError
from restoration_runner.finish import assemble_and_publish
from restoration_runner.inputs import check_unchanged
from restoration_runner.loading import ModelLoading
from restoration_runner.publish import Seen
from restoration_runner.storage.store import ObjectMissingError, PreconditionError
from restoration_runner.task import JobContext, Task, scratch_folder
from restoration_runner.video.threads import sparing

if TYPE_CHECKING:
    from restoration_runner.segments import Segments

log = structlog.get_logger()

ROUNDS = 3
"""Of restoring and assembling: a second one is needed only if a peer removed segments that were counted on."""


def run_job(context: JobContext) -> Outcome:
    """Do the whole work of a request, or what is left of it.

    Raises:
        RestorationError: with its class.
        InterruptedByRequestError: told to stop; finished segments are kept.
    """
    # A memory hint means that a predecessor was killed for the memory it took: slower, and with less of it.
    with scratch_folder(context) as folder, sparing(context.memory_hint_mib is not None):
        task = Task(context, folder)
        seen = task.look()
        if seen.hit is not None:
            return task.already_there(seen.hit)
        with ModelLoading(task) as loading:
            loading.ahead()
            task.destination.abort_uploads()
            source = task.fetch()
            plan = task.plan(lambda: source)
            return _Run(task, loading).to_the_end(plan, source, seen)


class _Run:
    """Rounds of making what is missing and publishing what there is; the model is loaded at most once."""

    def __init__(self, task: Task, loading: ModelLoading) -> None:
        self._task, self._loading = task, loading
        self._segments: Segments | None = None

    def to_the_end(self, plan: Plan, source: Path, seen: Seen) -> Outcome:
        task = self._task
        for _ in range(ROUNDS):
            markers = self._restore(plan, source)
            if len(markers) < len(plan.segments):
                return task.outcome(plan, message=f"{len(markers)} of {len(plan.segments)} segments are finished")
            check_unchanged(task.input)
            try:
                return assemble_and_publish(task, plan, source, markers, seen)
            except (ObjectMissingError, PreconditionError) as error:
                # A peer that was faster has published and cleared up, or somebody cleaned by hand.
                log.warning("segments are gone", cause=error.message)
                seen = task.destination.look()
                if seen.hit is not None:
                    return task.already_there(seen.hit)
        raise RestorationError(
            FailureReason.STORAGE_ERROR,
            f"segments below {task.output_store.uri(task.work.prefix)} vanished {ROUNDS} times while they were "
            "needed: does somebody else clean up there?",
        )

    def _restore(self, plan: Plan, source: Path) -> dict[int, Marker]:
        """Finish what is not finished; returns the markers of all finished segments."""
        found = self._task.finished(plan)
        for index in found:
            self._task.count_reused(plan.segments[index])
        only = self._task.context.only
        if only is not None and max(only) >= len(plan.segments):
            raise RestorationError(
                FailureReason.INVALID_PARAMETERS,
                f"--segments: there is no segment {max(only)}; the plan has {len(plan.segments)}, counted from 0",
            )
        missing = [s for s in plan.segments if s.index not in found and (only is None or s.index in only)]
        if missing:
            log.info("restoring", missing=len(missing), reused=len(found))
            if self._segments is None:
                from restoration_runner.segments import Segments  # loads torch

                self._segments = Segments(self._task, self._loading)
            found |= self._segments.make(plan, source, missing)
        return found
