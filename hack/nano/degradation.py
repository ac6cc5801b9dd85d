"""Blur and downscale, and the parameters of the fixed degradations; works on any device and needs no codec."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE = 4
_BLUR_TAPS = 13  # covers sigma 2.4 to 2.5 sigma on each side


@dataclass(frozen=True)
class Degradation:
    """blur_sigma in pixels of the original; noise in 8-bit codes of luma (chroma gets half); crf of libx264."""

    name: str
    blur_sigma: float
    noise_codes: float
    crf: int


STANDARD = Degradation("standard", blur_sigma=1.6, noise_codes=8.0, crf=18)
LIGHT = Degradation("light", blur_sigma=0.8, noise_codes=2.0, crf=23)
HEAVY = Degradation("heavy", blur_sigma=2.0, noise_codes=10.0, crf=28)
DEGRADATIONS = {d.name: d for d in (STANDARD, LIGHT, HEAVY)}


def gaussian_blur(rgb: Tensor, sigma: float | Tensor) -> Tensor:
    """Separable blur of [T, 3, H, W] with reflected borders; `sigma` may be one value per frame, [T]."""
    frames, channels, height, width = rgb.shape
    taps = torch.arange(_BLUR_TAPS, dtype=rgb.dtype, device=rgb.device) - _BLUR_TAPS // 2
    sigma = torch.as_tensor(sigma, dtype=rgb.dtype, device=rgb.device).expand(frames)
    kernel = torch.exp(-0.5 * (taps / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    half = _BLUR_TAPS // 2
    planes = rgb.reshape(1, frames * channels, height, width)
    planes = F.pad(planes, (half, half, half, half), mode="reflect")
    planes = F.conv2d(planes, kernel[:, None, None, :], groups=frames * channels)
    planes = F.conv2d(planes, kernel[:, None, :, None], groups=frames * channels)
    return planes.reshape(rgb.shape)


def downscale(rgb: Tensor) -> Tensor:
    """A quarter of the size by antialiased bicubic; [T, 3, H, W] with H and W multiples of 8."""
    size = (rgb.shape[-2] // SCALE, rgb.shape[-1] // SCALE)
    return F.interpolate(rgb, size=size, mode="bicubic", antialias=True, align_corners=False)
