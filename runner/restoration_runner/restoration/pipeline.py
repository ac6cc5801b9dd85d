"""One segment: decoded frame, RGB, target size, padded, restored, cropped, colour-corrected, blended, 10-bit, encoded.

Three threads overlap: one decodes, the caller's computes, one encodes. They meet in short bounded queues, so memory
does not grow with the segment and the device does not wait for a codec. Frames stay the decoder's own planes until
they are on the device. On a GPU the caller's thread only queues work, and never waits for the GPU within a run: frames
go there and back through page-locked memory, and whoever encodes them waits until they have come.

The input at output size is needed twice: as the model's condition, and as the colour reference of the same frame when
it comes out, many frames later. What is kept until then is the smaller one: the decoder's planes, of which it is
computed once more (a few milliseconds on the device, against some gigabytes of memory to keep a window of them), or on
a CPU the picture itself, where that was made smaller than the input.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Self, TypedDict, TypeVar

import structlog
import torch
from torch import Tensor

from restoration_api.ledger import Plan, Scene, Segment
from restoration_api.outcome import FailureReason
from restoration_api.request import ColorCorrection
from restoration_runner.errors import RestorationError
from restoration_runner.models.device import FRAMES_DO_NOT_FIT, device_faults, use_device
from restoration_runner.models.restorer import ConditionNoise, Restorer, WorkReport
from restoration_runner.plan import scene_works, segment_works
from restoration_runner.restoration.channel import AbandonedError, Channel
from restoration_runner.restoration.copies import Downloaded, Downloads, pinned
from restoration_runner.restoration.grid import SegmentWork, padded_frames
from restoration_runner.restoration.replay import Replayed, has_room
from restoration_runner.restoration.resize import pad_to_alignment, resize
from restoration_runner.restoration.stopwatch import HostStopwatch, stopwatch, timed
from restoration_runner.restoration.transfer import TRANSFERS, blend
from restoration_runner.stopping import InterruptedByRequestError, StopSignal
from restoration_runner.video.colour import to_rgb, to_yuv420p10
from restoration_runner.video.pixels import LAYOUTS
from restoration_runner.video.read import DecodedFrame, read_frames
from restoration_runner.video.write import SegmentWriter, WrittenSegment

log = structlog.get_logger()

Planes = tuple[Tensor, Tensor, Tensor]
R = TypeVar("R")

QUEUE_FRAMES = 8
"""Between two threads: enough to even out a keyframe, little against a window's own memory."""
OUTPUT_FRAMES, OUTPUT_BYTES = 48, 256 << 20
"""Between a GPU and the encoder: the frames of a window come out together, and then none while the next window is
encoded and denoised. With room for a window the video encoder has to keep up on average only."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """A segment on local disk, and what it cost. Milliseconds are each stage's own busy time; they overlap."""

    segment: Segment
    path: Path
    written: WrittenSegment
    decode_milliseconds: int
    inference_milliseconds: int
    encode_milliseconds: int
    peak_gpu_memory_bytes: int | None
    non_finite_values: int


class _Figures(TypedDict):
    decode_milliseconds: int
    inference_milliseconds: int
    encode_milliseconds: int
    peak_gpu_memory_bytes: int | None
    non_finite_values: int


def one_window(plan: Plan) -> SegmentWork:
    """The beginning of the longest scene as if there were no more of it: as large as the plan's work at once is."""
    frames = min(max(scene.frames for scene in plan.scenes), padded_frames(plan.grid.window_latents))
    [work] = scene_works(Scene(first_frame=0, frames=frames), plan.grid)
    return work


def condition_noise(plan: Plan) -> ConditionNoise | None:
    """None for strength 0, which leaves the condition as it is."""
    strength = plan.restoration.denoise_strength
    if strength == 0:
        return None
    return ConditionNoise(strength=strength, window_latents=1 if plan.frames == 1 else plan.grid.window_latents)


@dataclass(frozen=True, kw_only=True)
class Room:
    """Frames that may wait for the computing thread, and for the encoder's."""

    decoded: int = QUEUE_FRAMES
    restored: int = QUEUE_FRAMES


def queue_room(plan: Plan, memory_hint_mib: int | None, *, on_gpu: bool) -> Room:
    """One each if a predecessor ran out of the host's memory; on a CPU the network is slower than any codec."""
    if memory_hint_mib is not None:
        return Room(decoded=1, restored=1)
    frame_bytes = plan.width * plan.height * 3
    wanted = max(QUEUE_FRAMES, min(OUTPUT_FRAMES, OUTPUT_BYTES // frame_bytes)) if on_gpu else QUEUE_FRAMES
    return Room(restored=wanted)


class SegmentMaker:
    """Makes segments of one plan from one local file; while one is computed, the one before may still be encoded."""

    def __init__(
        self,
        plan: Plan,
        source: Path,
        restorer: Restorer,
        *,
        scratch: Path,
        stop: StopSignal,
        on_frame: Callable[[int, int], None],
        room: Room | None = None,
    ) -> None:
        """on_frame: called with a segment's index and the number of its frames that are through, on another thread."""
        self._plan = plan
        self._source = source
        self._restorer = restorer
        self._scratch = scratch
        self._stop = stop
        self._on_frame = on_frame
        self._room = room or Room()
        self._downloads = Downloads(restorer.device)
        records = has_room(restorer.device, width=plan.width, height=plan.height)
        self._scaler = Replayed(self._scaled, restorer.device, records=records)
        self._finisher = Replayed(self._colored, restorer.device, records=records)
        use = partial(use_device, restorer.device)
        self._decoders = ThreadPoolExecutor(1, thread_name_prefix="decode", initializer=use)
        self._encoders = ThreadPoolExecutor(1, thread_name_prefix="encode", initializer=use)
        self._before: Future[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._decoders.shutdown()
        self._encoders.shutdown()

    def make(self, segment: Segment, then: Callable[[Made], R]) -> "Future[R]":
        """Compute a segment. Returns when its last frame is computed; the future is done when it is encoded, decoded
        again for its hash, and `then` (the commit) has run on the encoder's thread.

        Raises:
            InterruptedByRequestError: told to stop.
            RestorationError: of reader, model or device; or of the commit of the segment before.
        """
        works = segment_works(self._plan, segment)
        costs = _Costs(self._restorer.device)
        encoded = Channel[Downloaded](self._room.restored)
        future = self._encoders.submit(self._write, segment, encoded, costs, then)
        try:
            with Channel[DecodedFrame](self._room.decoded) as decoded, torch.no_grad():
                reading = self._decoders.submit(self._read, works, decoded, costs.decode)
                with device_faults(FRAMES_DO_NOT_FIT):
                    for planes in self._compute(works, iter(decoded), costs):
                        encoded.put(self._downloads.start(planes))
                reading.result()
            self._refuse_non_finite(segment, costs)
            encoded.close()
        except AbandonedError:
            future.result()  # the encoder's own error
            raise AssertionError("the encoder went away without an error") from None
        except BaseException as error:
            encoded.close(error)
            future.exception()
            raise
        self._before = future
        return future

    def rehearse(self, *, until: Callable[[], bool]) -> None:
        """Do once with copies of the first frame what `make` will do, and throw it away.

        What is made ready at its first use is ready then: libraries, kernels, cuDNN's plans for these sizes. The latter
        belong to a thread, so this is for the one that computes. It ends when `until` says so, where it can.

        Raises:
            InterruptedByRequestError: told to stop. No other error: what matters happens again in `make`.
        """
        if until():
            return
        try:
            self._rehearse(until)
        except InterruptedByRequestError:
            raise
        except Exception as error:
            log.info("the rehearsal failed", cause=str(error))

    def _rehearse(self, until: Callable[[], bool]) -> None:
        plan, work = self._plan, one_window(self._plan)
        [first] = read_frames(self._source, plan.video, plan.timestamps, first=0, last=0, name=plan.input.uri)
        y, u, v = (pinned(plane, self._restorer.device) for plane in first.planes)
        frame = replace(first, planes=(y, u, v))
        with torch.no_grad():
            given = self._conditions(work, repeat(frame), deque(maxlen=1))
            picture = next(given)
            for _ in range(2):  # the second time it is recorded, see `Replayed`
                self._downloads.start(self._finish(picture, frame)).wait()
            for _ in self._restorer.rehearse(work, chain([picture], given)):
                self._downloads.start(()).wait()  # what is queued cannot be taken back: not more than one part
                if until():
                    return

    def _read(self, works: Sequence[SegmentWork], decoded: Channel[DecodedFrame], watch: HostStopwatch) -> None:
        """On the decoder's thread: every frame that the segment's runs need, in order."""
        try:
            for work in works:
                first, last = work.scene_start + work.encode_from, work.scene_start + work.encode_to
                frames = read_frames(
                    self._source,
                    self._plan.video,
                    self._plan.timestamps,
                    first=first,
                    last=last,
                    name=self._plan.input.uri,
                )
                for frame in timed(frames, watch):
                    y, u, v = (pinned(plane, self._restorer.device) for plane in frame.planes)
                    decoded.put(replace(frame, planes=(y, u, v)))
            decoded.close()
        except AbandonedError:
            pass
        except BaseException as error:
            decoded.close(error)

    def _compute(
        self, works: Sequence[SegmentWork], frames: Iterator[DecodedFrame], costs: "_Costs"
    ) -> Iterator[Planes]:
        for work in works:
            owned: deque[DecodedFrame | Tensor] = deque()
            given = self._conditions(work, timed(frames, costs.waiting), owned)
            restored = self._restorer.restore(
                work, given, seed=self._plan.restoration.seed, condition_noise=condition_noise(self._plan)
            )
            for picture in timed(restored, costs.inference):
                with costs.inference:
                    planes = self._finish(picture, owned.popleft())
                yield planes
            costs.add(self._restorer.report())

    def _conditions(
        self, work: SegmentWork, frames: Iterator[DecodedFrame], owned: deque[DecodedFrame | Tensor]
    ) -> Iterator[Tensor]:
        """`[3, H, W]` in [-1, 1], padded, for each frame that the model asks for; keeps those it owes an answer to."""
        for number in range(work.encode_from, work.encode_to + 1):
            self._check()
            frame = next(frames)
            picture = self._at_output_size(frame)
            if work.first_frame <= number <= work.last_frame:
                owned.append(self._smaller(frame, picture))
            del frame
            yield pad_to_alignment(picture, self._restorer.capabilities.alignment) * 2 - 1

    def _smaller(self, frame: DecodedFrame, picture: Tensor) -> DecodedFrame | Tensor:
        """What is kept of a frame for its colours; on a GPU the planes, which stay in the host's memory."""
        is_smaller = picture.nbytes <= sum(plane.nbytes for plane in frame.planes)
        return picture if is_smaller and picture.device.type == "cpu" else frame

    def _at_output_size(self, frame: DecodedFrame) -> Tensor:
        """`[3, H, W]` in [0, 1] on the model's device."""
        (picture,) = self._scaler(*frame.planes)
        return picture

    def _scaled(self, y: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor]:
        video = self._plan.video
        rgb = to_rgb((y, u, v), LAYOUTS[video.pixel_format], video.color, device=self._restorer.device)
        return (resize(rgb, (self._plan.height, self._plan.width)),)

    def _finish(self, restored: Tensor, kept: DecodedFrame | Tensor) -> Planes:
        """Restored `[3, H, W]` in [-1, 1] with padding to 10-bit planes without."""
        picture = restored[:, : self._plan.height, : self._plan.width]
        wish = self._plan.restoration
        if wish.color_correction is ColorCorrection.NONE and wish.strength == 1:
            y, u, v = self._finisher(picture)
        else:
            y, u, v = self._finisher(picture, kept if isinstance(kept, Tensor) else self._at_output_size(kept))
        return y, u, v

    def _colored(self, restored: Tensor, resized: Tensor | None = None) -> Planes:
        picture, wish = (restored + 1) / 2, self._plan.restoration
        if resized is not None:
            picture = blend(TRANSFERS[wish.color_correction](picture, resized), resized, wish.strength)
        return to_yuv420p10(picture, self._plan.color)

    def _check(self) -> None:
        self._stop.check()
        if self._before is not None and self._before.done():
            self._before.result()  # a commit that failed is no reason to compute another segment

    def _write(self, segment: Segment, encoded: Channel[Downloaded], costs: "_Costs", then: Callable[[Made], R]) -> R:
        """On the encoder's thread: encode, check, commit."""
        path = self._scratch / f"{segment.index:05d}.mkv"
        with encoded:
            writer = SegmentWriter(
                path,
                settings=self._plan.encoder,
                color=self._plan.color,
                width=self._plan.width,
                height=self._plan.height,
                frame_rate=self._plan.video.frame_rate,
            )
            with writer:
                for number, coming in enumerate(encoded, 1):
                    with device_faults(FRAMES_DO_NOT_FIT):
                        y, u, v = coming.wait()
                    self._on_frame(segment.index, number)
                    with costs.encode:
                        writer.write((y, u, v))
        with costs.encode:
            written = writer.result()
        made = Made(segment=segment, path=path, written=written, **costs.figures())
        try:
            return then(made)
        finally:
            path.unlink(missing_ok=True)

    def _refuse_non_finite(self, segment: Segment, costs: "_Costs") -> None:
        if costs.non_finite_values:
            raise RestorationError(
                FailureReason.VERIFICATION_FAILED,
                f"segment {segment.index}: the model produced {costs.non_finite_values} values that are not numbers in "
                f"{self._plan.precision.value}; use model.precision FP32 if it happens again",
            )


class _Costs:
    """What one segment costs, gathered on three threads; each field has one writer."""

    def __init__(self, device: torch.device) -> None:
        self.decode, self.encode = HostStopwatch(), HostStopwatch()
        self.inference, self.waiting = stopwatch(device), stopwatch(device)
        self.peak_gpu_memory_bytes: int | None = None
        self.non_finite_values = 0

    def add(self, report: WorkReport) -> None:
        self.non_finite_values += report.non_finite_values
        if report.peak_gpu_memory_bytes is not None:
            self.peak_gpu_memory_bytes = max(self.peak_gpu_memory_bytes or 0, report.peak_gpu_memory_bytes)

    def figures(self) -> _Figures:
        return {
            "decode_milliseconds": self.decode.milliseconds,
            # The model pulls its frames: what it waited for the decoder is inside its own time.
            "inference_milliseconds": max(0, self.inference.milliseconds - self.waiting.milliseconds),
            "encode_milliseconds": self.encode.milliseconds,
            "peak_gpu_memory_bytes": self.peak_gpu_memory_bytes,
            "non_finite_values": self.non_finite_values,
        }
