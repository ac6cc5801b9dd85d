"""Between host and GPU without waiting: the thread that starts the GPU's work must never wait for the GPU.

A copy from ordinary memory to a GPU returns when the GPU has come to it, which is after all the work queued before: the
host then starts the next kernels late, and the GPU idles. A copy from page-locked memory is only queued.
"""

from typing import Final

import torch
from torch import Tensor

_PLACE: Final = torch.device("cpu")


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """A host tensor that `device` can read on its own: a page-locked copy for a GPU, for others the tensor itself.

    PyTorch keeps page-locked blocks for the next tensor, and gives none away before the copies from it are done.
    """
    return tensor.pin_memory() if is_gpu(device) and tensor.device == _PLACE else tensor


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`; queued, not waited for."""
    return pinned(tensor, device).to(device, non_blocking=True)


def is_gpu(device: torch.device) -> bool:
    """Whether there is a GPU behind `device`: tests pretend some."""
    return device.type == "cuda" and torch.cuda.is_available()


class Downloaded:
    """Tensors on their way to the host."""

    def __init__(self, tensors: tuple[Tensor, ...], done: torch.cuda.Event | None) -> None:
        self._tensors, self._done = tensors, done

    def wait(self) -> tuple[Tensor, ...]:
        """The tensors on the host; blocks until the GPU has made and sent them."""
        if self._done is not None:
            self._done.synchronize()
        return self._tensors


class Downloads:
    """Brings results to the host beside the computation: on a stream of its own, into page-locked memory."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if is_gpu(device) else None

    def start(self, tensors: tuple[Tensor, ...]) -> Downloaded:
        """Queue the copies behind what computes the tensors; on a CPU there is nothing to do."""
        if self._stream is None:
            return Downloaded(tensors, None)
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            copies = tuple(_to_host(tensor, self._stream) for tensor in tensors)
            # Blocking: the encoder's thread sleeps until then, and leaves its core to the encoder.
            done = torch.cuda.Event(blocking=True)
            done.record(self._stream)
        return Downloaded(copies, done)


def _to_host(tensor: Tensor, stream: torch.cuda.Stream) -> Tensor:
    tensor.record_stream(stream)  # its memory must not be given to another tensor before it is copied
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
