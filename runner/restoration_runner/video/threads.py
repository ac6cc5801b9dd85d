"""How many threads decoders and the encoder use: as many as the machine has, or few where memory is short.

A decoder that works on several frames at once holds all of them and their references: sixteen threads, ffmpeg's most,
cost some hundred MiB at 4K. The frames are the same either way. What is saved is the process's memory, so it is said
once for the process: plan, segments, joining and verification decode in many places and in threads of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from av.video.stream import VideoStream

LEAST_IN_POOL: Final = 4
"""x265's lookahead asks whether its pool has four threads, and with fewer searches motion in another order: other
costs, other bytes (measured; from four on, their number changes nothing). Machines with fewer cores get four."""
MOST_IN_POOL: Final = 32
"""Each has buffers of its own, and pictures have few rows of blocks to share among them."""
MOST_FOR_DECODERS: Final = 16
"""ffmpeg's most for one; several together get no more: a node may have many more cores than the pod asked for."""

_sparing = 0
"""How many callers ask for it now."""


@contextmanager
def sparing(wanted: bool) -> Iterator[None]:
    """Until the end of the block, decoders that are opened get one thread, if that is wanted."""
    global _sparing
    _sparing += wanted
    try:
        yield
    finally:
        _sparing -= wanted


def is_sparing() -> bool:
    """Whether memory is short."""
    return _sparing > 0


def spread(stream: VideoStream, count: int = 0) -> None:
    """Give a stream's decoder its threads, before the first packet: as many as the machine has, or `count`."""
    if _sparing or count == 1:
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
    else:
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = count


def decoder_threads() -> int:
    """Threads that are worth having for all decoders together."""
    return 1 if _sparing else min(MOST_FOR_DECODERS, _cores())


def pool_size() -> int:
    """Threads of the encoder's pool."""
    if _sparing:
        return LEAST_IN_POOL
    return max(LEAST_IN_POOL, min(MOST_IN_POOL, _cores()))


def _cores() -> int:
    return len(os.sched_getaffinity(0))
