"""Random numbers that depend on nothing but seed, purpose and frame.

Two windows that cover the same frame must see the same noise, whoever computes them, in whatever order, on whatever
device; so noise is not drawn from a running generator but indexed. The words come from Philox (a counter-based
generator whose bit stream numpy guarantees across versions); turning words into normal numbers is done here, because
no library guarantees that part. Only correctly rounded operations are used (+, -, ×, /, sqrt and exact bit moves), each
as a pass of its own so that no compiler fuses two: a library's log or cos may differ in the last bit between
instruction sets. So a GPU makes the same bits as a CPU, and a hundred times faster; the words alone are made on the
host (1 ms for a latent of 720p).
"""

import math
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from restoration_runner.restoration.replay import Replayed

CPU = torch.device("cpu")


class Purpose(IntEnum):
    """What a draw is for; each purpose has its own stream."""

    POSTERIOR = 0
    """The sample from the encoder's distribution."""
    NOISE = 1
    """x_T, where the denoising step starts."""
    AUGMENTATION = 2
    """Noise on the condition."""


def normal(seed: int, purpose: Purpose, frame: int, shape: tuple[int, ...], device: torch.device = CPU) -> Tensor:
    """Standard normal numbers, float32 on `device`; the same bits on every device.

    frame: absolute index in the input of the last frame that the latent stands for.
    """
    return Normals(device).draw(seed, purpose, frame, shape)


class Normals:
    """Draws on one device, always on the same stream."""

    def __init__(self, device: torch.device = CPU) -> None:
        self._device = device
        self._from_words = Replayed(_from_words, device)

    def draw(self, seed: int, purpose: Purpose, frame: int, shape: tuple[int, ...]) -> Tensor:
        """As `normal`."""
        count = math.prod(shape)
        (numbers,) = self._from_words(_words(seed, purpose, frame, count + count % 2))
        return numbers[:count].reshape(shape)


def _from_words(words: Tensor) -> tuple[Tensor]:
    words = words.double()
    # Even words give the radius, odd ones the angle.
    radius = torch.sqrt(-2.0 * _log((words[0::2] + 1.0) * 2.0**-53))
    sine, cosine = _sin_cos_turns(words[1::2] * 2.0**-53)
    return (torch.stack([radius * cosine, radius * sine], dim=1).reshape(-1).float(),)


def _words(seed: int, purpose: int, frame: int, count: int) -> Tensor:
    """The upper 53 bits of `count` words of the stream, as whole numbers (int64)."""
    key = np.array([seed % 2**64, purpose], dtype=np.uint64)
    counter = np.array([0, 0, 0, frame], dtype=np.uint64)
    raw = np.random.Philox(key=key, counter=counter).random_raw(count)
    raw >>= np.uint64(11)
    return torch.from_numpy(raw.view(np.int64))


def _polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """Horner's rule, lowest coefficient first; every step is rounded, none is fused."""
    result = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result.mul_(x).add_(coefficient)
    return result


_LN2 = 0.6931471805599453
_SQRT_HALF = 0.7071067811865476
_ATANH = [1 / (2 * k + 1) for k in range(8)]  # the rest is below 1e-13
_SIN = [1.0, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880, -1 / 39916800]
_COS = [1.0, -1 / 2, 1 / 24, -1 / 720, 1 / 40320, -1 / 3628800, 1 / 479001600]


def _log(u: Tensor) -> Tensor:
    """Natural logarithm of (0, 1]: u = m·2^e with m around 1, log m = 2 atanh((m - 1) / (m + 1))."""
    mantissa, exponent = torch.frexp(u)
    low = mantissa < _SQRT_HALF
    mantissa = torch.where(low, 2 * mantissa, mantissa)
    power = exponent.double() - low.double()
    # A tensor divided by a tensor is divided; by a number it would be multiplied with the reciprocal.
    f = (mantissa - 1.0) / (mantissa + 1.0)
    return power * _LN2 + 2.0 * f * _polynomial(f * f, _ATANH)


def _sin_cos_turns(turns: Tensor) -> tuple[Tensor, Tensor]:
    """Sine and cosine of 2π·turns, turns in [0, 1): the rest to the nearest quarter turn is exact."""
    quarters = torch.floor(4.0 * turns + 0.5)
    angle = (4.0 * turns - quarters) * (math.pi / 2)
    square = angle * angle
    sine, cosine = angle * _polynomial(square, _SIN), _polynomial(square, _COS)
    quadrant = quarters.long() % 4
    swapped = quadrant % 2 == 1
    s, c = torch.where(swapped, cosine, sine), torch.where(swapped, sine, cosine)
    return torch.where(quadrant >= 2, -s, s), torch.where((quadrant == 1) | (quadrant == 2), -c, c)
