"""Encode one segment: HEVC Main 10 in Matroska, the same bytes whoever encodes the same frames.

x265 gives the same bytes for the same frames only if its frame threads are fixed, wavefronts are on, its pool has four
threads or more (`threads.LEAST_IN_POOL`), and it does not write its options into the stream (`info=0`). Groups of
pictures are closed and of fixed length and quality is constant (CRF), so a segment's end depends on nothing outside the
segment.
"""

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import av
import numpy as np
from av.container import OutputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from restoration_api.ledger import ColorFacts, ColorRange, EncoderSettings
from restoration_api.request import Codec
from restoration_runner.video import pixels, tags
from restoration_runner.video.frame_hash import FollowedFrames, hash_frames
from restoration_runner.video.rules import BLOCK, GOP_SECONDS, NARROW, PINNED, SMALL
from restoration_runner.video.threads import is_sparing, pool_size

if TYPE_CHECKING:
    from torch import Tensor

PIXEL_FORMAT: Final = "yuv420p10le"
FALLBACK_RATE: Final = Fraction(25)
RATES: Final = (Fraction(1), Fraction(300))
"""Nominal rates the encoder is told; outside of them its rate model (not the timestamps) would be nonsense."""


def encoder_settings(
    *, crf: int, preset: str, width: int, height: int, frame_rate: str | None, color: ColorFacts
) -> EncoderSettings:
    """Everything that decides the bytes of a segment, for the plan.

    Args:
        crf: x265's constant rate factor.
        preset: x265's preset.
        width, height: of the output.
        frame_rate: nominal rate of the input (`VideoFacts.frame_rate`), or None.
        color: tags of the output (`colorimetry.output_color`).
    """
    gop = max(1, round(nominal_rate(frame_rate) * GOP_SECONDS))
    of_size = [*([SMALL] if min(width, height) <= BLOCK else []), *([NARROW] if width < BLOCK else [])]
    location = tags.number(tags.CHROMA_LOCATIONS, color.chroma_location)
    return EncoderSettings(
        codec=Codec.HEVC,
        crf=crf,
        preset=preset,
        pixel_format=PIXEL_FORMAT,
        gop_frames=gop,
        parameters=":".join([PINNED, *of_size, f"keyint={gop}:min-keyint={gop}:chromaloc={location}"]),
    )


def nominal_rate(frame_rate: str | None) -> Fraction:
    """The rate that the encoder is told. Segments carry no real times: those come from the plan, by rank."""
    rate = Fraction(frame_rate) if frame_rate else FALLBACK_RATE
    return min(max(rate, RATES[0]), RATES[1]).limit_denominator(1001 * 300)


@dataclass(frozen=True, kw_only=True)
class WrittenSegment:
    """`frames_sha256` is over the planes as decoded from the file, so it also proves that the file can be decoded."""

    frames: int
    frames_sha256: str
    sha256: str
    size_bytes: int


class SegmentWriter:
    """Encodes frames as they come; memory does not grow with the segment.

    What is in the file is decoded again while more is encoded, so that the check is over soon after the last frame;
    where memory is short it comes afterwards.

    with SegmentWriter(path, settings=…, color=…, width=…, height=…, frame_rate=…) as writer:
        writer.write(colour.to_yuv420p10(rgb, color))
    written = writer.result()
    """

    def __init__(
        self,
        path: Path,
        *,
        settings: EncoderSettings,
        color: ColorFacts,
        width: int,
        height: int,
        frame_rate: str | None,
    ) -> None:
        self._path = path
        self._color = color
        self._size = (width, height)
        self._count = 0
        self._tick = 1 / nominal_rate(frame_rate)
        path.unlink(missing_ok=True)  # of a try that failed: it must not be followed
        self._container: OutputContainer = av.open(
            f"file:{path}", "w", format="matroska", container_options={"fflags": "+bitexact"}
        )
        self._stream = self._add_stream(settings)
        self._followed = None if is_sparing() else FollowedFrames(path)

    def _add_stream(self, settings: EncoderSettings) -> VideoStream:
        options = {
            "crf": str(settings.crf),
            "preset": str(settings.preset),
            "profile": "main10",
            "x265-params": f"{settings.parameters}:pools={pool_size()}:log-level=error",
        }
        stream = self._container.add_stream("libx265", rate=1 / self._tick, options=options)
        context = stream.codec_context
        context.width, context.height = self._size
        context.pix_fmt = settings.pixel_format
        context.time_base = self._tick
        context.sample_aspect_ratio = Fraction(1)
        tag(context, self._color)
        return stream

    def write(self, planes: "tuple[Tensor, Tensor, Tensor]") -> None:
        """Append a frame: Y `[H, W]`, U and V `[H/2, W/2]`, 10-bit values in int16, on any device."""
        frame = VideoFrame(*self._size, PIXEL_FORMAT)
        y, u, v = (plane.to("cpu").numpy().view(np.uint16) for plane in planes)
        pixels.fill(frame, (y, u, v))
        tag(frame, self._color)
        frame.pts = self._count
        frame.time_base = self._tick
        self._container.mux(self._stream.encode(frame))
        self._count += 1

    def close(self) -> None:
        """Flush the encoder and close the file."""
        try:
            if self._count:
                self._container.mux(self._stream.encode(None))
        finally:
            self._close_file()

    def _close_file(self) -> None:
        try:
            self._container.close()
        finally:
            if self._followed is not None:
                self._followed.file_is_complete()

    def result(self) -> WrittenSegment:
        """Describe the closed file, as decoded.

        Raises:
            RestorationError: `VerificationFailed`: the file just written cannot be decoded.
        """
        count, frames_sha256 = hash_frames(self._path) if self._followed is None else self._followed.result()
        if count != self._count:
            raise RuntimeError(f"{self._count} frames were encoded into {self._path.name}, {count} come out")
        with self._path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return WrittenSegment(
            frames=count, frames_sha256=frames_sha256, sha256=sha256, size_bytes=self._path.stat().st_size
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._close_file()


def tag(target: VideoFrame | VideoCodecContext, color: ColorFacts) -> None:
    """Set the four colour tags of a frame or of a codec context (encoders differ in which of the two they read)."""
    target.colorspace = tags.number(tags.MATRICES, color.matrix)
    target.color_primaries = tags.number(tags.PRIMARIES, color.primaries)
    target.color_trc = tags.number(tags.TRANSFERS, color.transfer)
    target.color_range = tags.FULL if color.range is ColorRange.FULL else tags.LIMITED
