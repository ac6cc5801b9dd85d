"""16-bit floats without overflow: what `precision: FP16` means here.

Half precision ends at 65504, and trained networks pass it: the text stream of `seedvr2-nano` reaches 10⁶, and nobody
can say what another checkpoint does. So only the products are half precision, which is where the time goes. Weights of
matrices and kernels are stored as fp16; everything between products (residual streams, norms, modulation, biases) is
fp32; and the input of a product is divided by a power of two that brings it into [-1, 1], by which the result is
multiplied again. That is exact but for numbers a thousand times smaller than their largest neighbour, and the result
stays finite as long as the weights of one output sum up to less than 65504, which no trained layer is near.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def activation_dtype(weights: torch.dtype) -> torch.dtype:
    """What the numbers between the products are: fp32 beside fp16 weights, else as the weights."""
    return torch.float32 if weights is torch.float16 else weights


def parameter_dtype(parameter: Tensor, weights: torch.dtype) -> torch.dtype:
    """Matrices and kernels have the weights' type; vectors (biases, norms, modulation) that of the activations."""
    return weights if parameter.ndim > 1 else activation_dtype(weights)


def unit_scale(x: Tensor, dim: int | None = None) -> Tensor:
    """Smallest power of two that is larger than every |x| along `dim` (kept), or of all; 1 where all are zero."""
    largest = x.detach().abs().amax(dim=dim, keepdim=True) if dim is not None else x.detach().abs().amax()
    _, exponent = torch.frexp(largest.float())
    return torch.ldexp(torch.ones_like(largest, dtype=torch.float32), exponent)


def half_product(product: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """`product(x, weight)` with fp16 operands and an fp16 result, as fp32; `scale` is broadcast over the result."""
    small = (x.float() / scale).to(torch.float16)
    if small.device.type == "cpu":
        # Most CPUs have no 16-bit arithmetic; sums of fp32 products are what a GPU's units keep inside, too.
        rounded = product(small.float(), weight.float()).to(torch.float16)
    else:
        rounded = product(small, weight)
    return rounded.float() * scale


class Linear(nn.Linear):
    """`nn.Linear` that also works with fp16 weights beside fp32 activations."""

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dtype is not torch.float16:
            return super().forward(x)
        out = half_product(F.linear, x, self.weight, unit_scale(x, dim=-1))
        return out if self.bias is None else out + self.bias
