"""The one pass over the whole input: every frame is decoded once, before any of them is worth a GPU.

It finds what no header says reliably: how many frames there are (an edit list or a lost index makes headers lie), when
each is shown, where scenes are cut, and whether the file is whole.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from restoration_api.ledger import Timestamps, VideoFacts
from restoration_runner.video import pixels
from restoration_runner.video.cuts import Cut, CutDetector, signature
from restoration_runner.video.source import (
    display_name,
    invalid,
    media_errors,
    open_media,
    packets,
    presentation_time,
    video_stream,
)

MOST_FRAMES: Final = 10_000_000
"""46 hours at 60 frames a second; the list of times of more would be gigabytes."""
SHORTFALL_SECONDS: Final = Fraction(1)
SHORTFALL_SHARE: Final = Fraction(1, 50)
"""A file whose streams all end this much before its header says was cut off while it was written or copied."""
SOUND_TOLERANCE_SECONDS: Final = Fraction(1, 10)
"""Sound that steps back by less is nudged on when it is copied; more would be heard as lost synchrony."""
DURATION_IN_HEADER: Final = frozenset({"mov", "matroska", "avi", "asf", "flv"})
"""Containers whose header says how long they are; for the others FFmpeg estimates it from the bit rate."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What was seen.

    Attributes:
        timestamps: presentation times by rank, in the stream's time base.
        cuts: scene cuts, in order.
        damaged_packets: packets that could not be decoded, or decoded with errors.
        first_damage_frame: rank of the frame at or before which the first damage lies.
        interlaced_frames: frames that are coded as two fields.
        unusable_sound: indexes of audio streams without packets, or whose time stamps are missing or step back.
    """

    timestamps: Timestamps
    cuts: tuple[Cut, ...] = ()
    damaged_packets: int = 0
    first_damage_frame: int | None = None
    interlaced_frames: int = 0
    unusable_sound: tuple[int, ...] = ()

    @property
    def frames(self) -> int:
        return self.timestamps.frames


@dataclass
class _Pass:
    """State of the decoding pass."""

    stamps: list[int] = field(default_factory=list)
    detector: CutDetector = field(default_factory=CutDetector)
    decoding_times: list[int] = field(default_factory=list)
    tags: tuple[int, int, int, int] | None = None
    untimed: int = 0
    damaged: int = 0
    first_damage: int | None = None
    interlaced: int = 0
    last_duration: int = 0
    track_end: int | None = None
    video_packets: int = 0
    end: Fraction | None = None
    sound: dict[int, Fraction] = field(default_factory=dict)
    unusable_sound: set[int] = field(default_factory=set)

    def listen(self, packet: "Packet[Stream]") -> None:
        """Note whether the time of a packet of sound follows that of the one before."""
        stamp = packet.pts if packet.pts is not None else packet.dts
        before = self.sound.get(packet.stream_index)
        if stamp is None or (before is not None and stamp * packet.time_base < before - SOUND_TOLERANCE_SECONDS):
            self.unusable_sound.add(packet.stream_index)
        if stamp is not None:
            self.sound[packet.stream_index] = stamp * packet.time_base

    def damage(self) -> None:
        self.damaged += 1
        if self.first_damage is None:
            self.first_damage = len(self.stamps)


def scan(
    path: Path, facts: VideoFacts, *, name: str | None = None, on_frame: Callable[[int], None] | None = None
) -> Scan:
    """Decode the whole video stream once.

    Args:
        path: the file that `facts` describes.
        name: what messages call it.
        on_frame: called with the number of frames seen so far.

    Raises:
        RestorationError: `InvalidInput`: no frames, times that are missing or not increasing, a size or format that
            changes midway, or a file that is cut off.
    """
    called = display_name(path, name)
    seen = _Pass()
    with open_media(path, name=called) as container, media_errors(called):
        stream = video_stream(container, facts.stream_index)
        for frame in _frames(container, stream, seen):
            _look(frame, facts, seen, called)
            if on_frame is not None:
                on_frame(len(seen.stamps))
        if not seen.stamps:
            raise invalid(called, "has a video stream without a single frame that can be decoded.")
        _refuse_truncated(container, stream, seen, called)
        silent = {other.index for other in container.streams if other.type == "audio"} - seen.sound.keys()
        seen.unusable_sound |= silent
        if stream.duration is not None and stream.start_time is not None:
            seen.track_end = stream.start_time + stream.duration
        timestamps = _timestamps(seen, _time_base(stream), facts, called)
    return Scan(
        timestamps=timestamps,
        cuts=tuple(seen.detector.cuts),
        damaged_packets=seen.damaged,
        first_damage_frame=seen.first_damage,
        interlaced_frames=seen.interlaced,
        unusable_sound=tuple(sorted(seen.unusable_sound)),
    )


def _frames(container: InputContainer, stream: VideoStream, seen: _Pass) -> Iterator[VideoFrame]:
    """Decoded frames; packets of other streams only tell where the file ends. A read error ends the file there."""
    found = packets(container, *(other for other in container.streams if other.type != "attachment"))
    while True:
        try:
            packet = next(found, None)
        except av.error.FFmpegError:
            seen.damage()
            packet = None
        if packet is None:
            break
        if packet.pts is not None:
            end = (packet.pts + (packet.duration or 0)) * packet.time_base
            seen.end = end if seen.end is None else max(seen.end, end)
        if packet.stream.type == "audio" and packet.size:
            seen.listen(packet)
        if packet.stream_index == stream.index and packet.size:
            yield from _decoded(packet, stream, seen)
    yield from _decoded(None, stream, seen)


def _decoded(packet: "Packet[Stream] | None", stream: VideoStream, seen: _Pass) -> list[VideoFrame]:
    if packet is not None:
        seen.video_packets += 1
        if packet.dts is not None:
            seen.decoding_times.append(packet.dts)
        if packet.is_corrupt:
            seen.damage()
    try:
        return stream.decode(packet)
    except av.error.InvalidDataError:
        seen.damage()
        return []


def _look(frame: VideoFrame, facts: VideoFacts, seen: _Pass, called: str) -> None:
    """Take in one frame, in presentation order."""
    rank = len(seen.stamps)
    found = (frame.width, frame.height, frame.format.name)
    if found != (facts.width, facts.height, facts.pixel_format):
        raise invalid(
            called,
            f"changes from {facts.width}x{facts.height} {facts.pixel_format} to {found[0]}x{found[1]} {found[2]} at "
            f"frame {rank}; split the file there, or transcode it to one size and format.",
        )
    tags = (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range)
    if seen.tags is not None and tags != seen.tags:
        raise invalid(called, f"changes its colour tags at frame {rank}; split the file there, or tag it uniformly.")
    seen.tags = tags
    stamp = presentation_time(frame, facts)
    if stamp is None:
        seen.untimed += 1
        stamp = rank
    if seen.stamps and stamp <= seen.stamps[-1] and not seen.untimed:
        raise invalid(
            called,
            f"shows frame {rank} at tick {stamp}, not after frame {rank - 1} at {seen.stamps[-1]}; repair its time "
            "stamps (for example by remuxing with ffmpeg -fflags +genpts).",
        )
    if rank >= MOST_FRAMES:
        raise invalid(called, f"has more than {MOST_FRAMES} frames; split it.")
    seen.stamps.append(stamp)
    seen.last_duration = frame.duration
    seen.interlaced += frame.interlaced_frame
    if frame.is_corrupt:
        seen.damage()
    layout = pixels.LAYOUTS.get(frame.format.name)
    if layout is not None:
        luma, _, _ = pixels.planes(frame)
        seen.detector.push(signature(luma, bit_depth=layout.bit_depth))


def _time_base(stream: VideoStream) -> Fraction:
    assert stream.time_base is not None, "FFmpeg gives every stream a time base"
    return stream.time_base


def _timestamps(seen: _Pass, time_base: Fraction, facts: VideoFacts, called: str) -> Timestamps:
    if seen.untimed == len(seen.stamps):
        if _are_slots(seen.decoding_times, len(seen.stamps)):
            # AVI only says when chunks are decoded: one slot for each frame, whatever the codec reorders. The first
            # frame takes the first slot, as players do that sort such times (decoders' delays are not in the file).
            seen.stamps = seen.decoding_times
            return Timestamps.of(seen.stamps, time_base=time_base, last_duration=_last_duration(seen, time_base, facts))
        # A raw stream has no clock at all: its nominal rate is all there is.
        if facts.frame_rate is None:
            raise invalid(
                called, "has neither time stamps nor a frame rate; remux it into MP4 or MKV with a known rate."
            )
        return Timestamps.of(seen.stamps, time_base=1 / Fraction(facts.frame_rate), last_duration=1)
    if seen.untimed:
        raise invalid(
            called,
            f"has no time stamp on {seen.untimed} of {len(seen.stamps)} frames; repair it (for example by remuxing "
            "with ffmpeg -fflags +genpts).",
        )
    return Timestamps.of(seen.stamps, time_base=time_base, last_duration=_last_duration(seen, time_base, facts))


def _are_slots(decoding_times: list[int], frames: int) -> bool:
    return len(decoding_times) == frames and all(a < b for a, b in itertools.pairwise(decoding_times))


def _last_duration(seen: _Pass, time_base: Fraction, facts: VideoFacts) -> int:
    """Ticks that the last frame is shown: to the end of its track where the file tells it (MP4's frame durations are
    in decoding order, so the last one's own may be another's), else what the frame says, else as long as the one
    before, else the frame rate."""
    if seen.track_end is not None and seen.track_end > seen.stamps[-1]:
        return seen.track_end - seen.stamps[-1]
    if seen.last_duration > 0:
        return seen.last_duration
    if len(seen.stamps) > 1:
        return seen.stamps[-1] - seen.stamps[-2]
    if facts.frame_rate is not None:
        return max(1, round(1 / (Fraction(facts.frame_rate) * time_base)))
    return 1


def _refuse_truncated(container: InputContainer, stream: VideoStream, seen: _Pass, called: str) -> None:
    """An index that promises more packets than there are, or a header that promises a much later end."""
    if stream.frames > seen.video_packets and "mov" in container.format.name:
        raise invalid(
            called,
            f"is cut off: its index lists {stream.frames} frames, only {seen.video_packets} can be read. "
            "Upload it again, or remux it if it is whole.",
        )
    if (
        container.duration is None
        or seen.end is None
        or DURATION_IN_HEADER.isdisjoint(container.format.name.split(","))
    ):
        return
    promised = Fraction(container.duration, av.time_base) + Fraction(container.start_time or 0, av.time_base)
    if promised - seen.end > max(SHORTFALL_SECONDS, promised * SHORTFALL_SHARE):
        raise invalid(
            called,
            f"is cut off: its header promises {float(promised):.2f} seconds, its streams end at {float(seen.end):.2f}. "
            "Upload it again, or remux it if it is whole.",
        )
