"""The model is loaded beside fetching and planning where that saves time, and nowhere else."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.builders import clips
from tests.builders.clips import Clip
from tests.builders.jobs import make_request
from tests.builders.models import write_tiny_model

from restoration_api.outcome import FailureReason
from restoration_runner import models, segments
from restoration_runner.errors import RestorationError
from restoration_runner.job import run_job
from restoration_runner.loading import KERNEL_FOLDER, ModelLoading, check_kernel_folder
from restoration_runner.models.seedvr2.restorer import SeedVr2Restorer
from restoration_runner.progress import ProgressTracker
from restoration_runner.restoration.grid import SegmentWork
from restoration_runner.stopping import InterruptedByRequestError, StopSignal
from restoration_runner.supply import FolderSupply
from restoration_runner.task import JobContext, Task, scratch_folder

PATIENCE_SECONDS = 120


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def context(model: Path, tmp_path: Path) -> JobContext:
    source = clips.write(tmp_path / "in.mp4", Clip(frames=3, width=64, height=64))
    return JobContext(
        request=make_request(source.as_uri(), (tmp_path / "out.mp4").as_uri(), model),
        scratch=tmp_path,
        stop=StopSignal(),
        progress=ProgressTracker(),
        owner="uid-1",
    )


class Loader:
    """In the place of `models.load_restorer`: waits until it is let go on, then loads on the CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.released = threading.Event(), threading.Event()
        self.threads: list[threading.Thread] = []
        self._load = models.load_restorer
        monkeypatch.setattr(models, "load_restorer", self)

    def __call__(self, folder: Path, **named: Any) -> Any:
        self.threads.append(threading.current_thread())
        self.begun.set()
        assert self.released.wait(PATIENCE_SECONDS)
        return self._load(folder, **{**named, "device": "cpu"})


def test_for_a_gpu_it_is_loaded_while_the_plan_is_made(context: JobContext, monkeypatch: pytest.MonkeyPatch) -> None:
    loader, plan = Loader(monkeypatch), Task.plan

    def plan_when_loading(task: Task, source: Any) -> Any:
        assert loader.begun.wait(PATIENCE_SECONDS)
        planned = plan(task, source)
        loader.released.set()
        return planned

    monkeypatch.setattr(Task, "plan", plan_when_loading)
    assert run_job(replace(context, device="cuda")).frames_restored == 3
    assert len(loader.threads) == 1 and loader.threads[0] is not threading.current_thread()


@pytest.mark.parametrize("changes", [{"device": "cpu"}, {"device": "cuda", "memory_hint_mib": 8192}])
def test_elsewhere_it_is_loaded_when_the_plan_is_made(
    context: JobContext, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    loader, plan = Loader(monkeypatch), Task.plan

    def plan_first(task: Task, source: Any) -> Any:
        planned = plan(task, source)
        assert not loader.begun.is_set()
        loader.released.set()
        return planned

    monkeypatch.setattr(Task, "plan", plan_first)
    assert run_job(replace(context, **changes)).frames_restored == 3
    assert loader.threads == [threading.current_thread()]


def test_nothing_is_loaded_where_nothing_is_left_to_compute(
    context: JobContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = Loader(monkeypatch)
    monkeypatch.setattr(Task, "has_all_segments", lambda _: True)
    with scratch_folder(context) as folder, ModelLoading(Task(replace(context, device="cuda"), folder)) as loading:
        loading.ahead()
    assert not loader.begun.is_set()


@pytest.mark.parametrize(("name", "is_kept"), [("new/folder", True), ("file/folder", False)])
def test_a_folder_for_kernels_that_cannot_be_written_to_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_kept: bool
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(KERNEL_FOLDER, str(tmp_path / name))
    check_kernel_folder()
    assert (KERNEL_FOLDER in os.environ) is is_kept


def test_a_digest_that_is_not_the_promised_one_is_told_first(
    context: JobContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is loaded beside the check may fail for the same reason, in words that explain less."""

    def fail(*_: object, **__: object) -> None:
        raise RestorationError(FailureReason.MODEL_INVALID, "a tensor is missing")

    monkeypatch.setattr(models, "load_restorer", fail)
    pinned = context.request.model_copy(
        update={"model": context.request.model.model_copy(update={"digest": f"sha256:{'0' * 64}"})}
    )
    with pytest.raises(RestorationError, match="has the digest") as caught:
        run_job(replace(context, request=pinned))
    assert caught.value.reason is FailureReason.MODEL_INVALID


Rehearsal = Callable[[SeedVr2Restorer, SegmentWork, Iterator[torch.Tensor]], Iterator[None]]
whole_rehearsal = SeedVr2Restorer.rehearse


def endless(restorer: SeedVr2Restorer, work: SegmentWork, frames: Iterator[torch.Tensor]) -> Iterator[None]:
    while True:
        yield


def out_of_memory(restorer: SeedVr2Restorer, work: SegmentWork, frames: Iterator[torch.Tensor]) -> Iterator[None]:
    next(frames)
    yield
    raise RestorationError(FailureReason.INSUFFICIENT_GPU_MEMORY, "too large")


def broken(restorer: SeedVr2Restorer, work: SegmentWork, frames: Iterator[torch.Tensor]) -> Iterator[None]:
    raise RuntimeError("a library fails")
    yield


class PretendedGpu:
    """The context's model is on a GPU as far as the runner can see, and its check waits for the rehearsal to begin."""

    def __init__(self, context: JobContext, monkeypatch: pytest.MonkeyPatch, rehearsal: Rehearsal) -> None:
        self.context = replace(context, device="cuda")
        self.begun, self.checked = threading.Event(), threading.Event()
        self.thread: threading.Thread | None = None
        Loader(monkeypatch).released.set()
        check = FolderSupply.check

        def check_late(supply: FolderSupply) -> None:
            assert self.begun.wait(PATIENCE_SECONDS)
            check(supply)
            self.checked.set()

        def rehearse(restorer: SeedVr2Restorer, work: SegmentWork, frames: Iterator[torch.Tensor]) -> Iterator[None]:
            assert not self.checked.is_set()
            self.thread = threading.current_thread()
            self.begun.set()
            yield from rehearsal(restorer, work, frames)

        monkeypatch.setattr(FolderSupply, "check", check_late)
        monkeypatch.setattr(SeedVr2Restorer, "rehearse", rehearse)
        monkeypatch.setattr(segments, "is_gpu", lambda _: True)


def output(context: JobContext) -> Path:
    return Path(context.request.output.uri.removeprefix("file://"))


@pytest.mark.parametrize("rehearsal", [whole_rehearsal, endless, out_of_memory, broken])
def test_what_is_rehearsed_beside_the_check_changes_nothing(
    context: JobContext, monkeypatch: pytest.MonkeyPatch, rehearsal: Rehearsal
) -> None:
    run_job(context)
    expected = output(context).read_bytes()
    output(context).unlink()
    pretended = PretendedGpu(replace(context, owner="uid-2"), monkeypatch, rehearsal)
    outcome = run_job(pretended.context)
    assert outcome.frames_restored == 3 and not outcome.cache_hit
    assert output(context).read_bytes() == expected
    assert pretended.checked.is_set()
    assert pretended.thread is threading.current_thread()  # the one that computes: cuDNN's plans belong to it


@pytest.mark.parametrize("rehearsal", [whole_rehearsal, endless, broken])
def test_nothing_comes_of_weights_that_are_found_wrong_during_the_rehearsal(
    context: JobContext, monkeypatch: pytest.MonkeyPatch, rehearsal: Rehearsal
) -> None:
    wrong = context.request.model.model_copy(update={"digest": f"sha256:{'0' * 64}"})
    spoilt = replace(context, request=context.request.model_copy(update={"model": wrong}))
    pretended = PretendedGpu(spoilt, monkeypatch, rehearsal)
    monkeypatch.setattr(SeedVr2Restorer, "restore", broken)
    with pytest.raises(RestorationError, match="has the digest") as caught:
        run_job(pretended.context)
    assert caught.value.reason is FailureReason.MODEL_INVALID
    assert pretended.begun.is_set()
    assert not list(context.scratch.rglob("*.mkv")) and not output(context).exists()


def test_a_rehearsal_ends_when_the_runner_is_told_to_stop(context: JobContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def told_to_stop(_: SeedVr2Restorer, work: SegmentWork, frames: Iterator[torch.Tensor]) -> Iterator[None]:
        next(frames)
        context.stop.set()
        yield
        next(frames)
        raise AssertionError("it went on")

    pretended = PretendedGpu(context, monkeypatch, told_to_stop)
    monkeypatch.setattr(SeedVr2Restorer, "restore", broken)
    with pytest.raises(InterruptedByRequestError):
        run_job(pretended.context)
    assert not output(context).exists()


@pytest.mark.parametrize("changes", [{"device": "cpu"}, {"device": "cuda", "memory_hint_mib": 8192}])
def test_elsewhere_nothing_is_rehearsed(
    context: JobContext, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    Loader(monkeypatch).released.set()
    begun = threading.Event()
    monkeypatch.setattr(SeedVr2Restorer, "rehearse", lambda *_: begun.set())
    assert run_job(replace(context, **changes)).frames_restored == 3
    assert not begun.is_set()
