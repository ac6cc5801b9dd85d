"""What training minimises: pixel error, structure, and steadiness in time."""

import torch
import torch.nn.functional as F
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)


def charbonnier(difference: Tensor, *, epsilon: float = 2e-3) -> Tensor:
    """Mean of a differentiable absolute value; quadratic below `epsilon`."""
    return (difference.float().square() + epsilon**2).sqrt().mean()


def luma(video: Tensor) -> Tensor:
    """[B, 3, T, H, W] in [-1, 1] to [B·T, 1, H, W] in [0, 1]."""
    red, green, blue = video.float().unbind(1)
    y = _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
    return (y.flatten(0, 1).unsqueeze(1) + 1) / 2


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean SSIM of single-channel pictures in [0, 1], 11-tap Gaussian window of sigma 1.5."""
    taps = torch.arange(11, device=a.device, dtype=torch.float32) - 5
    kernel = torch.exp(-0.5 * (taps / 1.5) ** 2)
    kernel = kernel / kernel.sum()
    maps = torch.cat((a, b, a * a, b * b, a * b), dim=1)
    with torch.autocast(a.device.type, enabled=False):  # differences of squares need fp32
        maps = F.conv2d(maps, kernel.view(1, 1, 1, 11).expand(5, 1, 1, 11), groups=5)
        maps = F.conv2d(maps, kernel.view(1, 1, 11, 1).expand(5, 1, 11, 1), groups=5)
    mean_a, mean_b, square_a, square_b, product = maps.split(1, dim=1)
    variance_a, variance_b = square_a - mean_a**2, square_b - mean_b**2
    covariance = product - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (top / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))).mean()


def structure(output: Tensor, target: Tensor) -> Tensor:
    """1 - SSIM of luma, at full and at half size: VMAF looks at coarser structure than one window of SSIM holds."""
    a, b = luma(output), luma(target)
    return (1 - ssim(a, b)) + 0.5 * (1 - ssim(F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)))


def temporal(output: Tensor, target: Tensor) -> Tensor:
    """Error of the differences between neighbouring frames: flicker counts even where each frame is close."""
    difference = output.float() - target.float()
    return (difference[:, :, 1:] - difference[:, :, :-1]).abs().mean()


def worst_frames(output: Tensor, target: Tensor) -> Tensor:
    """Root of the mean square of the frames' mean errors, [B, 3, T, H, W]: a frame twice as bad counts four times.

    A latent stands for four frames; without this, good ones pay for a ghost in every second.
    """
    each = (output.float() - target.float()).abs().mean((1, 3, 4))
    return (each.square().mean(1) + 1e-8).sqrt().mean()


def psnr(output: Tensor, target: Tensor) -> float:
    """PSNR of luma in dB over the whole batch, inputs in [-1, 1]."""
    error = (luma(output.clamp(-1, 1)) - luma(target)).square().mean()
    return float(-10 * torch.log10(error))
