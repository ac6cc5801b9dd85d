"""Colour transfers and the blend: what they promise of one frame, and that a frame depends on nothing else."""

import pytest
import torch
from torch import Tensor

from restoration_api.request import ColorCorrection
from restoration_runner.restoration.transfer import (
    LIGHTNESS_KEPT,
    TRANSFERS,
    adain_transfer,
    blend,
    lab_to_rgb,
    lab_transfer,
    rgb_to_lab,
)
from restoration_runner.restoration.wavelet import wavelet_transfer

MUTED = torch.tensor([0.5, 0.45, 0.4])[:, None, None]


def picture(*, seed: int, contrast: float = 0.3, size: tuple[int, int] = (48, 64)) -> Tensor:
    """`[3, H, W]` well inside [0, 1]: smooth colours and some grain."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 5, generator=generator) - 0.5
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic")[0]
    grain = torch.rand(3, *size, generator=generator) - 0.5
    return MUTED + contrast * smooth + 0.1 * contrast * grain


def reference_lab(rgb: list[float]) -> tuple[float, float, float]:
    """CIE 15 and IEC 61966-2-1 written out for one pixel, in double precision."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    r, g, b = linear
    xyz = (
        (0.4124564 * r + 0.3575761 * g + 0.1804375 * b) / 0.95047,
        0.2126729 * r + 0.7151522 * g + 0.0721750 * b,
        (0.0193339 * r + 0.1191920 * g + 0.9503041 * b) / 1.08883,
    )
    x, y, z = (t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29 for t in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize(
    "rgb", [[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5], [0.02, 0.01, 0.03], [0.2, 0.7, 0.4]]
)
def test_cielab_of_a_pixel(rgb: list[float]) -> None:
    found = rgb_to_lab(torch.tensor(rgb, dtype=torch.float32).view(3, 1, 1)).flatten().tolist()
    assert found == pytest.approx(reference_lab(rgb), abs=0.02)


def test_cielab_and_back() -> None:
    rgb = torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0))
    rgb[:, 0, :6] = torch.tensor([0.0, 1.0, 0.001, 0.04, 0.5, 0.9])
    assert (lab_to_rgb(rgb_to_lab(rgb)) - rgb).abs().max() < 2e-5


def test_adain_gives_every_channel_the_mean_and_deviation_of_the_input() -> None:
    content, style = picture(seed=1, contrast=0.2), picture(seed=2, contrast=0.5)
    result = adain_transfer(content, style)
    assert torch.allclose(result.mean((1, 2)), style.mean((1, 2)), atol=1e-6)
    assert torch.allclose(result.std((1, 2)), style.std((1, 2)), rtol=1e-3)
    # Written out, with the published constant for values in [-1, 1].
    wide, want = content.double() * 2 - 1, style.double() * 2 - 1
    sigma, wanted = ((x.var((1, 2), keepdim=True) + 1e-5).sqrt() for x in (wide, want))
    mean, goal = (x.mean((1, 2), keepdim=True) for x in (wide, want))
    expected = ((wide - mean) / sigma * wanted + goal + 1) / 2
    assert (result - expected).abs().max() < 1e-6


def test_lab_gives_the_colours_of_the_input_and_keeps_the_contrast() -> None:
    content, style = picture(seed=1, contrast=0.5), picture(seed=2)
    result, wanted = rgb_to_lab(lab_transfer(content, style)), rgb_to_lab(style)
    based = rgb_to_lab(wavelet_transfer(content, style).clamp(0, 1))
    for plane in (1, 2):
        assert torch.allclose(result[plane].mean(), wanted[plane].mean(), atol=0.01)
        assert torch.allclose(result[plane].std(), wanted[plane].std(), rtol=0.01)
    assert not torch.allclose(based[1:].std((1, 2)), wanted[1:].std((1, 2)), rtol=0.05), "it had something to do"
    matched = (based[0] - based[0].mean()) * (wanted[0].std() / based[0].std()) + wanted[0].mean()
    expected = LIGHTNESS_KEPT * based[0] + (1 - LIGHTNESS_KEPT) * matched
    assert (result[0] - expected).abs().max() < 0.05


def test_wavelet_keeps_local_casts_that_adain_cannot_see() -> None:
    """Left half red, right half blue: the means are grey, so only a local transfer brings the halves back."""
    style = picture(seed=3, contrast=0.1)
    style[0, :, :32] += 0.2
    style[2, :, 32:] += 0.2
    grey = picture(seed=4, contrast=0.1)
    by_wavelet, by_adain = wavelet_transfer(grey, style), adain_transfer(grey, style)
    left_red = (slice(0, 1), slice(None), slice(0, 16))
    assert abs(by_wavelet[left_red].mean() - style[left_red].mean()) < 0.02
    assert abs(by_adain[left_red].mean() - style[left_red].mean()) > 0.05


@pytest.mark.parametrize("correction", ColorCorrection)
def test_a_frame_from_itself_stays_itself(correction: ColorCorrection) -> None:
    frame = picture(seed=5)
    assert (TRANSFERS[correction](frame, frame) - frame).abs().max() < 2e-5


@pytest.mark.parametrize("correction", ColorCorrection)
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_flat_frames_and_single_pixels_stay_finite(correction: ColorCorrection, value: float) -> None:
    for size in ((1, 1), (4, 4)):
        flat, other = torch.full((3, *size), value), torch.full((3, *size), 0.25)
        result = TRANSFERS[correction](flat, other)
        assert result.isfinite().all()
        if correction is not ColorCorrection.NONE:
            assert (result - 0.25).abs().max() < (0.11 if correction is ColorCorrection.LAB else 1e-3)


@pytest.mark.parametrize("correction", ColorCorrection)
def test_overshoot_does_not_become_nan(correction: ColorCorrection) -> None:
    content = picture(seed=6, contrast=3.0)
    assert content.min() < 0
    assert content.max() > 1
    assert TRANSFERS[correction](content, picture(seed=7)).isfinite().all()


def test_strength_mixes_the_restored_picture_with_the_enlarged_input() -> None:
    restored, resized = picture(seed=8), picture(seed=9)
    assert blend(restored, resized, 1.0) is restored
    assert torch.equal(blend(restored, resized, 0.0), resized)
    assert torch.allclose(blend(restored, resized, 0.25), 0.25 * restored + 0.75 * resized, atol=1e-7)
