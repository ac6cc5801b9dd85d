"""Weights streamed from host memory: whatever the order in which two GPU streams run, a block computes with its own.

No GPU is needed: streams and events are replaced by ones that only note what was asked of them, and every note is then
carried out in random legal orders.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock

import pytest
import torch

from restoration_runner.models.seedvr2.fast import dit_store
from restoration_runner.models.seedvr2.fast.dit_store import StreamedMatrices
from restoration_runner.models.seedvr2.fast.dit_weights import PackedBlock


@dataclass(eq=False)
class Event:
    """As CUDA's: waiting means waiting for the latest record that was asked for before."""

    asked: int = 0

    def record(self, stream: "Stream") -> None:
        self.asked += 1
        stream.notes.append(("record", self, self.asked))


@dataclass(eq=False)
class Stream:
    notes: list[tuple[str, object, int]] = field(default_factory=list)

    def wait_event(self, event: Event) -> None:
        self.notes.append(("wait", event, event.asked))


class Watched(StreamedMatrices):
    def _copy(self, block: int, slot: int) -> None:
        self._copies.notes.append(("copy", block, slot))  # type: ignore[attr-defined]


@contextmanager
def fake_streams() -> Iterator[tuple[Stream, Stream]]:
    """The stream of the computation and that of the copies."""
    compute, copies = Stream(), Stream()
    with (
        mock.patch.object(torch.cuda, "current_stream", lambda _device: compute),
        mock.patch.object(torch.cuda, "Stream", lambda _device: copies),
        mock.patch.object(torch.cuda, "Event", Event),
        mock.patch.object(torch.cuda, "stream", lambda _stream: mock.MagicMock()),
        mock.patch.object(dit_store, "_pin", lambda _flat: None),
        mock.patch.object(dit_store, "_unpin", lambda _flats: None),
    ):
        yield compute, copies


def carry_out(streams: tuple[Stream, Stream], order: random.Random) -> int:
    """Run the notes of both streams in a random order that the events allow; returns how many reads were right."""
    done: dict[object, int] = {}
    slots: dict[int, int] = {}
    queues = [list(stream.notes) for stream in streams]
    reads = 0
    while any(queues):
        able = [q for q in queues if q and not (q[0][0] == "wait" and done.get(q[0][1], 0) < q[0][2])]
        assert able, "the streams wait for each other"
        kind, what, number = order.choice(able).pop(0)
        if kind == "record":
            done[what] = number
        elif kind == "copy":
            assert isinstance(what, int)
            slots[number] = what
        elif kind == "read":
            assert slots[number] == what
            reads += 1
    return reads


def read_blocks(store: Watched, compute: Stream, stop: int | None = None) -> None:
    for number, _ in enumerate(store.blocks()):
        slot = store._taken % 2
        # A block's computation is long: it begins after the yield and ends before the next block is asked for.
        compute.notes += [("read", number, slot), ("read", number, slot)]
        if number == stop:
            break  # as an error in the middle of a block


@pytest.mark.parametrize("blocks", [1, 2, 3, 8])
@pytest.mark.parametrize("stop", [None, 0, 1, 2], ids=lambda stop: f"first call stopped at {stop}")
def test_every_block_computes_with_its_own_weights(blocks: int, stop: int | None) -> None:
    with fake_streams() as streams:
        packed = [PackedBlock(torch.zeros(4), (((2, 2),), (), (), ())) for _ in range(blocks)]
        store = Watched(packed, torch.device("cpu"))
        read_blocks(store, streams[0], stop)
        for _ in range(2):
            read_blocks(store, streams[0])
    first = blocks if stop is None else min(stop + 1, blocks)
    for seed in range(20):
        assert carry_out(streams, random.Random(seed)) == 2 * (first + 2 * blocks)
