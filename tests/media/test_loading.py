"""The model is loaded beside fetching and planning where that saves time, and nowhere else."""

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.builders import clips
from tests.builders.clips import Clip
from tests.builders.jobs import make_request
from tests.builders.models import write_tiny_model

from restoration_api.outcome import FailureReason
from restoration_runner import models
from restoration_runner.errors import RestorationError
from restoration_runner.job import run_job
from restoration_runner.loading import KERNEL_FOLDER, ModelLoading, check_kernel_folder
from restoration_runner.progress import ProgressTracker
from restoration_runner.stopping import StopSignal
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
