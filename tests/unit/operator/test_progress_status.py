"""What of the runner's progress is written, and how it reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders.observations import at

from restoration_api.outcome import Progress, Stage
from restoration_api.resources.status import ProgressStatus
from restoration_operator.decide.progress import LONGEST_SILENCE, merge


def said(seconds: float, done: int, total: int | None = 24000, **rest: Any) -> Progress:
    values: dict[str, Any] = {"execution": 1, "stage": Stage.RESTORING, "updated_at": at(seconds)}
    return Progress(**(values | {"frames_done": done, "frames_total": total} | rest))


def test_summary_is_ready_to_print() -> None:
    status = merge(None, said(10, 9840), at(10))
    assert status is not None
    assert status.summary == "41% 9840/24000"
    assert status.percent == 41


def test_before_the_number_of_frames_is_known_the_stage_is_the_summary() -> None:
    status = merge(None, said(10, 0, None, stage=Stage.FETCHING), at(10))
    assert status is not None
    assert (status.summary, status.percent) == ("Fetching", None)


def test_the_estimate_is_the_runners() -> None:
    status = merge(None, said(10, 1, remaining_milliseconds=90_000), at(12))
    assert status is not None
    assert status.estimated_completion_time == at(102)


@pytest.mark.parametrize(
    ("next_", "written"),
    [
        (said(15, 9841), False),
        (said(15, 10080), True),
        (said(15, 9840, stage=Stage.ASSEMBLING), True),
        (said(10 + LONGEST_SILENCE.total_seconds(), 9841), True),
        (said(10, 10080), False),
        (said(5, 10080), False),
        (None, False),
    ],
    ids=["a frame", "a percent", "a stage", "half a minute", "the same answer", "an older answer", "no answer"],
)
def test_what_is_worth_a_write(next_: Progress | None, written: bool) -> None:
    before = merge(None, said(10, 9840), at(10))
    assert (merge(before, next_, at(15)) != before) is written


@given(answers=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), max_size=20))
def test_it_never_runs_backwards_and_never_beyond_the_end(answers: list[tuple[int, int]]) -> None:
    status: ProgressStatus | None = None
    percents: list[int] = []
    for number, (done, segments) in enumerate(answers):
        status = merge(status, said(31.0 * number, done, 25, segments_done=segments), at(31.0 * number))
        assert status is not None
        percents.append(status.percent or 0)
    assert percents == sorted(percents)
    assert all(percent <= 100 for percent in percents)
