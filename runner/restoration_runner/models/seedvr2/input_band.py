"""What a small autoencoder loses comes from the input: its low frequencies, put back into the output.

The released VAE passes pictures almost unharmed. A small one cannot tell fast motion apart with 16 numbers for 8×8×4
pixels, and shows ghosts of the frames beside. The input knows better: below the reach of its noise it is right. So the
model decides the detail, and the input everything slower than a few pixels, octave by octave.

An octave of the input has three faults of its own. It is weak, because blur and scaling took from it: it is amplified
to the strength that it has in the output (`_amplification`). It is noisy: what is left of the difference is weighted by
its own energy around each pixel, as Wiener's filter would, e / (e + noise²). And how noisy differs from video to video:
the noise is what the difference has in the quiet part of the picture (`_noise_energy`). All of it is found in the frame
itself, so a frame does not depend on where its segment begins.
"""

from collections import deque
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from restoration_runner.models.seedvr2.description import InputBandRule
from restoration_runner.restoration.grid import SegmentWork
from restoration_runner.restoration.wavelet import low_pass, repeat_border

SMALLEST_WAVES = 2
"""In the box around a pixel whose mean is its energy: enough to tell noise from a ghost, few enough to tell where."""
QUIET_SHARE = 0.1
"""Of a picture: what differs least there differs by noise alone, be it sky, wall or whatever stands still."""
CELL = 4
"""Energies are kept for cells of so many pixels: all of them are means over several."""
MOST_AMPLIFICATION = 1.67
"""What is weaker by more than this was not blurred but is something else."""
LARGEST_NOISE = 0.1
"""In [-1, 1], 13 codes of 255: louder is no noise in an octave, but a model that fails everywhere."""
_LUMA = (0.299, 0.587, 0.114)


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
    made, given = low_pass(output, rule.blurs), low_pass(source, rule.blurs)
    for radius in rule.octaves:
        slow_made, slow_given = low_pass(made, (radius,)), low_pass(given, (radius,))
        octave, its = made - slow_made, given - slow_given
        missing = _amplification(its, octave, radius) * its - octave
        energy = _energy(missing, SMALLEST_WAVES * radius)
        share = energy / (energy + rule.caution**2 * _noise_energy(energy) + 1e-12)
        output = output + missing * _enlarged(share, output.shape[-2:])
        made, given = slow_made, slow_given
    return output + (given - made)


@torch.no_grad()
def _amplification(given: Tensor, made: Tensor, radius: int) -> Tensor:
    """`[..., 1, 1, 1]`: what the input's octave must be multiplied by to come as close to the output's as it can.

    Least squares, with the noise taken from the input's squares, because it makes the result too small; errors of the
    model do not, for they have nothing in common with the input. In a picture without a quiet place the noise is found
    too loud: then least squares the other way round, which only the model's errors make too large, is the limit.
    """
    whole = (-3, -2, -1)
    noise = _noise_energy(_energy(given, SMALLEST_WAVES * radius))
    given, made = _luma(given), _luma(made)
    common = (given * made).mean(whole, keepdim=True)
    strength = common / (given.square().mean(whole, keepdim=True) - noise).clamp(min=1e-9)
    limit = made.square().mean(whole, keepdim=True) / common.clamp(min=1e-9)
    return torch.minimum(strength, limit).clamp(1.0, MOST_AMPLIFICATION)


def _energy(x: Tensor, radius: int) -> Tensor:
    """Mean square of luma within `radius` of every cell, `[..., 1, H / 4, W / 4]`."""
    planes = _luma(x).square().reshape(-1, 1, *x.shape[-2:])
    planes = F.avg_pool2d(planes, CELL, ceil_mode=True, count_include_pad=False)
    cells = max(1, radius // CELL)
    for axis, window in ((-1, (1, 2 * cells + 1)), (-2, (2 * cells + 1, 1))):
        planes = F.avg_pool2d(repeat_border(planes, cells, axis=axis), window, stride=1)
    return planes.reshape(*x.shape[:-3], 1, *planes.shape[-2:])


@torch.no_grad()
def _noise_energy(energy: Tensor) -> Tensor:
    """`[..., 1, 1, 1]` of `[..., 1, h, w]`: what no more than a part of the picture stays below."""
    ordered = energy.flatten(-3).sort(dim=-1).values
    found = ordered[..., int(QUIET_SHARE * (ordered.shape[-1] - 1))]
    return found.clamp(max=LARGEST_NOISE**2)[..., None, None, None]


def _enlarged(share: Tensor, size: torch.Size) -> Tensor:
    """`[..., 1, H, W]` of cells, linear between their middles."""
    planes = share.reshape(-1, 1, *share.shape[-2:])
    height, width = planes.shape[-2:]
    large = F.interpolate(planes, size=(height * CELL, width * CELL), mode="bilinear")
    return large[..., : size[0], : size[1]].reshape(*share.shape[:-2], *size)


def _luma(x: Tensor) -> Tensor:
    red, green, blue = x.split(1, dim=-3)
    luma: Tensor = _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
    return luma
