"""Rotary positions of the two rule sets, computed on the fly in fp32.

The released code slices a 1024 × 128 × 128 table (8.4 GB); the same angles are a few outer products. They must be fp32:
axial angles reach 402 rad, where bf16 is off by more than a radian.
"""

import math

import torch
from torch import Tensor

from restoration_runner.models.seedvr2.config import RopeRule
from restoration_runner.models.seedvr2.windows import Grid

THETA = 10_000.0
# Axial frequencies run linearly from 1 to half of this, times pi.
MAX_AXIAL_FREQUENCY = 256


def frequencies(rule: RopeRule, rope_dim: int) -> Tensor:
    """Frequencies of one axis `[n]`: a third of the rotated dimensions belongs to each of time, height and width."""
    per_axis = rope_dim // 3
    if rule == "axial":
        return torch.linspace(1.0, MAX_AXIAL_FREQUENCY / 2, per_axis // 2) * math.pi
    steps = torch.arange(0, per_axis, 2)[: per_axis // 2].float()
    return 1.0 / (THETA ** (steps / per_axis))


def _axis_positions(rule: RopeRule, shape: Grid, text_tokens: int) -> list[Tensor]:
    if rule == "axial":
        # linspace(-1, 1, 1) is -1: a window of one token along an axis sits at the border, not in the middle.
        return [torch.linspace(-1, 1, size) for size in shape]
    t, h, w = shape
    # The text occupies the first positions of the time axis.
    return [torch.arange(t).float() + text_tokens, torch.arange(h).float(), torch.arange(w).float()]


def video_angles(rule: RopeRule, rope_dim: int, shape: Grid, text_tokens: int) -> Tensor:
    """Angles `[t·h·w, 3n]` of the tokens of one window, raster order; positions restart in every window."""
    freqs = frequencies(rule, rope_dim)
    t, h, w = shape
    n = len(freqs)
    axes = [position[:, None] * freqs for position in _axis_positions(rule, shape, text_tokens)]
    parts = [
        axes[0].view(t, 1, 1, n).expand(t, h, w, n),
        axes[1].view(1, h, 1, n).expand(t, h, w, n),
        axes[2].view(1, 1, w, n).expand(t, h, w, n),
    ]
    return torch.cat(parts, dim=-1).reshape(t * h * w, 3 * n)


def text_angles(rule: RopeRule, rope_dim: int, text_tokens: int) -> Tensor:
    """Angles `[L, 3n]` of the text: the same position on all three axes; zero where the rule leaves text alone."""
    freqs = frequencies(rule, rope_dim)
    if rule == "axial":
        return torch.zeros(text_tokens, 3 * len(freqs))
    return (torch.arange(text_tokens).float()[:, None] * freqs).repeat(1, 3)


def rotation(rule: RopeRule, rope_dim: int, head_dim: int, shape: Grid, text_tokens: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines `[t·h·w + L, head_dim/2]` of a window's packed sequence: video tokens, then text tokens.

    Dimensions beyond the rotated ones get angle zero, which leaves them exactly as they are.
    """
    angles = torch.cat([video_angles(rule, rope_dim, shape, text_tokens), text_angles(rule, rope_dim, text_tokens)])
    angles = torch.nn.functional.pad(angles, (0, head_dim // 2 - angles.shape[1]))
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate adjacent pairs of the last axis, in fp32: `x [..., n, head_dim]`, `cos` and `sin` `[n, head_dim/2]`."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    rotated = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)
    return rotated.to(x.dtype)
