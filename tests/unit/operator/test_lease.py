"""Leadership: never two at once, and soon another, whatever clocks, networks and processes do.

Time is virtual and each replica's clock is its own: it starts anywhere and may run a little fast or slow.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders.leases import LeaseServer, Line
from tests.builders.virtual_time import run

from restoration_operator.lease import Leadership, Timing

DEFAULTS = Timing()
TICK_SECONDS = 0.1
QUICK = settings(max_examples=30, deadline=None, derandomize=True)
DEEP = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    """Thousands of lost messages would be thousands of lines."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


class DeadError(Exception):
    """The process has ended itself."""


@dataclass
class Replica:
    """One process of the operator, as far as leadership goes."""

    server: LeaseServer
    name: str
    seed: int = 0
    offset_seconds: float = 0.0
    speed: float = 1.0
    loss: float = 0.0
    timing: Timing = DEFAULTS
    frozen: bool = False
    died: str = ""
    line: Line = field(init=False)

    def __post_init__(self) -> None:
        self.line = Line(self.server, self.seed, loss=self.loss)
        self.leadership = Leadership(
            self.line,
            namespace="system",
            name="operator",
            identity=self.name,
            timing=self.timing,
            clock=lambda: self.offset_seconds + asyncio.get_running_loop().time() * self.speed,
            die=self._die,
        )
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self._live())

    def crash(self) -> None:
        assert self.task is not None
        self.task.cancel()
        self.died = self.died or "crashed"

    async def stop(self) -> None:
        """Gracefully."""
        self.crash()
        await asyncio.sleep(0)
        await self.leadership.release()

    @property
    def writes(self) -> bool:
        """Whether a write of it would go out now: the fence lets it through and it is not dead."""
        return not self.died and self.leadership.leads

    def _die(self, why: str) -> None:
        self.died = why
        raise DeadError(why)

    async def _live(self) -> None:
        try:
            await self.leadership.acquire()
            await self.leadership.keep()
        except DeadError:
            pass


async def until(replica: Replica, *, most_seconds: float) -> float:
    """Seconds until it leads."""
    began = asyncio.get_running_loop().time()
    while not replica.writes:
        await asyncio.sleep(TICK_SECONDS)
        assert asyncio.get_running_loop().time() - began < most_seconds, "nobody took over"
    return asyncio.get_running_loop().time() - began


async def two(first: Replica, second: Replica, *, apart_seconds: float = 5.0) -> None:
    first.start()
    await until(first, most_seconds=5)
    second.start()
    await asyncio.sleep(apart_seconds)
    assert first.writes
    assert not second.writes


@QUICK
@given(
    phase=st.floats(0, 4),
    offsets=st.tuples(st.floats(-3600, 3600), st.floats(-3600, 3600)),
    seed=st.integers(0, 2**16),
)
def test_taken_over_within_20_seconds_of_a_crash(phase: float, offsets: tuple[float, float], seed: int) -> None:
    async def story() -> None:
        server = LeaseServer()
        first = Replica(server, "a", seed, offsets[0])
        second = Replica(server, "b", seed + 1, offsets[1])
        await two(first, second, apart_seconds=5 + phase)
        first.crash()
        taken = await until(second, most_seconds=20)
        assert taken > DEFAULTS.deadline_seconds - DEFAULTS.retry_seconds - 1, "the first could still have written"

    run(story())


@QUICK
@given(phase=st.floats(0, 4), seed=st.integers(0, 2**16))
def test_taken_over_at_once_after_a_graceful_stop(phase: float, seed: int) -> None:
    async def story() -> None:
        server = LeaseServer()
        first, second = Replica(server, "a", seed), Replica(server, "b", seed + 1)
        await two(first, second, apart_seconds=5 + phase)
        await first.stop()
        await until(second, most_seconds=1.5)
        assert server.body is not None
        assert server.body["spec"]["leaseTransitions"] >= 1

    run(story())


@DEEP
@given(
    lives=st.lists(
        st.tuples(st.sampled_from(["crash", "stop", "cut", "mend"]), st.integers(0, 2), st.floats(0, 25)),
        min_size=1,
        max_size=12,
    ),
    offsets=st.tuples(*[st.floats(-3600, 3600)] * 3),
    speeds=st.tuples(*[st.floats(0.95, 1.05)] * 3),
    loss=st.sampled_from([0.0, 0.1, 0.4]),
    seed=st.integers(0, 2**16),
)
def test_never_two_writers(
    lives: list[tuple[str, int, float]],
    offsets: tuple[float, ...],
    speeds: tuple[float, ...],
    loss: float,
    seed: int,
) -> None:
    """Three places for a process; what ends is started again, with its own clock, under a new name."""

    async def story() -> None:
        server = LeaseServer()
        count = 0

        def born(place: int) -> Replica:
            nonlocal count
            count += 1
            name = f"{place}-{count}"
            replica = Replica(server, name, seed + count, offsets[place], speeds[place], loss)
            replica.start()
            return replica

        replicas = [born(place) for place in range(3)]

        async def pass_time(seconds: float) -> None:
            end = asyncio.get_running_loop().time() + seconds
            while asyncio.get_running_loop().time() < end:
                await asyncio.sleep(TICK_SECONDS)
                writers = [replica.name for replica in replicas if replica.writes]
                assert len(writers) < 2, writers
                for place, replica in enumerate(replicas):
                    if replica.died:
                        replicas[place] = born(place)

        for what, place, seconds in lives:
            replica = replicas[place]
            if what == "crash":
                replica.crash()
            elif what == "stop":
                await replica.stop()
            else:
                replica.line.dead = what == "cut"
            await pass_time(seconds)
        for replica in replicas:
            replica.line.dead = False
        await pass_time(20 if loss < 0.2 else 60)
        assert [replica.name for replica in replicas if replica.writes] or loss > 0

    run(story())


def test_a_replica_that_waits_writes_nothing() -> None:
    async def story() -> None:
        server = LeaseServer()
        first, second = Replica(server, "a"), Replica(server, "b")
        await two(first, second, apart_seconds=600)
        assert second.line.writes == 0

    run(story())


def test_a_frozen_leader_may_not_write_when_it_is_let_go_on() -> None:
    async def story() -> None:
        server = LeaseServer()
        first, second = Replica(server, "a"), Replica(server, "b")
        await two(first, second)
        first.line.dead = True  # nothing of it gets through, and its own clock goes on: all that a freeze is
        await until(second, most_seconds=20)
        first.died = ""
        with pytest.raises(DeadError, match="not renewed in time"):
            first.leadership.fence()

    run(story())


def test_a_container_that_restarts_in_its_pod_has_its_lease_back_at_once() -> None:
    async def story() -> None:
        server = LeaseServer()
        first = Replica(server, "pod-a")
        await two(first, Replica(server, "pod-b"))
        first.crash()
        again = Replica(server, "pod-a", seed=7)
        again.start()
        await until(again, most_seconds=1)

    run(story())


def test_two_processes_under_one_name_end_as_one() -> None:
    """A mistake of whoever configured it; the one that is overtaken sees renewals that are not its own."""

    async def story() -> None:
        server = LeaseServer()
        first = Replica(server, "same")
        first.start()
        await until(first, most_seconds=5)
        second = Replica(server, "same", seed=3)
        second.start()
        await asyncio.sleep(2 * DEFAULTS.retry_seconds)
        assert "taken away" in first.died
        assert second.writes

    run(story())


def test_a_lost_answer_is_not_taken_for_a_rival() -> None:
    async def story() -> None:
        server = LeaseServer()
        first = Replica(server, "a", seed=5, loss=0.3)
        first.start()
        await until(first, most_seconds=60)
        await asyncio.sleep(600)
        assert first.died in ("", "the lease was not renewed in time, another replica may be at work")

    run(story())


def test_a_deleted_lease_is_made_again_by_its_holder() -> None:
    async def story() -> None:
        server = LeaseServer()
        first, second = Replica(server, "a"), Replica(server, "b")
        await two(first, second)
        for _ in range(5):
            server.body = None
            await asyncio.sleep(7)
            assert (first.writes, second.writes) == (True, False)
            assert server.holder == "a"

    run(story())


@pytest.mark.parametrize(("duration", "deadline", "retry"), [(15, 15, 2), (15, 20, 2), (15, 2, 2), (2, 1, 1)], ids=str)
def test_times_that_could_not_fence_are_refused(duration: int, deadline: float, retry: float) -> None:
    with pytest.raises(ValueError, match="renew deadline < duration"):
        Timing(duration_seconds=duration, deadline_seconds=deadline, retry_seconds=retry)
