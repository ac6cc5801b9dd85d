"""Residual blocks whose convolutions take four frames a time by Winograd's transform over time (`kernels/winograd.py`).

Half of the multiplications for one and a half maps a frame written and read once more. What has no place in a group of
four, a clip's first frame and the last frames of a call whose number is no multiple of four, is convolved as elsewhere.
Earlier frames are kept as they came, with scale and shift of their norm: a map is then rounded once.

In bf16 the maps are rounded where the direct form rounds nothing. Measured against fp32, random weights, the whole 3B
VAE: encoding 0.0118, decoding 0.0122 (relative L2), where the direct form has 0.0113 and 0.0118 and the plain network
in bf16 0.0125 and 0.0128.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from restoration_runner.models.kernels.group_sums import GroupSums, group_sums, join_sums
from restoration_runner.models.kernels.normalise import normalise_into
from restoration_runner.models.kernels.residual import add_residual_into
from restoration_runner.models.kernels.winograd import FRAMES, Raw, map_weights, to_frames, to_maps
from restoration_runner.models.seedvr2 import vae
from restoration_runner.models.seedvr2.fast.vae_blocks import Activation, ResBlock, Stage, bias_of, weight_of
from restoration_runner.models.seedvr2.fast.vae_causal import CausalConv, CausalInput, Room
from restoration_runner.models.seedvr2.fast.vae_convolve import channels_last, convolve
from restoration_runner.models.seedvr2.fast.vae_state import FastState, VaeKnobs, past_of

MOST_PIXELS = 2**20
"""Of the frames whose maps exist at one time, where there are more than four: four of 640×360, all of smaller ones."""


class WinogradConv(CausalConv):
    """A causal 3×3×3 convolution of normalised frames, four at a time."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__(weight, bias)
        self.map_weights = [channels_last(of_map, weight.dtype) for of_map in map_weights(weight)]

    def pieces(self, raw: Raw, state: FastState | None, *, out: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Which frames, and their output without the bias: maps `[6, fours, H, W, O]`, or `[n, H, W, O]`.

        out: of all frames; where it is given, what is no map is in its place there.
        """
        earlier, done = self._earlier(raw, state), 0
        if earlier is None:
            yield slice(0, 1), self._direct(raw[:1], self.still, out, slice(0, 1))
            earlier, done = raw[:1].twice(), 1
        rest = len(raw) - (len(raw) - done) % FRAMES
        size = most_frames(raw.x[0, ..., 0].numel())
        for start in range(done, rest, size):
            frames = slice(start, min(start + size, rest))
            maps = to_maps(earlier, raw[frames])
            yield frames, self._convolved(maps)
            del maps
            earlier = raw[frames][-2:]
        if rest < len(raw):
            frames = slice(rest, len(raw))
            yield frames, self._direct(joined(earlier, raw[frames]), self.weight, out, frames)
        self._keep(raw[-2:] if len(raw) > 1 else joined(earlier[-1:], raw), len(raw), state)

    def _convolved(self, maps: Tensor) -> Tensor:
        made = maps.new_empty((*maps.shape[:-1], self.weight.shape[0]))
        for of_map, weight, out in zip(maps, self.map_weights, made, strict=True):
            convolve(of_map, weight, out=out)
        return made

    def _direct(self, raw: Raw, weight: Tensor, out: Tensor | None, frames: slice) -> Tensor:
        buffer = torch.empty_like(raw.x, memory_format=torch.contiguous_format)
        normalise_into(buffer, raw.x, raw.scale, raw.shift, slot=0)
        return convolve(buffer, weight, out=None if out is None else out[frames])

    def _earlier(self, raw: Raw, state: FastState | None) -> Raw | None:
        past = past_of(state, self)
        return None if past is None or past.norm is None else Raw(past.frames, *past.norm)

    def _keep(self, last: Raw, frames: int, state: FastState | None) -> None:
        if state is None:
            return
        past = past_of(state, self)
        # A view keeps all frames of the call alive: of four that is cheaper than a copy of two.
        x = last.x if frames <= FRAMES else last.x.clone()
        state.remember(self, x, seen=frames + (past.seen if past else 0), norm=(last.scale, last.shift))


def most_frames(pixels: int) -> int:
    """Of so many pixels each, whose maps exist at one time."""
    return FRAMES * max(1, MOST_PIXELS // (FRAMES * pixels))


def joined(earlier: Raw, new: Raw) -> Raw:
    return Raw(*(torch.cat(pair) for pair in zip(earlier.parts, new.parts, strict=True)))


class WinogradBlock(ResBlock):
    """The same block; both convolutions end in the pass that adds the residual or the sums of the next norm.

    Never with strips, whose `into_room` takes frames one by one.
    """

    conv1: WinogradConv
    conv2: WinogradConv

    def _conv(self, conv: vae.CausalConv3d, *, stage: Stage, knobs: VaeKnobs) -> CausalConv:
        return WinogradConv(weight_of(conv), bias_of(conv))

    def __call__(self, a: Activation, state: FastState | None) -> Activation:
        h = self._between(a, state)
        x, bias = self._residual(a), self._bias(a)
        y = torch.empty_like(x)
        sums = self._onto(x, bias, h, Room(y, slot=0, copies=0, seen=0), state, groups=self.norm2.weights.groups)
        return Activation(y, torch.zeros_like(bias), join_sums(sums))

    def into(self, a: Activation, following: CausalInput, state: FastState | None) -> Room:
        h = self._between(a, state)
        x = self._residual(a)
        room = following.room(x, state)
        self._onto(x, self._bias(a), h, room, state, groups=None)
        return room

    def _between(self, a: Activation, state: FastState | None) -> Activation:
        """What the first convolution makes."""
        groups, bias = self.norm2.weights.groups, self.conv1.bias
        y = a.x.new_empty((*a.x.shape[:3], self.conv1.weight.shape[0]))
        sums = []
        for frames, made in self.conv1.pieces(Raw(a.x, *self.norm1.scale_and_shift(a)), state, out=y):
            found = to_frames(made, bias, y[frames], groups=groups) if made.ndim == 5 else None
            sums.append(group_sums(y[frames], bias, groups) if found is None else found)
        return Activation(y, bias, join_sums(sums))

    def _residual(self, a: Activation) -> Tensor:
        """What is added to the second convolution."""
        return a.x if self.skip is None else a.x @ self.skip

    def _onto(
        self, x: Tensor, bias: Tensor, h: Activation, room: Room, state: FastState | None, *, groups: int | None
    ) -> list[GroupSums]:
        """x + bias + the second convolution of h, in the room; its sums where a number of groups is given."""
        sums = []
        for frames, made in self.conv2.pieces(Raw(h.x, *self.norm2.scale_and_shift(h)), state):
            part, added = room.part(frames.start), x[frames]
            y = part.buffer[part.slot : part.slot + len(added)]
            if made.ndim == 5:
                found = to_frames(made, bias, y, residual=added, groups=groups)
            else:
                add_residual_into(part.buffer, added, made, bias, slot=part.slot, copies=part.copies)
                found = group_sums(y, torch.zeros_like(bias), groups) if groups else None
            sums += [] if found is None else [found]
        return sums


def res_block(block: vae.ResBlock, *, stage: Stage, knobs: VaeKnobs) -> ResBlock:
    return (WinogradBlock if knobs.winograd else ResBlock)(block, stage=stage, knobs=knobs)
