"""Proof that the assembled file is what was planned, before anybody can see it.

The file is decoded from its first frame to its last. What a player would rely on is compared with the plan: number and
content of frames (each segment's hash), every time, size, colour tags, streams, and the copied sound byte by byte.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from av.container import InputContainer
from av.video.frame import VideoFrame

from restoration_api.ledger import ColorFacts, ColorRange
from restoration_api.outcome import FailureReason, Verdict, Verification
from restoration_runner.errors import RestorationError
from restoration_runner.video import ffmpeg_cli, tags
from restoration_runner.video.frame_hash import FrameHash, decode_all
from restoration_runner.video.sound import sound_packets
from restoration_runner.video.source import media_errors, open_media
from restoration_runner.video.timeline import Timeline
from restoration_runner.video.write import PIXEL_FORMAT, WrittenSegment

CODEC_TAG: Final = "hvc1"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the plan promises of the output."""

    width: int
    height: int
    color: ColorFacts
    timeline: Timeline
    segments: tuple[tuple[int, str], ...]
    """(frames, frames_sha256) of each segment, in order."""
    source: Path
    kept: tuple[int, ...]
    """Indexes of the input's streams that were copied."""


def expected_segments(segments: Sequence[WrittenSegment]) -> tuple[tuple[int, str], ...]:
    return tuple((segment.frames, segment.frames_sha256) for segment in segments)


def verify(path: Path, expected: Expected) -> Verification:
    """Check a local output file.

    Raises:
        RestorationError: `VerificationFailed`, with the first difference.
    """
    try:
        with media_errors(path.name):
            _check_header(path, expected)
            frames = _check_frames(path, expected)
            _check_sound(path, expected)
    except RestorationError as error:
        if error.reason is FailureReason.VERIFICATION_FAILED:
            raise
        raise RestorationError(FailureReason.VERIFICATION_FAILED, f"the assembled file: {error.message}") from error
    return Verification(verdict=Verdict.PASSED, expected_frames=len(expected.timeline.ticks), decoded_frames=frames)


def _require(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise RestorationError(
            FailureReason.VERIFICATION_FAILED, f"the assembled file has {what} {found}, the plan says {wanted}."
        )


def _check_header(path: Path, expected: Expected) -> None:
    streams = ffmpeg_cli.probe(path)["streams"]
    with open_media(path) as out, open_media(expected.source) as given:
        chapters = len(given.chapters())
        _require("chapters", len(out.chapters()), chapters)
    # Chapters bring a track of their own, which holds their titles.
    kinds = ["video", *["audio" for _ in expected.kept], *(["data"] if chapters else [])]
    _require("streams", [stream["codec_type"] for stream in streams], kinds)
    video = streams[0]
    color = expected.color
    wanted = {
        "codec_name": "hevc",
        "codec_tag_string": CODEC_TAG,
        "profile": "Main 10",
        "pix_fmt": PIXEL_FORMAT,
        "width": expected.width,
        "height": expected.height,
        "color_space": color.matrix,
        "color_primaries": color.primaries,
        "color_transfer": color.transfer,
        "color_range": "pc" if color.range is ColorRange.FULL else "tv",
        "chroma_location": color.chroma_location,
    }
    for key, value in wanted.items():
        said = video.get(key)
        _require(key, tags.normal(said) if isinstance(said, str) else said, value)


def _check_frames(path: Path, expected: Expected) -> int:
    """Decode everything; every frame at its exact time, every segment with its hash."""
    timeline = expected.timeline
    total = len(timeline.ticks)
    borders = _borders(expected.segments)
    _require("segments that hold frames", borders[-1], total)
    hashed, segment, count = FrameHash(), 0, 0
    with open_media(path) as container:
        stream = container.streams.video[0]
        _require("a video clock of", stream.time_base, Fraction(1, timeline.ticks_per_second))
        end = (stream.start_time or 0) + (stream.duration or 0)
        _require("its last frame shown until tick", end, timeline.ticks[-1] + timeline.last_duration)
        for frame in decode_all(container):
            if count >= total:
                _require("frames more than", count, total)
            _check_frame(frame, count, expected)
            hashed.update(frame)
            count += 1
            if segment < len(borders) and count == borders[segment]:
                _require(f"in segment {segment} frames with hash", hashed.hexdigest(), expected.segments[segment][1])
                hashed, segment = FrameHash(), segment + 1
    _require("a number of frames of", count, total)
    return count


def _borders(segments: tuple[tuple[int, str], ...]) -> list[int]:
    borders, count = [], 0
    for frames, _ in segments:
        count += frames
        borders.append(count)
    return borders


def _check_frame(frame: VideoFrame, rank: int, expected: Expected) -> None:
    _require(f"frame {rank} at tick", frame.pts, expected.timeline.ticks[rank])
    _require(f"frame {rank} of size", (frame.width, frame.height), (expected.width, expected.height))


def _check_sound(path: Path, expected: Expected) -> None:
    """Copied streams hold the same packets as in the input."""
    for position, index in enumerate(expected.kept, start=1):
        with open_media(path) as out, open_media(expected.source) as given:
            _require(f"in copied stream {position} packets with hash", _hash(out, position), _hash(given, index))


def _hash(container: InputContainer, index: int) -> str:
    digest = hashlib.sha256()
    # PCM has no packets of its own: each demuxer cuts it as it likes.
    whole = not container.streams[index].codec_context.name.startswith("pcm_")
    for packet in sound_packets(container, index):
        if whole:
            digest.update(packet.size.to_bytes(4, "little"))
        digest.update(bytes(packet))
    return digest.hexdigest()
