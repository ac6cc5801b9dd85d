"""What of a runner's progress is worth a status write, and how it reads.

Every write costs the API server and every watcher something, so progress is copied when the stage changes, when a
percent is done, or when 30 seconds have passed. It never runs backwards within an execution, whatever the runner says,
and its times are the operator's: a runner's clock may be wrong.
"""

from datetime import datetime, timedelta
from typing import Final

from restoration_api.outcome import Outcome, Progress, Stage
from restoration_api.resources import ConditionType, Phase, VideoRestoration
from restoration_api.resources.status import ProgressStatus
from restoration_operator.decide.types import PolledProgress

LONGEST_SILENCE: Final = timedelta(seconds=30)
STALE_WORDS: Final = "no progress since"
"""In the message of `Scheduled` while it is so."""
SUMMARY_CHARACTERS: Final = 32
LONGEST_ESTIMATE_MILLISECONDS: Final = 365 * 24 * 3600 * 1000
"""Beyond a year it is no estimate."""
ASSEMBLING: Final = (Stage.ASSEMBLING, Stage.UPLOADING)


def merge(stored: ProgressStatus | None, said: PolledProgress | None) -> ProgressStatus | None:
    """The progress to store: what is stored already, unless the runner has said something worth a write."""
    if said is None:
        return stored
    fresh = _status(stored, said.progress, said.unchanged_since)
    return fresh if stored is None or _worth_writing(stored, fresh) else stored


def is_stale(said: PolledProgress, now: datetime, after: timedelta) -> bool:
    """Whether a runner that answers has said the same for long. Nothing is stopped because of it."""
    return now - said.unchanged_since >= after


def worth_telling(
    restoration: VideoRestoration, said: PolledProgress, now: datetime, *, stale_after: timedelta
) -> bool:
    """Whether an answer would change the status of its restoration."""
    status = restoration.status
    messages = [item.message for item in status.conditions if item.type == ConditionType.SCHEDULED]
    told = any(STALE_WORDS in message for message in messages)
    return merge(status.progress, said) != status.progress or told != is_stale(said, now, stale_after)


def planned(outcome: Outcome | None, now: datetime) -> ProgressStatus | None:
    """What is known once the plan is made: how much there is, and what of it is finished already."""
    frames = outcome.input.frames if outcome and outcome.input else None
    if outcome is None or outcome.segments_total is None or frames is None:
        return None
    return ProgressStatus(
        summary=_summary(0, 0, frames),
        percent=0,
        frames_done=0,
        frames_total=frames,
        segments_done=outcome.segments_done,
        segments_total=outcome.segments_total,
        last_update_time=now,
    )


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


def _status(stored: ProgressStatus | None, said: Progress, at: datetime) -> ProgressStatus:
    before = stored or ProgressStatus()
    # The plan is made once: a total that changes is no total.
    total = before.frames_total if before.frames_total is not None else said.frames_total
    done = max(said.frames_done, before.frames_done or 0)
    done = done if total is None else min(done, total)
    percent = 100 * done // total if total else None
    stage = max(said.stage, before.stage or said.stage, key=list(Stage).index)
    return ProgressStatus(
        stage=stage,
        summary=_model_summary(stage, said) or _frames_summary(percent, done, total) or stage.value,
        percent=percent,
        frames_done=done,
        frames_total=total,
        segments_done=max(said.segments_done, before.segments_done or 0),
        segments_total=before.segments_total if before.segments_total is not None else said.segments_total,
        milli_frames_per_second=said.milli_frames_per_second,
        estimated_completion_time=_estimate(said, at),
        last_update_time=at,
    )


def _worth_writing(stored: ProgressStatus, fresh: ProgressStatus) -> bool:
    if fresh.stage != stored.stage or fresh.percent != stored.percent:
        return True
    if fresh.stage is Stage.FETCHING_MODEL and fresh.summary != stored.summary:
        return True
    if (fresh.frames_done, fresh.segments_done) == (stored.frames_done, stored.segments_done):
        return False
    if stored.last_update_time is None or fresh.last_update_time is None:
        return True
    return fresh.last_update_time - stored.last_update_time >= LONGEST_SILENCE


def _frames_summary(percent: int | None, done: int, total: int | None) -> str | None:
    return _summary(percent, done, total) if percent is not None and total else None


def _summary(percent: int, done: int, total: int) -> str:
    """`41% 9840/24000`: printer columns cannot format."""
    return f"{percent}% {done}/{total}"[:SUMMARY_CHARACTERS]


def _model_summary(stage: Stage, said: Progress) -> str | None:
    """`FetchingModel 41%`, while gigabytes of weights arrive and no frame moves."""
    if stage is not Stage.FETCHING_MODEL or not said.model_bytes_total:
        return None
    return f"{stage.value} {100 * min(said.model_bytes_done or 0, said.model_bytes_total) // said.model_bytes_total}%"


def _estimate(said: Progress, at: datetime) -> datetime | None:
    if said.remaining_milliseconds is None or said.remaining_milliseconds > LONGEST_ESTIMATE_MILLISECONDS:
        return None
    return (at + timedelta(milliseconds=said.remaining_milliseconds)).replace(microsecond=0)
