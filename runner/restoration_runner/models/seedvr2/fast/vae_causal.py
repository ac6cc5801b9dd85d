"""Causal convolutions over frames `[T, H, W, C]` that read one buffer: earlier frames first, then the new ones.

Whoever makes the input writes it into a `Room` of that buffer, so nothing is joined or padded by copying. A clip's
first frame sees three times itself, so it is convolved in two dimensions with weights summed over time. Biases are
never added here: they travel as `Activation.bias` to the next kernel that reads the values anyway. Measured on one
H100: the 2-D first frame takes decoding of 21 frames 1280×720 from 684 to 658 ms.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from restoration_runner.models.kernels.normalise import normalise_into
from restoration_runner.models.seedvr2.fast.vae_convolve import (
    channels_last,
    convolve,
    frames_as_channels,
    output_shape,
)
from restoration_runner.models.seedvr2.fast.vae_state import FastState, past_of


@dataclass(frozen=True)
class Room:
    """Where the input of a causal layer goes: frames `slot…` of `buffer`, and the `copies` slots before get frame 0.

    buffer `[slots, H, W, C]`. seen: frames of the stream before these.
    """

    buffer: Tensor
    slot: int
    copies: int
    seen: int

    def part(self, t: int) -> "Room":
        """The same from frame t of the new ones on."""
        return Room(self.buffer, self.slot + t, 0 if t else self.copies, self.seen)

    def fill(self, x: Tensor) -> None:
        """Copy frames that no kernel writes here; `x [T, H, W, C]` may be smaller than the buffer's frames."""
        T, H, W, _ = x.shape
        self.buffer[self.slot : self.slot + T, :H, :W] = x
        if self.copies:
            self.buffer[self.slot - self.copies : self.slot, :H, :W] = x[0]


class CausalInput:
    """The input of a layer that sees `kept` earlier frames again.

    A clip's first frame has nothing before it and is treated on its own, so its room holds `kept - 1` copies of it, for
    the frame after. extra: rows and columns of zeros behind each frame, for convolutions that pad on one side only.
    """

    def __init__(self, *, kept: int, extra: int = 0) -> None:
        self.kept, self.extra = kept, extra

    def room(self, like: Tensor, state: FastState | None) -> Room:
        """For as many frames of that size as `like [T, H, W, C]`."""
        T, H, W, C = like.shape
        past = past_of(state, self)
        is_alone = state is None and T == 1
        copies = max(0, self.kept - 1) if past is None and not is_alone else 0
        slot = copies if past is None else past.frames.shape[0]
        buffer = like.new_empty((slot + T, H + self.extra, W + self.extra, C))
        if self.extra:
            buffer[:, H:] = 0
            buffer[:, :, W:] = 0
        if past is not None:
            buffer[:slot] = past.frames
        return Room(buffer, slot, copies, 0 if past is None else past.seen)

    def remember(self, room: Room, state: FastState | None) -> None:
        if state is None or not self.kept:
            return
        tail = room.buffer[-self.kept :]
        if tail.shape[0] < room.buffer.shape[0]:
            tail = tail.clone()  # a view would keep the whole buffer alive
        state.remember(self, tail, seen=room.seen + room.buffer.shape[0] - room.slot)


@dataclass(frozen=True)
class Call:
    """One convolution: x `[T + kt - 1, H, W, C]`, weight `[O, C, kt, kh, kw]`."""

    x: Tensor
    weight: Tensor


class CausalConv(CausalInput):
    """kt × kh × kw taps, whose window in time ends at the current frame.

    weight `[O, C, kt, kh, kw]`, bias `[O]`; pad: zeros on either side of rows and columns. dtype: to compute in, where
    it is not that of the weight.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        *,
        stride: tuple[int, int, int] = (1, 1, 1),
        pad: tuple[int, int] = (1, 1),
        extra: int = 0,
        dtype: torch.dtype | None = None,
    ) -> None:
        taps = weight.shape[2]
        super().__init__(kept=max(0, taps - stride[0]), extra=extra)
        self.stride, self.pad = stride, pad
        dtype = dtype or weight.dtype
        self.bias = bias.float()
        self.weight = channels_last(weight, dtype)
        wide = torch.promote_types(weight.dtype, torch.float32)  # summed and only then rounded
        self.still = self.weight if taps == 1 else channels_last(weight.to(wide).sum(2, keepdim=True), dtype)

    def calls(self, room: Room, state: FastState | None) -> list[Call]:
        """What turns the frames in the room into the output, in this order."""
        self.remember(room, state)
        if room.seen or self.still is self.weight:
            return [Call(room.buffer, self.weight)]
        first = Call(room.buffer[room.slot : room.slot + 1], self.still)
        is_only = room.buffer.shape[0] == room.slot + 1
        return [first] if is_only else [first, Call(room.buffer, self.weight)]

    def run(self, room: Room, state: FastState | None, *, out: Tensor | None = None) -> Tensor:
        """Output `[T', H', W', O]` of the frames in the room, without the bias; in `out` where given."""
        calls = self.calls(room, state)
        shapes = [output_shape(call.x, call.weight, self.stride, self.pad) for call in calls]
        if out is None:
            out = room.buffer.new_empty((sum(shape[0] for shape in shapes), *shapes[0][1:]))
        start = 0
        for call, shape in zip(calls, shapes, strict=True):
            part = out[start : start + shape[0]]
            convolve(call.x, call.weight, stride=self.stride, pad=self.pad, out=part)
            start += shape[0]
        return out

    def of_normalised(
        self, x: Tensor, scale: Tensor, shift: Tensor, state: FastState | None, *, overwrite: bool = False
    ) -> Tensor:
        """The convolution of silu(x·scale + shift), see `normalise_into`.

        overwrite: nobody needs x any more, and the output, of the same size, may take its memory.
        """
        room = self.room(x, state)
        normalise_into(room.buffer, x, scale, shift, slot=room.slot, copies=room.copies)
        return self.run(room, state, out=x if overwrite else None)


class RingConv(CausalConv):
    """Three taps, frame by frame: the last three frames stay where they are, and the weights turn instead.

    The frames lie side by side as channels, so that three taps over time are one 2-D convolution, for which cuDNN has
    faster kernels. Slot j of a ring whose newest frame is in slot s holds time tap (j - s - 1) mod 3. Measured on one
    H100: 738 instead of 649 TFLOP/s for 128 channels, 706 instead of 598 for 256 to 128, 795 instead of 733 for 256;
    21 frames 1280×720, one latent a call, take 323 + 645 ms, against 346 + 694 when earlier frames are copied.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, dtype: torch.dtype | None = None) -> None:
        super().__init__(weight, bias, dtype=dtype)
        turns = [[(slot - newest - 1) % 3 for slot in range(3)] for newest in range(3)]
        self._turned = [frames_as_channels(weight[:, :, taps], dtype or weight.dtype) for taps in turns]

    def of_normalised(
        self, x: Tensor, scale: Tensor, shift: Tensor, state: FastState | None, *, overwrite: bool = False
    ) -> Tensor:
        T, H, W, _ = x.shape
        if T == 1:
            return super().of_normalised(x, scale, shift, state, overwrite=overwrite)
        state = state or FastState()  # frames of one clip follow each other like chunks of a stream
        out = x if overwrite else x.new_empty((T, H, W, self.weight.shape[0]))
        for t in range(T):
            frame = slice(t, t + 1)
            room = self.room(x[frame], state)
            normalise_into(room.buffer, x[frame], scale[frame], shift[frame], slot=room.slot, copies=room.copies)
            self.run(room, state, out=out[frame])
        return out

    def room(self, like: Tensor, state: FastState | None) -> Room:
        if like.shape[0] != 1:
            raise ValueError(f"a ring takes one frame at a time, not {like.shape[0]}")
        if state is None:
            return super().room(like, None)
        past = state.past(self)
        if past is None:
            return Room(side_by_side(3, like), slot=2, copies=1, seen=0)
        return Room(past.frames, slot=(past.seen + 2) % 3, copies=0, seen=past.seen)

    def calls(self, room: Room, state: FastState | None) -> list[Call]:
        if state is not None:
            state.remember(self, room.buffer, seen=room.seen + 1)
        if room.seen == 0:
            return [Call(room.buffer[room.slot :].contiguous(), self.still)]
        return [Call(as_one_image(room.buffer), self._turned[room.slot])]


def side_by_side(frames: int, like: Tensor) -> Tensor:
    """`[frames, H, W, C]` whose frames lie side by side as channels; H, W and C those of `like [T, H, W, C]`."""
    _, H, W, C = like.shape
    return like.new_empty((H, W, frames, C)).permute(2, 0, 1, 3)


def as_one_image(x: Tensor) -> Tensor:
    """Frames that lie side by side as `[1, H, W, frames·C]`, without a copy."""
    return x.permute(1, 2, 0, 3).flatten(2)[None]
