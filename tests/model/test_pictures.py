"""Resizing, padding and colour transfer of single frames."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from restoration_runner.restoration.resize import pad_to_alignment, resize
from restoration_runner.restoration.wavelet import wavelet_transfer


def random_picture(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(48, 80), (31, 47), (10, 10)])
def test_resize_clamps_and_keeps_float32(size: tuple[int, int]) -> None:
    picture = (random_picture(3, 20, 30) > 0.5).float()  # hard edges overshoot
    scaled = resize(picture, size)
    assert scaled.shape == (3, *size)
    assert scaled.dtype == torch.float32
    assert scaled.min() >= 0
    assert scaled.max() <= 1


def test_resize_to_the_same_size_changes_nothing() -> None:
    picture = random_picture(3, 20, 30)
    assert resize(picture, (20, 30)) is picture


@pytest.mark.parametrize(
    ("size", "padded"),
    [
        ((64, 64), (64, 64)),
        ((360, 640), (368, 640)),
        ((1080, 1920), (1088, 1920)),
        ((17, 33), (32, 48)),
        ((9, 16), (16, 16)),
        ((3, 2), (16, 16)),
        ((1, 1), (16, 16)),
    ],
)
def test_padding_keeps_the_picture_and_reflects(size: tuple[int, int], padded: tuple[int, int]) -> None:
    picture = random_picture(3, *size)
    result = pad_to_alignment(picture)
    assert result.shape == (3, *padded)
    assert torch.equal(result[:, : size[0], : size[1]], picture)
    if size[0] > 1 and padded[0] > size[0]:
        assert torch.equal(result[:, size[0], : size[1]], picture[:, -2])
    if size[1] > 1 and padded[1] > size[1]:
        assert torch.equal(result[:, : size[0], size[1]], picture[:, :, -2])


def bands(x: Tensor) -> tuple[Tensor, Tensor]:
    """The published form: five 3×3 blurs of doubling dilation; returns the sum of the high bands and the low band."""
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    high = torch.zeros_like(x)
    for radius in (1, 2, 4, 8, 16):
        padded = F.pad(x[None], (radius,) * 4, mode="replicate")
        low = F.conv2d(padded, kernel.repeat(3, 1, 1, 1), dilation=radius, groups=3)[0]
        high, x = high + x - low, low
    return high, x


@pytest.mark.parametrize("size", [(64, 96), (16, 16), (5, 200)])
def test_wavelet_transfer_equals_its_published_form(size: tuple[int, int]) -> None:
    content, style = random_picture(3, *size), random_picture(3, *size, seed=1)
    expected = bands(content)[0] + bands(style)[1]
    assert (wavelet_transfer(content, style) - expected).abs().max() < 1e-6


def test_wavelet_transfer_of_a_frame_from_itself_changes_nothing() -> None:
    picture = random_picture(3, 40, 40)
    assert torch.equal(wavelet_transfer(picture, picture), picture)


def test_wavelet_transfer_is_per_frame() -> None:
    content, style = random_picture(4, 3, 32, 48), random_picture(4, 3, 32, 48, seed=1)
    one_by_one = torch.stack([wavelet_transfer(c, s) for c, s in zip(content, style, strict=True)])
    assert torch.equal(wavelet_transfer(content, style), one_by_one)
