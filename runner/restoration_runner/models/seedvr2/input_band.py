"""What a small autoencoder loses comes from the input: its low frequencies, put back into the output.

The released VAE passes pictures almost unharmed. A small one cannot tell fast motion apart with 16 numbers for 8×8×4
pixels, and shows ghosts of the frames beside. The input knows better: below the reach of its noise it is right. So the
model decides the detail, and the input everything slower than a few pixels: `output + B(input - output)`.

The fastest octave of that band has both, noise of the input and errors of the model, but errors are larger where they
are at all. It is weighted by its own energy around each pixel, as Wiener's filter would: e / (e + noise²).
"""

from collections import deque
from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

from restoration_runner.models.seedvr2.description import InputBandRule
from restoration_runner.restoration.grid import SegmentWork
from restoration_runner.restoration.wavelet import low_pass

ENERGY_RADIUS = 8
"""Around a pixel, 17×17: four of the smallest waves of the octave, enough to tell noise from a ghost."""


class InputBand:
    """Of one segment's run. Holds the frames between encoder and decoder: those of a window and the decoder's lag."""

    def __init__(self, work: SegmentWork, rule: InputBandRule) -> None:
        self._work, self._rule = work, rule
        self._held: deque[Tensor] = deque()

    def watched(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        """The same frames; those that the segment owns are remembered."""
        for number, frame in enumerate(frames, start=self._work.encode_from):
            if self._work.first_frame <= number <= self._work.last_frame:
                self._held.append(frame)
            yield frame

    def applied(self, restored: Iterator[Tensor]) -> Iterator[Tensor]:
        """`[3, H, W]` each, in the order of the frames that the segment owns."""
        for frame in restored:
            source = self._held.popleft().to(device=frame.device, dtype=frame.dtype)
            yield put_back(frame, source, self._rule)


def put_back(output: Tensor, source: Tensor, rule: InputBandRule) -> Tensor:
    """`output` with the low frequencies of `source`; both `[..., 3, H, W]` in [-1, 1], result not clamped."""
    fine = low_pass(source - output, rule.radii[:-1])
    coarse = low_pass(fine, rule.radii[-1:])
    if rule.noise == 0:
        return output + fine
    octave = fine - coarse
    energy = _box_mean(octave.mean(-3, keepdim=True).square())
    return output + coarse + octave * (energy / (energy + rule.noise**2))


def _box_mean(x: Tensor) -> Tensor:
    """Mean of `[..., 1, H, W]` around each pixel; borders are replicated."""
    planes = x.reshape(-1, 1, *x.shape[-2:])
    for size in ((1, 2 * ENERGY_RADIUS + 1), (2 * ENERGY_RADIUS + 1, 1)):
        rows, columns = size[0] // 2, size[1] // 2
        planes = F.avg_pool2d(F.pad(planes, (columns, columns, rows, rows), mode="replicate"), size, stride=1)
    return planes.reshape(x.shape)
