"""What is really in a file of ours: its frames, decoded again and hashed, after it was written or meanwhile."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.video import pixels
from restoration_runner.video.source import media_errors, open_media
from restoration_runner.video.threads import spread

LOOK_AGAIN_SECONDS: Final = 0.02
"""How often a reader at the end of a growing file looks for more: what comes next is some hundred milliseconds away."""


class FrameHash:
    """sha256 over the decoded planes of a run of frames: rows without padding, Y then U then V, little-endian."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.frames = 0

    def update(self, frame: VideoFrame) -> None:
        for plane in pixels.planes(frame):
            self._hash.update(np.ascontiguousarray(plane).data)
        self.frames += 1

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def hash_frames(path: Path) -> tuple[int, str]:
    """Number of frames in a segment, and the hash of their planes.

    Raises:
        RestorationError: `VerificationFailed`, when it cannot be decoded.
    """
    with _decoding_errors(path), open_media(path) as container:
        return _hashed(container)


@contextmanager
def _decoding_errors(path: Path) -> Iterator[None]:
    """What cannot be decoded was written by this process: nobody's input is wrong."""
    try:
        with media_errors(path.name):
            yield
    except RestorationError as error:
        message = f"segment {path.name}, which was just written, cannot be decoded again: is the disk of scratch sound?"
        raise RestorationError(FailureReason.VERIFICATION_FAILED, message) from error


def _hashed(container: InputContainer) -> tuple[int, str]:
    found = FrameHash()
    for frame in decode_all(container):
        found.update(frame)
    return found.frames, found.hexdigest()


def decode_all(container: InputContainer) -> Iterator[VideoFrame]:
    """All frames of the only video stream of a file of ours."""
    stream = container.streams.video[0]
    spread(stream)
    return container.decode(stream)


class FollowedFrames:
    """The frames of a Matroska file while another thread writes it: what `hash_frames` says, sooner.

    A muxer adds clusters at the end and, when it closes the file, only writes lengths into the header. So what is
    decoded here is what the finished file holds; joining reads it once more, and the joined file is decoded as a whole.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._growing = _GrowingFile(path)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="check")
        self._found = self._pool.submit(self._follow)
        self._pool.shutdown(wait=False)

    def file_is_complete(self) -> None:
        """To be called in any case: whoever follows waits for more until then."""
        self._growing.is_complete.set()

    def result(self) -> tuple[int, str]:
        """Number of frames, and the hash of their planes, once the file is complete.

        Raises:
            RestorationError: `VerificationFailed`, when it cannot be decoded.
        """
        return self._found.result()

    def _follow(self) -> tuple[int, str]:
        with _decoding_errors(self._path), self._growing, av.open(self._growing, "r", format="matroska") as container:
            return _hashed(container)


class _GrowingFile:
    """As much of a file as there is; its end is where the writer says that it is complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.is_complete = threading.Event()

    def __enter__(self) -> "_GrowingFile":
        while not self._path.exists() and not self.is_complete.wait(LOOK_AGAIN_SECONDS):
            pass
        self._file = self._path.open("rb", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        while True:
            was_complete = self.is_complete.is_set()  # asked before: what is written in between is not missed
            data = self._file.read(size)
            if data or was_complete:
                return data
            self.is_complete.wait(LOOK_AGAIN_SECONDS)
