"""Where the restored picture's colours come from: `restoration.colorCorrection`.

All of them work on one frame with its own input frame. Statistics over a window, a segment or a clip would show where
those begin, and make a frame depend on how the work was cut.

* `Wavelet` (the default, `wavelet.py`): slow colours of the input, detail of the restored frame.
* `AdaIN`: every channel gets the input's mean and standard deviation (adaptive instance normalisation: Huang and
  Belongie, ICCV 2017, equation 8). One number for the whole picture: local casts stay.
* `LAB`: `Wavelet` first, then mean and standard deviation of a* and b* in CIELAB (Reinhard and others, "Color transfer
  between images", 2001, in the space of CIE 15), lightness a fifth of the way. Strong, and known to turn some blues
  purple: offered, never the default.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from restoration_api.request import ColorCorrection
from restoration_runner.restoration.wavelet import wavelet_transfer

VARIANCE_FLOOR = 1e-5 / 4
"""The published 1e-5 is for values in [-1, 1]; here they are half as far apart."""
LAB_VARIANCE_FLOOR = 0.01
"""A tenth of a unit of a* and b*, far below what is seen."""
LIGHTNESS_KEPT = 0.8
"""Share of the restored lightness: its contrast is what the model was asked for."""

RGB_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
"""IEC 61966-2-1 (sRGB, the primaries of BT.709), linear light."""
WHITE = tuple(sum(row) for row in RGB_TO_XYZ)
"""D65, as the matrix above sees it: grey pixels then have a* = b* = 0 exactly."""
EPSILON, KAPPA = 216 / 24389, 24389 / 27
"""Where the cube root of CIELAB goes over into a straight line, and its slope (CIE 15, 8.2.1)."""


def adain_transfer(content: Tensor, style: Tensor) -> Tensor:
    """`content` with the mean and deviation of `style` in every channel; both `[3, H, W]`, result not clamped."""
    return match_statistics(content.float(), style.float(), floor=VARIANCE_FLOOR)


def lab_transfer(content: Tensor, style: Tensor) -> Tensor:
    """`content` with the colourfulness of `style`; both `[3, H, W]` in [0, 1] but for overshoot, result in [0, 1]."""
    restored = rgb_to_lab(wavelet_transfer(content, style).clamp(0, 1))
    matched = match_statistics(restored, rgb_to_lab(style.float().clamp(0, 1)), floor=LAB_VARIANCE_FLOOR)
    matched[0] = LIGHTNESS_KEPT * restored[0] + (1 - LIGHTNESS_KEPT) * matched[0]
    return lab_to_rgb(matched).clamp(0, 1)


def match_statistics(content: Tensor, style: Tensor, *, floor: float) -> Tensor:
    """(content - mean) / deviation · the style's deviation + the style's mean, for each plane of `[C, H, W]`.

    floor: added to variances, so that a flat picture divides by something.
    """
    mean, deviation = _plane_statistics(content, floor)
    wanted_mean, wanted_deviation = _plane_statistics(style, floor)
    return (content - mean) * (wanted_deviation / deviation) + wanted_mean


def _plane_statistics(picture: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `[C, 1, 1]` of the planes."""
    unbiased = int(picture[0].numel() > 1)  # of one pixel there is only the biased variance, 0
    variance, mean = torch.var_mean(picture, dim=(-2, -1), keepdim=True, correction=unbiased)
    return mean, torch.sqrt(variance + floor)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """`[3, H, W]` in [0, 1] to L* in [0, 100], a* and b*."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055).clamp_min(0) ** 2.4)
    x, y, z = (plane / white for plane, white in zip(_mix(RGB_TO_XYZ, linear), WHITE, strict=True))
    fx, fy, fz = (torch.where(t > EPSILON, t.clamp_min(EPSILON) ** (1 / 3), (KAPPA * t + 16) / 116) for t in (x, y, z))
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Inverse of `rgb_to_lab`; colours that no RGB has are cut off at 0."""
    fy = (lab[0] + 16) / 116
    roots = torch.stack([fy + lab[1] / 500, fy, fy - lab[2] / 200])
    cubes = roots**3
    xyz = torch.where(cubes > EPSILON, cubes, (116 * roots - 16) / KAPPA)
    # Plane by plane: a tensor of three numbers would have to be copied to the GPU, and waited for.
    tinted = torch.stack([plane * white for plane, white in zip(xyz, WHITE, strict=True)])
    linear = torch.stack(_mix(_XYZ_TO_RGB, tinted)).clamp_min(0)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(1e-9) ** (1 / 2.4) - 0.055)


def _mix(matrix: tuple[tuple[float, ...], ...], planes: Tensor) -> list[Tensor]:
    """A matrix applied to the channels; sums of three products, so no library's rounding gets in."""
    return [row[0] * planes[0] + row[1] * planes[1] + row[2] * planes[2] for row in matrix]


def _inverse(matrix: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    inverse: list[list[float]] = torch.linalg.inv(torch.tensor(matrix, dtype=torch.float64)).tolist()
    return tuple(tuple(row) for row in inverse)


_XYZ_TO_RGB = _inverse(RGB_TO_XYZ)


def _keep(content: Tensor, _style: Tensor) -> Tensor:
    return content.float()


TRANSFERS: dict[ColorCorrection, Callable[[Tensor, Tensor], Tensor]] = {
    ColorCorrection.NONE: _keep,
    ColorCorrection.WAVELET: wavelet_transfer,
    ColorCorrection.ADAIN: adain_transfer,
    ColorCorrection.LAB: lab_transfer,
}


def blend(restored: Tensor, resized: Tensor, strength: float) -> Tensor:
    """`restoration.strength`: strength · restored + (1 - strength) · resized; at 1 the restored picture untouched."""
    return restored if strength == 1 else strength * restored + (1 - strength) * resized
