"""Work that a GPU replays: when it is recorded, when it is not, and that what comes out belongs to what went in."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from restoration_runner.restoration import replay
from restoration_runner.restoration.replay import Replayed, has_room

GIB = 2**30
GPU = torch.device("cpu")
"""Taken for one: the graph's place is taken by its work, which notes that it was recorded."""


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Recordings and replays, in order."""
    notes: list[str] = []

    class Recording:
        def __init__(self, work: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...], _: object) -> None:
            self._work = work
            notes.append(f"recorded {tuple(inputs[0].shape)}")

        def __call__(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            notes.append("replayed")
            return self._work(*inputs)

    monkeypatch.setattr(replay, "is_gpu", lambda _: True)
    monkeypatch.setattr(replay, "_Recording", Recording)
    return notes


def doubled(value: Tensor) -> tuple[Tensor]:
    return (2 * value,)


def results(replayed: Replayed, *inputs: Tensor) -> list[list[float]]:
    return [made.tolist() for value in inputs for made in replayed(value)]


def test_the_second_call_of_each_shape_is_recorded(log: list[str]) -> None:
    replayed = Replayed(doubled, GPU)
    a, b = torch.tensor([1.0]), torch.tensor([1.0, 2.0])
    assert results(replayed, a, b, a + 2, b + 2, a + 4, a.long()) == [[2], [2, 4], [6], [6, 8], [10], [2]]
    assert log == ["recorded (1,)", "replayed", "recorded (2,)", "replayed", "replayed"]


def test_what_is_not_to_be_recorded_runs_as_it_is(log: list[str]) -> None:
    replayed = Replayed(doubled, GPU, records=False)
    assert results(replayed, *[torch.tensor([1.0])] * 3) == [[2]] * 3
    assert log == []


def test_a_recording_that_fails_is_left(log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        log.append("failed")
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(replay, "_Recording", fail)
    assert results(Replayed(doubled, GPU), *[torch.tensor([1.0])] * 4) == [[2]] * 4
    assert log == ["failed"]


def test_an_error_of_the_work_itself_is_seen(log: list[str]) -> None:
    def refuse(_: Tensor) -> tuple[Tensor]:
        raise ValueError("not this one")

    with pytest.raises(ValueError, match="not this one"):
        Replayed(refuse, GPU)(torch.zeros(1))


@pytest.mark.parametrize(
    ("total_gib", "width", "height", "expected"),
    [
        (80, 1280, 720, True),
        (80, 1920, 1088, True),
        (80, 3840, 2160, False),
        (44.9, 1920, 1080, True),
        (24, 1280, 720, True),
        (24, 1920, 1088, False),
        (11.2, 1280, 720, False),
        (11.2, 854, 480, True),
    ],
)
def test_room_for_recordings(
    monkeypatch: pytest.MonkeyPatch, total_gib: float, width: int, height: int, expected: bool
) -> None:
    card = SimpleNamespace(total_memory=total_gib * GIB)
    monkeypatch.setattr(replay, "is_gpu", lambda _: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    assert has_room(torch.device("cuda"), width=width, height=height) is expected


def test_a_cpu_needs_no_recordings() -> None:
    assert not has_room(torch.device("cpu"), width=64, height=64)
