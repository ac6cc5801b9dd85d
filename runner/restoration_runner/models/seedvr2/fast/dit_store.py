"""Where the blocks' matrices live while the transformer runs: on the device, or streamed from host memory."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from restoration_runner.models.kernels.dequantise import dequantise
from restoration_runner.models.seedvr2.fast.dit_weights import Matrices, PackedBlock, QuantisedBlock, fields_of

StoreOf = Callable[[Iterable[PackedBlock]], "MatrixStore"]


class MatrixStore(Protocol):
    """device_bytes: what the matrices take of the device's memory."""

    device_bytes: int

    def blocks(self) -> Iterator[Matrices]:
        """Each block's matrices in order, valid until the next one is asked for."""


class ResidentMatrices:
    """All blocks on the device."""

    def __init__(self, packed: Iterable[PackedBlock]) -> None:
        self._blocks = list(packed)
        self.device_bytes = sum(block.flat.nbytes for block in self._blocks)

    def blocks(self) -> Iterator[Matrices]:
        for block in self._blocks:
            yield block.matrices()


class QuantisedMatrices:
    """Blocks that are stored in 8 bits, wherever, and become what products take one at a time, in one place."""

    def __init__(self, blocks: Iterable[QuantisedBlock], store: StoreOf, *, dtype: torch.dtype) -> None:
        """store: makes the one that holds the 8-bit matrices."""
        self._scales: list[tuple[tuple[Tensor, ...], ...]] = []
        self._shapes: list[PackedBlock] = []
        self._stored = store(self._taken(blocks))
        device = self._scales[0][0][0].device
        largest = max(block.flat.numel() for block in self._shapes)
        self._place = torch.empty(largest, dtype=dtype, device=device)
        self.device_bytes = self._stored.device_bytes + self._place.nbytes

    def _taken(self, blocks: Iterable[QuantisedBlock]) -> Iterator[PackedBlock]:
        for block in blocks:
            self._scales.append(block.scales)
            self._shapes.append(block.packed)
            yield block.packed

    def blocks(self) -> Iterator[Matrices]:
        for stored, scales, packed in zip(self._stored.blocks(), self._scales, self._shapes, strict=True):
            made = packed.matrices(self._place)
            for fields in zip(fields_of(stored), scales, fields_of(made), strict=True):
                for q, scale, out in zip(*fields, strict=True):
                    dequantise(q, scale, out=out)
            yield made


class StreamedMatrices:
    """Blocks in pinned host memory, copied to two places on the device in turn, one block ahead of the computation.

    The copies run on a stream of their own; events order them with the readers, and the host never waits. The first
    blocks of the next call are copied as soon as places are free, beside whatever runs between two calls.
    """

    def __init__(self, packed: Iterable[PackedBlock], device: torch.device) -> None:
        """packed: in host memory."""
        self._host = list(packed)
        flats = [block.flat for block in self._host]
        for flat in flats:
            _pin(flat)
        weakref.finalize(self, _unpin, flats)
        size = max(flat.numel() for flat in flats)
        self._slots = [torch.empty(size, dtype=flats[0].dtype, device=device) for _ in range(2)]
        self._copies = torch.cuda.Stream(device)
        self._copied = [torch.cuda.Event() for _ in self._slots]
        self._read = [torch.cuda.Event() for _ in self._slots]
        self._device = device
        self.device_bytes = sum(slot.nbytes for slot in self._slots)
        self._start_over()

    def blocks(self) -> Iterator[Matrices]:
        compute = torch.cuda.current_stream(self._device)
        if self._taken % len(self._host):
            self._start_over()  # a call was given up half way
        for block in self._host:
            slot = self._taken % len(self._slots)
            compute.wait_event(self._copied[slot])
            yield block.matrices(self._slots[slot])
            self._read[slot].record(compute)
            self._taken += 1
            self._copy_ahead()

    def _start_over(self) -> None:
        self._taken = self._issued = 0
        for event in self._read:  # whoever still reads the places does so on the current stream
            event.record(torch.cuda.current_stream(self._device))
        self._copy_ahead()

    def _copy_ahead(self) -> None:
        while self._issued < self._taken + len(self._slots):
            slot = self._issued % len(self._slots)
            self._copies.wait_event(self._read[slot])
            with torch.cuda.stream(self._copies):
                self._copy(self._issued % len(self._host), slot)
                self._copied[slot].record(self._copies)
            self._issued += 1

    def _copy(self, block: int, slot: int) -> None:
        flat = self._host[block].flat
        self._slots[slot][: flat.numel()].copy_(flat, non_blocking=True)


def _pin(flat: Tensor) -> None:
    """Page-lock memory that exists: PyTorch's own allocator would round every block up to a power of two."""
    error = int(torch.cuda.cudart().cudaHostRegister(flat.data_ptr(), flat.nbytes, 0))
    if error:
        raise RuntimeError(f"{flat.nbytes} bytes of host memory cannot be page-locked (CUDA error {error})")


def _unpin(flats: list[Tensor]) -> None:
    torch.cuda.synchronize()  # no copy may still read them
    for flat in flats:
        torch.cuda.cudart().cudaHostUnregister(flat.data_ptr())
