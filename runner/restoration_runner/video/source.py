"""The one way to open media that somebody else wrote.

A video file is hostile input: a playlist or a script container can make a demuxer fetch URLs or other files, and a
lying header can ask for any amount of memory. So: no protocol but `file`, no container but those listed, a limit on
streams and pixels, and every error of the library becomes one sentence that names the input.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from restoration_api.ledger import VideoFacts
from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.video.threads import spread

CONTAINERS: Final = (
    "mov",
    "matroska",
    "avi",
    "mpegts",
    "mpeg",
    "flv",
    "ogg",
    "asf",
    "mxf",
    "ivf",
    "nut",
    "dv",
    "h264",
    "hevc",
    "obu",
    "m4v",
    "mpegvideo",
    "yuv4mpegpipe",
)
"""FFmpeg's names of the demuxers that may be used. Playlists (hls, dash, concat) and single images are left out."""

WITHOUT_PRESENTATION_TIMES: Final = frozenset({"avi"})
"""Containers that only say when frames are decoded. FFmpeg makes up times of presentation for them, and they are wrong
wherever a codec reorders frames."""

MOST_STREAMS: Final = 64
"""As many as `status.output.streams` can name."""
MOST_PIXELS: Final = 16384 * 8704
"""Pixels of a frame: twice 8192×4320 in each direction, the largest level of H.264, HEVC and AV1."""

FORMAT_OPTIONS: Final = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(CONTAINERS),
    "max_streams": str(MOST_STREAMS),
}


def display_name(path: Path, name: str | None) -> str:
    """How the input is called in messages: the name the user knows (its URI), else the file's own."""
    return name or path.name


def invalid(name: str, text: str) -> RestorationError:
    """`InvalidInput` with the input's name in front."""
    return RestorationError(FailureReason.INVALID_INPUT, f"{name}: {text}")


def location(path: Path) -> str:
    """A file's address for FFmpeg; the prefix keeps a name like `concat:a|b` from being read as a protocol."""
    return f"file:{path.resolve()}"


@contextmanager
def open_media(path: Path, *, name: str | None = None) -> Iterator[InputContainer]:
    """Open a file for reading under the rules of this module, and close it.

    Errors while the block runs are the block's: wrap what reads the file in `media_errors`, not what writes another.

    Raises:
        RestorationError: `InvalidInput`, when the file cannot be opened as one of `CONTAINERS`.
    """
    with media_errors(display_name(path, name)):
        # Titles in other encodings than UTF-8 are common (AVI); they are not worth a failed restoration.
        container = av.open(location(path), "r", container_options=dict(FORMAT_OPTIONS), metadata_errors="replace")
    try:
        yield container
    finally:
        container.close()


@contextmanager
def media_errors(called: str) -> Iterator[None]:
    """Turn FFmpeg's errors about the file `called` into `InvalidInput`."""
    try:
        yield
    except av.error.FFmpegError as error:
        raise invalid(
            called, f"cannot be read as a video ({_cause(error)}). Check that the upload is complete."
        ) from error


def _cause(error: av.error.FFmpegError) -> str:
    if isinstance(error, av.error.InvalidDataError):
        return "its data is damaged, cut off, or not a video"
    if isinstance(error, ValueError):
        return "its container or its frame size is not one that this runner opens"
    return error.strerror or type(error).__name__


def presentation_time(frame: VideoFrame, facts: VideoFacts) -> int | None:
    """When the file says that a frame is shown, in ticks; None if it does not say."""
    return None if facts.container in WITHOUT_PRESENTATION_TIMES else frame.pts


def packets(container: InputContainer, *streams: Stream) -> Iterator["Packet[Stream]"]:
    """Packets of these streams in file order; those of size 0 at the end flush decoders.

    A stream that appears after the start (transport streams announce them whenever they like) is left out. PyAV 18
    fails on it after the last packet, when it flushes a stream that it does not know.
    """
    try:
        yield from container.demux(list(streams))
    except IndexError:
        return


def video_stream(container: InputContainer, index: int) -> VideoStream:
    """The video stream at `index`, its decoder given its threads (which never change the frames)."""
    stream = container.streams[index]
    if not isinstance(stream, VideoStream):
        raise ValueError(f"stream {index} is {stream.type}, not video")
    stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
    spread(stream)
    return stream
