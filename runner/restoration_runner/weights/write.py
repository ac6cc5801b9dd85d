"""Writing safetensors files and model folders so that they are complete or not there.

The library's own writer wants all tensors in memory at once; here one is, because a released network is 33 GB. The
format is a length, a JSON header and the tensors one after the other (github.com/huggingface/safetensors#format).
"""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError

_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def write_safetensors(
    path: Path, shapes: Mapping[str, torch.Size], dtype: torch.dtype, read: Callable[[str], Tensor]
) -> None:
    """Write the tensors of `shapes`, in the order of their names, asking `read` for one at a time.

    The same tensors give the same bytes. `read` must return `dtype` on the CPU.
    """
    header: dict[str, object] = {}
    at = 0
    for name in sorted(shapes):
        end = at + shapes[name].numel() * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shapes[name]), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of eight
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in sorted(shapes):
            tensor = read(name).contiguous()
            if tensor.dtype != dtype or tensor.shape != shapes[name]:
                raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}")
            file.write(tensor.view(-1).view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)  # the image's user is not the one who writes the folder


@contextlib.contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` when the body ends well and disappears when it does not.

    One process at a time works beside a target; what a killed one left is removed by the next.

    Raises:
        RestorationError: `InvalidParameters`, there is something at `target`, perhaps since a moment ago.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent):
        if target.exists():
            message = f"{target} exists already; remove it or name another folder"
            raise RestorationError(FailureReason.INVALID_PARAMETERS, message)
        for left in target.parent.glob(f".{target.name}.*.partial"):
            shutil.rmtree(left)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        try:
            partial.chmod(0o755)
            yield partial
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder itself is the lock, so no file is left behind."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)  # a rename is on the disk when its folder is
    finally:
        os.close(descriptor)
