"""The fast encoder: frames to moments."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from restoration_runner.models.kernels.unfold_taps import unfold_taps, unfolded_weight
from restoration_runner.models.seedvr2 import vae
from restoration_runner.models.seedvr2.config import VaeConfig
from restoration_runner.models.seedvr2.fast.vae_blocks import (
    Activation,
    Norm,
    ResBlock,
    Stage,
    bias_of,
    weight_of,
)
from restoration_runner.models.seedvr2.fast.vae_causal import CausalConv
from restoration_runner.models.seedvr2.fast.vae_convolve import channels_last, convolve
from restoration_runner.models.seedvr2.fast.vae_middle import MiddleBlock
from restoration_runner.models.seedvr2.fast.vae_state import FastState, VaeKnobs, past_of, with_two_before
from restoration_runner.models.seedvr2.fast.vae_winograd import res_block


class FirstConv:
    """3×3×3 from a few image channels, its taps over time and width unfolded (`kernels/unfold_taps.py`)."""

    def __init__(self, conv: vae.CausalConv3d) -> None:
        weight = weight_of(conv)
        self.weight, self.bias = channels_last(unfolded_weight(weight), weight.dtype), bias_of(conv).float()

    def __call__(self, x: Tensor, state: FastState | None) -> Activation:
        known = with_two_before(x, self, state)
        return Activation(convolve(unfold_taps(known), self.weight, pad=(1, 0)), self.bias)


@dataclass(frozen=True)
class Level:
    """Residual blocks, then half the height and width (and time), or none of that at the end."""

    blocks: list[ResBlock]
    down: CausalConv | None


def prepare_level(level: vae.Level, *, stage: Stage, knobs: VaeKnobs) -> Level:
    blocks = [cast(vae.ResBlock, block) for block in level.blocks]
    down = downsample(level.resample) if isinstance(level.resample, vae.Downsample) else None
    return Level([res_block(block, stage=stage, knobs=knobs) for block in blocks], down)


def downsample(block: vae.Downsample) -> CausalConv:
    """Pads on the right and at the bottom: its room has a row and a column of zeros."""
    conv = block.conv
    stride = (conv.stride[0], conv.stride[1], conv.stride[2])
    return CausalConv(weight_of(conv), bias_of(conv), stride=stride, pad=(0, 0), extra=conv.pad_end)


class Encoder:
    """`[T, H, W, 3]` to moments `[t, h, w, 2·latent]`."""

    def __init__(self, encoder: vae.Encoder, config: VaeConfig, knobs: VaeKnobs) -> None:
        knobs = knobs.of_encoder
        self.frames_at_once = knobs.frames_at_once
        self.conv_in = FirstConv(encoder.conv_in)
        # All levels before the first that halves time see every frame, and so do its blocks.
        self.whole_rate = len(config.channels) - 1 - config.temporal_levels
        self.second_level = knobs.second_level and config.temporal_levels > 0
        self.levels = [
            prepare_level(cast(vae.Level, level), stage=self._stage(i), knobs=knobs)
            for i, level in enumerate(encoder.levels)
        ]
        self.middle = MiddleBlock(encoder.middle, knobs=knobs)
        self.norm_out = Norm(encoder.norm_out)
        self.conv_out = CausalConv(weight_of(encoder.conv_out), bias_of(encoder.conv_out))

    def _stage(self, level: int) -> Stage:
        """The level that halves time first still sees every frame, large ones: 795 instead of 729 TFLOP/s in rings."""
        if level < self.whole_rate + self.second_level:
            return Stage.FULL
        return Stage.RING if level == self.whole_rate else Stage.DEEP

    def __call__(self, x: Tensor, state: FastState | None) -> Tensor:
        if self.second_level:
            a = through(self.levels[self.whole_rate + 1 :], self._two_levels(x, state or FastState()), state)
        else:
            a = through(self.levels[self.whole_rate :], self._full_resolution(x, state), state)
        a = self.middle(a, state)
        out = self.conv_out.of_normalised(a.x, *self.norm_out.scale_and_shift(a), state)
        return Activation(out, self.conv_out.bias).value()

    def _full_resolution(self, x: Tensor, state: FastState | None) -> Activation:
        step = self.frames_at_once or x.shape[0]
        levels = self.levels[: self.whole_rate]
        if x.shape[0] <= step:
            return through(levels, self.conv_in(x, state), state)
        state = state or FastState()  # steps of one clip follow each other like chunks of a stream
        steps = groups(x, step, is_first=past_of(state, self.conv_in) is None)
        made = [through(levels, self.conv_in(part, state), state) for part in steps]
        return Activation(torch.cat([a.x for a in made]), made[0].bias)

    def _two_levels(self, x: Tensor, state: FastState) -> Activation:
        """Frame by frame, up to and with the first level that halves time, which takes two of them at once."""
        level = self.levels[self.whole_rate]
        assert level.down is not None
        made = []
        for group in groups(x, 2, is_first=past_of(state, level.down) is None):
            room = None
            for t, frame in enumerate(group.split(1)):
                a = through(self.levels[: self.whole_rate], self.conv_in(frame, state), state)
                for block in level.blocks[:-1]:
                    a = block(a, state)
                if room is None:
                    like = a.x[..., :1].expand(len(group), -1, -1, level.down.weight.shape[1])
                    room = level.down.room(like, state)
                level.blocks[-1].into_room(a, room.part(t), state)
                del a
            assert room is not None
            made.append(level.down.run(room, state))
            del room
        return Activation(torch.cat(made), level.down.bias)


def groups(x: Tensor, size: int, *, is_first: bool) -> list[Tensor]:
    """So many frames together; a clip's first one stays alone."""
    return ([x[:1]] if is_first else []) + [group for group in x[int(is_first) :].split(size) if len(group)]


def through(levels: list[Level], a: Activation, state: FastState | None) -> Activation:
    """One loop over all blocks, and callers keep no activation: a full-resolution one is gigabytes."""
    for level in levels:
        for block in level.blocks if level.down is None else level.blocks[:-1]:
            a = block(a, state)
        if level.down is not None:
            room = level.blocks[-1].into(a, level.down, state)
            del a
            a = Activation(level.down.run(room, state), level.down.bias)
            del room
    return a
