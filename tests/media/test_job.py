"""Whole restorations of awkward clips, judged by ffprobe; failures inside the pipeline; parts of the work."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.builders import clips, ffprobe, jobs
from tests.builders.clips import Clip, Sound
from tests.builders.jobs import At, make_request, run_here, run_killed
from tests.builders.models import write_tiny_model

from restoration_api.defaults import Choices
from restoration_api.outcome import FailureReason, Result, Stage
from restoration_api.request import ColorCorrection, SegmentCleanup, Target
from restoration_runner import models
from restoration_runner.errors import RestorationError
from restoration_runner.models import device
from restoration_runner.models.restorer import Capabilities, ConditionNoise, Restorer, WorkReport
from restoration_runner.progress import ProgressTracker
from restoration_runner.restoration.grid import SegmentWork
from restoration_runner.restoration.resize import resize
from restoration_runner.stopping import InterruptedByRequestError, StopSignal
from restoration_runner.storage.file import FileStore
from restoration_runner.video import colour, ffmpeg_cli, frame_hash, threads
from restoration_runner.video import source as source_module
from restoration_runner.work import Work


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


CLIPS: dict[str, tuple[Clip, Choices, list[int]]] = {
    # clip, what is asked for, frames of each segment
    "short scenes share a segment": (
        Clip(frames=24, width=64, height=64, cuts=(4, 9, 15)),
        Choices(target=Target(scale_factor=1), chunk_frames=9, segment_frames=16),
        [15, 9],
    ),
    "variable rate, odd size, without colour transfer": (
        Clip(
            frames=9,
            width=62,
            height=54,
            stamps=[0, 10, 15, 40, 41, 60, 90, 100, 130],
            time_base=Fraction(1, 600),
        ),
        Choices(target=Target(scale_factor=1), chunk_frames=9, color_correction=ColorCorrection.NONE),
        [9],
    ),
    "one frame, enlarged": (
        Clip(frames=1, width=48, height=32),
        Choices(target=Target(short_side=64), chunk_frames=5),
        [1],
    ),
    "two sounds and a late picture": (
        Clip(frames=6, width=64, height=48, start=Fraction(1, 2), sounds=(Sound(), Sound(language="deu"))),
        Choices(target=Target(width=64, height=64), chunk_frames=5),
        [6],
    ),
}


@pytest.mark.parametrize("case", CLIPS)
def test_an_awkward_clip_keeps_frames_times_size_and_sound(model: Path, tmp_path: Path, case: str) -> None:
    clip, choices, segments = CLIPS[case]
    source, out = clips.write(tmp_path / "in #1 %?ä.mp4", clip), tmp_path / "out #1 %?ä.mp4"
    progress = ProgressTracker()
    request = make_request(source.as_uri(), out.as_uri(), model, choices=choices)
    outcome = run_here(request, progress=progress)

    assert outcome.output is not None
    manifest = Work(*work_of(outcome.output.manifest_uri)).read_manifest()
    assert manifest is not None
    assert [segment.frames for segment in manifest.plan.segments] == segments
    now = progress.snapshot()
    assert (now.frames_done, now.frames_total, now.stage) == (clip.frames, clip.frames, Stage.UPLOADING)

    video = ffprobe.video(out)
    assert (video["width"], video["height"]) == (outcome.output.width, outcome.output.height)
    assert video["pix_fmt"] == "yuv420p10le"
    times = ffprobe.times(out)
    exact = [stamp * clip.clock for stamp in clip.times()]
    assert [time - times[0] for time in times] == [time - exact[0] for time in exact]
    for number in range(len(clip.sounds)):
        assert ffprobe.packet_hashes(out, f"a:{number}") == ffprobe.packet_hashes(source, f"a:{number}")


def work_of(manifest_uri: str | None) -> tuple[Any, str]:
    assert manifest_uri is not None
    return FileStore(), manifest_uri.removeprefix("file:///").removesuffix("final.json")


class Identity:
    """A restorer that gives back what it gets, to see everything around it; or fails at a frame."""

    def __init__(
        self,
        *,
        fail_at: int | None = None,
        error: Exception | None = None,
        value: float | None = None,
        leaner: int = 0,
    ) -> None:
        self._leaner = leaner
        self._fail_at = fail_at
        self._error = error
        self._value = value
        self._count = 0
        self.condition_noise: ConditionNoise | None = None

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(alignment=16, encoder_warmup=2, decoder_warmup=2, algorithm="identity/1")

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def prepare(self, *, width: int, height: int, window_latents: int, overlap_latents: int, scene_frames: int) -> None:
        self.prepared = (width, height, window_latents, scene_frames)

    def rehearse(self, work: SegmentWork, frames: Iterator[torch.Tensor]) -> Iterator[None]:
        return iter(())

    def step_down(self) -> bool:
        if not self._leaner:
            return False
        self._leaner, self._fail_at = self._leaner - 1, None
        return True

    def environment(self) -> dict[str, str]:
        return {"device": "test", "leaner": str(self._leaner)}

    def restore(
        self,
        work: SegmentWork,
        frames: Iterator[torch.Tensor],
        *,
        seed: int,
        condition_noise: ConditionNoise | None = None,
    ) -> Iterator[torch.Tensor]:
        self.condition_noise = condition_noise
        for number, frame in zip(range(work.encode_from, work.encode_to + 1), frames, strict=True):
            assert frame.shape[1] % 16 == frame.shape[2] % 16 == 0
            if work.first_frame <= number <= work.last_frame:
                self._count += 1
                if self._error and self._count == self._fail_at:
                    raise self._error
                yield frame if self._value is None else torch.full_like(frame, self._value)

    def report(self) -> WorkReport:
        return WorkReport(
            peak_gpu_memory_bytes=None,
            non_finite_values=1 if self._value is not None and self._value != self._value else 0,
        )


@pytest.fixture
def with_restorer(monkeypatch: pytest.MonkeyPatch) -> Any:
    def use(restorer: Restorer) -> None:
        monkeypatch.setattr(models, "load_restorer", lambda *arguments, **named: restorer)

    return use


def test_a_model_that_changes_nothing_gives_the_resized_input(model: Path, tmp_path: Path, with_restorer: Any) -> None:
    """Everything around the model: order of frames, cropping, colour there and back, encoding at high quality."""
    with_restorer(Identity())
    clip = Clip(frames=20, width=52, height=38, cuts=(11,), options={"crf": "1"})
    source, out = clips.write(tmp_path / "in.mkv", clip), tmp_path / "out.mp4"
    choices = Choices(target=Target(scale_factor=1), chunk_frames=5, segment_frames=4, crf=1)
    run_here(make_request(source.as_uri(), out.as_uri(), model, choices=choices))
    assert ffmpeg_cli.psnr(source, out, pixel_format="yuv420p10le") > 40  # the rest is chroma, filtered twice


def mean_of_grey(model: Path, folder: Path, with_restorer: Any, **choices: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean colours of what a model that turns everything grey leaves of a clip, and of that clip."""
    with_restorer(Identity(value=0.0))
    source, out = clips.write(folder / "in.mkv", Clip(frames=5, width=64, height=64, options={"crf": "4"})), "out.mp4"
    wish = Choices(target=Target(scale_factor=1), chunk_frames=5, preset="ultrafast", **choices)
    run_here(make_request(source.as_uri(), (folder / out).as_uri(), model, choices=wish))
    return mean_rgb(folder / out), mean_rgb(source)


@pytest.mark.parametrize("correction", ColorCorrection)
def test_colour_comes_from_the_input(
    model: Path, tmp_path: Path, with_restorer: Any, correction: ColorCorrection
) -> None:
    found, wanted = mean_of_grey(model, tmp_path, with_restorer, color_correction=correction)
    expected = 0.5 if correction is ColorCorrection.NONE else wanted
    assert (wanted - 0.5).abs().max() > 0.05
    assert (found - expected).abs().max() < (0.04 if correction is ColorCorrection.LAB else 0.02)


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_strength_brings_the_input_back(model: Path, tmp_path: Path, with_restorer: Any, strength: float) -> None:
    found, wanted = mean_of_grey(
        model, tmp_path, with_restorer, color_correction=ColorCorrection.NONE, strength=strength
    )
    assert (found - (0.5 * strength + wanted * (1 - strength))).abs().max() < 0.01


def test_the_wish_for_condition_noise_reaches_the_model(model: Path, tmp_path: Path, with_restorer: Any) -> None:
    source = clips.write(tmp_path / "in.mkv", Clip(frames=5, width=64, height=64))
    for strength, expected in ((0.0, None), (0.25, ConditionNoise(strength=0.25, window_latents=3))):
        restorer = Identity()
        with_restorer(restorer)
        choices = Choices(target=Target(scale_factor=1), chunk_frames=9, denoise_strength=strength, preset="ultrafast")
        run_here(make_request(source.as_uri(), (tmp_path / f"{strength}.mp4").as_uri(), model, choices=choices))
        assert restorer.condition_noise == expected


def mean_rgb(path: Path) -> torch.Tensor:
    from restoration_runner.video.probe import probe
    from restoration_runner.video.read import read_frames
    from restoration_runner.video.scan import scan

    facts = probe(path)
    frames = read_frames(path, facts, scan(path, facts).timestamps, first=0, last=0)
    frame = next(iter(frames))
    return resize(colour.to_rgb(frame.planes, frame.layout, facts.color), (16, 16)).mean(dim=(1, 2))


FAILURES: list[tuple[Exception, FailureReason | None]] = [
    (RestorationError(FailureReason.GPU_FAULT, "the GPU fell off"), FailureReason.GPU_FAULT),
    (RuntimeError("unforeseen"), None),
]


@pytest.mark.parametrize(("error", "reason"), FAILURES)
def test_a_model_that_fails_ends_the_job_and_keeps_finished_segments(
    model: Path, tmp_path: Path, with_restorer: Any, error: Exception, reason: FailureReason | None
) -> None:
    with_restorer(Identity(fail_at=18, error=error))
    source = clips.write(tmp_path / "in.mp4", Clip(frames=24, width=64, height=64))
    request = make_request(source.as_uri(), (tmp_path / "out.mp4").as_uri(), model)
    with pytest.raises(type(error)) as caught:
        run_here(request)
    assert caught.value is error
    assert not (tmp_path / "out.mp4").exists()
    with_restorer(Identity())
    assert run_here(request).segments_reused > 0


def test_a_gpu_s_memory_that_was_too_small_is_tried_with_less(model: Path, tmp_path: Path, with_restorer: Any) -> None:
    """The segment that failed is made again from its first frame; its marker says with what."""
    source = clips.write(tmp_path / "in.mp4", Clip(frames=24, width=64, height=64))
    request = make_request(source.as_uri(), (tmp_path / "out.mp4").as_uri(), model)
    error = RestorationError(FailureReason.INSUFFICIENT_GPU_MEMORY, "too small")
    lean = Identity(fail_at=18, error=error, leaner=1)
    with_restorer(lean)
    done = run_here(request.model_copy(update={"cleanup_segments": SegmentCleanup.RETAIN}))
    assert done.output is not None and done.output.frames == 24
    assert done.frames_restored == 24  # however often some of them were made
    assert lean.prepared[:2] == (64, 64)
    markers = [json.loads(path.read_text()) for path in sorted(tmp_path.glob(".vr/*/seg/*.json"))]
    assert [marker["environment"]["leaner"] for marker in markers] == ["1", "0"]
    assert len({marker["fingerprint"] for marker in markers}) == 2


def test_a_gpu_s_memory_that_stays_too_small_ends_the_job(model: Path, tmp_path: Path, with_restorer: Any) -> None:
    error = RestorationError(FailureReason.INSUFFICIENT_GPU_MEMORY, "too small")
    with_restorer(Identity(fail_at=3, error=error))
    source = clips.write(tmp_path / "in.mp4", Clip(frames=6, width=64, height=64))
    with pytest.raises(RestorationError, match="too small"):
        run_here(make_request(source.as_uri(), (tmp_path / "out.mp4").as_uri(), model))


def test_numbers_that_are_none_are_not_published(model: Path, tmp_path: Path, with_restorer: Any) -> None:
    with_restorer(Identity(value=float("nan")))
    source = clips.write(tmp_path / "in.mp4", Clip(frames=6, width=64, height=64))
    with pytest.raises(RestorationError, match="not numbers") as caught:
        run_here(make_request(source.as_uri(), (tmp_path / "out.mp4").as_uri(), model))
    assert caught.value.reason is FailureReason.VERIFICATION_FAILED
    assert not list(tmp_path.glob(".vr/*/seg/*.json"))


def test_a_commit_that_fails_ends_the_job(
    model: Path, tmp_path: Path, with_restorer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_restorer(Identity())

    def refuse(*_: object) -> None:
        raise RestorationError(FailureReason.STORAGE_ERROR, "the bucket is gone")

    monkeypatch.setattr(Work, "commit", refuse)
    source = clips.write(tmp_path / "in.mp4", Clip(frames=24, width=64, height=64))
    with pytest.raises(RestorationError, match="the bucket is gone"):
        run_here(make_request(source.as_uri(), (tmp_path / "out.mp4").as_uri(), model))


def test_an_input_that_is_replaced_while_it_is_restored(model: Path, tmp_path: Path, with_restorer: Any) -> None:
    source = clips.write(tmp_path / "in.mp4", Clip(frames=12, width=64, height=64))
    request = make_request(source.as_uri(), (tmp_path / "out.mp4").as_uri(), model)
    with_restorer(Identity())
    replaced = False

    def replace(event: str) -> None:
        nonlocal replaced
        if event == "after marker" and not replaced:
            replaced = True
            source.write_bytes(source.read_bytes() + b"\0")

    with jobs.hooked(replace), pytest.raises(RestorationError, match="changed while") as caught:
        run_here(request)
    assert caught.value.reason is FailureReason.INPUT_CHANGED
    assert not (tmp_path / "out.mp4").exists()


def test_some_segments_now_the_others_later(model: Path, tmp_path: Path) -> None:
    source = clips.write(tmp_path / "in.mp4", Clip(frames=30, width=64, height=64))
    out = tmp_path / "out.mp4"
    request = make_request(source.as_uri(), out.as_uri(), model)
    first = run_here(request, only=frozenset({1}))
    assert (first.result, first.output, first.segments_done) == (Result.SUCCEEDED, None, 1)
    assert first.segments_total is not None
    assert not out.exists()
    with pytest.raises(RestorationError, match="--segments: there is no segment 99") as caught:
        run_here(request, only=frozenset({0, 99}))
    assert caught.value.exit_code == 11
    rest = run_here(request, only=frozenset({0, *range(2, first.segments_total)}))
    assert (rest.segments_reused, rest.segments_done) == (1, first.segments_total)
    assert out.exists()


def test_stopped_while_it_restores(model: Path, tmp_path: Path, with_restorer: Any) -> None:
    with_restorer(Identity())
    stop = StopSignal()
    source = clips.write(tmp_path / "in.mp4", Clip(frames=60, width=64, height=64))
    request = make_request(source.as_uri(), (tmp_path / "out.mp4").as_uri(), model)
    frames = 0

    def count(event: str) -> None:
        nonlocal frames
        frames += event == "frame"
        if event == "after marker":
            stop.set()

    with jobs.hooked(count), pytest.raises(InterruptedByRequestError):
        run_here(request, stop=stop)
    assert frames < 60
    assert not (tmp_path / "out.mp4").exists()
    assert run_here(request).segments_reused >= 1


def test_the_same_bytes_on_one_core_and_on_several(model: Path, tmp_path: Path) -> None:
    """Threads of network and encoder are fixed by the plan, so cores that are there do not matter."""
    source = clips.write(tmp_path / "in.mp4", Clip(frames=14, width=64, height=64))
    sums = set()
    core = str(min(os.sched_getaffinity(0)))
    for cores in (core, ""):
        out = tmp_path / f"out{cores}.mp4"
        request = make_request(source.as_uri(), out.as_uri(), model)
        assert run_killed(request, At("never"), environment={"TEST_CORES": cores}) == 0
        sums.add(hashlib.sha256(out.read_bytes()).hexdigest())
    assert len(sums) == 1


def test_with_a_memory_hint_less_is_in_memory_at_once_and_the_bytes_are_the_same(
    model: Path, tmp_path: Path, with_restorer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoders of the input, of each segment and of the output get one thread; segments come one after the other."""
    source = clips.write(tmp_path / "in.mp4", Clip(frames=24, width=64, height=64))
    real, opened = threads.spread, set()

    def spread(stream: Any) -> None:
        real(stream)
        opened.add((str(stream.thread_type), stream.codec_context.thread_count == 1))

    for module in (source_module, frame_hash):
        monkeypatch.setattr(module, "spread", spread)
    commit = Work.commit
    monkeypatch.setattr(Work, "commit", lambda *made: time.sleep(0.1) or commit(*made))
    found = {}
    for hint in (None, 96):
        with_restorer(Identity())
        opened.clear()
        events: list[str] = []
        out = tmp_path / f"out-{hint}.mp4"
        with jobs.hooked(events.append):
            run_here(make_request(source.as_uri(), out.as_uri(), model), memory_hint_mib=hint)
        found[hint] = (hashlib.sha256(out.read_bytes()).hexdigest(), set(opened))
        if hint is not None:
            # No frame of a segment is computed before the one before is committed, however long that takes.
            made = "".join({"frame": ".", "after marker": "|"}.get(event, "") for event in events)
            assert made == 5 * "." + "|" + 19 * "." + "|"
    assert found[None][0] == found[96][0]
    assert all(one_thread for _, one_thread in found[96][1])
    assert not any(kind == "NONE" for kind, _ in found[None][1])


def test_with_a_memory_hint_nothing_that_is_freed_is_kept_and_the_bytes_are_the_same(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made smaller than the input, so that what is kept of a frame differs, too; several segments, several windows."""
    source = clips.write(tmp_path / "in.mp4", Clip(frames=14, width=128, height=128, cuts=(9,)))
    choices = Choices(target=Target(width=64, height=64), chunk_frames=5, segment_frames=4, preset="ultrafast")
    load, told, loaded = models.load_restorer, [], []
    monkeypatch.setattr(device, "_tune_malloc", lambda *options: told.append(dict(options)))
    monkeypatch.setattr(
        models, "load_restorer", lambda *given, **named: loaded.append(load(*given, **named)) or loaded[-1]
    )
    sums = []
    for hint in (None, 96):
        out = tmp_path / f"out-{hint}.mp4"
        run_here(make_request(source.as_uri(), out.as_uri(), model, choices=choices), memory_hint_mib=hint)
        sums.append(hashlib.sha256(out.read_bytes()).hexdigest())
    assert sums[0] == sums[1]
    # Freed blocks go back to the kernel instead of staying, and encoder and decoder do not hold their pasts at once.
    assert [options[device.M_MMAP_MAX] for options in told] == [0, 2**31 - 1]
    assert told[1][device.M_MMAP_THRESHOLD] == 64 << 10
    assert [restorer.networks.stage_by_stage for restorer in loaded] == [False, True]


def test_what_cannot_be_cleared_up_does_not_fail_finished_work(
    model: Path, tmp_path: Path, with_restorer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials that may write but not delete are common."""
    with_restorer(Identity())

    def refuse(*_: object, **__: object) -> None:
        raise RestorationError(FailureReason.ACCESS_DENIED, "may not delete")

    monkeypatch.setattr(FileStore, "delete", refuse)
    source, out = clips.write(tmp_path / "in.mp4", Clip(frames=6, width=64, height=64)), tmp_path / "out.mp4"
    outcome = run_here(make_request(source.as_uri(), out.as_uri(), model))
    assert (outcome.result, out.exists()) == (Result.SUCCEEDED, True)


def test_segments_are_kept_when_asked(model: Path, tmp_path: Path, with_restorer: Any) -> None:
    with_restorer(Identity())
    source = clips.write(tmp_path / "in.mp4", Clip(frames=6, width=64, height=64))
    out = tmp_path / "out.mp4"
    run_here(make_request(source.as_uri(), out.as_uri(), model, cleanup_segments=SegmentCleanup.RETAIN))
    names = sorted(path.name for path in tmp_path.glob(".vr/[0-9a-f]*/**/*") if path.is_file())
    assert [name for name in names if not name.endswith(".mkv")] == ["00000.json", "final.json", "plan.json"]
