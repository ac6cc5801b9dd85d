"""The first convolution's taps over time and width as channels, so that it becomes one over height alone.

cuDNN pads three input channels to eight; (3 × 3 × 3) channels padded to 32 waste less and read contiguously. Measured
on one H100, 21 frames 1280×720: 15.1 to about 4 ms for the first convolution, of which nine copies in the kernel's
place would take 4 back: the encoder takes 305 instead of 309 ms, by Winograd 217 instead of 222.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from restoration_runner.models.kernels.launch import takes

TILE = 128


@triton.jit
def _unfold(x, out, H, W, CHANNELS: tl.constexpr, K: tl.constexpr, TILE: tl.constexpr):
    t = tl.program_id(1)
    r = tl.program_id(0) * TILE + tl.arange(0, TILE)
    k = tl.arange(0, K)
    column = (r % W)[:, None] + ((k // CHANNELS) % 3)[None, :] - 1
    inside = (r < H * W)[:, None] & (k < 9 * CHANNELS)[None, :] & (column >= 0) & (column < W)
    source = (t + k // (3 * CHANNELS)).to(tl.int64)[None, :] * (H * W) + (r // W)[:, None] * W + column
    v = tl.load(x + source * CHANNELS + (k % CHANNELS)[None, :], mask=inside, other=0.0)
    tl.store(out + (t.to(tl.int64) * H * W + r)[:, None] * K + k[None, :], v, mask=(r < H * W)[:, None])


def unfolded_channels(channels: int) -> int:
    """9 · channels, padded to a power of two."""
    return 1 << (9 * channels - 1).bit_length()


def unfold_taps(x: Tensor) -> Tensor:
    """`x [T+2, H, W, C]` to `[T, H, W, K]`: channel (dt·3 + dw)·C + c is x[t+dt, h, w+dw-1, c], zero outside."""
    T, H, W, C = x.shape[0] - 2, *x.shape[1:]
    K = unfolded_channels(C)
    if takes(x):
        out = x.new_empty((T, H, W, K))
        _unfold[(triton.cdiv(H * W, TILE), T)](x, out, H, W, C, K, TILE)
        return out
    out = x.new_zeros((T, H, W, K))
    for dt in range(3):
        for dw in range(3):
            first = (dt * 3 + dw) * C
            to, start = max(0, 1 - dw), max(0, dw - 1)
            width = W - abs(dw - 1)
            out[:, :, to : to + width, first : first + C] = x[dt : dt + T, :, start : start + width]
    return out


def unfolded_weight(weight: Tensor) -> Tensor:
    """`[O, C, 3, 3, 3]` to `[O, K, 1, 3, 1]`, for `unfold_taps`'s channels."""
    outputs, channels = weight.shape[:2]
    taps = weight.permute(0, 2, 4, 1, 3).reshape(outputs, 9 * channels, 1, 3, 1)
    padded = weight.new_zeros((outputs, unfolded_channels(channels), 1, 3, 1))
    padded[:, : 9 * channels] = taps
    return torch.as_tensor(padded)
