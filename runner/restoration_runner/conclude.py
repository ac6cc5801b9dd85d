"""Whatever happens becomes an outcome, a sentence and an exit code: the one place where errors are caught."""

import signal
from collections.abc import Callable
from pathlib import Path

import structlog

from restoration_api.outcome import EXIT_INTERRUPTED, Outcome, Result
from restoration_runner import faults, outcomes
from restoration_runner.errors import EXIT_UNKNOWN
from restoration_runner.progress import ProgressTracker
from restoration_runner.report import write_outcome
from restoration_runner.stopping import InterruptedByRequestError, StopSignal, watching

log = structlog.get_logger()


def conclude(
    work: Callable[[StopSignal], Outcome], *, tracker: ProgressTracker, message: Path | None
) -> tuple[Outcome, int]:
    """Do the work; whatever happens becomes an outcome, written to `message`, and an exit code."""
    stop = StopSignal()

    def interrupted() -> Outcome:
        now = tracker.snapshot()
        return outcomes.interrupted(
            segments_done=now.segments_done, segments_total=now.segments_total, frames_restored=tracker.restored_frames
        )

    try:
        with watching(
            stop,
            signals=(signal.SIGTERM, signal.SIGINT),
            last_words=lambda: write_outcome(interrupted(), message),
        ):
            outcome = work(stop)
            code = EXIT_INTERRUPTED if outcome.result is Result.INTERRUPTED else 0
    except InterruptedByRequestError:
        outcome, code = interrupted(), stop.exit_code
    except Exception as error:
        log.debug("traceback", exc_info=True)
        known = faults.as_restoration_error(error)
        outcome = outcomes.failed(known) if known else outcomes.failed_unexpectedly(faults.unexpected(error))
        code = known.exit_code if known else EXIT_UNKNOWN
    write_outcome(outcome, message)
    return outcome, code
