"""The operator's brain against a simulated cluster in which everything goes wrong that can.

Seeds choose the histories (see `tests.builders.simulation`); every write is checked against the promises, and once the
faults stop everything must come to its end. A history that fails prints its seed, the steps that are enough to make it
fail, and the command that plays it again with everything that happens in it.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Final

import pytest
import structlog
from tests.builders.simulation.history import WEIGHTS, BrokenPromiseError, Result, play, shortest, story
from tests.builders.simulation.kubelet import ENDS

HISTORIES: Final = int(os.environ.get("VR_TEST_HISTORIES", "2000"))
"""`make soak` asks for more."""
FIRST_SEED: Final = int(os.environ.get("VR_TEST_FIRST_SEED", "0"))
PARTS: Final = 2
"""Shared out, so that two processes can play them."""
MANY: Final = 200
"""Histories of which every kind of end is expected to be among them."""

MUST_END_WITH: Final = {
    "Completed",
    "CacheHit",
    "InvalidInput",
    "ModelInvalid",
    "PodDeleted",
    "NodeLost",
    "DeadlineExceeded",
    "StartDeadlineExceeded",
    "RetriesExhausted",
    "Evicted",
    "HostOutOfMemory",
    "StorageError",
    "GPUFault",
    "VerificationFailed",
    "StartupFailure",
    "Suspended",
    "Unknown",
}
"""Reasons that a run of many histories has to show, or it proves little."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """A line per write, times all histories, is more than anybody reads."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


def checked(seed: int) -> Result:
    """The result of a history; a failing one explains itself."""
    try:
        return play(seed, story(seed))
    except BrokenPromiseError as error:
        steps = shortest(seed, story(seed))
        lines: list[str] = []
        try:
            play(seed, steps, say=lines.append)
        except BrokenPromiseError as again:
            lines.append(str(again))
        print(f"seed {seed}: {error}", f"{len(steps)} steps are enough; the end of what happens then:", sep="\n")
        print(*lines[-80:], sep="\n")
        print(f"the whole: python -m tests.builders.simulation {seed} --shrink")
        raise


@pytest.mark.timeout(max(600, HISTORIES))
@pytest.mark.parametrize("part", range(PARTS))
def test_histories(part: int) -> None:
    results = [checked(seed) for seed in range(FIRST_SEED + part, FIRST_SEED + HISTORIES, PARTS)]
    ends = Counter(end for result in results for end in result.ends)
    fates = Counter(fate for result in results for fate in result.fates)
    jobs, writes = sum(result.jobs for result in results), sum(result.status_writes for result in results)
    days = sum(result.simulated_seconds for result in results) / 86400
    print(f"{len(results)} histories, {days:.1f} simulated days, {jobs} Jobs, {writes} status writes: all is well")
    print(f"ends: {dict(ends.most_common())}")
    print(f"pods: {dict(fates.most_common())}")
    # Histories in which nothing happens would prove nothing.
    assert jobs > 3 * len(results)
    if len(results) >= MANY:
        assert set(ENDS) <= set(fates), "not every way for a pod to end occurred"
        assert set(ends) >= MUST_END_WITH


def test_every_kind_of_step_occurs() -> None:
    occurring = Counter(step.name for seed in range(MANY) for step in story(seed))
    assert set(occurring) == set(WEIGHTS)


@pytest.mark.parametrize("seed", [7, 68], ids=["one operator at a time", "two share a lease, and one is killed"])
def test_a_seed_is_one_history(seed: int) -> None:
    """The replay of a failure is worth nothing if another process plays another history."""

    def trace(hash_seed: str) -> str:
        command = [sys.executable, "-m", "tests.builders.simulation", str(seed)]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    first = trace("1")
    assert first.count("PATCH videorestorations") > 5
    assert first == trace("2")
