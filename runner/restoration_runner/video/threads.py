"""How many threads decoders use: as many as the machine has, or one each where memory is short.

A decoder that works on several frames at once holds all of them and their references: sixteen threads, ffmpeg's most,
cost some hundred MiB at 4K. The frames are the same either way. What is saved is the process's memory, so it is said
once for the process: plan, segments, joining and verification decode in many places and in threads of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.video.stream import VideoStream

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


def spread(stream: VideoStream) -> None:
    """Give a stream's decoder its threads; before the first packet."""
    if _sparing:
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
    else:
        stream.thread_type = "AUTO"
