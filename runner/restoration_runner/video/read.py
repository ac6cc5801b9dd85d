"""Frames of a part of the input, found by their presentation time and checked against it.

A seek may land anywhere: container indexes are by decoding time, edit lists shift them, some formats only guess. So the
landing is never believed: decoding starts at least one keyframe earlier than needed, frames are counted by their time
in the plan, and if the wanted one was already passed the next try starts further back, in the end at the beginning.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from restoration_api.ledger import Timestamps, VideoFacts
from restoration_runner.video import pixels
from restoration_runner.video.pixels import PixelLayout
from restoration_runner.video.source import (
    display_name,
    invalid,
    media_errors,
    open_media,
    packets,
    presentation_time,
    video_stream,
)

STEPS_BACK_SECONDS: Final = (0, 2, 10, 60)
"""How far before the wanted frame a seek aims, try by try, before the file is decoded from its start."""


@dataclass(frozen=True)
class DecodedFrame:
    """One frame of the input: `planes` are Y `[H, W]`, U and V `[h, w]` of `layout`, sharing the decoder's memory."""

    index: int
    pts: int
    planes: tuple[Tensor, Tensor, Tensor]
    layout: PixelLayout


def tensors(frame: VideoFrame) -> tuple[Tensor, Tensor, Tensor]:
    """`pixels.planes` as tensors (uint8, or uint16 above 8 bit), which share the frame's memory and keep it alive."""
    y, u, v = (from_dlpack(plane) for plane in frame.planes)
    return y, u, v


class _MissedError(Exception):
    """The seek landed after the wanted frame."""


def read_frames(
    path: Path, facts: VideoFacts, timestamps: Timestamps, *, first: int, last: int, name: str | None = None
) -> Iterator[DecodedFrame]:
    """Frames `first` to `last` (both included, counted from 0 over the whole input), in order.

    Memory: the decoder's own few frames and the one handed out, however long the range is.

    Args:
        path: the file.
        facts: from `probe`.
        timestamps: from `scan` or the plan.
        first: rank of the first frame.
        last: rank of the last frame.
        name: what messages call the input.

    Raises:
        RestorationError: `InvalidInput`, when the file does not give the frames that were scanned.
    """
    called = display_name(path, name)
    stamps = list(timestamps.pts())
    if not 0 <= first <= last < len(stamps):
        raise ValueError(f"frames {first}..{last} of a video of {len(stamps)}")
    time_base = Fraction(timestamps.time_base)
    for back in (*STEPS_BACK_SECONDS, None):
        with open_media(path, name=called) as container, media_errors(called):
            stream = video_stream(container, facts.stream_index)
            try:
                if back is not None:
                    _seek(container, stream, stamps[first] - round(back / time_base))
                frames = _decode(container, stream)
                yield from _range(frames, facts, stamps, first=first, last=last, counted=back is None, called=called)
            except _MissedError:
                continue
            return
    raise invalid(called, f"does not give frame {first} again, which it gave when scanned; remux it into MP4 or MKV.")


def _seek(container: InputContainer, stream: VideoStream, tick: int) -> None:
    """Move to the second keyframe at or before `tick`.

    One keyframe more than needed, because frames right after a keyframe may refer to frames before it (open groups of
    pictures), and streams with gradual refresh have a clean picture only some frames later.

    Raises:
        _MissedError: the file has no such keyframe, or cannot seek.
    """
    try:
        container.seek(tick, stream=stream)
        for landed in packets(container, stream):
            stamps = [stamp for stamp in (landed.pts, landed.dts) if stamp is not None]
            if stamps:
                container.seek(min(stamps) - 1, stream=stream)
                return
    except av.error.FFmpegError:
        pass
    raise _MissedError


def _decode(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    for packet in packets(container, stream):
        try:
            frames = stream.decode(packet)
        except av.error.InvalidDataError:
            continue  # before the wanted frame it does not matter; after it a frame is missing, which is noticed
        yield from frames


def _range(
    frames: Iterator[VideoFrame],
    facts: VideoFacts,
    stamps: list[int],
    *,
    first: int,
    last: int,
    counted: bool,
    called: str,
) -> Iterator[DecodedFrame]:
    """Frames `first` to `last` out of a run of decoded frames; `counted` means the run begins with frame 0.

    Raises:
        _MissedError: the run begins after `first`, or cannot tell where it is.
    """
    layout = pixels.LAYOUTS[facts.pixel_format]
    wanted = first
    for position, frame in enumerate(frames):
        stamp = presentation_time(frame, facts)
        if stamp is None and counted:
            # AVI and raw streams have no presentation times: `scan` counted the frames, and so does this.
            stamp = stamps[position] if position < len(stamps) else stamps[-1] + 1
        if stamp is None or (stamp > stamps[wanted] and wanted == first):
            raise _MissedError
        if stamp < stamps[wanted] and wanted == first:
            continue
        if stamp != stamps[wanted]:
            raise invalid(called, f"gives another frame {wanted} than when it was scanned; it was changed meanwhile.")
        yield DecodedFrame(index=wanted, pts=stamp, planes=tensors(frame), layout=layout)
        if wanted == last:
            return
        wanted += 1
    if wanted == first:
        raise _MissedError
    raise invalid(called, f"ends before frame {wanted}, which it gave when it was scanned; it was changed meanwhile.")
