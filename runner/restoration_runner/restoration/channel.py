"""A bounded queue between two threads that knows how its ends fail.

A plain queue forgets two things: a reader that waits for a writer which has died waits for ever, and a writer that
waits for room at a reader which has died does, too. Here either end can close, and the other one learns why.
"""

import threading
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class AbandonedError(Exception):
    """The reader will take no more: the writer has to stop."""


class Channel(Generic[T]):
    """At most `room` items between one writer and one reader."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._abandoned = False
        self._error: BaseException | None = None

    def put(self, item: T) -> None:
        """Wait for room.

        Raises:
            AbandonedError: the reader has gone.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or len(self._items) < self._room)
            if self._abandoned:
                raise AbandonedError
            self._items.append(item)
            self._changed.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """No more items; the reader gets those that are left, then the end, or `error`."""
        with self._changed:
            self._closed, self._error = True, error
            self._changed.notify_all()

    def abandon(self) -> None:
        """The reader gives up: what lies here is dropped, the writer gets `AbandonedError`."""
        with self._changed:
            self._abandoned = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._closed or self._abandoned)
                if self._items:
                    item = self._items.popleft()
                    self._changed.notify_all()
                elif self._error is not None:
                    raise self._error
                else:
                    return
            yield item

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()
