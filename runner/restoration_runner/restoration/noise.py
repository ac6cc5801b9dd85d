"""Random numbers that depend on nothing but seed, purpose and frame.

Two windows that cover the same frame must see the same noise, whoever computes them, in whatever order, on whatever
device; so noise is not drawn from a running generator but indexed. The words come from Philox (a counter-based
generator whose bit stream numpy guarantees across versions); turning words into normal numbers is done here, because
numpy does not guarantee that part. Only correctly rounded operations are used (+, -, ×, /, sqrt and exact bit moves):
a library's log or cos may differ in the last bit between instruction sets.
"""

import math
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Doubles = NDArray[np.float64]


class Purpose(IntEnum):
    """What a draw is for; each purpose has its own stream."""

    POSTERIOR = 0
    """The sample from the encoder's distribution."""
    NOISE = 1
    """x_T, where the denoising step starts."""
    AUGMENTATION = 2
    """Noise on the condition."""


def normal(seed: int, purpose: Purpose, frame: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers, float32 on the CPU.

    frame: absolute index in the input of the last frame that the latent stands for.
    """
    count = math.prod(shape)
    words = _words(seed, purpose, frame, count + count % 2)
    # Even words give the radius, odd ones the angle.
    radius = np.sqrt(-2.0 * _log((words[0::2] + 1.0) * 2.0**-53))
    sine, cosine = _sin_cos_turns(words[1::2] * 2.0**-53)
    pairs = np.stack([radius * cosine, radius * sine], axis=1).reshape(-1)[:count]
    return torch.from_numpy(pairs.astype(np.float32).reshape(shape))


def _words(seed: int, purpose: int, frame: int, count: int) -> Doubles:
    """The upper 53 bits of `count` words of the stream, as whole numbers."""
    key = np.array([seed % 2**64, purpose], dtype=np.uint64)
    counter = np.array([0, 0, 0, frame], dtype=np.uint64)
    raw: Any = np.random.Philox(key=key, counter=counter).random_raw(count)
    bits: Doubles = (raw >> np.uint64(11)).astype(np.float64)
    return bits


def _polynomial(x: Doubles, coefficients: Sequence[float]) -> Doubles:
    """Horner's rule, lowest coefficient first; numpy rounds every step, it never fuses them."""
    result = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result *= x
        result += coefficient
    return result


_LN2 = 0.6931471805599453
_SQRT_HALF = 0.7071067811865476
_ATANH = [1 / (2 * k + 1) for k in range(8)]  # the rest is below 1e-13
_SIN = [1.0, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880, -1 / 39916800]
_COS = [1.0, -1 / 2, 1 / 24, -1 / 720, 1 / 40320, -1 / 3628800, 1 / 479001600]


def _log(u: Doubles) -> Doubles:
    """Natural logarithm of (0, 1]: u = m·2^e with m around 1, log m = 2 atanh((m - 1) / (m + 1))."""
    mantissa, exponent = np.frexp(u)
    low = mantissa < _SQRT_HALF
    mantissa = np.where(low, 2 * mantissa, mantissa)
    exponent = exponent - low
    f = (mantissa - 1.0) / (mantissa + 1.0)
    result: Doubles = exponent * _LN2 + 2.0 * f * _polynomial(f * f, _ATANH)
    return result


def _sin_cos_turns(turns: Doubles) -> tuple[Doubles, Doubles]:
    """Sine and cosine of 2π·turns, turns in [0, 1): the rest to the nearest quarter turn is exact."""
    quarters = np.floor(4.0 * turns + 0.5)
    angle = (4.0 * turns - quarters) * (math.pi / 2)
    square = angle * angle
    sine, cosine = angle * _polynomial(square, _SIN), _polynomial(square, _COS)
    quadrant = quarters.astype(np.int64) % 4
    swapped = quadrant % 2 == 1
    s, c = np.where(swapped, cosine, sine), np.where(swapped, sine, cosine)
    return np.where(quadrant >= 2, -s, s), np.where((quadrant == 1) | (quadrant == 2), -c, c)
