"""Small videos made on the spot, each with one property that a test is about.

The picture is a texture that drifts slowly, another texture after each cut, so that motion, cuts and flashes are told
apart by what they are. All encoders are pinned to one thread and all muxers to bit-exact output.
"""

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from numpy.typing import NDArray

Planes = tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint16]]

DEPTHS = {"yuv420p": 8, "yuv422p": 8, "yuv444p": 8, "yuvj420p": 8}


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A tone. `delay` is when it starts, in seconds after the picture."""

    codec: str = "aac"
    sample_format: str = "fltp"
    rate: int = 48000
    seconds: float = 1.0
    delay: Fraction = Fraction(0)
    language: str | None = None
    title: str | None = None


@dataclass(frozen=True, kw_only=True)
class Clip:
    frames: int = 24
    width: int = 64
    height: int = 48
    rate: Fraction = Fraction(25)
    stamps: Sequence[int] | None = None
    """Times of the frames in `time_base`; constant rate if None."""
    time_base: Fraction | None = None
    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    cuts: Sequence[int] = ()
    flashes: Sequence[int] = ()
    """Frames that are white, with the scene going on behind them."""
    matrix: int | None = 1
    primaries: int | None = 1
    transfer: int | None = 1
    full_range: bool | None = False
    options: dict[str, str] = field(default_factory=dict)
    gop: int = 12
    aspect: Fraction | None = None
    rotation: int | None = None
    interlaced: bool = False
    sounds: Sequence[Sound] = ()
    chapters: bool = False
    start: Fraction = Fraction(0)
    """When the picture starts, in seconds."""
    container_options: dict[str, str] = field(default_factory=dict)

    def but(self, **changes: object) -> "Clip":
        return replace(self, **changes)  # type: ignore[arg-type]

    @property
    def depth(self) -> int:
        return DEPTHS.get(self.pixel_format, 10)

    @property
    def clock(self) -> Fraction:
        return self.time_base or 1 / self.rate

    def times(self) -> list[int]:
        first = round(self.start / self.clock)
        return [first + stamp for stamp in (self.stamps if self.stamps is not None else range(self.frames))]

    def scene(self, frame: int) -> int:
        return sum(cut <= frame for cut in self.cuts)


def chroma_shape(pixel_format: str, width: int, height: int) -> tuple[int, int]:
    """(height, width) of the chroma planes."""
    family = pixel_format.removeprefix("yuvj").removeprefix("yuv")[:3]
    return (-(-height // 2) if family == "420" else height, width if family == "444" else -(-width // 2))


def picture(clip: Clip, frame: int) -> Planes:
    """Planes of one frame, in code values of the clip's depth, within limited range."""
    scene = clip.scene(frame)
    rows, columns = np.mgrid[0 : clip.height, 0 : clip.width].astype(np.float64)
    random = np.random.default_rng(scene)
    angle, pitch = random.uniform(0, np.pi), random.uniform(9, 15)
    across = (columns * np.cos(angle) + rows * np.sin(angle) + 0.4 * frame) / pitch
    # Neighbouring scenes differ in brightness and in texture, as shots do.
    luma = (0.3 if scene % 2 == 0 else 0.7) + 0.12 * np.sin(2 * np.pi * across) + 0.08 * np.sin(columns / 5 + scene)
    if frame in clip.flashes:
        luma = np.full_like(luma, 0.99)
    chroma_height, chroma_width = chroma_shape(clip.pixel_format, clip.width, clip.height)
    high, wide = np.mgrid[0:chroma_height, 0:chroma_width].astype(np.float64)
    u = 0.5 + 0.2 * np.sin(wide / 9 + scene) * np.cos(high / 13)
    v = 0.5 + 0.2 * np.cos(wide / 11 - scene) * np.sin(high / 7 + 0.05 * frame)
    step = 1 << (clip.depth - 8)
    return (
        np.round((16 + 219 * luma) * step).astype(np.uint16),
        np.round((16 + 224 * u) * step).astype(np.uint16),
        np.round((16 + 224 * v) * step).astype(np.uint16),
    )


def to_frame(planes: Planes, pixel_format: str) -> av.VideoFrame:
    """An `av.VideoFrame` with these planes."""
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pixel_format)
    dtype = np.uint8 if DEPTHS.get(pixel_format, 10) == 8 else np.uint16
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.frombuffer(memoryview(plane), dtype=dtype).reshape(plane.height, -1)
        rows[:, : plane.width] = values
    return frame


def write(path: Path, clip: Clip) -> Path:
    """Encode `clip`; the container follows from the path's suffix."""
    with av.open(str(path), "w", container_options={"fflags": "+bitexact", **clip.container_options}) as container:
        encoder = _add_picture(container, clip)
        tones = [_add_tone(container, sound) for sound in clip.sounds]
        if clip.chapters:
            third = {"id": 0, "start": 0, "end": 300, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}}
            container.set_chapters([third, {**third, "id": 1, "start": 300, "end": 900, "metadata": {"title": "Two"}}])
        container.start_encoding()
        for rank, stamp in enumerate(clip.times()):
            frame = to_frame(picture(clip, rank), clip.pixel_format)
            frame.pts, frame.time_base = stamp, clip.clock
            container.mux(encoder.encode(frame))
        container.mux(encoder.encode(None))
        for stream, sound in zip(tones, clip.sounds, strict=True):
            container.mux(list(_tone(stream, sound)))
    return path


def _add_picture(container: OutputContainer, clip: Clip) -> av.VideoStream:
    options = {"g": str(clip.gop), "crf": "12", "threads": "1", **clip.options}
    if clip.codec == "libx265":
        options = {
            "crf": "12",
            "x265-params": f"log-level=error:info=0:pools=1:frame-threads=1:keyint={clip.gop}",
            **clip.options,
        }
    if clip.codec not in ("libx264", "libx265"):
        options = {"g": str(clip.gop), **clip.options}
    if clip.interlaced:
        options["flags"] = "+ildct+ilme"
    stream = container.add_stream(clip.codec, rate=clip.rate, options=options)
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = clip.width, clip.height, clip.pixel_format
    context.time_base = clip.clock
    context.thread_count = 1
    for tag, value in (
        ("colorspace", clip.matrix),
        ("color_primaries", clip.primaries),
        ("color_trc", clip.transfer),
        ("color_range", None if clip.full_range is None else 2 if clip.full_range else 1),
    ):
        if value is not None:
            setattr(context, tag, value)
    if clip.aspect is not None:
        context.sample_aspect_ratio = clip.aspect
    if clip.rotation is not None:
        stream.set_display_rotation(clip.rotation)
    return stream


def _add_tone(container: OutputContainer, sound: Sound) -> av.AudioStream:
    stream = container.add_stream(sound.codec, rate=sound.rate)
    stream.layout = "stereo"
    stream.format = sound.sample_format
    if sound.language:
        stream.metadata["language"] = sound.language
    if sound.title:
        stream.metadata["title"] = sound.title
    return stream


def _tone(stream: av.AudioStream, sound: Sound) -> Iterator[Packet]:
    size = stream.codec_context.frame_size or 1024
    resampler = av.AudioResampler(format=sound.sample_format, layout="stereo", rate=sound.rate)
    total, first = int(sound.seconds * sound.rate), round(sound.delay * sound.rate)
    for start in range(0, total, size):
        time = np.arange(start, min(start + size, total)) / sound.rate
        wave = np.repeat((8000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16), 2)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = sound.rate, first + start, Fraction(1, sound.rate)
        for piece in resampler.resample(frame):
            yield from stream.encode(piece)
    yield from stream.encode(None)


def ffmpeg(*arguments: str | Path) -> None:
    """Run the independent ffmpeg of the machine."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def with_subtitles(path: Path, out: Path) -> Path:
    """`path` with one line of English subtitles."""
    text = out.with_suffix(".srt")
    text.write_text("1\n00:00:00,100 --> 00:00:00,600\nHello\n")
    codec = "mov_text" if out.suffix in (".mp4", ".mov") else "srt"
    ffmpeg(
        "-i",
        path,
        "-i",
        text,
        "-map",
        "0",
        "-map",
        "1",
        "-c",
        "copy",
        "-c:s",
        codec,
        "-metadata:s:s:0",
        "language=eng",
        out,
    )
    return out


def truncate(path: Path, *, keep: float) -> Path:
    """Cut the file off after this share of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path
