"""The last convolution, to three channels: one 2-D convolution to the maps of its three time taps, then their sum.

A 3-D convolution to three channels keeps most of a tensor core's columns empty. Measured on one H100, 21 frames
1280×720: 18.5 to about 9 ms.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from restoration_runner.models.kernels.launch import takes

TILE = 256


@triton.jit
def _sum(
    z,
    past,
    bias,
    y,
    P,
    C: tl.constexpr,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_PAST: tl.constexpr,
    TILE: tl.constexpr,
):
    t = tl.program_id(1)
    r = tl.program_id(0) * TILE + tl.arange(0, TILE)
    c = tl.arange(0, BLOCK)
    inside = (r < P)[:, None] & (c < C)[None, :]
    at = r.to(tl.int64)[:, None] * K + c[None, :]
    v = tl.load(z + t.to(tl.int64) * P * K + at + 2 * C, mask=inside, other=0.0).to(tl.float32)
    v += tl.load(bias + c, mask=c < C, other=0.0)[None, :]
    for j in tl.static_range(0, 2):
        f = t + j - 2
        if f >= 0:
            source = z + f.to(tl.int64) * P * K
        elif HAS_PAST:
            source = past + (f + 2).to(tl.int64) * P * K
        else:
            source = z
        v += tl.load(source + at + j * C, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + (t.to(tl.int64) * P + r)[:, None] * C + c[None, :], v.to(y.dtype.element_ty), mask=inside)


def map_channels(channels: int) -> int:
    """3 · channels, padded to a multiple of eight, which cuDNN's tensor core kernels need."""
    return -(-3 * channels // 8) * 8


def sum_taps(z: Tensor, past: Tensor | None, bias: Tensor) -> Tensor:
    """`y[t] = bias + z[t-2, 0:C] + z[t-1, C:2C] + z[t, 2C:3C]`; z `[T, H, W, K]`, y `[T, H, W, C]`, bias `[C]` fp32.

    Frames before the first come from `past [2, H, W, K]`, or are the first one.
    """
    (T, H, W, K), C = z.shape, bias.shape[0]
    if not takes(z):
        known = torch.cat([z[:1], z[:1], z] if past is None else [past, z]).float()
        taps = (known[j : j + T, ..., j * C : (j + 1) * C] for j in range(3))
        return (sum(taps, start=bias)).to(z.dtype)
    y = z.new_empty((T, H, W, C))
    _sum[(triton.cdiv(H * W, TILE), T)](
        z, z if past is None else past, bias, y, H * W, C, K, triton.next_power_of_2(C), past is not None, TILE
    )
    return y


def tap_map_weight(weight: Tensor) -> Tensor:
    """`[C, I, 3, 3, 3]` to the 2-D weight `[K, I, 1, 3, 3]` whose outputs are `sum_taps`'s maps."""
    channels, inputs = weight.shape[:2]
    maps = weight.new_zeros((map_channels(channels), inputs, 1, 3, 3))
    maps[: 3 * channels] = weight.permute(2, 0, 1, 3, 4).reshape(3 * channels, inputs, 1, 3, 3)
    return maps
