"""What every role of a Job shares: which work it is, its plan, what lies at the output, and how it is told.

Nothing here computes frames or loads the libraries that do. A role leaves in storage all that the next one needs, so
each may end anywhere and another one goes on.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from restoration_api.ledger import Manifest, Marker, Plan, Segment, work_prefix
from restoration_api.outcome import (
    FailureReason,
    Outcome,
    Result,
    Stage,
    StreamOutcome,
    Timings,
    Verdict,
    Verification,
)
from restoration_api.request import CacheMode, Request, SegmentCleanup
from restoration_runner import outcomes
from restoration_runner.accept import check_request
from restoration_runner.errors import RestorationError
from restoration_runner.inputs import fetch_input, find_input
from restoration_runner.plan import make_keys
from restoration_runner.progress import ProgressTracker
from restoration_runner.publish import WORK, Destination, Seen
from restoration_runner.software import cpu_threads, library_versions
from restoration_runner.stopping import StopSignal
from restoration_runner.storage.open import open_store
from restoration_runner.storage.store import ObjectInfo
from restoration_runner.supply import open_supply
from restoration_runner.tracing import NONE, StageSpans
from restoration_runner.video import rules, streams
from restoration_runner.work import Work

if TYPE_CHECKING:
    from restoration_runner.restoration.pipeline import Made

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class JobContext:
    """What differs from execution to execution, and where to work.

    owner: on whose behalf `cache: Bypass` recomputes: the resource's uid, or something new for each command.
    device: `auto`, `cpu` or `cuda`. path: which implementation of the networks, None for the machine's choice.
    only: segments to compute, if not all. scratch: folder for large local files.
    """

    request: Request
    scratch: Path
    stop: StopSignal
    progress: ProgressTracker
    owner: str
    execution: int = 1
    device: str = "auto"
    path: str | None = None
    only: frozenset[int] | None = None
    memory_hint_mib: int | None = None
    spans: StageSpans = field(default_factory=lambda: StageSpans(NONE))


@contextmanager
def scratch_folder(context: JobContext) -> Iterator[Path]:
    """A folder of this execution's own, removed at the end.

    Raises:
        RestorationError: `StorageError` if there can be none.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="vr-", dir=context.scratch)
    except OSError as error:
        message = f"scratch folder {context.scratch} cannot be used: {error.strerror}"
        raise RestorationError(FailureReason.STORAGE_ERROR, message) from error
    with folder as name:
        yield Path(name)


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
            self.spent[name] = self.spent.get(name, 0) + round((time.monotonic() - begun) * 1000)

    def timings(self, made: list[Made]) -> Timings:
        peaks = [item.peak_gpu_memory_bytes for item in made if item.peak_gpu_memory_bytes is not None]
        return Timings(
            fetch_milliseconds=self.spent.get("fetch", 0),
            model_fetch_milliseconds=self.spent.get("modelFetch", 0),
            model_load_milliseconds=self.spent.get("model", 0),
            decode_milliseconds=sum(item.decode_milliseconds for item in made),
            inference_milliseconds=sum(item.inference_milliseconds for item in made),
            encode_milliseconds=sum(item.encode_milliseconds for item in made),
            assemble_milliseconds=self.spent.get("assemble", 0),
            upload_milliseconds=self.spent.get("upload", 0),
            run_milliseconds=round((time.monotonic() - self.begun) * 1000),
            gpu_milliseconds=sum(item.inference_milliseconds for item in made) if peaks else None,
            peak_gpu_memory_bytes=max(peaks, default=None),
        )


@dataclass(frozen=True)
class Earlier:
    """What earlier executions left: the plan, and markers of its finished segments by number."""

    plan: Plan | None
    markers: dict[int, Marker]


class Task:
    """One piece of work, named by what its request, its input and the runner's software are.

    made, reused: what the role `run` adds; the other roles make no segments.
    """

    def __init__(self, context: JobContext, folder: Path) -> None:
        """Find what names the work: which input, which model, which rules, which output.

        Raises:
            RestorationError: what is wrong with the request, the input or the model's folder.
        """
        check_request(context.request)
        self.context = context
        self.request = context.request
        self.progress = context.progress
        self.stop = context.stop
        self.folder = folder
        self.clock = Clock()
        self.made: list[Made] = []
        self.reused: set[int] = set()
        self._earlier: Earlier | None = None
        self.progress.enter(Stage.FETCHING)
        self._find()

    def _find(self) -> None:
        request = self.request
        with self.clock.step("fetch"):
            self.input = find_input(request, stop=self.stop)
        with self.clock.step("model"):
            # Which weights; whether the folder holds them is checked by whoever reads them.
            self.model = open_supply(request, scratch=self.folder, stop=self.stop, progress=self.progress)
        self.keys = make_keys(
            request,
            input_=self.input.identity,
            model_digest=self.model.digest,
            capabilities=self.model.capabilities,
            rules={
                "cuts": rules.CUTS,
                "encoder": rules.ENCODER,
                "gopSeconds": str(rules.GOP_SECONDS),
                "cpuThreads": str(cpu_threads()),
            },
            libraries=library_versions(),
        )
        store, key = open_store(request.output.uri, request.output.storage, request, field="output.uri")
        self.output_store = store
        self.work = Work(store, work_prefix(key, self._work_key()), believes=self._believes)
        self.destination = Destination(store, key, request=request, keys=self.keys, work_name=self.work.name)
        log.info("work found", cache_key=self.keys.cache_key, work=store.uri(self.work.prefix))

    def _believes(self, plan: Plan) -> bool:
        from restoration_runner.examine import believable  # loads what decodes

        return believable(self, plan)

    def _work_key(self) -> str:
        """Bypass works apart, under its owner's name: it resumes its own segments and never takes others'."""
        if self.request.cache is CacheMode.USE:
            return self.keys.cache_key
        return hashlib.sha256(f"{self.keys.cache_key} {self.context.owner}".encode()).hexdigest()

    def look(self) -> Seen:
        """What lies at the output, and whether conditions will be kept when something is written beside it.

        Raises:
            RestorationError: `OutputConflict`; `AccessDenied` or no such bucket, where nothing may or can be written.
        """
        seen = self.destination.look()
        if seen.hit is None and not self.output_store.conditional(self.work.prefix):
            log.warning("the storage checks no conditions: only one runner at a time may write to this output")
        return seen

    def fetch(self) -> Path:
        """The input as a local file."""
        with self.clock.step("fetch"):
            return fetch_input(self.input, self.request, folder=self.folder, stop=self.stop)

    def stored_plan(self) -> Plan | None:
        """The plan that is there already."""
        plan = self._look_back().plan
        if plan is not None:
            self._announce(plan)
        return plan

    def finished(self, plan: Plan) -> dict[int, Marker]:
        """Markers of the segments that are finished. What was read with the plan is believed once: whoever asks again
        has found that it is not true any more."""
        earlier, self._earlier = self._earlier, None
        return earlier.markers if earlier is not None and earlier.plan == plan else self.work.markers(plan)

    def _look_back(self) -> Earlier:
        """Read at most once: every marker is a request, and a long video has thousands."""
        if self._earlier is None:
            plan = self.work.read_plan(self.keys.cache_key)
            self._earlier = Earlier(plan, self.work.markers(plan) if plan is not None else {})
        return self._earlier

    def plan(self, source: Callable[[], Path]) -> Plan:
        """The plan that is there, else a new one from the input; of two runners the first one's counts."""
        self.progress.enter(Stage.PROBING)
        plan = self.stored_plan()
        if plan is not None:
            return plan
        path = source()
        with self.clock.step("fetch"):
            from restoration_runner.examine import new_plan  # loads what decodes, which a finished work needs not

            plan = self.work.publish_plan(new_plan(self, path))
        self._announce(plan)
        return plan

    def has_all_segments(self) -> bool:
        """Whether nothing is left to compute: an earlier execution planned, and made all that this one is asked for."""
        earlier, wanted = self._look_back(), self.context.only
        if earlier.plan is None:
            return False
        return all(s.index in earlier.markers for s in earlier.plan.segments if wanted is None or s.index in wanted)

    def _announce(self, plan: Plan) -> None:
        self.progress.planned(
            frames=plan.frames, segments=len(plan.segments), video_seconds=float(plan.timestamps.seconds)
        )
        log.info("planned", frames=plan.frames, segments=len(plan.segments), width=plan.width, height=plan.height)

    def count_reused(self, segment: Segment) -> None:
        """A segment that this execution needs and did not make."""
        if not any(made.segment.index == segment.index for made in self.made):
            self.reused.add(segment.index)
            self.progress.found_finished(segment.index, frames=segment.frames)

    def publish_manifest(
        self,
        plan: Plan,
        output: ObjectInfo,
        sha256: str,
        verification: Verification,
        fates: tuple[StreamOutcome, ...],
        markers: dict[int, Marker],
    ) -> Manifest:
        """Write `final.json` for what lies at the output now."""
        return self.work.publish_manifest(
            plan,
            output_uri=self.request.output.uri,
            output=output,
            sha256=sha256,
            verification=verification,
            streams=fates,
            markers=markers,
            timings=self.clock.timings(self.made),
        )

    def clear(self) -> None:
        """The output is there: what is left to remove is no reason to fail."""
        if self.request.cleanup_segments is SegmentCleanup.RETAIN:
            self.work.abort_uploads()
            return
        try:
            self.work.clear()
        except RestorationError as error:
            log.warning("segments cannot be removed", cause=error.message)

    def already_there(self, hit: ObjectInfo) -> Outcome:
        """The output is this work's result: finish what a killed predecessor left undone, and say so."""
        work, manifest = self.manifest(hit)
        if work.name == self.work.name:
            if manifest is None:
                manifest = self._late_manifest(hit)
            self.clear()  # what is there now came too late: from a killed predecessor, or from us beside a faster peer
        plan = manifest.plan if manifest else None
        outcome = self.outcome(plan, message=f"{self.request.output.uri} is this restoration's result already")
        output = outcomes.output_outcome(
            self.request.output.uri, manifest=manifest, manifest_uri=work.manifest_uri(), found=hit
        )
        segments = len(plan.segments) if plan else 0
        return outcome.model_copy(
            update={"reason": "CacheHit", "cache_hit": True, "output": output, "segments_done": segments}
        )

    def manifest(self, hit: ObjectInfo) -> tuple[Work, Manifest | None]:
        """The work that made an output, and its manifest if that is about this very object."""
        work = self.work.sibling(hit.metadata.get(WORK, self.work.name))
        manifest = work.read_manifest()
        return work, manifest if manifest is not None and manifest.etag == hit.etag else None

    def _late_manifest(self, hit: ObjectInfo) -> Manifest | None:
        """The manifest that was not written any more after the output was. Only verified files are ever published."""
        plan = self.work.read_plan(self.keys.cache_key)
        if plan is None:
            return None
        verification = Verification(verdict=Verdict.PASSED, expected_frames=plan.frames, decoded_frames=plan.frames)
        return self.publish_manifest(
            plan,
            hit,
            hit.metadata.get(outcomes.SHA256_METADATA, ""),
            verification,
            streams.decide(plan.video, audio=plan.audio),
            self.work.markers(plan),
        )

    def outcome(self, plan: Plan | None, *, message: str, manifest: Manifest | None = None) -> Outcome:
        """What was done, as far as it is known at this moment."""
        snapshot = self.progress.snapshot()
        output = None
        if manifest is not None:
            output = outcomes.output_outcome(
                self.request.output.uri, manifest=manifest, manifest_uri=self.work.manifest_uri()
            )
        return Outcome(
            result=Result.SUCCEEDED,
            reason="Completed",
            message=message,
            cache_key=self.keys.cache_key,
            segments_done=snapshot.segments_done,
            segments_reused=len(self.reused),
            segments_total=len(plan.segments) if plan else None,
            frames_restored=self.progress.restored_frames,
            gpu=snapshot.gpu,
            input=outcomes.input_outcome(plan) if plan else None,
            output=output,
            timings=self.clock.timings(self.made),
        )
