"""Decode a whole file of ours with several decoders at once, so that nothing of it is left out.

One decoder, however many threads it has, decodes a few hundred small frames a second, and meanwhile the GPU of the Job
idles. Groups of pictures are closed, so others can begin at the keyframe of each segment. What one pass from the first
frame to the last would see is seen all the same:

* The segments lie in the file's own index one after the other, and each decoder takes exactly the packets that the
  index has for its segment. That the segments are all of the file is for the caller to compare.
* Each decoder goes on to the first frame after its segment, which the next one decodes as well. So the border, too, is
  decoded as a player would, and both must get the same picture.
"""

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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


@dataclass(frozen=True)
class Run:
    """Frames `first` to `end` (exclusive) of a file; the first is a keyframe.

    They are packets `first` to `end` in decoding order as well, because groups of pictures are closed.
    """

    first: int
    end: int


@dataclass(frozen=True, kw_only=True)
class DecodedSegment:
    """What came out. `frames` counts the one after the run, if the file goes on. `sha256` is that of `FrameHash` over
    all frames of the run; `first_sha256` and `after_sha256` are of single frames."""

    run: Run
    frames: int
    sha256: str
    first_sha256: str | None
    after_sha256: str | None


@dataclass(frozen=True, kw_only=True)
class Share:
    """So many decoders at once, each of so many threads."""

    decoders: int
    threads: int


def share(segments: int, *, frame_bytes: int) -> Share:
    """Give the machine's cores to decoders of so many segments, within `MOST_BYTES`; one core where memory is short."""
    cores = threads.decoder_threads()
    decoders = max(1, min(cores, segments, MOST_BYTES // (HELD_FRAMES * frame_bytes)))
    return Share(decoders=decoders, threads=cores // decoders)


def keyframes(container: InputContainer) -> list[bool]:
    """For each frame that the file has, whether decoding can begin there."""
    return [entry.is_keyframe for entry in container.streams.video[0].index_entries]


def decode_segments(
    path: Path, segments: Sequence[Run], *, share: Share, check: Callable[[VideoFrame, int], None]
) -> Generator[DecodedSegment]:
    """Decode segments, several at once; results come in their order, so the first difference is told first.

    Whoever stops before the last one closes the generator, which waits for the segments that are being decoded.

    Args:
        path: an MP4 of ours.
        segments: all of the file.
        share: how.
        check: called with each frame and its rank in the file, by many threads.
    """
    pool = ThreadPoolExecutor(share.decoders, thread_name_prefix="verify")
    try:
        work = partial(_decode_segment, path, decoder_threads=share.threads, check=check)
        for decoded in [pool.submit(work, run) for run in segments]:
            yield decoded.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _decode_segment(
    path: Path, run: Run, *, decoder_threads: int, check: Callable[[VideoFrame, int], None]
) -> DecodedSegment:
    hashed, ends, count = FrameHash(), dict[int, str](), 0
    for rank, frame in enumerate(_frames(path, run, decoder_threads), run.first):
        count += 1
        if rank > run.end:
            break  # more than there can be: the caller compares the number
        check(frame, rank)
        if rank in (run.first, run.end):
            ends[rank] = _sha256(frame)
        if rank < run.end:
            hashed.update(frame)
    return DecodedSegment(
        run=run,
        frames=count,
        sha256=hashed.hexdigest(),
        first_sha256=ends.get(run.first),
        after_sha256=ends.get(run.end),
    )


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
