"""What of a runner's progress is worth a status write, and how it reads.

Every write costs the API server and every watcher something, so progress is copied when the stage changes, when a
percent is done, or when 30 seconds have passed. It never runs backwards within an execution, whatever the runner says.
"""

from datetime import datetime, timedelta
from typing import Final

from restoration_api.outcome import Outcome, Progress, Stage
from restoration_api.resources import Phase
from restoration_api.resources.status import ProgressStatus

LONGEST_SILENCE: Final = timedelta(seconds=30)
SUMMARY_CHARACTERS: Final = 32
ASSEMBLING: Final = (Stage.ASSEMBLING, Stage.UPLOADING)


def merge(stored: ProgressStatus | None, said: Progress | None, now: datetime) -> ProgressStatus | None:
    """The progress to store: what is stored already, unless the runner has said something worth a write."""
    if said is None:
        return stored
    fresh = _status(stored, said, now)
    return fresh if stored is None or _worth_writing(stored, fresh) else stored


def finished(stored: ProgressStatus | None, outcome: Outcome | None, now: datetime) -> ProgressStatus | None:
    """Progress of a restoration that has succeeded."""
    frames = outcome.output.frames if outcome and outcome.output else None
    frames = frames or (stored.frames_total if stored else None)
    if frames is None:
        return stored
    segments = outcome.segments_total if outcome else None
    return (stored or ProgressStatus()).model_copy(
        update={
            "summary": _summary(100, frames, frames),
            "percent": 100,
            "frames_done": frames,
            "frames_total": frames,
            "segments_done": segments,
            "segments_total": segments,
            "estimated_completion_time": None,
            "last_update_time": now,
        }
    )


def phase(stored: ProgressStatus | None) -> Phase:
    """`Assembling` once the last segment is done, `Running` before."""
    return Phase.ASSEMBLING if stored is not None and stored.stage in ASSEMBLING else Phase.RUNNING


def _status(stored: ProgressStatus | None, said: Progress, now: datetime) -> ProgressStatus:
    total = said.frames_total
    done = max(said.frames_done, stored.frames_done or 0 if stored else 0)
    done = done if total is None else min(done, total)
    percent = 100 * done // total if total else None
    return ProgressStatus(
        stage=said.stage,
        summary=_summary(percent, done, total) if percent is not None and total else said.stage.value,
        percent=percent,
        frames_done=done,
        frames_total=total,
        segments_done=max(said.segments_done, stored.segments_done or 0 if stored else 0),
        segments_total=said.segments_total,
        milli_frames_per_second=said.milli_frames_per_second,
        estimated_completion_time=_estimate(said, now),
        last_update_time=said.updated_at.replace(microsecond=0),
    )


def _worth_writing(stored: ProgressStatus, fresh: ProgressStatus) -> bool:
    if stored.last_update_time is None or fresh.last_update_time is None:
        return True
    if fresh.last_update_time <= stored.last_update_time:
        return False
    return (
        fresh.stage != stored.stage
        or fresh.percent != stored.percent
        or fresh.last_update_time - stored.last_update_time >= LONGEST_SILENCE
    )


def _summary(percent: int, done: int, total: int) -> str:
    """`41% 9840/24000`: printer columns cannot format."""
    return f"{percent}% {done}/{total}"[:SUMMARY_CHARACTERS]


def _estimate(said: Progress, now: datetime) -> datetime | None:
    if said.remaining_milliseconds is None:
        return None
    return (now + timedelta(milliseconds=said.remaining_milliseconds)).replace(microsecond=0)
