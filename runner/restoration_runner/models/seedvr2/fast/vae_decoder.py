"""The fast decoder: latents to frames."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from torch import Tensor

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
from restoration_runner.models.seedvr2.fast.vae_causal import CausalConv, Room
from restoration_runner.models.seedvr2.fast.vae_last_conv import LastConv
from restoration_runner.models.seedvr2.fast.vae_middle import MiddleBlock
from restoration_runner.models.seedvr2.fast.vae_state import FastState, VaeKnobs
from restoration_runner.models.seedvr2.fast.vae_upsample import Upsample, upsample
from restoration_runner.models.seedvr2.fast.vae_winograd import res_block


@dataclass(frozen=True)
class Level:
    """Residual blocks, then twice the height and width (and time), or none of that at the end."""

    blocks: list[ResBlock]
    up: Upsample | None


def prepare_level(level: vae.Level, config: VaeConfig, *, full_resolution: bool, knobs: VaeKnobs) -> Level:
    blocks = [cast(vae.ResBlock, block) for block in level.blocks]
    up = None
    if isinstance(level.resample, vae.Upsample):
        up = upsample(level.resample, groups=config.groups, full_resolution=full_resolution, knobs=knobs)
    stage = Stage.FULL if full_resolution else Stage.DEEP
    return Level([res_block(block, stage=stage, knobs=knobs) for block in blocks], up)


class Decoder:
    """`[t, h, w, latent]` to `[T, H, W, 3]`, not clamped."""

    def __init__(self, decoder: vae.Decoder, config: VaeConfig, knobs: VaeKnobs) -> None:
        self.frames_at_once = knobs.frames_at_once
        self.conv_in = CausalConv(weight_of(decoder.conv_in), bias_of(decoder.conv_in))
        self.middle = MiddleBlock(decoder.middle, knobs=knobs)
        # All levels after the last that doubles time see every frame.
        self.whole_rate = config.temporal_levels
        self.second_level = knobs.second_level and config.temporal_levels > 0
        first = self.whole_rate - self.second_level
        self.levels = [
            prepare_level(
                cast(vae.Level, level),
                config,
                full_resolution=i >= first,
                knobs=knobs.of_decoder(len(decoder.levels) - 1 - i),
            )
            for i, level in enumerate(decoder.levels)
        ]
        self.norm_out = Norm(decoder.norm_out)
        self.conv_out = LastConv(decoder.conv_out)

    def __call__(self, z: Tensor, state: FastState | None) -> Iterator[Tensor]:
        """A few frames at a time, as they are made; whoever takes the next ones lets them be computed."""
        if self.frames_at_once is None or (state is None and z.shape[0] == 1):
            yield self._frames(through(self.levels, self._middle(z, state), state), state)
            return
        levels = self.levels[self.whole_rate :]
        state = state or FastState()  # steps of one clip follow each other like chunks of a stream
        for step in self._steps(z, state):
            held = [step]
            del step  # so that its memory is free as soon as the first block has read it
            yield self._frames(through(levels, held.pop(), state), state)

    def _middle(self, z: Tensor, state: FastState | None) -> Activation:
        room = self.conv_in.room(z, state)
        room.fill(z)
        return self.middle(Activation(self.conv_in.run(room, state), self.conv_in.bias), state)

    def _steps(self, z: Tensor, state: FastState) -> Iterator[Activation]:
        """What enters the full-resolution stages, a few frames at a time, made as it is asked for."""
        assert self.frames_at_once is not None
        before = self.levels[: self.whole_rate]
        if not before:
            yield from self._middle(z, state).split(self.frames_at_once)
            return
        a = through(before[:-1], self._middle(z, state), state)
        for part in a.split(1) if self.second_level else (a,):
            room, up = before_up(before[-1], part, state)
            if self.second_level:
                yield from up.parts(room, state, 1)
                continue
            # Upsampling over time makes pairs.
            for group in up.parts(room, state, max(2, self.frames_at_once)):
                yield from group.split(self.frames_at_once)

    def _frames(self, a: Activation, state: FastState | None) -> Tensor:
        return self.conv_out(self.norm_out.apply(a, silu=True, out=a.x), state)


def through(levels: list[Level], a: Activation, state: FastState | None) -> Activation:
    """One loop over all blocks, and callers keep no activation: a full-resolution one is gigabytes."""
    for level in levels:
        if level.up is None:
            for block in level.blocks:
                a = block(a, state)
        else:
            room, up = before_up(level, a, state)
            del a
            a = up(room, state)
            del room
    return a


def before_up(level: Level, a: Activation, state: FastState | None) -> tuple[Room, Upsample]:
    """The blocks of a level, written where its upsampling reads."""
    assert level.up is not None
    for block in level.blocks[:-1]:
        a = block(a, state)
    return level.blocks[-1].into(a, level.up.input, state), level.up
