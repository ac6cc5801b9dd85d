"""One convolution over frames `[T, H, W, C]`, as cuDNN (on CPUs oneDNN) computes it fastest.

Channels-last throughout: measured on one H100, cuDNN then reaches 690-790 TFLOP/s, of 776-800 in plain matrix products.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from restoration_runner.models.seedvr2.vae import prefers_onednn

LARGEST_TENSOR = 2**31 - 1
"""Elements; cuDNN's fast kernels index with 32 bits (measured beyond: 585 instead of 759 TFLOP/s)."""


def convolve(
    x: Tensor,
    weight: Tensor,
    *,
    stride: tuple[int, int, int] = (1, 1, 1),
    pad: tuple[int, int] = (1, 1),
    out: Tensor | None = None,
) -> Tensor:
    """`x [T, H, W, C]`, weight `[O, C, kt, kh, kw]` channels-last; zeros around frames, none in time; no bias.

    Returns `[T', H', W', O]`: `out` (contiguous) where given.
    """
    shape = output_shape(x, weight, stride, pad)
    if not x.is_cuda:
        y = _on_cpu(x, weight, stride, pad)
        return y.contiguous() if out is None else out.copy_(y)
    out = x.new_empty(shape) if out is None else out
    frames, kt = shape[0], weight.shape[2]
    per_frame_in, per_frame_out = x[0].numel(), out[0].numel()
    most = min(((LARGEST_TENSOR // per_frame_in) - kt) // stride[0] + 1, LARGEST_TENSOR // per_frame_out)
    pieces = -(-frames // max(1, min(frames, most)))
    size = -(-frames // pieces)  # equal pieces: no short, slow last one
    for t in range(0, frames, size):
        n = min(size, frames - t)
        part = x[t * stride[0] : (t + n - 1) * stride[0] + kt]
        _on_gpu(part, weight, stride, pad, out[t : t + n])
    return out


def as_nchw(x: Tensor) -> Tensor:
    """`[T, H, W, C]` as images `[T, C, H, W]`, without a copy."""
    return x.permute(0, 3, 1, 2)


def as_ncthw(x: Tensor) -> Tensor:
    """`[T, H, W, C]` as `[1, C, T, H, W]`, without a copy.

    In this order only: a view whose batch stride is wrong is not recognised as channels-last, and copied twice.
    """
    return x[None].permute(0, 4, 1, 2, 3)


def output_shape(
    x: Tensor, weight: Tensor, stride: tuple[int, int, int], pad: tuple[int, int]
) -> tuple[int, int, int, int]:
    outputs, _, kt, kh, kw = weight.shape
    sizes = (x.shape[0] - kt, x.shape[1] + 2 * pad[0] - kh, x.shape[2] + 2 * pad[1] - kw)
    t, h, w = (size // step + 1 for size, step in zip(sizes, stride, strict=True))
    return t, h, w, outputs


def _on_gpu(x: Tensor, weight: Tensor, stride: tuple[int, int, int], pad: tuple[int, int], out: Tensor) -> None:
    flags = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32
    # The general convolution would add a bias in a pass of its own, and cannot write into a slice.
    run = torch.ops.aten.cudnn_convolution.out
    if weight.shape[2] == 1:
        # As images: cuDNN picks slow kernels for clips of depth one (stride 2: 163 instead of 477 TFLOP/s).
        run(as_nchw(x), weight[:, :, 0], list(pad), list(stride[1:]), [1, 1], 1, *flags, out=as_nchw(out))
    else:
        run(as_ncthw(x), weight, [0, *pad], list(stride), [1, 1, 1], 1, *flags, out=as_ncthw(out))


def _on_cpu(x: Tensor, weight: Tensor, stride: tuple[int, int, int], pad: tuple[int, int]) -> Tensor:
    clip = as_ncthw(x)
    if prefers_onednn(x):
        y = torch.ops.aten.mkldnn_convolution(clip, weight, None, [0, *pad], list(stride), [1, 1, 1], 1)
    else:
        y = F.conv3d(clip, weight, None, stride, (0, *pad))
    out: Tensor = y[0].permute(1, 2, 3, 0)
    return out


def channels_last(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A prepared weight."""
    return weight.to(dtype).contiguous(memory_format=torch.channels_last_3d)


def frames_as_channels(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """`[O, C, kt, kh, kw]` to `[O, kt·C, 1, kh, kw]`, for frames that lie side by side: `[1, H, W, kt·C]`."""
    outputs, inputs, kt, kh, kw = weight.shape
    return channels_last(weight.transpose(1, 2).reshape(outputs, kt * inputs, 1, kh, kw), dtype)
