"""Which of an execution's pods is the one that counts."""

from __future__ import annotations

from typing import Any

import pytest
from tests.builders.observations import at, ended, observe, pod, running, settle, started
from tests.builders.observations import job as make_job

from restoration_operator.decide.execution import newest
from restoration_operator.views import PodView

LATER_NAME: dict[str, Any] = {"uid": "ffff", "name": "clip-old"}
EARLIER_NAME: dict[str, Any] = {"uid": "0000", "name": "clip-new"}


@pytest.mark.parametrize(
    "before",
    [
        pod(running(), **LATER_NAME, gone=True),
        pod(running(), **LATER_NAME, deletion_requested=at(2), deletion_due=at(32)),
        pod(ended(143), **LATER_NAME),
    ],
    ids=["gone", "on its way out", "ended"],
)
def test_of_two_pods_of_one_second_the_one_that_stays_counts(before: PodView) -> None:
    """Creation times are whole seconds. A queue that takes a place back and gives it again at once, or an eviction on
    a quick cluster, makes two pods in one of them; which uid is larger says nothing."""
    stays = pod(running(), **EARLIER_NAME)
    assert newest([before, stays]) == stays
    assert newest([stays, before]) == stays


def test_what_was_created_later_counts_whatever_became_of_it() -> None:
    earlier, later = pod(running()), pod(ended(143), uid="later", created=at(3))
    assert newest([earlier, later]) == later


def test_let_go_again_within_the_same_second_it_runs() -> None:
    before = pod(running(), **LATER_NAME, gone=True)
    stays = pod(running(), **EARLIER_NAME, ready=True)
    seen, _ = settle(observe(started(), jobs=[make_job(started=at(2))], pods=[before, stays]), at(5))
    assert seen.restoration.status.phase == "Running"
