"""Decode a whole file of ours with several decoders at once, so that nothing of it is left out.

One decoder, however many threads it has, decodes a few hundred small frames a second, and meanwhile the GPU of the Job
idles. Groups of pictures are closed, so others can begin at any keyframe. What one pass from the first frame to the
last would see is seen all the same:

* The runs of the decoders lie in the file's own index one after the other, and each decoder takes exactly the packets
  that the index has for its run. That the runs are all of the file is for the caller to compare.
* Each decoder goes on to the first frame after its run, which the next one decodes as well. So the border, too, is
  decoded as a player would, and both must get the same picture.
"""

import itertools
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from av.container import InputContainer
from av.video.frame import VideoFrame

from restoration_runner.video import threads
from restoration_runner.video.frame_hash import FrameHash
from restoration_runner.video.source import open_media

MOST_BYTES: Final = 1 << 30
"""Of frames that decoders hold, all of them together; a single one takes what it needs, as for the input."""
HELD_FRAMES: Final = 10
"""What a decoder of one thread holds: the frames that others refer to, and those that wait to be shown (measured: 26 MB
at 1280x720). Each further thread takes two more: half as much again, where a machine's cores are just given out."""
LEAST_THREADS: Final = 2
"""Of a decoder that works ahead within a segment, whose frames wait in memory: threads cost less of it."""


@dataclass(frozen=True)
class Run:
    """Frames `first` to `end` (exclusive) of a file; the first is a keyframe.

    They are packets `first` to `end` in decoding order as well, because groups of pictures are closed.
    """

    first: int
    end: int


@dataclass(frozen=True, kw_only=True)
class DecodedRun:
    """What came out. `frames` counts the one after the run, if the file goes on; hashes are of single frames."""

    run: Run
    frames: int
    first_sha256: str | None
    after_sha256: str | None


@dataclass(frozen=True)
class DecodedSegment:
    """`sha256` is that of `FrameHash` over all its frames."""

    sha256: str
    runs: tuple[DecodedRun, ...]


@dataclass(frozen=True, kw_only=True)
class Share:
    """So many segments at once, in each so many decoders that work ahead of its hash, each of so many threads."""

    segments: int
    ahead: int
    threads: int


def share(segments: Sequence[Run], keyframes: Sequence[int], *, frame_bytes: int) -> Share:
    """Give the machine's cores to decoders, within `MOST_BYTES`; one core where memory is short.

    A hash is made frame by frame, so segments are decoded side by side first: their frames are dropped as they come.
    Cores that are left work ahead within segments, a group of pictures each.
    """
    cores = threads.decoder_threads()
    at_once = max(1, min(cores, len(segments), MOST_BYTES // (HELD_FRAMES * frame_bytes)))
    groups = [split(segment, keyframes) for segment in segments]
    longest = max(run.end - run.first for runs in groups for run in runs)
    # Beside those that are decoded, one is hashed and one may wait for that.
    fitting = MOST_BYTES // (at_once * (longest + HELD_FRAMES) * frame_bytes) - 2
    ahead = max(1, min(cores // at_once // LEAST_THREADS, fitting, max(len(runs) for runs in groups)))
    return Share(segments=at_once, ahead=ahead, threads=max(1, cores // (at_once * ahead)))


def split(segment: Run, keyframes: Sequence[int]) -> tuple[Run, ...]:
    """Its groups of pictures."""
    inner = keyframes[bisect_right(keyframes, segment.first) : bisect_left(keyframes, segment.end)]
    return tuple(Run(*ends) for ends in itertools.pairwise([segment.first, *inner, segment.end]))


def keyframes(container: InputContainer) -> list[bool]:
    """For each frame that the file has, whether decoding can begin there."""
    return [entry.is_keyframe for entry in container.streams.video[0].index_entries]


def decode_segments(
    path: Path,
    segments: Sequence[Run],
    *,
    keyframes: Sequence[int],
    share: Share,
    check: Callable[[VideoFrame, int], None],
) -> Generator[DecodedSegment]:
    """Decode segments, several at once; results come in their order, so the first difference is told first.

    Whoever stops before the last one closes the generator, which waits for the segments that are being decoded.

    Args:
        path: an MP4 of ours.
        segments: all of the file.
        keyframes: where a decoder may begin within them.
        share: how.
        check: called with each frame and its rank in the file, by many threads.
    """
    pool = ThreadPoolExecutor(share.segments, thread_name_prefix="verify")
    try:
        work = partial(_decode_segment, path, ahead=share.ahead, decoder_threads=share.threads, check=check)
        cut = [split(segment, keyframes) if share.ahead > 1 else (segment,) for segment in segments]
        for decoded in [pool.submit(work, runs) for runs in cut]:
            yield decoded.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _decode_segment(
    path: Path,
    runs: Sequence[Run],
    *,
    ahead: int,
    decoder_threads: int,
    check: Callable[[VideoFrame, int], None],
) -> DecodedSegment:
    hashed, found = FrameHash(), []
    decoding = [partial(_frames, path, run, decoder_threads) for run in runs]
    with closing(_in_order(decoding, ahead)) as turns:
        for run, frames in zip(runs, turns, strict=True):
            ends: dict[int, str] = {}
            count = 0
            for rank, frame in enumerate(frames, run.first):
                count += 1
                if rank > run.end:
                    break  # more than there can be: the caller compares the number
                check(frame, rank)
                if rank in (run.first, run.end):
                    ends[rank] = _sha256(frame)
                if rank < run.end:
                    hashed.update(frame)
            found.append(
                DecodedRun(run=run, frames=count, first_sha256=ends.get(run.first), after_sha256=ends.get(run.end))
            )
    return DecodedSegment(hashed.hexdigest(), tuple(found))


def _in_order(decoding: Sequence[Callable[[], Iterator[VideoFrame]]], ahead: int) -> Generator[Iterable[VideoFrame]]:
    """Frames of one run after the other: as they are decoded, or from several decoders that work ahead."""
    if ahead == 1:
        yield from (decode() for decode in decoding)
        return
    pool = ThreadPoolExecutor(ahead, thread_name_prefix="ahead")
    waiting: deque[Future[list[VideoFrame]]] = deque()
    try:
        for decode in decoding:
            waiting.append(pool.submit(_all_of, decode))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _all_of(decode: Callable[[], Iterator[VideoFrame]]) -> list[VideoFrame]:
    return list(decode())


def _frames(path: Path, run: Run, decoder_threads: int) -> Iterator[VideoFrame]:
    """The frames of a run and the first after it; fewer, if the file does not hold the packets that its index names."""
    with open_media(path) as container:
        stream = container.streams.video[0]
        threads.spread(stream, decoder_threads)
        entries = stream.index_entries[run.first : run.end + 1]
        container.seek(entries[0].timestamp, stream=stream)
        packets = itertools.dropwhile(lambda packet: packet.pos != entries[0].pos, container.demux(stream))
        for entry, packet in zip(entries, packets, strict=False):
            if (packet.pos, packet.size) != (entry.pos, entry.size):
                break
            yield from packet.decode()
        yield from stream.decode(None)


def _sha256(frame: VideoFrame) -> str:
    hashed = FrameHash()
    hashed.update(frame)
    return hashed.hexdigest()
