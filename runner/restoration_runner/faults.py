"""Errors of libraries that mean something to the operator, as the runner's own."""

import errno
import sys

from restoration_api.outcome import FailureReason
from restoration_runner import secrets
from restoration_runner.errors import RestorationError

MESSAGE_CHARACTERS = 300
"""Of a third party's text: enough for its point, too little for a dump."""


def as_restoration_error(error: BaseException) -> RestorationError | None:
    """The meaning of an error that nobody caught closer to it; none if it has no meaning to us.

    Running out of device memory is told apart from a failing device: the first needs another request, the second
    another node.
    """
    if isinstance(error, RestorationError):
        return error
    torch = sys.modules.get("torch")  # an error before it was imported is none of its own
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return RestorationError(
            FailureReason.INSUFFICIENT_GPU_MEMORY,
            f"the GPU has too little memory for this size and chunk length: {_first_line(error)}; "
            "ask for a smaller restoration.target or restoration.chunk.frames, or a GPU with more memory",
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = error.filename or "scratch"
        message = f"no space left on the disk of {where}: raise the profile's scratch.sizeLimit, or free some space"
        return RestorationError(FailureReason.STORAGE_ERROR, message)
    text = str(error)
    device = torch is not None and isinstance(error, torch.AcceleratorError)
    if device or (isinstance(error, RuntimeError) and "CUDA error" in text):
        return RestorationError(FailureReason.GPU_FAULT, f"the GPU or its driver failed: {_first_line(error)}")
    return None


def _first_line(error: BaseException) -> str:
    lines = secrets.cleaned(str(error)).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:MESSAGE_CHARACTERS]


def unexpected(error: BaseException) -> str:
    """One sentence for an error nobody foresaw."""
    return f"unexpected {type(error).__name__}: {_first_line(error)}"
