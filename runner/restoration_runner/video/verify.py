"""Proof that the assembled file is what was planned, before anybody can see it.

The file is decoded from its first frame to its last, by several decoders at once (`recheck`). What a player would rely
on is compared with the plan: number and content of frames (each segment's hash), every time, size, colour tags,
streams, and the copied sound byte by byte.
"""

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Final

from av.container import InputContainer
from av.video.frame import VideoFrame

from restoration_api.ledger import ColorFacts, ColorRange
from restoration_api.outcome import FailureReason, Verdict, Verification
from restoration_runner.errors import RestorationError
from restoration_runner.video import ffmpeg_cli, recheck, tags
from restoration_runner.video.recheck import DecodedSegment, Run
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
    segments = _segments(expected.segments)
    _require("segments that hold frames", segments[-1].end, total)
    with open_media(path) as container:
        stream = container.streams.video[0]
        _require("a video clock of", stream.time_base, Fraction(1, timeline.ticks_per_second))
        end = (stream.start_time or 0) + (stream.duration or 0)
        _require("its last frame shown until tick", end, timeline.ticks[-1] + timeline.last_duration)
        may_begin = recheck.keyframes(container)
    _require("a number of frames of", len(may_begin), total)
    for index, segment in enumerate(segments):
        _require(f"at the start of segment {index} a keyframe:", may_begin[segment.first], True)
    share = recheck.share(len(segments), frame_bytes=expected.width * expected.height * 3)
    check = partial(_check_frame, expected=expected)
    with closing(recheck.decode_segments(path, segments, share=share, check=check)) as decoded:
        return _check_segments(decoded, expected)


def _segments(segments: tuple[tuple[int, str], ...]) -> list[Run]:
    borders = itertools.accumulate((frames for frames, _ in segments), initial=0)
    return [Run(first, end) for first, end in itertools.pairwise(borders)]


def _check_segments(decoded: Iterable[DecodedSegment], expected: Expected) -> int:
    """Nothing too few or too many, each segment with its hash, and each border the same from both sides."""
    total, count, after = len(expected.timeline.ticks), 0, None
    for index, (found, (_, sha256)) in enumerate(zip(decoded, expected.segments, strict=True)):
        run = found.run
        goes_on = run.end < total
        last = run.end - 1 + goes_on
        _require(f"from frame {run.first} to {last} a number of frames of", found.frames, last + 1 - run.first)
        if after is not None:
            _require(f"frame {run.first}, decoded after the one before it, with hash", after, found.first_sha256)
        after = found.after_sha256
        count += found.frames - goes_on
        _require(f"in segment {index} frames with hash", found.sha256, sha256)
    return count


def _check_frame(frame: VideoFrame, rank: int, expected: Expected) -> None:
    ticks = expected.timeline.ticks
    if rank >= len(ticks):
        _require("a number of frames of", rank + 1, len(ticks))
    _require(f"frame {rank} at tick", frame.pts, ticks[rank])
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
