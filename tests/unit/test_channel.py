"""A queue whose ends may fail: nobody waits for somebody who has gone."""

import threading

import pytest

from restoration_runner.restoration.channel import AbandonedError, Channel


def test_items_arrive_in_order_and_end() -> None:
    channel = Channel[int](2)

    def write() -> None:
        for number in range(100):
            channel.put(number)
        channel.close()

    thread = threading.Thread(target=write)
    thread.start()
    assert list(channel) == list(range(100))
    thread.join()


def test_the_writer_waits_for_room() -> None:
    channel = Channel[int](2)
    channel.put(1)
    channel.put(2)
    third = threading.Thread(target=lambda: channel.put(3))
    third.start()
    third.join(0.05)
    assert third.is_alive()
    assert next(iter(channel)) == 1
    third.join()


def test_the_reader_gets_what_was_written_and_then_the_error() -> None:
    channel = Channel[int](4)
    channel.put(1)
    channel.close(ValueError("broken"))
    items = iter(channel)
    assert next(items) == 1
    with pytest.raises(ValueError, match="broken"):
        next(items)


def test_a_writer_that_waits_learns_that_the_reader_has_gone() -> None:
    channel = Channel[int](1)
    channel.put(1)
    failed = threading.Event()

    def write() -> None:
        try:
            channel.put(2)
        except AbandonedError:
            failed.set()

    thread = threading.Thread(target=write)
    thread.start()
    with channel:
        pass
    thread.join()
    assert failed.is_set()
    with pytest.raises(AbandonedError):
        channel.put(3)
    assert list(channel) == []
