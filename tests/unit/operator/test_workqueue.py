"""The queue's promises: no key twice at once, none forgotten, failures wait, time moves by hand."""

import asyncio

import pytest

from restoration_operator.workqueue import LONGEST_BACKOFF_SECONDS, WorkQueue


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def nothing(queue: WorkQueue) -> bool:
    """Whether nobody is served; the queue is asked as a worker would ask."""
    taking = asyncio.ensure_future(queue.take())
    for _ in range(3):
        await asyncio.sleep(0)
    idle = not taking.done()
    taking.cancel()
    return idle


async def test_the_same_key_waits_once() -> None:
    queue = WorkQueue()
    for _ in range(3):
        queue.add("a")
    assert await queue.take() == "a"
    queue.done("a")
    assert await nothing(queue)


async def test_a_key_in_work_is_not_given_to_another_worker_but_afterwards() -> None:
    queue = WorkQueue()
    queue.add("a")
    assert await queue.take() == "a"
    queue.add("a")
    assert await nothing(queue)
    queue.done("a")
    assert await queue.take() == "a"


async def test_first_come_first_served() -> None:
    queue = WorkQueue()
    for key in "cab":
        queue.add(key)
    assert [await queue.take() for _ in range(3)] == ["c", "a", "b"]


async def test_a_delay_ends_and_a_shorter_one_wins() -> None:
    clock = Clock()
    queue = WorkQueue(clock=clock)
    queue.add_after("a", 60)
    queue.add_after("a", 5)
    queue.add_after("a", 30)
    assert await nothing(queue)
    clock.now = 5
    assert await queue.take() == "a"
    queue.done("a")
    clock.now = 100
    assert await nothing(queue), "the longer delays were for the same visit"


async def test_added_at_once_although_a_delay_was_planned() -> None:
    clock = Clock()
    queue = WorkQueue(clock=clock)
    queue.add_after("a", 60)
    queue.add("a")
    assert await queue.take() == "a"
    queue.done("a")
    clock.now = 61
    assert await nothing(queue)


async def test_failures_wait_longer_until_they_are_forgiven() -> None:
    queue = WorkQueue(clock=Clock())
    waits = [queue.retry("a") for _ in range(12)]
    assert 0.1 <= waits[0] <= 0.2
    assert max(waits) <= LONGEST_BACKOFF_SECONDS
    assert waits[-1] >= LONGEST_BACKOFF_SECONDS / 2
    queue.forgive("a")
    assert queue.retry("a") <= 0.2


async def test_all_waiting_workers_wake_up() -> None:
    queue = WorkQueue()
    taking = [asyncio.ensure_future(queue.take()) for _ in range(4)]
    await asyncio.sleep(0)
    for key in "abcd":
        queue.add(key)
    taken = [await asyncio.wait_for(task, timeout=10) for task in taking]
    assert sorted(taken) == list("abcd")


async def test_a_waiting_worker_wakes_up() -> None:
    queue = WorkQueue()
    taking = asyncio.ensure_future(queue.take())
    await asyncio.sleep(0)
    queue.add("a")
    assert await asyncio.wait_for(taking, timeout=10) == "a"
    assert len(queue) == 0


@pytest.mark.parametrize("turns", range(4))
async def test_a_worker_that_is_told_to_stop_stops_even_if_a_key_comes_in_that_moment(turns: int) -> None:
    """`asyncio.wait_for` of Python 3.11 forgets a cancellation then, and the process would never end."""
    queue = WorkQueue()
    queue.add_after("later", 3600)

    async def work() -> None:
        while True:
            queue.done(await queue.take())

    working = asyncio.ensure_future(work())
    for _ in range(3):
        await asyncio.sleep(0)
    queue.add("a")
    for _ in range(turns):
        await asyncio.sleep(0)
    working.cancel()
    ended, _ = await asyncio.wait({working}, timeout=1)
    working.cancel()
    assert working in ended


async def test_a_server_that_asks_for_time_is_given_it() -> None:
    clock = Clock()
    queue = WorkQueue(clock=clock)
    assert queue.retry("a", at_least=30) == 30
    clock.now = 29
    assert await nothing(queue)
    clock.now = 30.1
    assert await queue.take() == "a"
