"""The decoder's last convolution, to three channels: in two dimensions to the maps of its time taps, then their sum.

A 3-D convolution to three channels keeps most of a tensor core's columns empty. Measured on one H100, 21 frames
1280×720: 18.5 to about 9 ms. The sum needs no kernel: one that made it in a single pass saved nothing of a decoding of
460 or 615 ms that could be told from noise.
"""

from torch import Tensor

from restoration_runner.models.seedvr2 import vae
from restoration_runner.models.seedvr2.fast.vae_blocks import bias_of, weight_of
from restoration_runner.models.seedvr2.fast.vae_convolve import channels_last, convolve
from restoration_runner.models.seedvr2.fast.vae_state import FastState, with_two_before

CHANNEL_MULTIPLE = 8
"""cuDNN's tensor core kernels need it."""


class LastConv:
    """3×3×3 to a few image channels."""

    def __init__(self, conv: vae.CausalConv3d) -> None:
        weight = weight_of(conv)
        self.weight, self.bias = channels_last(maps_weight(weight), weight.dtype), bias_of(conv).float()

    def __call__(self, x: Tensor, state: FastState | None) -> Tensor:
        return sum_of_taps(with_two_before(convolve(x, self.weight), self, state), self.bias)


def maps_weight(weight: Tensor) -> Tensor:
    """`[C, I, 3, 3, 3]` to the 2-D weight `[K, I, 1, 3, 3]`: C maps for each time tap, then zeros."""
    channels, inputs = weight.shape[:2]
    count = -(-3 * channels // CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE
    maps = weight.new_zeros((count, inputs, 1, 3, 3))
    maps[: 3 * channels] = weight.permute(2, 0, 1, 3, 4).reshape(3 * channels, inputs, 1, 3, 3)
    return maps


def sum_of_taps(maps: Tensor, bias: Tensor) -> Tensor:
    """`y[t] = maps[t+2, 2C:3C] + bias + maps[t, :C] + maps[t+1, C:2C]`, rounded once.

    maps `[T+2, H, W, K]`, y `[T, H, W, C]`, bias `[C]` fp32.
    """
    C = bias.shape[0]
    y = maps[2:, ..., 2 * C : 3 * C] + bias
    y += maps[:-2, ..., :C]
    y += maps[1:-1, ..., C : 2 * C]
    return y.to(maps.dtype)
