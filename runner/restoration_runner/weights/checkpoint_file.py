"""Checkpoint files that others made, opened so that one tensor at a time is in memory and no code in them can run.

Two kinds: safetensors, and PyTorch's zip archives (`.pth`, `.pt`) read with `weights_only`, which knows tensors and
plain containers and refuses everything else. Both are mapped into memory, not read.
"""

import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError

PICKLED = (".pth", ".pt", ".ckpt", ".bin")
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class CheckpointFile:
    """Names of tensors, what each looks like (on the meta device), and how to get one."""

    path: Path
    looks: Mapping[str, Tensor]
    read: Callable[[str], Tensor]


def open_checkpoint(path: Path) -> CheckpointFile:
    """Open a `.safetensors` or PyTorch file.

    Raises:
        RestorationError: `ModelInvalid` if it is missing, of another kind, damaged, not a flat list of tensors, or
            holds code.
    """
    if not path.is_file():
        raise _invalid(f"{path} does not exist or is not a file")
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    if path.suffix in PICKLED:
        return _of_tensors(path, _load_pickled(path))
    raise _invalid(f"{path} is neither .safetensors nor a PyTorch file (.pth, .pt); GGUF and others are not read")


def open_tensor(path: Path) -> Tensor:
    """The one tensor of a file, as the embedded prompt is published: bare in a `.pt`, or alone in a safetensors file.

    Raises:
        RestorationError: as `open_checkpoint`; also if there are more tensors, or none.
    """
    if path.is_file() and path.suffix in PICKLED:
        loaded = _load_pickled(path)
        if isinstance(loaded, Tensor):
            return loaded
        file = _of_tensors(path, loaded)
    else:
        file = open_checkpoint(path)
    if len(file.looks) != 1:
        raise _invalid(f"{path} holds {len(file.looks)} tensors; expected is exactly one, the embedded prompt")
    return file.read(next(iter(file.looks)))


def _open_safetensors(path: Path) -> CheckpointFile:
    try:
        opened: Any = safe_open(path, framework="pt")
        looks = {name: _look(path, name, opened.get_slice(name)) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _invalid(f"{path} is not a readable safetensors file ({error}); fetch it again") from error
    return CheckpointFile(path, looks, opened.get_tensor)


def _look(path: Path, name: str, part: Any) -> Tensor:
    kind = part.get_dtype()
    if kind not in _DTYPES:
        raise _invalid(f"{path}: {name} is stored as {kind}, which is not read here")
    return torch.empty(part.get_shape(), dtype=_DTYPES[kind], device="meta")


def _load_pickled(path: Path) -> object:
    try:
        with warnings.catch_warnings(action="ignore"):  # errors follow, in our words
            # Files of before PyTorch 1.6 are no zip archives and cannot be mapped.
            loaded: object = torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error):
            raise _invalid(
                f"{path} holds more than tensors: reading it could run code, so it was not read "
                f"({_point(error)}); get the weights as safetensors"
            ) from error
        raise _invalid(f"{path} is damaged or no PyTorch file ({_point(error)}); fetch it again") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _invalid(f"{path} is damaged or no PyTorch file ({_point(error)}); fetch it again") from error
    return loaded


def _of_tensors(path: Path, loaded: object) -> CheckpointFile:
    if not isinstance(loaded, Mapping):
        raise _invalid(f"{path} holds a {type(loaded).__name__}, not tensors by name")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise _invalid(f"{path} is no flat list of tensors: '{name}' is a {type(value).__name__}")
    looks = {name: torch.empty(value.shape, dtype=value.dtype, device="meta") for name, value in loaded.items()}
    return CheckpointFile(path, looks, loaded.__getitem__)


def _point(error: Exception) -> str:
    """The first sentence of a library's message: PyTorch's go on with advice to switch the check off."""
    text = " ".join(str(error).split()) or type(error).__name__
    for mark in ("Unsupported", "GLOBAL"):
        if mark in text:
            text = text[text.index(mark) :]
            break
    return text.split(". ")[0][:200].rstrip(".")


def _invalid(message: str) -> RestorationError:
    return RestorationError(FailureReason.MODEL_INVALID, message)
