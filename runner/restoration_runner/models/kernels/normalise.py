"""Scale, shift and SiLU of frames, written straight into the buffer that the next convolution reads.

The buffer holds the frames that came before, so no `cat` and no `pad` copies anything, and what precedes a clip's first
frame (copies of it) is written in the same pass. Measured on one H100: 2.8 of the 3.0 TB/s of a plain copy. The
encoder takes 303 instead of 502 ms, the decoder 616 instead of 996; by Winograd, which normalises most itself, 221 and
240, 461 and 529.
"""

import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from restoration_runner.models.kernels.launch import WARPS, takes, tile_rows


@triton.jit
def _normalise(
    x, scale, shift, out, P, x_frame, out_frame, out_pixel,
    C: tl.constexpr, TILE: tl.constexpr, COPIES: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    t = tl.program_id(1)
    c = tl.arange(0, C)
    r = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = (r < P)[:, None]
    at = r.to(tl.int64)[:, None] * C + c[None, :]
    out_at = r.to(tl.int64)[:, None] * out_pixel + c[None, :]
    v = tl.load(x + t.to(tl.int64) * x_frame + at, mask=inside, other=0.0).to(tl.float32)
    v = v * tl.load(scale + t * C + c)[None, :] + tl.load(shift + t * C + c)[None, :]
    if SILU:
        v = v * tl.sigmoid(v)
    v = v.to(out.dtype.element_ty)
    tl.store(out + t.to(tl.int64) * out_frame + out_at, v, mask=inside)
    if COPIES > 0:
        if t == 0:
            for k in tl.static_range(1, COPIES + 1):
                tl.store(out + out_at - k * out_frame.to(tl.int64), v, mask=inside)


def normalise_into(
    buffer: Tensor, x: Tensor, scale: Tensor, shift: Tensor, *, slot: int, copies: int = 0, silu: bool = True
) -> None:
    """`buffer[slot + t] = silu(x[t]·scale[t] + shift[t])`, and the `copies` slots before `slot` get that of frame 0.

    x `[T, H, W, C]`: each frame contiguous. buffer `[slots, H, W, C]`: any distances between frames and between pixels,
    rows one after the other. scale, shift `[T, C]` fp32.
    """
    T, H, W, C = x.shape
    if not takes(x, C):
        _fallback(buffer, x, scale, shift, slot=slot, copies=copies, silu=silu)
        return
    tile = 2 * tile_rows(C)
    grid = (triton.cdiv(H * W, tile), T)
    strides = x.stride(0), buffer.stride(0), buffer.stride(2)
    _normalise[grid](x, scale, shift, buffer[slot:], H * W, *strides, C, tile, copies, silu, num_warps=WARPS)


def _fallback(buffer: Tensor, x: Tensor, scale: Tensor, shift: Tensor, *, slot: int, copies: int, silu: bool) -> None:
    T, _, _, C = x.shape
    v = x.float() * scale.view(T, 1, 1, C) + shift.view(T, 1, 1, C)
    buffer[slot : slot + T] = F.silu(v) if silu else v
    if copies:
        buffer[slot - copies : slot] = buffer[slot]
