"""A convolution of a normalised frame in strips of rows, for little memory."""

import torch
from torch import Tensor

from restoration_runner.models.kernels.normalise import normalise_into
from restoration_runner.models.seedvr2.fast.vae_causal import CausalConv
from restoration_runner.models.seedvr2.fast.vae_convolve import convolve
from restoration_runner.models.seedvr2.fast.vae_past_rows import DevicePast, HostPast, strips
from restoration_runner.models.seedvr2.fast.vae_state import FastState, past_of


class StripConv(CausalConv):
    """One frame a call, in strips of rows: the normalised input exists for one strip and two earlier frames only.

    The frame's statistics are complete before its first strip, so a strip needs one row of halo on either side and
    nothing else. Measured on one H100, decoding 21 frames 1920×1088 one latent a call: in strips of 136 rows 17.4
    instead of 22.4 GiB beside the weights, and 1733 instead of 1528 ms (before rings were 2-D). Frames side by side, as
    in rings, do not pay here: 1786 ms in strips of 272 rows, and 3422 instead of 3024 ms for 9 frames 3840×2160,
    because the earlier frames are copied into each strip, and copies of whole rows are faster.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, rows: int, past_on_host: bool = False) -> None:
        super().__init__(weight, bias)
        self.rows, self.past_on_host = rows, past_on_host

    def of_normalised(
        self, x: Tensor, scale: Tensor, shift: Tensor, state: FastState | None, *, overwrite: bool = False
    ) -> Tensor:
        """In memory of its own: a strip needs a row of x that the strip before would have overwritten."""
        T, H, W, _ = x.shape
        if T != 1:
            raise ValueError(f"strips take one frame a call, not {T}")
        past = past_of(state, self)
        out = x.new_empty((1, H, W, self.weight.shape[0]))
        frames: Tensor | None
        if past is not None:
            self._later(x, scale, shift, (DevicePast, HostPast)[self.past_on_host](past, strips(H, self.rows), x), out)
            frames, seen = past.frames, past.seen + 1
        else:
            frames, seen = self._past_for(x) if state is not None else None, 1
            self._first(x, scale, shift, frames, out)
        if state is not None and frames is not None:
            state.remember(self, frames, seen=seen)
        return out

    def _first(self, x: Tensor, scale: Tensor, shift: Tensor, kept: Tensor | None, out: Tensor) -> None:
        for strip in strips(x.shape[1], self.rows):
            buffer = strip.buffer(1, x)
            normalise_into(strip.inside(buffer), x[:, strip.start : strip.stop], scale, shift, slot=0)
            convolve(buffer, self.still, pad=(0, 1), out=out[:, strip.first : strip.last])
            for frame in kept if kept is not None else ():
                frame[strip.first : strip.last].copy_(strip.core(buffer)[0], non_blocking=True)

    def _later(self, x: Tensor, scale: Tensor, shift: Tensor, past: DevicePast | HostPast, out: Tensor) -> None:
        row_above: Tensor | None = None  # of the frame before last, whose place the new frame has taken already
        for strip in past.strips:
            buffer = past.load(strip)
            inside = strip.inside(buffer)
            if row_above is not None:
                inside[0, 0] = row_above
            row_above = strip.core(buffer)[0, -1].clone()
            normalise_into(inside, x[:, strip.start : strip.stop], scale, shift, slot=2)
            past.store(strip, buffer)
            convolve(buffer, self.weight, pad=(0, 1), out=out[:, strip.first : strip.last])
        past.finish()

    def _past_for(self, x: Tensor) -> Tensor:
        """Two frames. Page-locked where on the host, so that copies are ordered by streams and nobody waits."""
        if not self.past_on_host:
            return x.new_empty((2, *x.shape[1:]))
        return torch.empty((2, *x.shape[1:]), dtype=x.dtype, pin_memory=x.is_cuda)
