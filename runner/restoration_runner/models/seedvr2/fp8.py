"""`precision: FP8`: the transformer's matrices in 8 bits, everything else in BF16.

Each row of a matrix (what makes one output) is divided by a scale of its own and rounded to e4m3, four significant
bits. Products are those of BF16, with the rounded matrix. This is what is computed, on every path and device; only the
fast path also keeps the matrices in 8 bits. Vectors, the projections at both ends and the VAE are left alone.
"""

import torch
from torch import Tensor, nn

from restoration_runner.models.kernels.dequantise import dequantise
from restoration_runner.models.seedvr2.dit import NaDiT

STORED = torch.float8_e4m3fn
LARGEST = 448.0
"""Of e4m3."""


def quantise(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """`[rows, columns]` to e4m3 and `[rows]` fp32, so that the largest number of a row is the largest of e4m3."""
    wide = matrix.detach().float()
    scale = wide.abs().amax(dim=1) / LARGEST
    scale = torch.where(scale == 0, 1.0, scale)
    return (wide / scale[:, None]).clamp(-LARGEST, LARGEST).to(STORED), scale


def round_matrices(dit: NaDiT) -> None:
    """In place: what the fast path keeps in 8 bits, as numbers of the module's own type."""
    for layer in dit.blocks.modules():
        if isinstance(layer, nn.Linear):
            dequantise(*quantise(layer.weight), out=layer.weight.data)
