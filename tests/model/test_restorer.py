"""A segment's frames depend on the scene, not on where segments begin; a model folder is read strictly."""

import json
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.models import load_restorer
from restoration_runner.models.restorer import ConditionNoise, Restorer
from restoration_runner.models.seedvr2.description import InputBandRule, PosteriorRule
from restoration_runner.models.seedvr2.input_band import put_back
from restoration_runner.models.seedvr2.sampling import noise_level
from restoration_runner.restoration.grid import SegmentWork, scene_segments
from restoration_runner.restoration.pipeline import condition_noise, one_window
from restoration_runner.restoration.wavelet import low_pass
from tests.builders.models import tiny_description, write_tiny_model
from tests.builders.plans import make_plan

# Frames of warm-up that the VAE's convolutions can see at all: with these a segment is exact, not just close.
EXACT_ENCODER, EXACT_DECODER = 28, 37


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def restorer(model: Path) -> Restorer:
    return load_restorer(model, device="cpu", precision="FP32")


def scene(frames: int, *, height: int = 16, width: int = 16) -> Tensor:
    """`[F, 3, H, W]` in [-1, 1]."""
    return torch.rand(frames, 3, height, width, generator=torch.Generator().manual_seed(frames)) * 2 - 1


def segments(
    frames: int, *, start: int = 0, window: int = 3, overlap: int = 1, k: int, e: int, d: int
) -> list[SegmentWork]:
    return list(
        scene_segments(
            start=start,
            frames=frames,
            window=window,
            overlap=overlap,
            per_segment=k,
            encoder_warmup=e,
            decoder_warmup=d,
        )
    )


def run(
    restorer: Restorer, work: SegmentWork, video: Tensor, *, seed: int = 5, noise: ConditionNoise | None = None
) -> Tensor:
    given = iter(video[work.encode_from : work.encode_to + 1])
    frames = list(restorer.restore(work, given, seed=seed, condition_noise=noise))
    assert len(frames) == work.frames
    return torch.stack(frames)


@pytest.mark.parametrize(("warm", "cold"), [((28, 1), (1, 1)), ((28, 4), (28, 1))], ids=["encoder", "decoder"])
def test_without_warmup_the_border_shows(restorer: Restorer, warm: tuple[int, int], cold: tuple[int, int]) -> None:
    """Both warm-ups matter here; otherwise `test_streaming.py` would prove nothing about indices."""
    video = scene(81)
    with_it, without = (run(restorer, segments(81, k=4, e=e, d=d)[1], video) for e, d in (warm, cold))
    assert (with_it - without).abs().max() > 1e-3


def test_noise_follows_the_input_not_the_scene(restorer: Restorer) -> None:
    video = scene(5)
    here, there = segments(5, k=1, e=2, d=2)[0], segments(5, start=8, k=1, e=2, d=2)[0]
    assert torch.equal(run(restorer, here, video), run(restorer, here, video))
    assert not torch.equal(run(restorer, here, video), run(restorer, there, video))
    assert not torch.equal(run(restorer, here, video), run(restorer, here, video, seed=6))


def noised(strength: float, *, window: int = 3) -> ConditionNoise:
    return ConditionNoise(strength=strength, window_latents=window)


def test_no_condition_noise_is_the_released_behaviour(restorer: Restorer) -> None:
    work, video = segments(5, k=1, e=2, d=2)[0], scene(5)
    plain = run(restorer, work, video)
    assert torch.equal(run(restorer, work, video, noise=noised(0)), plain)
    assert not torch.equal(run(restorer, work, video, noise=noised(0.1)), plain)


def test_a_condition_of_pure_noise_shows_nothing_of_the_input(restorer: Restorer) -> None:
    work = segments(5, k=1, e=2, d=2)[0]
    one, other = scene(5), scene(5).flip(-1)
    assert (run(restorer, work, one) - run(restorer, work, other)).abs().max() > 1e-2
    results = [run(restorer, work, video, noise=noised(1)) for video in (one, other)]
    assert (results[0] - results[1]).abs().max() < 1e-5


def test_condition_noise_grows_with_the_plan_s_window_not_the_scene_s(restorer: Restorer) -> None:
    work, video = segments(5, k=1, e=2, d=2)[0], scene(5)
    plain = run(restorer, work, video)
    short, long = (run(restorer, work, video, noise=noised(0.2, window=w)) for w in (3, 1001))
    assert (long - plain).norm() > (short - plain).norm() > 0


def test_condition_noise_does_not_show_segments(restorer: Restorer) -> None:
    video, noise = scene(50), noised(0.4)
    whole = segments(50, k=10_000, e=0, d=0)[0]
    parts = segments(50, k=2, e=EXACT_ENCODER, d=EXACT_DECODER)
    assert len(parts) > 2
    actual = torch.cat([run(restorer, work, video, noise=noise) for work in parts])
    assert (actual - run(restorer, whole, video, noise=noise)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("strength", "latents", "level"), [(0.0, 6, 0.0), (0.1, 6, 0.144), (0.1, 21, 0.262), (0.1, 1, 0.245), (1.0, 6, 1.0)]
)
def test_noise_level_at_720p(strength: float, latents: int, level: float) -> None:
    assert noise_level(strength, (latents, 90, 160)) == pytest.approx(level, abs=5e-4)


@pytest.mark.parametrize(
    ("frames", "strength", "expected"), [(40, 0.0, None), (40, 0.3, noised(0.3)), (1, 0.3, noised(0.3, window=1))]
)
def test_condition_noise_of_a_plan(frames: int, strength: float, expected: ConditionNoise | None) -> None:
    plan = make_plan(frames=frames, cuts=())
    wish = plan.restoration.model_copy(update={"denoise_strength": strength})
    assert condition_noise(plan.model_copy(update={"restoration": wish})) == expected


@pytest.mark.parametrize(
    ("frames", "cuts", "expected", "latents"),
    [
        (40, ((2, 0.5), (20, 0.5)), 9, 3),  # the plan's window
        (9, ((1, 0.5), (6, 0.5)), 5, 2),  # the longest scene is shorter
        (3, (), 3, 2),
        (1, (), 1, 1),
    ],
)
def test_one_window_of_a_plan(frames: int, cuts: tuple[tuple[int, float], ...], expected: int, latents: int) -> None:
    work = one_window(make_plan(frames=frames, cuts=cuts))
    assert (work.scene_frames, work.encode_to + 1, work.frames) == (expected,) * 3
    assert [(window.start, window.stop) for window in work.windows] == [(0, latents)]


def test_the_input_s_low_band_is_put_back_frame_by_frame(tmp_path: Path, restorer: Restorer) -> None:
    """Also in segments that begin in the middle: each frame meets its own input."""
    rule = InputBandRule(blurs=(1,), octaves=(2, 4), caution=2.0)
    description = tiny_description().model_copy(update={"input_band": rule})
    banded = load_restorer(write_tiny_model(tmp_path / "banded", description), device="cpu", precision="FP32")
    video = scene(30)
    for work in segments(30, k=1, e=2, d=2):
        plain, found = run(restorer, work, video), run(banded, work, video)
        source = video[work.first_frame : work.last_frame + 1]
        expected = torch.stack([put_back(frame, its, rule) for frame, its in zip(plain, source, strict=True)])
        assert torch.equal(found, expected)


def test_the_band_replaces_errors_and_leaves_noise_out() -> None:
    """A ghost of the model goes, noise of the input stays out, the model's fine detail stays."""
    generator = torch.Generator().manual_seed(1)
    y, x = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    clean = 0.3 * torch.sin(x / 9.0).expand(3, -1, -1)
    detail = 0.2 * ((x + y) % 2 * 2 - 1).expand(3, -1, -1).float()  # the fastest pattern there is
    ghost = torch.zeros(3, 128, 128)
    ghost[:, 40:60, 40:60] = 0.5
    noise = low_pass(0.2 * torch.randn(3, 128, 128, generator=generator), (1,))
    whole, careful = (InputBandRule(blurs=(1, 2), octaves=(4, 8), caution=caution) for caution in (0.0, 3.0))
    inside, outside = (slice(None), slice(45, 55), slice(45, 55)), (slice(None), slice(80, 120), slice(80, 120))
    errors = {rule: put_back(clean + detail + ghost, clean + noise, rule) - clean - detail for rule in (whole, careful)}
    for error in errors.values():
        assert error[inside].abs().mean() < 0.12 < ghost[inside].abs().mean()
    assert errors[careful][outside].std() < 0.5 * errors[whole][outside].std() < noise.std()


@pytest.mark.parametrize("loudness", [0.02, 0.1])
def test_how_noisy_a_picture_is_is_seen_in_it(loudness: float) -> None:
    """A tenth of the noise and less comes through, loud or quiet; where there is none, errors go wholly."""
    rule = InputBandRule(blurs=(1,), octaves=(2, 4, 8), caution=3.0)
    generator = torch.Generator().manual_seed(1)
    noise = loudness * torch.randn(3, 128, 128, generator=generator)
    made = torch.zeros(3, 128, 128)
    found = put_back(made, made + noise, rule)
    plain = put_back(made, made + noise, rule.model_copy(update={"caution": 0.0}))
    assert found.std() < 0.35 * plain.std()


def test_a_blurred_input_does_not_blur() -> None:
    """Where model and input agree but for its strength, the model's picture stays as it is."""
    rule = InputBandRule(blurs=(1,), octaves=(2, 4, 8, 16), caution=0.0)
    x = torch.arange(128.0)
    waves = 0.5 * torch.sin(x / 3.0).expand(3, 128, -1)
    error = put_back(waves, 0.7 * waves, rule) - waves
    assert error[..., 16:-16].abs().max() < 0.02 < 0.05 < low_pass(0.3 * waves, (1,)).abs().max()


def test_threads_are_pinned_and_part_of_the_environment(model: Path) -> None:
    try:
        pinned = load_restorer(model, device="cpu", precision="FP32", threads=2)
        assert torch.get_num_threads() == 2
        assert pinned.environment()["threads"] == "2"
    finally:
        torch.set_num_threads(1)


class CountedFrames:
    """Hands out frames one by one and knows how many of them are still held by somebody."""

    def __init__(self, frames: Tensor) -> None:
        self._frames = frames
        self._given: list[weakref.ref[Tensor]] = []
        self.most_alive = 0

    def __iter__(self) -> Iterator[Tensor]:
        for frame in self._frames:
            mine = frame.clone()
            self._given.append(weakref.ref(mine))
            self.most_alive = max(self.most_alive, sum(given() is not None for given in self._given))
            yield mine
            del mine


def test_input_is_streamed(restorer: Restorer) -> None:
    video = scene(81)
    work = segments(81, k=10_000, e=0, d=0)[0]
    counted = CountedFrames(video)
    restored = restorer.restore(work, iter(counted), seed=0)
    next(restored)
    assert len(counted._given) <= 4 * work.windows[0].stop + 1
    assert sum(1 for _ in restored) == 80
    assert counted.most_alive <= 6


def test_frames_that_end_early_are_a_bug_of_the_caller(restorer: Restorer) -> None:
    work = segments(9, k=1, e=2, d=2)[0]
    with pytest.raises(ValueError, match="got 7 of 9 frames"):
        list(restorer.restore(work, iter(scene(7)), seed=0))


def test_report_counts_values_that_are_not_numbers(restorer: Restorer) -> None:
    work, video = segments(5, k=1, e=2, d=2)[0], scene(5)
    run(restorer, work, video)
    assert restorer.report().non_finite_values == 0
    video[2, 0, 0, 0] = torch.nan
    run(restorer, work, video)
    assert restorer.report().non_finite_values > 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"), FailureReason.INSUFFICIENT_GPU_MEMORY),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error"), FailureReason.GPU_FAULT),
    ],
)
def test_errors_of_the_device_become_sentences(
    restorer: Restorer, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: FailureReason
) -> None:
    def fail(*_arguments: object, **_options: object) -> Tensor:
        raise error

    monkeypatch.setattr(restorer, "networks", replace(restorer.networks, decode=fail))
    with pytest.raises(RestorationError) as caught:
        run(restorer, segments(5, k=1, e=2, d=2)[0], scene(5))
    assert caught.value.reason is reason
    assert "\n" not in caught.value.message


def test_posterior_rule_comes_from_the_folder(tmp_path: Path, restorer: Restorer) -> None:
    description = tiny_description(posterior=PosteriorRule.MEAN)
    mean = load_restorer(write_tiny_model(tmp_path, description), device="cpu", precision="FP32")
    work, video = segments(5, k=1, e=2, d=2)[0], scene(5)
    assert not torch.equal(run(restorer, work, video), run(mean, work, video))


def test_bf16_is_close_to_fp32(model: Path, restorer: Restorer) -> None:
    half = load_restorer(model, device="cpu", precision="BF16")
    work, video = segments(9, k=1, e=2, d=2)[0], scene(9, height=64, width=64)
    expected = run(restorer, work, video)
    error = (run(half, work, video) - expected).norm() / expected.norm()
    assert error < 0.05
    assert half.environment()["precision"] == "BF16"


def test_capabilities_are_the_folder_s(restorer: Restorer) -> None:
    capabilities = restorer.capabilities
    assert (capabilities.alignment, capabilities.encoder_warmup, capabilities.decoder_warmup) == (16, 2, 2)


@pytest.mark.parametrize("precision", ["INT8", "half"])
def test_precision_that_is_not_built(model: Path, precision: str) -> None:
    with pytest.raises(RestorationError) as caught:
        load_restorer(model, device="cpu", precision=precision)
    assert caught.value.reason is FailureReason.INVALID_PARAMETERS
    assert precision in caught.value.message


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_gpu_that_is_not_there(model: Path) -> None:
    with pytest.raises(RestorationError) as caught:
        load_restorer(model, device="cuda", precision="FP32")
    assert caught.value.reason is FailureReason.GPU_FAULT


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema": 2}, "schema"),
        ({"architecture": "flash"}, "architecture"),
        ({"posterior": "Median"}, "posterior"),
        ({"surprise": 1}, "surprise"),
        ({"name": None}, "name"),
    ],
)
def test_description_that_is_not_understood(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    path = write_tiny_model(tmp_path) / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RestorationError) as caught:
        load_restorer(tmp_path, device="cpu", precision="FP32")
    assert caught.value.reason is FailureReason.MODEL_INVALID
    assert caught.value.message.startswith(f"model.json: {sentence}")


@pytest.mark.parametrize(
    ("part", "change", "sentence"),
    [
        ("dit", {"headDims": 32}, "model.json: dit.headDims"),
        ("dit", {"layers": 5}, "model.json: dit"),
        ("dit", {"width": 32}, "dit.safetensors does not hold"),
        ("vae", {"channels": [8, 16, 24, 32]}, "vae.safetensors does not hold"),
        ("dit", {"textWidth": 64}, "dit.safetensors does not hold"),
    ],
)
def test_dimensions_that_do_not_fit(tmp_path: Path, part: str, change: dict[str, object], sentence: str) -> None:
    path = write_tiny_model(tmp_path) / "model.json"
    description = json.loads(path.read_text())
    description[part] |= change
    path.write_text(json.dumps(description))
    with pytest.raises(RestorationError) as caught:
        load_restorer(tmp_path, device="cpu", precision="FP32")
    assert caught.value.reason is FailureReason.MODEL_INVALID
    assert sentence in caught.value.message


@pytest.mark.parametrize("name", ["model.json", "dit.safetensors", "vae.safetensors", "text.safetensors"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write_tiny_model(tmp_path) / name).unlink()
    with pytest.raises(RestorationError) as caught:
        load_restorer(tmp_path, device="cpu", precision="FP32")
    assert caught.value.reason is FailureReason.MODEL_INVALID
    assert name in caught.value.message


def test_tiny_model_is_the_same_every_time(tmp_path: Path) -> None:
    first, second = write_tiny_model(tmp_path / "a"), write_tiny_model(tmp_path / "b")
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in second.iterdir()}


def test_work_order_is_not_changed_by_the_window_a_segment_ends_in(restorer: Restorer) -> None:
    """Only the frames that are owned come out, though the last window reaches further."""
    works = segments(30, k=1, e=2, d=2)
    owned = [(work.first_frame, work.last_frame) for work in works]
    assert owned[0][0] == 0
    assert owned[-1][1] == 29
    shortened = replace(works[0], last_frame=works[0].last_frame - 1)
    video = scene(30)
    assert torch.equal(run(restorer, shortened, video), run(restorer, works[0], video)[:-1])
