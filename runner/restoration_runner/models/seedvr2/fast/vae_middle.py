"""The middle of the fast VAE: attention over the positions of each frame, between two residual blocks."""

import torch
import torch.nn.functional as F
from torch import Tensor

from restoration_runner.models.kernels.residual import add_residual
from restoration_runner.models.kernels.softmax_rows import softmax_rows
from restoration_runner.models.seedvr2 import attention, vae
from restoration_runner.models.seedvr2.fast.vae_blocks import Activation, Norm, Stage, bias_of, weight_of
from restoration_runner.models.seedvr2.fast.vae_state import FastState, VaeKnobs
from restoration_runner.models.seedvr2.fast.vae_winograd import res_block


class FrameAttention:
    """Single-head attention over the positions of each frame. Norm, residual and bias are fused as in `ResBlock`."""

    def __init__(self, block: vae.FrameAttention, knobs: VaeKnobs) -> None:
        self.norm = Norm(block.norm)
        layers = (block.q, block.k, block.v)
        self.qkv = torch.cat([weight_of(layer) for layer in layers])
        self.qkv_bias = torch.cat([bias_of(layer) for layer in layers])
        self.out, self.out_bias = weight_of(block.out).clone(), bias_of(block.out).float()
        self.most_scores = knobs.attention_scores

    def __call__(self, a: Activation) -> Activation:
        T, H, W, C = a.x.shape
        mixed = self.norm.apply(a, silu=False, out=torch.empty_like(a.x)).view(T, H * W, C)
        for t in range(T):
            q, k, v = F.linear(mixed[t], self.qkv, self.qkv_bias).split(C, dim=-1)
            attend(q, k, v, self.most_scores, out=mixed[t])
        d = F.linear(mixed, self.out).view(T, H, W, C)
        sums = add_residual(a.x, d, self.out_bias + a.bias, groups=self.norm.weights.groups)
        return Activation(d, torch.zeros_like(a.bias), sums)


def attend(q: Tensor, k: Tensor, v: Tensor, most_scores: int, *, out: Tensor) -> None:
    """Softmax attention of one head `[n, C]`, exact: query rows in equal pieces, scores in fp32."""
    n, C = q.shape
    if not q.is_cuda:
        out.copy_(attention.attend(q[None, None], k[None, None], v[None, None])[0, 0])
        return
    # Equal pieces: unequal ones were measured up to four times slower.
    rows = -(-n // -(-n * n // most_scores))
    for first in range(0, n, rows):
        piece = slice(first, first + rows)
        if q.dtype is torch.float32:
            scores = torch.mm(q[piece], k.t())
        else:
            scores = torch.mm(q[piece], k.t(), out_dtype=torch.float32)
        torch.mm(softmax_rows(scores, C**-0.5, v.dtype), v, out=out[piece])


class MiddleBlock:
    def __init__(self, block: vae.MiddleBlock, *, knobs: VaeKnobs) -> None:
        self.before = res_block(block.before, stage=Stage.DEEP, knobs=knobs)
        self.attention = FrameAttention(block.attention, knobs)
        self.after = res_block(block.after, stage=Stage.DEEP, knobs=knobs)

    def __call__(self, a: Activation, state: FastState | None) -> Activation:
        return self.after(self.attention(self.before(a, state)), state)
