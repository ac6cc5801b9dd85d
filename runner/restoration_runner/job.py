"""The life of one execution: find, plan, restore, assemble, verify, publish, report.

Each step leaves in storage all that the next one needs, so an execution may end anywhere and another one goes on. The
steps read like the list in the documentation of the commit protocol, and in its order.
"""

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog
import torch

from restoration_api.ledger import Manifest, Marker, Plan, Segment, work_prefix
from restoration_api.outcome import (
    InputOutcome,
    Outcome,
    OutputOutcome,
    Result,
    Stage,
    StreamOutcome,
    Timings,
    Verdict,
    Verification,
)
from restoration_api.request import CacheMode, Request, SegmentCleanup
from restoration_runner import models
from restoration_runner.accept import check_request
from restoration_runner.environment import environment, fingerprint, gpu_name, library_versions, usable_cpus
from restoration_runner.inputs import Input, check_unchanged, fetch_input, find_input
from restoration_runner.models.restorer import Capabilities, Restorer
from restoration_runner.plan import Found, Keys, make_keys, make_plan
from restoration_runner.progress import ProgressTracker
from restoration_runner.publish import SHA256, Destination, Published, Seen
from restoration_runner.restoration.pipeline import QUEUE_FRAMES, Made, SegmentMaker
from restoration_runner.stopping import StopSignal
from restoration_runner.storage.open import open_store
from restoration_runner.storage.store import ObjectInfo, ObjectMissingError, PreconditionError
from restoration_runner.video import colour, cuts, streams, write
from restoration_runner.video.join import join
from restoration_runner.video.probe import probe
from restoration_runner.video.scan import scan
from restoration_runner.video.timeline import timeline
from restoration_runner.video.verify import Expected, verify
from restoration_runner.weights.digest import check_digest
from restoration_runner.work import Maker, Work

log = structlog.get_logger()

ROUNDS = 3
"""Of restoring and assembling: a second one is needed only if a peer removed segments that were counted on."""


@dataclass(frozen=True, kw_only=True)
class JobContext:
    """What differs from execution to execution, and where to work.

    owner: identity of the resource (or of the command) on whose behalf a `cache: Bypass` recomputes.
    device: `auto`, `cpu` or `cuda`. only: segments to compute, if not all. scratch: folder for large local files.
    """

    request: Request
    scratch: Path
    stop: StopSignal
    progress: ProgressTracker
    owner: str
    execution: int = 1
    device: str = "auto"
    only: frozenset[int] | None = None
    memory_hint_mib: int | None = None


@dataclass
class Clock:
    """Milliseconds of the steps of this execution."""

    begun: float = field(default_factory=time.monotonic)
    spent: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.add(name, round((time.monotonic() - begun) * 1000))

    def add(self, name: str, milliseconds: int) -> None:
        self.spent[name] = self.spent.get(name, 0) + milliseconds

    def timings(self, peak_gpu_memory_bytes: int | None = None) -> Timings:
        spent = {f"{name}_milliseconds": value for name, value in self.spent.items()}
        run = round((time.monotonic() - self.begun) * 1000)
        return Timings(**spent, run_milliseconds=run, peak_gpu_memory_bytes=peak_gpu_memory_bytes)


def run_job(context: JobContext) -> Outcome:
    """Do the whole work of a request, or what is left of it.

    Raises:
        RestorationError: with its class. InterruptedByRequestError: told to stop; finished segments are kept.
    """
    check_request(context.request)
    torch.set_num_threads(usable_cpus())
    with tempfile.TemporaryDirectory(prefix="vr-", dir=context.scratch) as folder:
        return _Job(context, Path(folder)).run()


class _Job:
    """The state of one execution, filled in from step to step."""

    def __init__(self, context: JobContext, folder: Path) -> None:
        self._context = context
        self._request = context.request
        self._progress = context.progress
        self._folder = folder
        self._clock = Clock()
        self._made: list[Marker] = []
        self._reused = 0
        self._gpu: str | None = None

    def run(self) -> Outcome:
        self._progress.enter(Stage.FETCHING)
        self._find()
        seen = self._destination.look()
        if seen.hit is not None:
            return self._already_there(seen.hit)
        self._destination.abort_stale_uploads()
        source = self._fetch()
        plan = self._plan(source)
        return self._restore_and_publish(plan, source, seen)

    # find

    def _find(self) -> None:
        """Everything that names the work: which input, which model, which rules."""
        request = self._request
        self._model_folder = Path(request.model.path)
        with self._clock.step("fetch"):
            self._input = find_input(request, stop=self._context.stop)
        with self._clock.step("model_load"):
            self._digest = check_digest(self._model_folder, expected=request.model.digest)
        self._capabilities: Capabilities = models.describe(self._model_folder)
        self._keys: Keys = make_keys(
            request,
            input_=self._input.identity,
            model_digest=self._digest,
            capabilities=self._capabilities,
            rules={"cuts": cuts.NAME, "encoder": write.PINNED, "gopSeconds": str(write.GOP_SECONDS)},
            libraries=library_versions(),
        )
        store, key = open_store(request.output.uri, request.output.storage, request, field="output.uri")
        self._output_store, self._output_key = store, key
        self._work = Work(store, work_prefix(key, self._work_key()))
        store.conditional(self._work.prefix)
        self._destination = Destination(store, key, request=request, keys=self._keys, work_name=self._work.name)
        log.info("work found", cache_key=self._keys.cache_key, work=store.uri(self._work.prefix))

    def _work_key(self) -> str:
        """Bypass works apart, under its owner's name: it resumes its own segments and never takes others'."""
        if self._request.cache is CacheMode.USE:
            return self._keys.cache_key
        return bypass_key(self._keys.cache_key, self._context.owner)

    # plan

    def _fetch(self) -> Path:
        with self._clock.step("fetch"):
            return fetch_input(self._input, self._request, folder=self._folder, stop=self._context.stop)

    def _plan(self, source: Path) -> Plan:
        """The plan that is there, else a new one; of two runners the first one's counts."""
        self._progress.enter(Stage.PROBING)
        with self._clock.step("fetch"):
            plan = self._work.read_plan(self._keys.cache_key) or self._work.publish_plan(self._new_plan(source))
        self._progress.planned(frames=plan.frames, segments=len(plan.segments))
        log.info("planned", frames=plan.frames, segments=len(plan.segments), width=plan.width, height=plan.height)
        return plan

    def _new_plan(self, source: Path) -> Plan:
        request, name = self._request, self._input.identity.uri
        facts = probe(source, name=name)
        check_supported(facts, name=name)
        streams.decide(facts, audio=request.output.audio)  # refuses before a frame is decoded
        seen = scan(source, facts, name=name, on_frame=lambda _: self._context.stop.check())
        color = colour.output_color(facts.color)
        assert request.output.crf is not None and request.output.preset is not None, "checked by check_request"
        return make_plan(
            request,
            keys=self._keys,
            input_=self._input.identity,
            found=Found(
                video=facts, timestamps=seen.timestamps, cuts=tuple((cut.frame, cut.score) for cut in seen.cuts)
            ),
            model_digest=self._digest,
            capabilities=self._capabilities,
            cut_detector=cuts.NAME,
            color=color,
            encoder=write.encoder_settings(
                crf=request.output.crf, preset=request.output.preset, frame_rate=facts.frame_rate, color=color
            ),
        )
