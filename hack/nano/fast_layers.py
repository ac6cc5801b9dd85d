"""Faster forms of the VAE's layers for training on a GPU: the same arithmetic on the same parameters.

A 3-D convolution of eight channels keeps a GPU's matrix units nearly idle. Over whole clips it can also be computed by
2-D convolutions: with the three taps of time side by side as input channels ("joined"), or as output channels that are
shifted and added ("summed"). Which of the forms is fastest differs from layer to layer, so each kind of layer is timed
once, on the card that trains.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from restoration_runner.models.seedvr2.vae import CausalConv3d, FrameNorm, StreamState, VideoVae

Form = Callable[[CausalConv3d, Tensor], Tensor]


def native(conv: CausalConv3d, x: Tensor) -> Tensor:
    """The runner's own form for a whole clip."""
    reach = conv.kernel_size[0] - 1
    if reach:
        x = torch.cat([x[:, :, :1]] * reach + [x], dim=2)
    return F.conv3d(x, conv.weight, conv.bias, conv.stride, conv.padding)


def joined(conv: CausalConv3d, x: Tensor) -> Tensor:
    """Neighbouring frames as input channels."""
    B, T = x.shape[0], x.shape[2]
    taps, step = conv.kernel_size[0], conv.stride[0]
    frames = x.transpose(1, 2)  # [B, T, C, H, W]
    weight = conv.weight.transpose(1, 2).flatten(1, 2)  # [O, taps·C, 3, 3], earliest tap first
    if taps > 1:
        past = torch.cat([frames[:, :1]] * (taps - 1) + [frames], dim=1)
        frames = torch.cat([past[:, tap : tap + T : step] for tap in range(taps)], dim=2)
    return _over_frames(frames, weight, conv.bias, conv).unflatten(0, (B, -1)).transpose(1, 2)


def summed(conv: CausalConv3d, x: Tensor) -> Tensor:
    """Every tap of time as its own output channels, shifted and added; for stride 1."""
    B, T = x.shape[0], x.shape[2]
    frames = x.transpose(1, 2)
    weight = conv.weight.permute(2, 0, 1, 3, 4).flatten(0, 1)  # [taps·O, C, 3, 3], earliest tap first
    taps = _over_frames(frames, weight, None, conv).unflatten(0, (B, T)).unflatten(2, (3, -1))
    oldest, middle, newest = taps.unbind(2)
    first, second = oldest[:, :1], middle[:, :1]
    total = newest + torch.cat((second, middle[:, :-1]), 1) + torch.cat((first, first, oldest[:, :-2]), 1)
    assert conv.bias is not None
    return (total + conv.bias[:, None, None].to(total.dtype)).transpose(1, 2)


def _over_frames(frames: Tensor, weight: Tensor, bias: Tensor | None, conv: CausalConv3d) -> Tensor:
    return F.conv2d(
        frames.flatten(0, 1).contiguous(memory_format=torch.channels_last),
        weight.contiguous(memory_format=torch.channels_last),
        bias,
        stride=conv.stride[1:],
        padding=conv.padding[1:],
    )


def forms(conv: CausalConv3d) -> dict[str, Form]:
    """The forms that a layer can take."""
    found: dict[str, Form] = {"native": native, "joined": joined}
    if conv.kernel_size[0] == 3 and conv.stride == (1, 1, 1):
        found["summed"] = summed
    return found


def frame_norm(norm: FrameNorm, x: Tensor) -> Tensor:
    """GroupNorm per frame with channels last in memory: sums per channel first, groups afterwards."""
    rows = x.permute(0, 2, 3, 4, 1).float()  # [B, T, H, W, C]
    grouped = (norm.num_groups, -1)
    mean = rows.mean((2, 3)).unflatten(-1, grouped).mean(-1, keepdim=True)
    square = rows.square().mean((2, 3)).unflatten(-1, grouped).mean(-1, keepdim=True)
    inverse = torch.rsqrt((square - mean.square()).clamp(min=0) + norm.eps)
    scale = inverse * norm.weight.view(grouped)
    shift = norm.bias.view(grouped) - mean * scale
    out = rows * scale.flatten(-2)[:, :, None, None] + shift.flatten(-2)[:, :, None, None]
    return out.to(x.dtype).permute(0, 4, 1, 2, 3)


def install(vae: VideoVae, example: Tensor, *, repeats: int = 4) -> dict[str, str]:
    """Give every layer of `vae` its fastest form for clips like `example`; returns what was chosen."""
    shapes: dict[CausalConv3d, torch.Size] = {}
    hooks = [
        module.register_forward_pre_hook(
            lambda layer, inputs: shapes.__setitem__(layer, _padded_shape(layer, inputs[0]))
        )
        for module in vae.modules()
        if isinstance(module, CausalConv3d)
    ]
    with torch.no_grad():
        vae.decode(vae.encode(example).chunk(2, dim=1)[0])
    for hook in hooks:
        hook.remove()
    chosen: dict[tuple[object, ...], tuple[str, str]] = {}
    for conv, shape in shapes.items():
        key = (conv.weight.shape, conv.stride, tuple(shape))
        if key not in chosen:
            chosen[key] = _fastest(conv, shape, repeats)
        form = forms(conv)[chosen[key][0]]
        conv.forward = partial(_whole_clip, form, conv)  # type: ignore[method-assign]
    for module in vae.modules():
        if isinstance(module, FrameNorm):
            module.forward = partial(frame_norm, module)  # type: ignore[method-assign]
    return {f"{tuple(key[0])} on {key[2]}": f"{form}  {times}" for key, (form, times) in chosen.items()}  # type: ignore[arg-type]


def _padded_shape(conv: CausalConv3d, x: Tensor) -> torch.Size:
    return torch.Size((*x.shape[:3], x.shape[3] + conv.pad_end, x.shape[4] + conv.pad_end))


def _whole_clip(form: Form, conv: CausalConv3d, x: Tensor, state: StreamState | None = None) -> Tensor:
    assert state is None, "training sees whole clips"
    return form(conv, F.pad(x, (0, conv.pad_end, 0, conv.pad_end)) if conv.pad_end else x)


def _fastest(conv: CausalConv3d, shape: torch.Size, repeats: int) -> tuple[str, str]:
    """Name of the fastest form, forward and backward, and what was measured."""
    device = conv.weight.device
    if device.type != "cuda":
        return "joined", ""
    x = torch.randn(shape, device=device, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last_3d)
    measured_ms: dict[str, float] = {}
    for name, form in forms(conv).items():
        started = 0.0
        for turn in range(repeats + 2):
            if turn == 2:  # the first turns choose kernels
                torch.cuda.synchronize()
                started = time.monotonic()
            with torch.autocast("cuda", torch.bfloat16):
                out = form(conv, x.requires_grad_())
            torch.autograd.backward(out, torch.ones_like(out))
        torch.cuda.synchronize()
        measured_ms[name] = 1000 * (time.monotonic() - started) / repeats
    conv.zero_grad(set_to_none=True)
    best = min(measured_ms, key=lambda name: measured_ms[name])
    return best, ", ".join(f"{name} {ms:.2f} ms" for name, ms in measured_ms.items())
