"""Whole restorations for tests: a request on a tiny model, run in this process or in one that is to be killed.

A killed process is a real one, forked from a server that has the libraries loaded already. It dies by SIGKILL at the
n-th call of something that a test names; product code has no hooks for it: the store, the restorer and the joining
function are wrapped from outside.
"""

import multiprocessing
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from restoration_api.defaults import Choices, resolve
from restoration_api.outcome import Outcome
from restoration_api.request import (
    GpuRequest,
    InputRequest,
    ModelRequest,
    OutputRequest,
    Precision,
    Request,
    StorageRequest,
    Target,
)
from restoration_runner import assemble, inputs, models, task
from restoration_runner.job import run_job
from restoration_runner.models.restorer import Capabilities, ConditionNoise, Restorer, WorkReport
from restoration_runner.progress import ProgressTracker
from restoration_runner.restoration.grid import SegmentWork
from restoration_runner.stopping import StopSignal
from restoration_runner.storage import s3
from restoration_runner.storage.store import ObjectInfo, OnBytes, Store, When
from restoration_runner.task import JobContext
from tests.builders.steps import Steps

SMALL = Choices(target=Target(scale_factor=1), chunk_frames=9, segment_frames=10, preset="ultrafast")


def make_request(
    input_uri: str,
    output_uri: str,
    model: Path,
    *,
    storage: tuple[StorageRequest, ...] = (),
    choices: Choices = SMALL,
    **changes: Any,
) -> Request:
    """A request as the operator would write it, on the CPU. `changes` replace whole parts of it."""
    resolved = resolve("seedvr2-tiny", choices)
    name = storage[0].name if storage else None
    request = Request(
        input=InputRequest(uri=input_uri, storage=name),
        output=OutputRequest(uri=output_uri, storage=name, crf=resolved.crf, preset=resolved.preset),
        restoration=resolved.restoration,
        execution=resolved.execution(),
        model=ModelRequest(name="seedvr2-tiny", precision=Precision.FP32, path=str(model)),
        gpu=GpuRequest(count=0),
        storage=storage,
    )
    return request.model_copy(update=changes)


def run_here(
    request: Request,
    *,
    owner: str = "uid-1",
    execution: int = 1,
    stop: StopSignal | None = None,
    progress: ProgressTracker | None = None,
    only: frozenset[int] | None = None,
    memory_hint_mib: int | None = None,
    role: Callable[[JobContext], Outcome] = run_job,
) -> Outcome:
    """Do a role's work in this process; it leaves nothing in its scratch folder."""
    with tempfile.TemporaryDirectory() as scratch:
        outcome = role(
            JobContext(
                request=request,
                scratch=Path(scratch),
                stop=stop or StopSignal(),
                progress=progress or ProgressTracker(execution=execution),
                owner=owner,
                execution=execution,
                device="cpu",
                only=only,
                memory_hint_mib=memory_hint_mib,
            )
        )
        assert list(Path(scratch).iterdir()) == []
        return outcome


@dataclass(frozen=True)
class At:
    """The `number`-th time that `event` happens.

    Events: `frame` (the restorer yields one), `before join`, `after join`, `piece of output`, and `before X`, `after X`
    for a write of X: `plan`, `segment`, `marker`, `output`, `final`; `before clear` (the first delete of a marker).
    """

    event: str
    number: int = 1


def run_killed(
    request: Request, at: At | None, *, owner: str = "uid-1", environment: Mapping[str, str] | None = None
) -> int:
    """Run a request in another process that kills itself; returns its exit code (-9 if it was killed)."""
    with tempfile.TemporaryDirectory() as folder:  # what was killed removes nothing
        process = start(request, at, owner=owner, environment={**(environment or {}), "TMPDIR": folder})
        process.join()
    assert process.exitcode is not None
    return process.exitcode


def start(
    request: Request,
    at: At | None,
    *,
    owner: str = "uid-1",
    environment: Mapping[str, str] | None = None,
    answer: Any = None,
) -> multiprocessing.process.BaseProcess:
    """Start it; its outcome's JSON goes into `answer`, a queue.

    environment: also `TEST_CORES` (`0,1`: which it may use), `TEST_PART_BYTES`, `TEST_STEPS_IN` (a folder: what it does
    there are steps, beside the events of `At`), `TEST_STEPS_OF_REQUESTS` (so are its HTTP requests), `TEST_DIE_AT_STEP`
    (a number), `TEST_COUNT_TO` (a file for the number of steps, written at the end).
    """
    arguments = (request.to_json(), at, owner, dict(environment or {}), answer)
    process = _context().Process(target=_work, args=arguments)
    process.start()
    return process


def queue() -> Any:
    return _context().Manager().Queue()


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.builders.jobs"])
    return context


def _work(text: str, at: At | None, owner: str, environment: dict[str, str], answer: Any) -> None:
    os.environ.update(environment)
    tempfile.tempdir = None  # asked for again
    if cores := environment.get("TEST_CORES"):
        os.sched_setaffinity(0, map(int, cores.split(",")))
    if part_bytes := environment.get("TEST_PART_BYTES"):
        s3.PART_BYTES = int(part_bytes)
    request = Request.from_json(text)
    steps = Steps(fatal=int(environment["TEST_DIE_AT_STEP"]) if "TEST_DIE_AT_STEP" in environment else None)
    if folder := environment.get("TEST_STEPS_IN"):
        steps.watch(Path(folder))
    if environment.get("TEST_STEPS_OF_REQUESTS"):
        steps.watch_requests()
    with hooked(_killer(at) if at else steps.happened):
        outcome = run_here(request, owner=owner)
    if counted := environment.get("TEST_COUNT_TO"):
        Path(counted).write_text(str(steps.count))
    if answer is not None:
        answer.put(outcome.to_json())


OnEvent = Callable[[str], None]


def _killer(at: At) -> OnEvent:
    seen: Counter[str] = Counter()

    def happened(event: str) -> None:
        seen[event] += 1
        if event == at.event and seen[event] == at.number:
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()  # the signal may take a moment to arrive at this thread

    return happened


class hooked:  # noqa: N801  # reads as the sentence it is: with hooked(function)
    """While it is entered, `happened` is called with every event of this process."""

    def __init__(self, happened: OnEvent) -> None:
        self._happened = happened
        self._patches: list[Any] = []

    def __enter__(self) -> None:
        happened = self._happened
        for module in (task, inputs):
            opened = module.open_store

            def open_watched(
                uri: str, storage: str | None, request: Request, *, field: str, opened: Any = opened
            ) -> tuple[Store, str]:
                store, key = opened(uri, storage, request, field=field)
                return WatchedStore(store, key, happened), key

            self._patches.append(mock.patch.object(module, "open_store", open_watched))
        load, join = models.load_restorer, assemble.join

        def load_watched(*arguments: Any, **named: Any) -> Restorer:
            return WatchedRestorer(load(*arguments, **named), happened)

        def join_watched(*arguments: Any, **named: Any) -> None:
            happened("before join")
            join(*arguments, **named)
            happened("after join")

        self._patches.append(mock.patch.object(models, "load_restorer", load_watched))
        self._patches.append(mock.patch.object(assemble, "join", join_watched))
        for patch in self._patches:
            patch.start()

    def __exit__(self, *_: object) -> None:
        for patch in self._patches:
            patch.stop()


class WatchedRestorer:
    """A restorer that tells of every frame."""

    def __init__(self, inner: Restorer, happened: OnEvent) -> None:
        self._inner = inner
        self._happened = happened

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    @property
    def device(self) -> torch.device:
        return self._inner.device

    def prepare(self, *, width: int, height: int, window_latents: int, overlap_latents: int, scene_frames: int) -> None:
        self._inner.prepare(
            width=width,
            height=height,
            window_latents=window_latents,
            overlap_latents=overlap_latents,
            scene_frames=scene_frames,
        )

    def rehearse(self, work: SegmentWork, frames: Iterator[torch.Tensor]) -> Iterator[None]:
        return self._inner.rehearse(work, frames)

    def step_down(self) -> bool:
        return self._inner.step_down()

    def environment(self) -> dict[str, str]:
        return self._inner.environment()

    def restore(
        self,
        work: SegmentWork,
        frames: Iterator[torch.Tensor],
        *,
        seed: int,
        condition_noise: ConditionNoise | None = None,
    ) -> Iterator[torch.Tensor]:
        for frame in self._inner.restore(work, frames, seed=seed, condition_noise=condition_noise):
            self._happened("frame")
            yield frame

    def report(self) -> WorkReport:
        return self._inner.report()


class WatchedStore:
    """A store that tells of every write."""

    def __init__(self, inner: Store, output_key: str, happened: OnEvent) -> None:
        self._inner = inner
        self._output_key = output_key
        self._happened = happened

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def put(
        self, key: str, data: bytes, *, when: When | None = None, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        self._happened(f"before {self._kind(key)}")
        info = self._inner.put(key, data, when=when, metadata=metadata)
        self._happened(f"after {self._kind(key)}")
        return info

    def upload(
        self,
        key: str,
        path: Path,
        *,
        when: When | None = None,
        metadata: Mapping[str, str] | None = None,
        on_bytes: OnBytes | None = None,
    ) -> ObjectInfo:
        def moved(count: int) -> None:
            if on_bytes:
                on_bytes(count)
            if key == self._output_key:
                self._happened("piece of output")

        self._happened(f"before {self._kind(key)}")
        info = self._inner.upload(key, path, when=when, metadata=metadata, on_bytes=moved)
        self._happened(f"after {self._kind(key)}")
        return info

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        if self._kind(key) == "marker":
            self._happened("before clear")
        self._inner.delete(key, if_match=if_match)

    def _kind(self, key: str) -> str:
        if key == self._output_key:
            return "output"
        name = key.rpartition("/")[2]
        if "/seg/" in key:
            return "marker" if name.endswith(".json") else "segment"
        return {"plan.json": "plan", "final.json": "final"}.get(name, name)
