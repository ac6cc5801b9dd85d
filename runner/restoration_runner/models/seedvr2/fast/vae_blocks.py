"""The fast VAE's residual block, and what travels between blocks.

Between blocks travels an `Activation`: frames, a bias that nobody has added yet, and, where the block before could add
them up in passing, the sums of the next norm. Each block is the plain module of the same name with prepared weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import cast

import torch
from torch import Tensor, nn

from restoration_runner.models.kernels.group_sums import GroupNormWeights, GroupSums, group_sums, scale_and_shift
from restoration_runner.models.kernels.normalise import normalise_into
from restoration_runner.models.kernels.residual import add_residual, add_residual_into
from restoration_runner.models.seedvr2 import vae
from restoration_runner.models.seedvr2.fast.vae_causal import CausalConv, CausalInput, RingConv, Room
from restoration_runner.models.seedvr2.fast.vae_state import FastState, VaeKnobs
from restoration_runner.models.seedvr2.fast.vae_strips import StripConv


@dataclass(frozen=True)
class Activation:
    """The value x + bias; x `[T, H, W, C]` contiguous, bias `[C]` fp32. sums: of the value, where they are known."""

    x: Tensor
    bias: Tensor
    sums: GroupSums | None = None

    def value(self) -> Tensor:
        return (self.x.float() + self.bias).to(self.x.dtype)

    def split(self, frames: int) -> Iterator["Activation"]:
        for t in range(0, self.x.shape[0], frames):
            sums = None if self.sums is None else self.sums.frames(t, t + frames)
            yield Activation(self.x[t : t + frames], self.bias, sums)


def weight_of(module: nn.Module) -> Tensor:
    """Detached: the fast network is for inference."""
    return cast(Tensor, module.weight).detach()


def bias_of(module: nn.Module) -> Tensor:
    return cast(Tensor, module.bias).detach()


class Stage(Enum):
    """What a convolution's place in the network says about its form.

    FULL: the full-resolution stages, which hold nearly all memory (see `VaeKnobs.frames_at_once`). RING: frames come
    together, but are large enough to be convolved one by one, where memory is not scarce. DEEP: small frames, convolved
    together.
    """

    FULL = "full"
    RING = "ring"
    DEEP = "deep"


def causal_conv(conv: vae.CausalConv3d, *, stage: Stage, knobs: VaeKnobs) -> CausalConv:
    """`conv` with a ring or in strips where it stands in those stages and the knobs ask for that."""
    weight, bias = weight_of(conv), bias_of(conv)
    if stage is Stage.FULL and knobs.strip_rows is not None:
        return StripConv(weight, bias, rows=knobs.strip_rows, past_on_host=knobs.past_on_host)
    if stage is not Stage.DEEP and knobs.frames_at_once == 1 and knobs.strip_rows is None:
        return RingConv(weight, bias)
    return CausalConv(weight, bias)


class Norm:
    """GroupNorm of single frames."""

    def __init__(self, norm: vae.FrameNorm) -> None:
        self.weights = GroupNormWeights(
            weight_of(norm).float().contiguous(), bias_of(norm).float().contiguous(), norm.num_groups, norm.eps
        )

    def scale_and_shift(self, a: Activation) -> tuple[Tensor, Tensor]:
        sums = a.sums if a.sums is not None else group_sums(a.x, a.bias, self.weights.groups)
        return scale_and_shift(sums, a.bias, self.weights)

    def apply(self, a: Activation, *, silu: bool, out: Tensor) -> Tensor:
        """`out`, filled; it may be a.x itself."""
        normalise_into(out, a.x, *self.scale_and_shift(a), slot=0, silu=silu)
        return out


class ResBlock:
    def __init__(self, block: vae.ResBlock, *, stage: Stage, knobs: VaeKnobs) -> None:
        self.norm1, self.norm2 = Norm(block.norm1), Norm(block.norm2)
        self.conv1 = self._conv(block.conv1, stage=stage, knobs=knobs)
        self.conv2 = self._conv(block.conv2, stage=stage, knobs=knobs)
        self.skip: Tensor | None = None  # [inputs, outputs]
        if isinstance(block.skip, vae.PointwiseConv3d):
            self.skip = weight_of(block.skip).flatten(1).t().contiguous()
            self.skip_bias = bias_of(block.skip).float()

    def _conv(self, conv: vae.CausalConv3d, *, stage: Stage, knobs: VaeKnobs) -> CausalConv:
        return causal_conv(conv, stage=stage, knobs=knobs)

    def __call__(self, a: Activation, state: FastState | None) -> Activation:
        d = self._difference(a, state)
        if self.skip is not None:
            return self._skipped(a, d)
        sums = add_residual(a.x, d, self._bias(a), groups=self.norm2.weights.groups)
        return Activation(d, torch.zeros_like(a.bias), sums)

    def into(self, a: Activation, following: CausalInput, state: FastState | None) -> Room:
        """The block's result where the following layer reads it."""
        d = self._difference(a, state)
        room = following.room(d, state)
        self._write(a, d, room)
        return room

    def into_room(self, a: Activation, room: Room, state: FastState | None) -> None:
        """The same, into a room that is there already and has place for more frames."""
        self._write(a, self._difference(a, state), room)

    def _write(self, a: Activation, d: Tensor, room: Room) -> None:
        if self.skip is not None:
            room.fill(self._skipped(a, d).value())
        else:
            add_residual_into(room.buffer, a.x, d, self._bias(a), slot=room.slot, copies=room.copies)

    def _difference(self, a: Activation, state: FastState | None) -> Tensor:
        h = Activation(self.conv1.of_normalised(a.x, *self.norm1.scale_and_shift(a), state), self.conv1.bias)
        return self.conv2.of_normalised(h.x, *self.norm2.scale_and_shift(h), state, overwrite=True)

    def _skipped(self, a: Activation, d: Tensor) -> Activation:
        """A 1×1×1 convolution beside the block: a matrix product that adds to `d` in place."""
        assert self.skip is not None
        rows = d.view(-1, d.shape[-1])
        torch.addmm(rows, a.x.reshape(-1, a.x.shape[-1]), self.skip, out=rows)
        return Activation(d, self._bias(a))

    def _bias(self, a: Activation) -> Tensor:
        """Of the sum that the block makes: the second convolution's, and what is beside it."""
        if self.skip is None:
            return self.conv2.bias + a.bias
        return self.conv2.bias + self.skip_bias + a.bias @ self.skip.float()
