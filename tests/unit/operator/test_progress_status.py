"""What of the runner's progress is written, and how it reads."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders.observations import POD_UID, at, restoration

from restoration_api.outcome import Progress, Stage
from restoration_api.resources.status import ProgressStatus
from restoration_operator.decide.progress import LONGEST_SILENCE, STALE_WORDS, merge, worth_telling
from restoration_operator.decide.types import PolledProgress


def said(seconds: float, done: int, total: int | None = 24000, **rest: Any) -> PolledProgress:
    """An answer that the operator first heard so long after the start; the runner's own clock stands still."""
    values: dict[str, Any] = {"execution": 1, "stage": Stage.RESTORING, "updated_at": at(0)}
    progress = Progress(**(values | {"frames_done": done, "frames_total": total} | rest))
    return PolledProgress(pod_uid=POD_UID, progress=progress, unchanged_since=at(seconds))


def test_summary_is_ready_to_print() -> None:
    status = merge(None, said(10, 9840))
    assert status is not None
    assert status.summary == "41% 9840/24000"
    assert status.percent == 41


def test_before_the_number_of_frames_is_known_the_stage_is_the_summary() -> None:
    status = merge(None, said(10, 0, None, stage=Stage.FETCHING))
    assert status is not None
    assert (status.summary, status.percent) == ("Fetching", None)


def fetching(seconds: float, done: int | None, total: int | None) -> PolledProgress:
    """Weights arrive, and no frame is restored."""
    return said(seconds, 0, stage=Stage.FETCHING_MODEL, model_bytes_done=done, model_bytes_total=total)


@pytest.mark.parametrize(
    ("done", "total", "summary"),
    [
        (0, 6_783_018_808, "FetchingModel 0%"),
        (2_781_037_711, 6_783_018_808, "FetchingModel 40%"),
        (7_000_000_000, 6_783_018_808, "FetchingModel 100%"),
        (None, None, "0% 0/24000"),
    ],
)
def test_while_weights_arrive_the_summary_is_theirs(done: int | None, total: int | None, summary: str) -> None:
    status = merge(None, fetching(10, done, total))
    assert status is not None
    assert (status.summary, status.stage, status.percent) == (summary, Stage.FETCHING_MODEL, 0)


def test_each_percent_of_the_weights_is_written() -> None:
    stored = merge(None, fetching(10, 100, 1000))
    assert merge(stored, fetching(11, 109, 1000)) == stored
    more = merge(stored, fetching(12, 110, 1000))
    assert more is not None and more.summary == "FetchingModel 11%"
    restoring = merge(more, said(13, 0))
    assert restoring is not None and restoring.summary == "0% 0/24000"


@pytest.mark.parametrize(("milliseconds", "estimate"), [(90_000, at(102)), (10**15, None), (10**400, None)])
def test_the_estimate_is_the_runners(milliseconds: int, estimate: datetime | None) -> None:
    status = merge(None, said(12, 1, remaining_milliseconds=milliseconds))
    assert status is not None
    assert status.estimated_completion_time == estimate


@pytest.mark.parametrize(
    ("next_", "written"),
    [
        (said(15, 9841), False),
        (said(15, 10080), True),
        (said(15, 9840, stage=Stage.ASSEMBLING), True),
        (said(15, 9840, stage=Stage.PROBING), False),
        (said(10 + LONGEST_SILENCE.total_seconds(), 9841), True),
        (said(10 + LONGEST_SILENCE.total_seconds(), 9840), False),
        (said(10, 9840), False),
        (said(15, 100), False),
        (None, False),
    ],
    ids=[
        "a frame",
        "a percent",
        "a stage",
        "a stage that was before",
        "half a minute",
        "half a minute without a frame",
        "the same answer",
        "fewer frames",
        "no answer",
    ],
)
def test_what_is_worth_a_write(next_: PolledProgress | None, written: bool) -> None:
    before = merge(None, said(10, 9840))
    assert (merge(before, next_) != before) is written


@given(
    answers=st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 30), st.sampled_from(list(Stage)), st.none() | st.integers(0, 50)),
        max_size=20,
    )
)
def test_whatever_a_runner_says_nothing_runs_backwards(
    answers: list[tuple[int, int, Stage, int | None]],
) -> None:
    status: ProgressStatus | None = None
    seen: list[tuple[int, int, int, int]] = []
    for number, (done, segments, stage, total) in enumerate(answers):
        status = merge(status, said(31.0 * number, done, total, segments_done=segments, stage=stage))
        assert status is not None
        assert status.stage is not None
        assert 0 <= (status.percent or 0) <= 100
        seen.append(
            (
                status.percent or 0,
                status.segments_done or 0,
                list(Stage).index(status.stage),
                status.frames_done if status.frames_total is not None and status.frames_done else 0,
            )
        )
    for before, after in pairwise(seen):
        assert before[1:3] <= after[1:3]
        assert before[1] <= after[1]
        assert before[0] <= after[0]
    totals = {total for *_, total in answers if total is not None}
    assert status is None or status.frames_total in totals | {None}


@pytest.mark.parametrize(
    ("answer", "message", "worth"),
    [
        (said(10, 9840), "pod p on node n", False),
        (said(10, 10080), "pod p on node n", True),
        (said(-590, 9840), "pod p on node n", True),
        (said(-590, 9840), f"pod p on node n; {STALE_WORDS} 2026-01-01T11:50:10Z, in stage Restoring", False),
        (said(10, 9841), f"pod p on node n; {STALE_WORDS} 2026-01-01T11:50:10Z, in stage Restoring", True),
    ],
    ids=["nothing new", "a percent", "stale", "stale and told so", "moves again"],
)
def test_what_is_worth_telling(answer: PolledProgress, message: str, worth: bool) -> None:
    stored = merge(None, said(5, 9840))
    assert stored is not None
    scheduled = {"type": "Scheduled", "status": "True", "reason": "Running", "message": message}
    conditions = [scheduled | {"lastTransitionTime": "2026-01-01T12:00:00Z"}]
    seen = restoration(status={"conditions": conditions, "progress": stored.model_dump(mode="json", by_alias=True)})
    assert worth_telling(seen, answer, at(10), stale_after=timedelta(seconds=600)) is worth
