"""The shipped model restores: it comes closer to the original than upscaling does, whatever the seed."""

from pathlib import Path

import pytest
import torch
from hack.nano.degrade import read_rgb
from torch import Tensor

from restoration_runner.models import load_restorer
from restoration_runner.models.restorer import Restorer
from restoration_runner.restoration.grid import scene_segments
from restoration_runner.restoration.resize import resize
from restoration_runner.restoration.wavelet import wavelet_transfer
from restoration_runner.weights.source import SHIPPED, find_model

CLIP = Path(__file__).parents[2] / "examples/01-first-restoration/clip"
FRAMES, TOP, LEFT, HEIGHT, WIDTH = 5, 112, 320, 160, 240  # of the restored crop: fences, cars, street


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    torch.set_num_threads(1)
    return load_restorer(find_model(SHIPPED), device="cpu", precision="FP32")


@pytest.fixture(scope="module")
def enlarged() -> list[Tensor]:
    """The degraded clip as the pipeline gives it to the model: frames [3, H, W] in [-1, 1]."""
    frames = read_rgb(CLIP / "degraded.mp4", frames=FRAMES)
    crops = (crop(frame, TOP // 4, LEFT // 4, HEIGHT // 4, WIDTH // 4) for frame in frames)
    return [resize(frame, (HEIGHT, WIDTH)) * 2 - 1 for frame in crops]


@pytest.fixture(scope="module")
def original() -> list[Tensor]:
    frames = read_rgb(CLIP / "original.mp4", frames=FRAMES)
    return [crop(frame, TOP, LEFT, HEIGHT, WIDTH) * 2 - 1 for frame in frames]


def crop(frame: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    return frame[:, top : top + height, left : left + width]


def restored(restorer: Restorer, frames: list[Tensor], *, seed: int) -> Tensor:
    warmup = restorer.capabilities
    (work,) = scene_segments(
        start=0,
        frames=FRAMES,
        window=6,
        overlap=1,
        per_segment=3,
        encoder_warmup=warmup.encoder_warmup,
        decoder_warmup=warmup.decoder_warmup,
    )
    results = restorer.restore(work, iter(frames), seed=seed)
    return torch.stack([wavelet_transfer(new, old) for new, old in zip(results, frames, strict=True)]).clamp(-1, 1)


def psnr_db(pictures: Tensor, reference: Tensor) -> float:
    """Of luma, BT.601."""
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    error = ((pictures - reference) / 2 * weights).sum(1).square().mean()
    return float(-10 * torch.log10(error))


def test_real_footage_comes_closer_to_its_original(
    restorer: Restorer, enlarged: list[Tensor], original: list[Tensor]
) -> None:
    reference = torch.stack(original)
    before = psnr_db(torch.stack(enlarged), reference)
    after = psnr_db(restored(restorer, enlarged, seed=0), reference)
    assert after > before + 1.0, f"bicubic {before:.2f} dB, restored {after:.2f} dB"


def test_the_seed_does_not_show(restorer: Restorer, enlarged: list[Tensor]) -> None:
    results = torch.stack([restored(restorer, enlarged, seed=seed) for seed in range(3)])
    levels = results.std(0) * 127.5
    assert 0 < levels.mean() < 0.5, "noise reaches the network, but not the picture"
    assert levels.max() < 4


def test_the_colours_of_the_input_stay(restorer: Restorer, enlarged: list[Tensor]) -> None:
    change = restored(restorer, enlarged, seed=0) - torch.stack(enlarged)
    assert change.mean((2, 3)).abs().max() * 127.5 < 1.5
