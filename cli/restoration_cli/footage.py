"""Two videos, before and after, frame beside frame at the same moments.

A restored video has the timestamps of its input, so frames are paired in their order from the same moment on, and a
pair whose times differ means that the two do not belong together. Colours are converted with each file's own matrix;
where an input does not name one, with that of the output, which says what the runner has taken it for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import av
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation
from PIL import Image

from restoration_cli.errors import CommandError

UNSPECIFIED: Final = 2
SEEK_MARGIN_S: Final = 1.0
"""A demuxer may land behind the moment that was asked for by the depth of B frames."""
SAME_MOMENT_S: Final = 0.001
"""Timestamps of both files are rounded to their own time bases."""
PREVIEW_SHORT_SIDE: Final = 1080
TICKS: Final = 90000


class Video:
    """One file. Times are seconds since its first frame, or since the first one at or after `skip_s`."""

    def __init__(self, source: BinaryIO | str, name: str, *, skip_s: float = 0.0) -> None:
        """Open it.

        Raises:
            CommandError: it is no video, or its codec is unknown here.
        """
        self.name = name
        with _undecodable(name):
            self._container = av.open(source, mode="r")
            if not self._container.streams.video:
                raise CommandError(f"{name} has no video stream")
            self._stream = self._container.streams.video[0]
            self._stream.thread_type = "AUTO"
        self.width, self.height = self._stream.width, self._stream.height
        self._base = self._stream.time_base or Fraction(1, TICKS)
        self._begins_s = float((self._stream.start_time or 0) * self._base)
        first = next(self._decoded(self._begins_s + skip_s), None)
        if first is None:
            raise CommandError(f"{name} has no frame" + (f" after {skip_s:g} s" if skip_s else ""))
        self._origin_s = first[0]
        self.matrix = int(first[1].colorspace)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    @property
    def length_s(self) -> float:
        """As the container says; 0 if it says nothing."""
        length_s = float((self._stream.duration or 0) * self._base) or (self._container.duration or 0) / 1e6
        return max(0.0, length_s - (self._origin_s - self._begins_s))

    def frames(self, start_s: float) -> Iterator[tuple[float, VideoFrame]]:
        """Frames at or after `start_s`, with their times."""
        for time_s, frame in self._decoded(self._origin_s + start_s):
            yield time_s - self._origin_s, frame

    def _decoded(self, from_s: float) -> Iterator[tuple[float, VideoFrame]]:
        """Frames from an absolute time of the file on."""
        with _undecodable(self.name):
            self._container.seek(max(0, int((from_s - SEEK_MARGIN_S) / self._base)), stream=self._stream)
            for frame in self._container.decode(self._stream):
                if frame.time is not None and frame.time >= from_s - SAME_MOMENT_S:
                    yield frame.time, frame


@dataclass(frozen=True)
class Pair:
    """The same moment twice, in the output's size and in RGB."""

    time_s: float
    before: Image.Image
    after: Image.Image


@dataclass(frozen=True)
class Excerpt:
    """Two files with the same frames at the same times, which browsers play."""

    start_s: float
    length_s: float
    frames: int
    width: int
    height: int


def _moments(before: Video, after: Video, start_s: float) -> Iterator[tuple[float, VideoFrame, VideoFrame]]:
    for (time_s, low), (other_s, high) in zip(before.frames(start_s), after.frames(start_s), strict=False):
        if abs(time_s - other_s) > SAME_MOMENT_S:
            raise CommandError(
                f"{after.name} has a frame at {other_s:.3f} s where {before.name} has one at {time_s:.3f} s: "
                "one of them has been replaced since"
            )
        yield time_s, low, high


def stills(before: Video, after: Video, count: int) -> list[Pair]:
    """Pairs spread evenly over the whole video; fewer if it has fewer frames."""
    found: dict[float, Pair] = {}
    for number in range(count):
        wanted_s = after.length_s * (number + 0.5) / count
        moment = next(_moments(before, after, wanted_s), None) or next(_moments(before, after, 0.0))
        time_s, low, high = moment
        found[time_s] = Pair(time_s, _enlarged(low, before, after), _rgb(high, _matrix(after, before)))
    return [found[time_s] for time_s in sorted(found)]


def excerpt(before: Video, after: Video, folder: Path, *, start_s: float, seconds: float) -> Excerpt:
    """Write `before.mp4` and `after.mp4`: H.264 that browsers play, at most 1080 pixels on the short side.

    The input is enlarged to the output's size (bicubic), as a player would.
    """
    factor = min(1.0, PREVIEW_SHORT_SIDE / min(after.width, after.height))
    size = tuple(max(2, round(side * factor) // 2 * 2) for side in (after.width, after.height))
    frames, last_s = 0, start_s
    with (
        _Writer(folder / "before.mp4", size, _matrix(before, after)) as low_file,
        _Writer(folder / "after.mp4", size, _matrix(after, before)) as high_file,
    ):
        for time_s, low, high in _moments(before, after, start_s):
            if frames and time_s >= start_s + seconds - SAME_MOMENT_S:
                break
            ticks = round((time_s - start_s) * TICKS)
            low_file.write(low, ticks)
            high_file.write(high, ticks)
            frames, last_s = frames + 1, time_s
    # The last frame is shown as long as the others are on average.
    length_s = (last_s - start_s) * frames / (frames - 1) if frames > 1 else 0.04
    return Excerpt(start_s, length_s, frames, *size)


class _Writer:
    """An H.264 file, written frame by frame; a context manager."""

    def __init__(self, path: Path, size: tuple[int, ...], matrix: int) -> None:
        self._size, self._matrix = size, matrix
        self._container = av.open(str(path), mode="w", options={"movflags": "+faststart"})
        self._stream = self._container.add_stream("libx264", options={"preset": "veryfast", "crf": "16"})
        context = self._stream.codec_context
        context.width, context.height = size
        context.pix_fmt = "yuv420p"
        context.time_base = Fraction(1, TICKS)
        context.colorspace, context.color_range = matrix, int(ColorRange.MPEG)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()

    def write(self, frame: VideoFrame, ticks: int) -> None:
        width, height = self._size
        picture = frame.reformat(
            width=width,
            height=height,
            format="yuv420p",
            interpolation=Interpolation.BICUBIC,
            src_colorspace=self._matrix,
            dst_colorspace=self._matrix,
            dst_color_range=ColorRange.MPEG,
        )
        picture.pts, picture.time_base = ticks, Fraction(1, TICKS)
        self._container.mux(self._stream.encode(picture))


def _matrix(video: Video, other: Video) -> int:
    return other.matrix if video.matrix == UNSPECIFIED else video.matrix


def _rgb(frame: VideoFrame, matrix: int) -> Image.Image:
    picture = frame.reformat(format="rgb24", src_colorspace=matrix)
    [plane] = picture.planes
    size = (picture.width, picture.height)
    return Image.frombytes("RGB", size, bytes(plane), "raw", "RGB", plane.line_size)


def _enlarged(frame: VideoFrame, before: Video, after: Video) -> Image.Image:
    return _rgb(frame, _matrix(before, after)).resize((after.width, after.height), Image.Resampling.BICUBIC)


class _undecodable:  # noqa: N801 - used as a context manager only
    """Turn FFmpeg's errors into one sentence about a file."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, FFmpegError):
            raise CommandError(f"{self._name} cannot be decoded here: {error.strerror}") from error
