"""Hypothesis chooses what happens next. It prefers short, repetitive and extreme histories, which chance alone seldom
makes, and shrinks what it finds; `test_histories` has the long and varied ones."""

from __future__ import annotations

import logging
from typing import Final

import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from tests.builders.simulation.history import PAUSES, WEIGHTS, Step, World, world

EXAMPLES: Final = 40
NUMBERS: Final = st.integers(min_value=0, max_value=59)
PEOPLE: Final = ("suspend", "flap", "delete", "touch", "edit_profile", "delete_profile", "spoil_snapshot", "delete_job")
TROUBLES: Final = ("trouble", "outage", "jumble", "deafen")
OPERATOR: Final = ("kill", "stop", "freeze", "crash_at_write", "second_operator", *TROUBLES)
CLUSTER: Final = tuple(name for name in WEIGHTS if name not in (*PEOPLE, *OPERATOR))


class Histories(RuleBasedStateMachine):
    """People, the cluster and the operator's own troubles take turns; at the end everything must come to rest."""

    @initialize(seed=st.integers(min_value=0, max_value=2**16))
    def begin(self, seed: int) -> None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        self._context = world(seed)
        self._world: World = self._context.__enter__()
        self._world.pass_time(1)

    @rule(name=st.sampled_from(PEOPLE), number=NUMBERS, seconds=st.sampled_from(PAUSES))
    def people(self, name: str, number: int, seconds: float) -> None:
        self._world.step(Step(name, number, seconds))

    @rule(name=st.sampled_from(CLUSTER), number=NUMBERS, seconds=st.sampled_from(PAUSES))
    def cluster(self, name: str, number: int, seconds: float) -> None:
        self._world.step(Step(name, number, seconds))

    @rule(name=st.sampled_from(OPERATOR), number=NUMBERS, seconds=st.sampled_from(PAUSES))
    def operator(self, name: str, number: int, seconds: float) -> None:
        self._world.step(Step(name, number, seconds))

    def teardown(self) -> None:
        if not hasattr(self, "_world"):
            return
        try:
            if not self._world.broken:
                self._world.finish()
        finally:
            self._context.__exit__(None, None, None)


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=20,
    derandomize=True,  # the same histories everywhere: `make soak` is where new ones are looked for
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
