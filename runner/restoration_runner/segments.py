"""Making segments: the model is loaded once, and each segment is committed as soon as its file is closed."""

from concurrent.futures import Future
from functools import partial
from pathlib import Path

import structlog

from restoration_api.ledger import Marker, Plan, Segment
from restoration_api.outcome import FailureReason, Stage
from restoration_runner.environment import check_gpu_memory, environment, fingerprint, gpu_name
from restoration_runner.errors import RestorationError
from restoration_runner.loading import ModelLoading, pays
from restoration_runner.models.device import use_device
from restoration_runner.models.restorer import Restorer
from restoration_runner.restoration.copies import is_gpu
from restoration_runner.restoration.pipeline import Made, SegmentMaker, queue_room
from restoration_runner.task import Task
from restoration_runner.tracing import Span, now_ns
from restoration_runner.work import Maker

log = structlog.get_logger()


class SegmentSpan:
    """A segment in the trace: computed on one thread, encoded, checked and stored on another."""

    def __init__(self, above: Span, segment: Segment) -> None:
        self._whole = above.child("segment", facts={"vr.segment": segment.index})
        self._begun_ns = self._encoded_ns = now_ns()

    def computed(self) -> None:
        """The network is through with it; the encoder has what is left in its queue."""
        self._whole.child("restore", begun_ns=self._begun_ns).end()

    def encoded(self, made: Made) -> None:
        """Its file is closed. Encoding begins with the first frame and runs beside computing."""
        self._encoded_ns = now_ns()
        busy = {"vr.busy_milliseconds": made.encode_milliseconds}
        self._whole.child("encode", begun_ns=self._begun_ns, facts=busy).end(at_ns=self._encoded_ns)

    def stored(self, made: Made) -> None:
        """Checked, and committed by its marker."""
        self._whole.child("upload", begun_ns=self._encoded_ns).end()
        facts = {
            "vr.frames": made.written.frames,
            "vr.decode_milliseconds": made.decode_milliseconds,
            "vr.inference_milliseconds": made.inference_milliseconds,
        }
        self._whole.end(facts=facts)

    def failed(self, reason: str) -> None:
        """It will be made again, or never."""
        self._whole.end(failed=reason)


class Segments:
    """Makes segments of one piece of work."""

    def __init__(self, task: Task, loading: ModelLoading) -> None:
        self._task, self._loading = task, loading
        self._restorer: Restorer | None = None

    def make(self, plan: Plan, source: Path, missing: list[Segment]) -> dict[int, Marker]:
        """Compute and commit segments, in order; returns the markers that count, some of which may be a peer's.

        Raises:
            RestorationError: with its class.
            InterruptedByRequestError: told to stop.
        """
        task, restorer = self._task, self._load()
        found: dict[int, Marker] = {}
        pending: list[Future[Marker]] = []
        with SegmentMaker(
            plan,
            source,
            restorer,
            scratch=task.folder,
            stop=task.stop,
            on_frame=task.progress.restored_frame,
            room=queue_room(plan, task.context.memory_hint_mib, on_gpu=restorer.device.type == "cuda"),
        ) as segments:
            self._make_ready(plan, restorer, segments)
            task.progress.enter(Stage.RESTORING)
            for segment in missing:
                theirs = task.work.finished(plan, segment)
                if theirs is not None:  # by a peer, since the list was made
                    found[segment.index] = theirs
                    task.count_reused(segment)
                    continue
                pending.append(self._make(plan, segments, segment, restorer))
                if task.context.memory_hint_mib is not None:
                    pending[-1].result()  # encoding and checking it take memory, too: not beside the next one
            for future in pending:
                marker = future.result()
                found[marker.segment] = marker
        return found

    def _make_ready(self, plan: Plan, restorer: Restorer, segments: SegmentMaker) -> None:
        """All that may be done while the weights are still being checked; returns when they have been found right."""
        task = self._task
        try:
            check_gpu_memory(restorer, least_mib=task.request.gpu.min_memory_mib)
            restorer.prepare(
                width=plan.width,
                height=plan.height,
                window_latents=plan.grid.window_latents,
                overlap_latents=plan.grid.overlap_latents,
                scene_frames=max(scene.frames for scene in plan.scenes),
            )
            if is_gpu(restorer.device) and pays(task.context):
                with task.clock.step("model"):
                    segments.rehearse(until=lambda: self._loading.is_checked)
        finally:
            self._loading.check()  # of two errors the one that says that the weights are wrong

    def _make(self, plan: Plan, segments: SegmentMaker, segment: Segment, restorer: Restorer) -> Future[Marker]:
        """Compute a segment; where the GPU's memory is too small, once more from its beginning with leaner knobs.

        The whole segment, because its marker names the knobs that made it: all its frames come from one set. Memory is
        at its peak from the second window on, so what is lost is little.
        """
        while True:
            values = environment(restorer)
            maker = Maker(self._task.context.execution, values, fingerprint(values))
            span = SegmentSpan(self._task.context.spans.current, segment)
            try:
                made = segments.make(segment, partial(self._commit, plan, maker, span))
                span.computed()
                return made
            except RestorationError as error:
                span.failed(error.reason)
                if error.reason is not FailureReason.INSUFFICIENT_GPU_MEMORY:
                    raise
                too_large = error.with_traceback(None)  # its frames hold what fills the memory
                too_large.__cause__ = too_large.__context__ = None
            if not restorer.step_down():
                raise too_large
            log.warning("the GPU's memory was too small; the segment is made again, leaner", segment=segment.index)

    def _commit(self, plan: Plan, maker: Maker, span: SegmentSpan, made: Made) -> Marker:
        """On the encoder's thread."""
        span.encoded(made)
        marker = self._task.work.commit(plan, made, maker)
        span.stored(made)
        self._task.made.append(made)
        self._task.progress.finished_segment(made.segment.index)
        log.info("segment finished", segment=made.segment.index, frames=made.written.frames)
        return marker

    def _load(self) -> Restorer:
        task = self._task
        if self._restorer is None:
            if not task.model.has_arrived:
                task.progress.enter(Stage.FETCHING_MODEL)
            with task.clock.step("modelFetch"):
                task.model.wait()
            task.progress.enter(Stage.LOADING_MODEL)
            self._restorer = self._loading.restorer()
            use_device(self._restorer.device)  # another thread may have loaded it
            task.progress.on_gpu(gpu_name(self._restorer))
        return self._restorer
