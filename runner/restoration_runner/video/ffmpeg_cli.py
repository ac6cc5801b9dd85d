"""The only module that runs the `ffmpeg` and `ffprobe` executables, and the only one that imports ffmpeg-python.

Decoding, encoding and muxing go through PyAV. The executables are used for what PyAV does not expose (chroma location,
display matrix, stream side data) and for measurements whose filters only they have. ffmpeg-python builds the commands;
running them is done here, because its own `probe` and `run` wait for ever and read one pipe while the other fills up.
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

import ffmpeg

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.video.source import FORMAT_OPTIONS, display_name, invalid, location

PROBE_SECONDS: Final = 60
"""ffprobe reads a few megabytes of a local file; a minute means that a hostile file holds it."""
MOST_PROBE_BYTES: Final = 4 << 20
"""Of JSON. A file with tags in the hundreds of megabytes is an attack on the reader, not a video."""


def probe(path: Path, *, name: str | None = None) -> dict[str, Any]:
    """What ffprobe says about a local file: `format` and `streams`, as its JSON spells them.

    Raises:
        RestorationError: `InvalidInput`, when ffprobe refuses the file or takes too long.
    """
    called = display_name(path, name)
    options = {**FORMAT_OPTIONS, "v": "error", "of": "json"}
    flags = [word for key, value in options.items() for word in (f"-{key}", value)]
    command = ["ffprobe", "-hide_banner", *flags, "-show_format", "-show_streams", "-i", location(path)]
    try:
        code, out, err = _run(command, timeout_seconds=PROBE_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise invalid(called, f"ffprobe did not finish within {PROBE_SECONDS} seconds; the file is damaged.") from error
    if code != 0:
        raise invalid(
            called, f"is not a video that can be read ({_verdict(err, path)}). Check that the upload is complete."
        )
    if len(out) > MOST_PROBE_BYTES:
        raise invalid(called, "describes itself in more than 4 MiB of text; remove its metadata and try again.")
    found: dict[str, Any] = json.loads(out)
    return found


def psnr(reference: Path, other: Path, *, pixel_format: str, timeout_seconds: float = 600) -> float:
    """Mean PSNR in dB of two videos of one size, frame by frame in order, computed by FFmpeg's `psnr` filter.

    Raises:
        RestorationError: `InvalidInput`, when FFmpeg cannot compare them.
    """
    streams = [
        ffmpeg.input(location(path), **FORMAT_OPTIONS).video.filter("format", pixel_format)
        for path in (reference, other)
    ]
    # Time stamps may differ in their last digit between containers; only the order counts here.
    counted = [stream.filter("setpts", "N/(25*TB)") for stream in streams]
    graph = ffmpeg.filter(counted, "psnr").output("-", format="null")
    code, _, err = _run(graph.compile(), timeout_seconds=timeout_seconds)
    match = re.search(r"average:(inf|[0-9.]+)", err)
    if code != 0 or match is None:
        raise invalid(other.name, f"cannot be compared with {reference.name} ({_verdict(err, other)}).")
    return float(match.group(1))


def _run(command: list[str], *, timeout_seconds: float) -> tuple[int, str, str]:
    """Exit code, stdout, stderr. Both go to files, so that no pipe can fill up and block the other."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, timeout=timeout_seconds, check=False
            )
        except FileNotFoundError as error:
            raise RestorationError(
                FailureReason.UNKNOWN, f"{command[0]} is not installed; install FFmpeg (apt-get install ffmpeg)."
            ) from error
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read(2 * MOST_PROBE_BYTES).decode(errors="replace"))
    return done.returncode, texts[0], texts[1]


def _verdict(text: str, path: Path) -> str:
    """What FFmpeg said of the file as a whole, without the path of our temporary copy; not what a decoder mumbled."""
    for line in reversed(text.splitlines()):
        if line.startswith(location(path)):
            return line.removeprefix(location(path)).strip(": ")[:200]
    return "ffprobe gave no reason"
