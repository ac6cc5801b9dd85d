"""The life of one execution: find, plan, restore, assemble, verify, publish, report.

Each step leaves in storage all that the next one needs, so an execution may end anywhere and another one goes on. The
steps are in the order of the commit protocol.
"""

import hashlib
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

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
from restoration_runner import models, outcomes
from restoration_runner.accept import check_request
from restoration_runner.assemble import assemble
from restoration_runner.environment import (
    check_gpu_memory,
    cpu_threads,
    environment,
    fingerprint,
    gpu_name,
    library_versions,
)
from restoration_runner.errors import RestorationError
from restoration_runner.inputs import check_unchanged, fetch_input, find_input
from restoration_runner.models.restorer import Restorer
from restoration_runner.plan import Found, make_keys, make_plan, plan_output_size
from restoration_runner.progress import ProgressTracker
from restoration_runner.publish import WORK, Destination, Seen
from restoration_runner.restoration.pipeline import Made, SegmentMaker, queue_frames
from restoration_runner.stopping import StopSignal
from restoration_runner.storage.open import open_store
from restoration_runner.storage.store import ObjectInfo, ObjectMissingError, PreconditionError
from restoration_runner.video import colour, cuts, streams, write
from restoration_runner.video.probe import probe
from restoration_runner.video.scan import scan
from restoration_runner.video.supported import check_supported
from restoration_runner.weights.digest import check_digest
from restoration_runner.work import Maker, Work

log = structlog.get_logger()

ROUNDS = 3
"""Of restoring and assembling: a second one is needed only if a peer removed segments that were counted on."""


@dataclass(frozen=True, kw_only=True)
class JobContext:
    """What differs from execution to execution, and where to work.

    owner: on whose behalf `cache: Bypass` recomputes: the resource's uid, or something new for each command.
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


def run_job(context: JobContext) -> Outcome:
    """Do the whole work of a request, or what is left of it.

    Raises:
        RestorationError: with its class.
        InterruptedByRequestError: told to stop; finished segments are kept.
    """
    check_request(context.request)
    try:
        folder = tempfile.TemporaryDirectory(prefix="vr-", dir=context.scratch)
    except OSError as error:
        message = f"scratch folder {context.scratch} cannot be used: {error.strerror}"
        raise RestorationError(FailureReason.STORAGE_ERROR, message) from error
    with folder as name:
        return _Job(context, Path(name)).run()


@dataclass
class _Clock:
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


class _Job:
    """One execution. `_find` sets what names the work; the other steps hand their results on."""

    def __init__(self, context: JobContext, folder: Path) -> None:
        self._context = context
        self._request = context.request
        self._progress = context.progress
        self._stop = context.stop
        self._folder = folder
        self._model_folder = Path(context.request.model.path)
        self._clock = _Clock()
        self._restorer: Restorer | None = None
        self._made: list[Made] = []
        self._reused: set[int] = set()

    def run(self) -> Outcome:
        self._progress.enter(Stage.FETCHING)
        self._find()
        seen = self._destination.look()
        if seen.hit is not None:
            return self._already_there(seen.hit)
        if not self._output_store.conditional(self._work.prefix):
            log.warning("the storage checks no conditions: only one runner at a time may write to this output")
        self._destination.abort_uploads()
        with self._clock.step("fetch"):
            source = fetch_input(self._input, self._request, folder=self._folder, stop=self._stop)
        plan = self._plan(source)
        return self._restore_and_publish(plan, source, seen)

    def _find(self) -> None:
        """Everything that names the work: which input, which model, which rules, which output."""
        request = self._request
        with self._clock.step("fetch"):
            self._input = find_input(request, stop=self._stop)
        with self._clock.step("model"):
            self._digest = check_digest(self._model_folder, expected=request.model.digest)
            self._capabilities = models.describe(self._model_folder)
        self._keys = make_keys(
            request,
            input_=self._input.identity,
            model_digest=self._digest,
            capabilities=self._capabilities,
            rules={
                "cuts": cuts.NAME,
                "encoder": write.PINNED,
                "gopSeconds": str(write.GOP_SECONDS),
                "cpuThreads": str(cpu_threads()),
            },
            libraries=library_versions(),
        )
        store, key = open_store(request.output.uri, request.output.storage, request, field="output.uri")
        self._output_store = store
        self._work = Work(store, work_prefix(key, self._work_key()))
        self._destination = Destination(store, key, request=request, keys=self._keys, work_name=self._work.name)
        log.info("work found", cache_key=self._keys.cache_key, work=store.uri(self._work.prefix))

    def _work_key(self) -> str:
        """Bypass works apart, under its owner's name: it resumes its own segments and never takes others'."""
        if self._request.cache is CacheMode.USE:
            return self._keys.cache_key
        return hashlib.sha256(f"{self._keys.cache_key} {self._context.owner}".encode()).hexdigest()

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
        # What these two refuse, they refuse before the whole file is decoded.
        streams.decide(facts, audio=request.output.audio)
        plan_output_size(request, width=facts.width, height=facts.height)
        seen = scan(source, facts, name=name, on_frame=lambda _: self._stop.check())
        check_supported(facts, seen, name=name)
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

    def _restore_and_publish(self, plan: Plan, source: Path, seen: Seen) -> Outcome:
        for _ in range(ROUNDS):
            markers = self._restore(plan, source)
            if len(markers) < len(plan.segments):
                return self._outcome(plan, message=f"{len(markers)} of {len(plan.segments)} segments are finished")
            check_unchanged(self._input)
            try:
                return self._assemble_and_publish(plan, source, markers, seen)
            except (ObjectMissingError, PreconditionError) as error:
                # A peer that was faster has published and cleared up, or somebody cleaned by hand.
                log.warning("segments are gone", cause=error.message)
                seen = self._destination.look()
                if seen.hit is not None:
                    return self._already_there(seen.hit)
        raise RestorationError(
            FailureReason.STORAGE_ERROR,
            f"segments below {self._output_store.uri(self._work.prefix)} vanished {ROUNDS} times while they were "
            "needed: does somebody else clean up there?",
        )

    def _restore(self, plan: Plan, source: Path) -> dict[int, Marker]:
        """Finish what is not finished; returns the markers of all finished segments."""
        found = self._work.markers(plan)
        for index in found:
            self._count_reused(plan.segments[index])
        only = self._context.only
        if only is not None and max(only) >= len(plan.segments):
            raise RestorationError(
                FailureReason.INVALID_PARAMETERS,
                f"--segments: there is no segment {max(only)}; the plan has {len(plan.segments)}, counted from 0",
            )
        missing = [s for s in plan.segments if s.index not in found and (only is None or s.index in only)]
        if missing:
            log.info("restoring", missing=len(missing), reused=len(found))
            found |= self._make(plan, source, missing)
        return found

    def _make(self, plan: Plan, source: Path, missing: list[Segment]) -> dict[int, Marker]:
        restorer = self._load()
        values = environment(restorer)
        maker = Maker(self._context.execution, values, fingerprint(values))
        self._progress.enter(Stage.RESTORING)
        found: dict[int, Marker] = {}
        pending: list[Future[Marker]] = []
        with SegmentMaker(
            plan,
            source,
            restorer,
            scratch=self._folder,
            stop=self._stop,
            on_frame=self._progress.restored_frame,
            room=queue_frames(plan, self._context.memory_hint_mib),
        ) as segments:
            for segment in missing:
                theirs = self._work.finished(plan, segment)
                if theirs is not None:  # by a peer, since the list was made
                    found[segment.index] = theirs
                    self._count_reused(segment)
                    continue
                pending.append(segments.make(segment, lambda made: self._commit(plan, made, maker)))
            for future in pending:
                marker = future.result()
                found[marker.segment] = marker
        return found

    def _commit(self, plan: Plan, made: Made, maker: Maker) -> Marker:
        """On the encoder's thread."""
        marker = self._work.commit(plan, made, maker)
        self._made.append(made)
        self._progress.finished_segment(made.segment.index)
        log.info("segment finished", segment=made.segment.index, frames=made.written.frames)
        return marker

    def _count_reused(self, segment: Segment) -> None:
        if not any(made.segment.index == segment.index for made in self._made):
            self._reused.add(segment.index)
            self._progress.found_finished(segment.index, frames=segment.frames)

    def _load(self) -> Restorer:
        if self._restorer is None:
            self._progress.enter(Stage.LOADING_MODEL)
            with self._clock.step("model"):
                self._restorer = models.load_restorer(
                    self._model_folder,
                    device=self._context.device,
                    precision=self._request.model.precision,
                    threads=cpu_threads(),
                )
            check_gpu_memory(self._restorer, least_mib=self._request.gpu.min_memory_mib)
            self._progress.on_gpu(gpu_name(self._restorer))
        return self._restorer

    def _assemble_and_publish(self, plan: Plan, source: Path, markers: dict[int, Marker], seen: Seen) -> Outcome:
        self._stop.check()
        self._progress.enter(Stage.ASSEMBLING)
        fates = streams.decide(plan.video, audio=plan.audio)
        with self._clock.step("assemble"):
            path, verification = assemble(
                plan,
                source,
                segments=[self._work.fetch(markers[segment.index], self._folder) for segment in plan.segments],
                markers=markers,
                outcomes=fates,
                folder=self._folder,
            )
        self._stop.check()
        self._progress.enter(Stage.UPLOADING)
        with self._clock.step("upload"):
            published = self._destination.publish(path, before=seen.before, on_bytes=lambda _: self._stop.check())
        if published.adopted:
            return self._already_there(published.info)
        manifest = self._publish_manifest(plan, published.info, published.sha256, verification, fates, markers)
        self._clear()
        return self._outcome(plan, manifest=manifest, message=f"restored {plan.frames} frames")

    def _publish_manifest(
        self,
        plan: Plan,
        output: ObjectInfo,
        sha256: str,
        verification: Verification,
        fates: tuple[StreamOutcome, ...],
        markers: dict[int, Marker],
    ) -> Manifest:
        return self._work.publish_manifest(
            plan,
            output_uri=self._request.output.uri,
            output=output,
            sha256=sha256,
            verification=verification,
            streams=fates,
            markers=markers,
            timings=self._clock.timings(self._made),
        )

    def _clear(self) -> None:
        """The output is there: what is left to remove is no reason to fail."""
        if self._request.cleanup_segments is SegmentCleanup.DELETE:
            try:
                self._work.clear()
            except RestorationError as error:
                log.warning("segments cannot be removed", cause=error.message)

    def _already_there(self, hit: ObjectInfo) -> Outcome:
        """The output is this work's result: finish what a killed predecessor left undone, and say so."""
        work = self._work.sibling(hit.metadata.get(WORK, self._work.name))
        manifest = work.read_manifest()
        if manifest is not None and manifest.etag != hit.etag:
            manifest = None
        if work.name == self._work.name:
            if manifest is None:
                manifest = self._late_manifest(hit)
            self._clear()  # what is there now came too late: from a killed predecessor, or from us beside a faster peer
        plan = manifest.plan if manifest else None
        outcome = self._outcome(plan, message=f"{self._request.output.uri} is this restoration's result already")
        output = outcomes.output_outcome(
            self._request.output.uri, manifest=manifest, manifest_uri=work.manifest_uri(), found=hit
        )
        segments = len(plan.segments) if plan else 0
        return outcome.model_copy(
            update={"reason": "CacheHit", "cache_hit": True, "output": output, "segments_done": segments}
        )

    def _late_manifest(self, hit: ObjectInfo) -> Manifest | None:
        """The manifest that was not written any more after the output was. Only verified files are ever published."""
        plan = self._work.read_plan(self._keys.cache_key)
        if plan is None:
            return None
        verification = Verification(verdict=Verdict.PASSED, expected_frames=plan.frames, decoded_frames=plan.frames)
        return self._publish_manifest(
            plan,
            hit,
            hit.metadata.get(outcomes.SHA256_METADATA, ""),
            verification,
            streams.decide(plan.video, audio=plan.audio),
            self._work.markers(plan),
        )

    def _outcome(self, plan: Plan | None, *, message: str, manifest: Manifest | None = None) -> Outcome:
        snapshot = self._progress.snapshot()
        output = None
        if manifest is not None:
            output = outcomes.output_outcome(
                self._request.output.uri, manifest=manifest, manifest_uri=self._work.manifest_uri()
            )
        return Outcome(
            result=Result.SUCCEEDED,
            reason="Completed",
            message=message,
            cache_key=self._keys.cache_key,
            segments_done=snapshot.segments_done,
            segments_reused=len(self._reused),
            segments_total=len(plan.segments) if plan else None,
            frames_restored=self._progress.restored_frames,
            gpu=snapshot.gpu,
            input=outcomes.input_outcome(plan) if plan else None,
            output=output,
            timings=self._clock.timings(self._made),
        )
