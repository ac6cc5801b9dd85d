"""Upsampling in the decoder: merged convolutions (`vae_merge.py`), and the shuffle that also feeds the next norm."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from restoration_runner.models.kernels.group_sums import join_sums
from restoration_runner.models.kernels.pixel_shuffle import shuffle_into
from restoration_runner.models.seedvr2 import vae
from restoration_runner.models.seedvr2.fast.vae_blocks import Activation, bias_of, weight_of
from restoration_runner.models.seedvr2.fast.vae_causal import CausalConv, CausalInput, RingConv, Room
from restoration_runner.models.seedvr2.fast.vae_convolve import channels_last, convolve
from restoration_runner.models.seedvr2.fast.vae_merge import Merged, Position, merge
from restoration_runner.models.seedvr2.fast.vae_state import FastState, VaeKnobs


@dataclass(frozen=True)
class Piece:
    """One convolution of an upsampling: from x `[F + kt - 1, H, W, C]` the next phases·F frames."""

    x: Tensor
    weight: Tensor
    table: Tensor

    @property
    def frames(self) -> int:
        return int(self.table.shape[0]) * (self.x.shape[0] - self.weight.shape[2] + 1)

    def into(self, y: Tensor, groups: int) -> Activation:
        sums = shuffle_into(y, convolve(self.x, self.weight), self.table, groups=groups)
        return Activation(y, self.table.new_zeros(self.table.shape[-1]), sums)

    def split(self, most_frames: int) -> list["Piece"]:
        """Pieces of at most that many frames."""
        kt, inputs = self.weight.shape[2], self.x.shape[0] - self.weight.shape[2] + 1
        phases = self.table.shape[0]
        size = max(1, most_frames // phases)
        pieces = [
            Piece(self.x[a : min(a + size, inputs) + kt - 1], self.weight, self.table) for a in range(0, inputs, size)
        ]
        return pieces if most_frames >= phases else [phase for piece in pieces for phase in piece.phases()]

    def phases(self) -> list["Piece"]:
        """A piece of one input frame as one piece for each of its output frames."""
        outputs = len(self.weight) // len(self.table)
        return [
            Piece(self.x, self.weight[sz * outputs : (sz + 1) * outputs], self.table[sz : sz + 1])
            for sz in range(len(self.table))
        ]


class Upsample:
    """input: of the convolutions, at low resolution. `__call__` and `parts` give `[T', 2H, 2W, C]`."""

    input: CausalInput

    def __init__(self, *, groups: int, knobs: VaeKnobs) -> None:
        self.groups, self.most_frames = groups, knobs.upsample_frames

    def pieces(self, room: Room, state: FastState | None, most_frames: int) -> list[Piece]:
        raise NotImplementedError

    def __call__(self, room: Room, state: FastState | None) -> Activation:
        return self._made(room, self.pieces(room, state, self.most_frames))

    def parts(self, room: Room, state: FastState | None, most_frames: int) -> Iterator[Activation]:
        """The same frame for frame, a few at a time; nothing is computed before it is asked for.

        A clip's first frame is alone, the other ones are together to as many as they may, of even pieces.
        """
        group: list[Piece] = []
        for piece in self.pieces(room, state, min(2, most_frames, self.most_frames)):
            frames = sum(piece.frames for piece in group)
            is_first = room.seen == 0 and frames == 1
            if group and (is_first or frames + piece.frames > most_frames):
                yield self._made(room, group)
                group = []
            group.append(piece)
        yield self._made(room, group)

    def _made(self, room: Room, pieces: list[Piece]) -> Activation:
        y = self._empty(room, pieces[0], sum(piece.frames for piece in pieces))
        made, start = [], 0
        for piece in pieces:
            made.append(piece.into(y[start : start + piece.frames], self.groups))
            start += piece.frames
        sums = join_sums([part.sums for part in made if part.sums is not None])
        return Activation(y, made[0].bias, sums)

    def _empty(self, room: Room, piece: Piece, frames: int) -> Tensor:
        _, H, W, _ = room.buffer.shape
        return room.buffer.new_empty((frames, 2 * H, 2 * W, piece.table.shape[-1]))


class SpatialUpsample(Upsample):
    """Height and width. A causal convolution like others, with a ring where frames go one by one."""

    def __init__(self, block: vae.Upsample, *, groups: int, full_resolution: bool, knobs: VaeKnobs) -> None:
        super().__init__(groups=groups, knobs=knobs)
        merged, dtype = merged_of(block, Position.LATER), weight_of(block.conv).dtype
        self.table = merged.table.float().contiguous()
        # A ring keeps one frame more than is needed between two calls.
        is_ring = full_resolution and knobs.frames_at_once == 1 and not knobs.second_level
        no_bias = self.table.new_zeros(merged.weight.shape[0])
        self.input: CausalConv = (RingConv if is_ring else CausalConv)(merged.weight, no_bias, dtype=dtype)

    def pieces(self, room: Room, state: FastState | None, most_frames: int) -> list[Piece]:
        calls = self.input.calls(room, state)
        return [piece for call in calls for piece in Piece(call.x, call.weight, self.table).split(most_frames)]


class TemporalUpsample(Upsample):
    """Height, width and time. A clip's first frame stays one; its pair and the next one have weights of their own."""

    def __init__(self, block: vae.Upsample, *, groups: int, knobs: VaeKnobs) -> None:
        super().__init__(groups=groups, knobs=knobs)
        self.input = CausalInput(kept=1)
        dtype = weight_of(block.conv).dtype
        self._merged = {}
        for position in Position:
            merged = merged_of(block, position)
            table = merged.table.float().contiguous()
            self._merged[position] = Merged(channels_last(merged.weight, dtype), table)

    def pieces(self, room: Room, state: FastState | None, most_frames: int) -> list[Piece]:
        self.input.remember(room, state)
        x, pieces = room.buffer, []
        if room.seen == 0:
            pieces.append(self._piece(x[:1], Position.FIRST))
        if room.seen <= 1 and x.shape[0] > 1:
            pieces += self._piece(x[:2], Position.SECOND).split(most_frames)
            x = x[1:]
        if x.shape[0] > 1:
            pieces += self._piece(x, Position.LATER).split(most_frames)
        return pieces

    def _piece(self, x: Tensor, position: Position) -> Piece:
        return Piece(x, self._merged[position].weight, self._merged[position].table)


def merged_of(block: vae.Upsample, position: Position) -> Merged:
    """In fp64 for fp32 networks, in fp32 for smaller ones: rounded once, when the weights are prepared."""
    wide = torch.float64 if weight_of(block.conv).dtype is torch.float32 else torch.float32
    expand, conv = ((weight_of(c).to(wide), bias_of(c).to(wide)) for c in (block.expand, block.conv))
    return merge(expand, conv, block.time_factor, position)


def upsample(block: vae.Upsample, *, groups: int, full_resolution: bool, knobs: VaeKnobs) -> Upsample:
    if block.time_factor == 2:
        return TemporalUpsample(block, groups=groups, knobs=knobs)
    return SpatialUpsample(block, groups=groups, full_resolution=full_resolution, knobs=knobs)
