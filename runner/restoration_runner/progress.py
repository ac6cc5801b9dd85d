"""Where the work is, for whoever asks: the operator over HTTP, or a person at a terminal.

Frames are counted, never estimated from times. The rate is that of this execution's restored frames since the first
stage that restores; frames that an earlier execution finished do not flatter it.
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from restoration_api.outcome import Progress, Stage

Clock = Callable[[], float]
"""Seconds, monotonic."""


class ProgressTracker:
    """Thread-safe counters. Writers call the verbs, readers take a `snapshot`."""

    def __init__(
        self,
        *,
        execution: int = 1,
        restoration_uid: str | None = None,
        clock: Clock = time.monotonic,
        on_stage: Callable[[Stage], None] = lambda stage: None,
    ) -> None:
        """`on_stage` is told of each stage as it is entered."""
        self._execution = execution
        self._restoration_uid = restoration_uid
        self._clock = clock
        self._on_stage = on_stage
        self._lock = threading.Lock()
        self._stage = Stage.FETCHING
        self._entered = clock()
        self._stage_seconds = dict.fromkeys(Stage, 0.0)
        self._video_seconds: float | None = None
        self._total: int | None = None
        self._segments_total: int | None = None
        self._reused = 0
        self._restored = 0
        self._through: dict[int, int] = {}
        self._finished: set[int] = set()
        self._restoring_since: float | None = None
        self._model_done = 0
        self._model_total: int | None = None
        self._gpu: str | None = None
        self._updated_at = datetime.now(UTC)

    def enter(self, stage: Stage) -> None:
        with self._lock:
            now = self._clock()
            self._stage_seconds[self._stage] += now - self._entered
            self._stage, self._entered = stage, now
            if stage is Stage.RESTORING and self._restoring_since is None:
                self._restoring_since = self._clock()
            self._touch()
        self._on_stage(stage)

    def planned(self, *, frames: int, segments: int, video_seconds: float | None = None) -> None:
        """The plan says how much there is; `video_seconds` is what it takes to show it."""
        with self._lock:
            self._total, self._segments_total, self._video_seconds = frames, segments, video_seconds
            self._touch()

    def found_finished(self, segment: int, *, frames: int) -> None:
        """A segment was finished by an earlier execution or by somebody else."""
        with self._lock:
            if segment not in self._finished:
                self._finished.add(segment)
                self._reused += frames
            self._touch()

    def restored_frame(self, segment: int, number: int) -> None:
        """So many frames of a segment are through. One that is made once more (leaner, after the GPU's memory was too
        small) counts from where the try before had come to."""
        with self._lock:
            if number > self._through.get(segment, 0):
                self._through[segment] = number
                self._restored += 1
            self._touch()

    def finished_segment(self, segment: int) -> None:
        with self._lock:
            self._finished.add(segment)
            self._touch()

    def model_bytes_expected(self, total: int) -> None:
        """Weights of that many bytes are being fetched."""
        with self._lock:
            self._model_done, self._model_total = 0, total
            self._touch()

    def model_bytes_received(self, received: int) -> None:
        """Negative: they were thrown away again."""
        with self._lock:
            self._model_done += received
            self._touch()

    def on_gpu(self, name: str | None) -> None:
        with self._lock:
            self._gpu = name

    @property
    def restored_frames(self) -> int:
        return self._restored

    @property
    def video_seconds(self) -> float | None:
        """Length of the video; None while unknown."""
        return self._video_seconds

    def stage_seconds(self) -> dict[Stage, float]:
        """Time in each stage so far, by the work's outermost order: reading and encoding overlap within a stage."""
        with self._lock:
            running = self._clock() - self._entered
            return {stage: spent + running * (stage is self._stage) for stage, spent in self._stage_seconds.items()}

    def snapshot(self) -> Progress:
        with self._lock:
            done = self._reused + self._restored
            if self._total is not None:
                done = min(done, self._total)
            rate = self._rate()
            remaining = None
            if rate and self._total is not None:
                remaining = round((self._total - done) * 1_000_000 / rate)
            return Progress(
                execution=self._execution,
                restoration_uid=self._restoration_uid,
                stage=self._stage,
                frames_done=done,
                frames_total=self._total,
                segments_done=len(self._finished),
                segments_total=self._segments_total,
                milli_frames_per_second=rate,
                remaining_milliseconds=remaining,
                model_bytes_done=None if self._model_total is None else max(0, self._model_done),
                model_bytes_total=self._model_total,
                gpu=self._gpu,
                updated_at=self._updated_at,
            )

    def _rate(self) -> int | None:
        """Thousandths of a frame a second; none before there is anything to go by."""
        if self._restoring_since is None or not self._restored or self._stage is not Stage.RESTORING:
            return None
        elapsed = self._clock() - self._restoring_since
        return round(self._restored * 1000 / elapsed) if elapsed > 0 else None

    def _touch(self) -> None:
        self._updated_at = datetime.now(UTC)
