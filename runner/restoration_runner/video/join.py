"""Put segments together into the MP4 that is published: copied packets, times from the plan, sound from the input.

Nothing is decoded or encoded. Segments carry no times of their own: Matroska rounds them to milliseconds, which drifts
with every join, so each packet gets the plan's time of the frame it holds. Interleaving is by time, so that a player
that streams the file never has to look ahead, and memory does not grow with the video.
"""

import heapq
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
from av.audio.codeccontext import AudioCodecContext
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from restoration_api.ledger import ColorFacts, VideoFacts
from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.video.sound import sound_packets
from restoration_runner.video.source import location, media_errors, open_media
from restoration_runner.video.timeline import Timeline, decoding_lead
from restoration_runner.video.write import tag

METADATA_LEFT_OUT: Final = frozenset(
    {"encoder", "major_brand", "minor_version", "compatible_brands", "duration", "creation_time"}
)
"""Facts about the input's file that are not true of the output's."""

USUAL_LAYOUTS: Final = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""What a bare number of channels means by FFmpeg's convention."""


def join(
    segments: Sequence[Path],
    out: Path,
    *,
    timeline: Timeline,
    color: ColorFacts,
    facts: VideoFacts,
    source: Path,
    kept: tuple[int, ...],
    name: str | None = None,
) -> None:
    """Write `out` from finished segments.

    Args:
        segments: the segment files, in order.
        out: the MP4 to write (a local file; published elsewhere after it was verified).
        timeline: times of all frames.
        color: the output's colour tags.
        facts: of the input.
        source: the input's file, for its sound, chapters and title.
        kept: indexes of the input's streams that are copied.
        name: what messages call the input.

    Raises:
        RestorationError: `VerificationFailed`, when the segments do not fit together or hold another number of frames
            than the timeline; `InvalidInput`, when the input's sound cannot be read.
    """
    order = _check_segments(segments, frames=len(timeline.ticks))
    clock = timeline.ticks_per_second
    options = {
        "fflags": "+bitexact",
        "movflags": "+faststart+write_colr",
        "movie_timescale": str(clock),
        "video_track_timescale": str(clock),
    }
    with (
        open_media(source, name=name) as given,
        open_media(segments[0]) as first,
        av.open(location(out), "w", format="mp4", container_options=options) as container,
    ):
        video = _add_video(container, first, given.streams[facts.stream_index], color, Fraction(1, clock))
        sounds = [(given.streams[index], _add_copy(container, given.streams[index])) for index in kept]
        _carry_metadata(container, given, timeline)
        runs = [_video_packets(segments, video, timeline, order)]
        runs += [_copied_packets(source, old.index, new, timeline.origin, name) for old, new in sounds]
        try:
            for _, _, packet in heapq.merge(*runs, key=lambda item: item[:2]):
                container.mux(packet)
        except av.error.FFmpegError as error:
            raise RestorationError(
                FailureReason.VERIFICATION_FAILED, f"the output cannot be assembled ({error.strerror})."
            ) from error


@dataclass(frozen=True)
class _Order:
    """How far decoding runs ahead of showing.

    `delay` is by how many packets, over all segments: one number for the whole file, so that decoding times never step
    back at a border. `last_rank` is the rank of the frame that is decoded last.
    """

    delay: int
    last_rank: int


def _check_segments(segments: Sequence[Path], *, frames: int) -> _Order:
    """Check that the segments are one stream cut in pieces."""
    extradata: bytes | None = None
    delay = total = last_rank = 0
    for path in segments:
        with _open_segment(path) as container:
            stream = container.streams.video[0]
            if extradata is None:
                extradata = stream.codec_context.extradata
            elif stream.codec_context.extradata != extradata:
                raise RestorationError(
                    FailureReason.VERIFICATION_FAILED,
                    f"segment {path.name} was encoded with other parameters than {segments[0].name}; "
                    "delete both and run again.",
                )
            ranks = _ranks(container, stream)
        delay = max([delay, *(position - rank for position, rank in enumerate(ranks))])
        last_rank = total + ranks[-1] if ranks else last_rank
        total += len(ranks)
    if total != frames:
        raise RestorationError(
            FailureReason.VERIFICATION_FAILED, f"the segments hold {total} frames, the plan says {frames}."
        )
    return _Order(delay, last_rank)


@contextmanager
def _open_segment(path: Path) -> Iterator[InputContainer]:
    """A segment of ours; that it cannot be read is not the input's fault."""
    try:
        with open_media(path) as container:
            yield container
    except (RestorationError, av.error.FFmpegError) as error:
        if isinstance(error, RestorationError) and error.reason is FailureReason.VERIFICATION_FAILED:
            raise
        raise RestorationError(
            FailureReason.VERIFICATION_FAILED, f"segment {path.name} cannot be read; delete it and run again."
        ) from error


def _ranks(container: InputContainer, stream: VideoStream) -> list[int]:
    """For each packet in decoding order, the rank of its frame in presentation order."""
    stamps = [packet.pts for packet in container.demux(stream) if packet.pts is not None and packet.size]
    order = {stamp: rank for rank, stamp in enumerate(sorted(stamps))}
    return [order[stamp] for stamp in stamps]


def _add_video(
    container: OutputContainer, segment: InputContainer, given: Stream, color: ColorFacts, time_base: Fraction
) -> VideoStream:
    stream = container.add_stream_from_template(segment.streams.video[0], opaque=True)
    stream.codec_context.codec_tag = "hvc1"
    tag(stream.codec_context, color)
    stream.time_base = time_base
    _describe(stream, given)
    return stream


def _add_copy(container: OutputContainer, given: Stream) -> Stream:
    stream = container.add_stream_from_template(given, opaque=True)
    context = stream.codec_context
    if isinstance(context, AudioCodecContext) and context.layout.name.endswith("channels"):
        # AVI and Matroska may give a number only; PCM in MP4 must say which channels they are.
        context.layout = USUAL_LAYOUTS.get(context.layout.nb_channels, context.layout.name)
    _describe(stream, given)
    return stream


def _describe(stream: Stream, given: Stream) -> None:
    """Language, title and disposition: what a player's menu shows."""
    stream.metadata.update({key: value for key, value in given.metadata.items() if key in ("language", "title")})
    stream.disposition = given.disposition


def _carry_metadata(container: OutputContainer, given: InputContainer, timeline: Timeline) -> None:
    container.metadata.update(
        {key: value for key, value in given.metadata.items() if key.lower() not in METADATA_LEFT_OUT}
    )
    chapters: list[Any] = []
    for chapter in given.chapters():
        shift = round(timeline.origin / chapter["time_base"]) if chapter["time_base"] else 0
        chapters.append({**chapter, "start": max(0, chapter["start"] - shift), "end": chapter["end"] - shift})
    if chapters:
        container.set_chapters(chapters)


Timed = tuple[Fraction, int, "Packet[Stream]"]
"""(decoding time in seconds, output stream, packet): the order of packets in the file."""


def _video_packets(segments: Sequence[Path], stream: Stream, timeline: Timeline, order: _Order) -> Iterator[Timed]:
    ticks, time_base = timeline.ticks, Fraction(1, timeline.ticks_per_second)
    ends = (*ticks[1:], ticks[-1] + timeline.last_duration)
    lead = decoding_lead(timeline, delay=order.delay, last_rank=order.last_rank)
    base = position = 0
    for path in segments:
        with _open_segment(path) as container:
            given = container.streams.video[0]
            ranks = _ranks(container, given)
        with _open_segment(path) as container:
            packets = (packet for packet in container.demux([container.streams.video[0]]) if packet.size)
            for packet, rank in zip(packets, ranks, strict=True):
                frame = base + rank
                early = order.delay - position
                packet.pts = ticks[frame]
                packet.dts = ticks[0] - early * lead if early > 0 else ticks[position - order.delay]
                packet.duration = ends[frame] - ticks[frame]
                packet.time_base = time_base
                packet.stream = stream
                yield packet.dts * time_base, stream.index, packet
                position += 1
        base += len(ranks)


def _copied_packets(source: Path, index: int, stream: Stream, origin: Fraction, name: str | None) -> Iterator[Timed]:
    """Packets of one audio stream of the input, moved to the output's clock."""
    called = name or source.name
    with open_media(source, name=name) as container, media_errors(called):
        clock = _SampleClock(container.streams[index])
        for packet, stamp, length in _with_lengths(sound_packets(container, index), f"{called}: stream {index}"):
            seconds, duration = clock.place(stamp - origin, length)
            # Sound has no reordering: decoding and presentation times are the same.
            packet.time_base = clock.time_base
            packet.pts = packet.dts = round(seconds / clock.time_base)
            packet.duration = round(duration / clock.time_base)
            packet.stream = stream
            yield seconds, stream.index, packet


def _with_lengths(
    packets: Iterator["Packet[Stream]"], called: str
) -> Iterator[tuple["Packet[Stream]", Fraction, Fraction]]:
    """(packet, time, duration) in seconds; where the container is silent, the duration lasts to the next packet.

    A last packet of unknown length gets that of the one before: with a length of 0 MP4 would not play it at all.
    """
    held: tuple[Packet[Stream], Fraction, Fraction] | None = None
    length = Fraction(0)
    for packet in packets:
        ticks = packet.pts if packet.pts is not None else packet.dts
        if ticks is None:
            raise RestorationError(
                FailureReason.INVALID_INPUT,
                f"{called} has packets without time stamps; remux the file, or set output.audio: Drop.",
            )
        stamp = ticks * packet.time_base
        if held is not None:
            length = held[2] or stamp - held[1]
            yield held[0], held[1], length
        held = (packet, stamp, (packet.duration or 0) * packet.time_base)
    if held is not None:
        yield held[0], held[1], held[2] or length


class _SampleClock:
    """Times of sound in samples.

    Containers with coarse ticks (Matroska: 1 ms) round the time of every packet, which would come out as tiny gaps and
    overlaps. As long as the packets follow each other within that rounding, the exact count of samples is used; a real
    gap is kept.
    """

    def __init__(self, stream: Stream) -> None:
        context = stream.codec_context
        assert isinstance(context, AudioCodecContext)
        self.time_base = Fraction(1, context.sample_rate)
        self._frame = Fraction(context.frame_size or 0, context.sample_rate)
        self._tick = stream.time_base or Fraction(0)
        self._next: Fraction | None = None
        self._least: Fraction | None = None

    def place(self, seconds: Fraction, duration: Fraction) -> tuple[Fraction, Fraction]:
        """(time, duration) of the next packet, in seconds, from what the container says of it."""
        if self._frame and abs(duration - self._frame) <= self._tick:
            duration = self._frame
            # Twice the tick: this packet's time was rounded, and so was that of the packet the count began with.
            if self._next is not None and abs(seconds - self._next) < 2 * self._tick:
                seconds = self._next
        # Times that step back a little are nudged on; `scan` refused files in which they step back by more.
        seconds = max(seconds, self._least) if self._least is not None else seconds
        self._next, self._least = seconds + duration, seconds + self.time_base
        return seconds, duration
