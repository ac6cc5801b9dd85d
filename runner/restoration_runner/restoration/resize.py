"""Scaling to the target size, and the released pipeline's rules for sizes.

The product keeps every pixel: it scales to the size that was asked for, pads to the network's alignment and crops back.
The released pipeline keeps the area that was asked for and cuts the edges off; that is needed to check the networks.
"""

import math

import torch.nn.functional as F
from torch import Tensor

ALIGNMENT = 16
"""Eight pixels a latent, two latents a token."""


def resize(rgb: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic with antialiasing: `[3, H, W]` or `[T, 3, H, W]` float32 in [0, 1] to `size` (height, width), clamped.

    A picture that has the size already is returned as it is.
    """
    if rgb.shape[-2:] == size:
        return rgb
    frames = rgb if rgb.ndim == 4 else rgb[None]
    scaled = F.interpolate(frames.float(), size=size, mode="bicubic", antialias=True, align_corners=False)
    scaled = scaled.clamp_(0.0, 1.0)
    return scaled if rgb.ndim == 4 else scaled[0]


def pad_to_alignment(frame: Tensor, alignment: int = ALIGNMENT) -> Tensor:
    """Reflect `[C, H, W]` at the bottom and at the right up to multiples of `alignment`.

    A picture too small to be reflected that far (15 more pixels need 16) is reflected as far as it goes, repeatedly.
    """
    while True:
        height, width = frame.shape[-2:]
        bottom = min(-height % alignment, height - 1)
        right = min(-width % alignment, width - 1)
        if bottom == right == 0:
            break
        frame = F.pad(frame[None], (0, right, 0, bottom), mode="reflect")[0]
    height, width = frame.shape[-2:]
    # One pixel has nothing to reflect: repeat it; every other side is aligned by now.
    return frame.expand(-1, height + -height % alignment, width + -width % alignment)


def area_size(source: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Released rule: the source's shape at the target's area, (height, width), rounded half to even."""
    height, width = source
    # Squared root, because that is how the released code computes the area: it decides some roundings.
    area = math.sqrt(target[0] * target[1]) ** 2
    scale = math.sqrt(area / (height * width))
    return round(height * scale), round(width * scale)


def centre_crop(size: tuple[int, int], alignment: int = ALIGNMENT) -> tuple[int, int, int, int]:
    """Released rule: (top, left, height, width) of the aligned picture inside `size`, offsets rounded half to even."""
    height, width = (side - side % alignment for side in size)
    return round((size[0] - height) / 2), round((size[1] - width) / 2), height, width
