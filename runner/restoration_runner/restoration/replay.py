"""Work of many small kernels, started as one: what the host needs to start them is more than the GPU needs to run them.

Colours take some 300 kernels a frame and a latent's noise 90, a few microseconds each on the GPU and up to 20 on the
host. A CUDA graph records them once and starts them together: the same kernels, the same bits.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import torch
from torch import Tensor

from restoration_runner.restoration.copies import is_gpu, pinned, upload

Tensors = tuple[Tensor, ...]
Key = tuple[tuple[torch.Size, torch.dtype], ...]

PICTURES: Final = 1900
"""A GPU that holds so many fp32 pictures spares what recordings of a picture's work keep, about twenty: 1080p from
48 GB on, 720p from 24. Where pictures are larger the kernels are, too, and the host keeps up."""


def has_room(device: torch.device, *, width: int, height: int) -> bool:
    """Whether `device` is a GPU with room for recordings of work on pictures of that size."""
    return is_gpu(device) and torch.cuda.get_device_properties(device).total_memory >= PICTURES * 12 * width * height


class Replayed:
    """`work`, which makes tensors on the device from tensors there: it must not wait for the GPU, nor read anything
    else that may change."""

    def __init__(self, work: Callable[..., Tensors], device: torch.device, *, records: bool = True) -> None:
        """records: False runs it as it is, as on a CPU."""
        self._work, self._device = work, device
        self._records = records and is_gpu(device)
        self._recordings: dict[Key, _Recording | None] = {}

    def __call__(self, *inputs: Tensor) -> Tensors:
        """What `work` makes of `inputs`, wherever they are; queued on the current stream, always the same one."""
        if not self._records:
            return self._as_it_is(inputs)
        key = tuple((value.shape, value.dtype) for value in inputs)
        if key not in self._recordings:  # libraries prepare in the first call what must not be recorded
            self._recordings[key] = None
            return self._as_it_is(inputs)
        recording = self._recordings[key]
        if recording is None:
            try:
                recording = self._recordings[key] = _Recording(self._work, inputs, self._device)
            except RuntimeError:  # out of memory, for instance; kernel by kernel it may still fit
                self._records = False
                return self._as_it_is(inputs)
        return recording(inputs)

    def _as_it_is(self, inputs: Tensors) -> Tensors:
        return self._work(*(upload(value, self._device) for value in inputs))


class _Recording:
    """Of one call; reads and writes its own memory, always the same."""

    def __init__(self, work: Callable[..., Tensors], inputs: Tensors, device: torch.device) -> None:
        self._inputs = tuple(torch.empty(value.shape, dtype=value.dtype, device=device) for value in inputs)
        self._graph = torch.cuda.CUDAGraph()
        here, aside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            # Other threads go on making page-locked memory meanwhile.
            self._graph.capture_begin(capture_error_mode="thread_local")
            try:
                self._outputs = work(*self._inputs)
            except BaseException:
                with suppress(RuntimeError):
                    self._graph.capture_end()
                raise
            self._graph.capture_end()
        here.wait_stream(aside)

    def __call__(self, inputs: Tensors) -> Tensors:
        for own, value in zip(self._inputs, inputs, strict=True):
            own.copy_(pinned(value, own.device), non_blocking=True)
        self._graph.replay()
        return tuple(made.clone() for made in self._outputs)
