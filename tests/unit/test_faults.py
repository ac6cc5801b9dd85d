"""Errors of libraries, of the device and of nobody in particular, as the runner's own."""

import errno

import pytest
import torch

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.faults import as_restoration_error, unexpected

ROWS: list[tuple[BaseException, FailureReason | None, str]] = [
    (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore"),
        FailureReason.INSUFFICIENT_GPU_MEMORY,
        "restoration.target",
    ),
    (
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore"),
        FailureReason.GPU_FAULT,
        "illegal memory",
    ),
    (RuntimeError("CUDA error: uncorrectable ECC error"), FailureReason.GPU_FAULT, "ECC"),
    (OSError(errno.ENOSPC, "No space left on device", "/scratch/x"), FailureReason.STORAGE_ERROR, "/scratch/x"),
    (RestorationError(FailureReason.INPUT_CHANGED, "changed"), FailureReason.INPUT_CHANGED, "changed"),
    (RuntimeError("shapes do not match"), None, ""),
    (KeyError("x"), None, ""),
]


@pytest.mark.parametrize(("error", "reason", "says"), ROWS)
def test_an_error_gets_its_class(error: BaseException, reason: FailureReason | None, says: str) -> None:
    found = as_restoration_error(error)
    assert (found.reason if found else None) is reason
    if found:
        assert says in found.message
        assert "\n" not in found.message


@pytest.mark.parametrize("error", [ValueError("first\nsecond"), ValueError(""), KeyError("k"), ValueError("x" * 5000)])
def test_an_unforeseen_error_is_one_short_sentence(error: Exception) -> None:
    text = unexpected(error)
    assert text.startswith(f"unexpected {type(error).__name__}: ")
    assert "\n" not in text
    assert len(text) < 500
