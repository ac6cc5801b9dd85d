"""How much there is to compute: counted on tensors without numbers, product by product, in the plain networks.

The plain networks define the work. An implementation that needs fewer operations for the same result (merged
convolutions) shows a higher rate for it, as it should.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from restoration_runner.models.seedvr2.config import DitConfig, ModelConfig, VaeConfig
from restoration_runner.models.seedvr2.dit import NaDiT
from restoration_runner.models.seedvr2.vae import VideoVae
from restoration_runner.models.seedvr2.windows import Grid
from restoration_runner.restoration.grid import latent_count

TEXT_TOKENS = 58
BYTES = 2  # of a number in bf16


@dataclass(frozen=True)
class Work:
    """tflop: of all matrix products, convolutions and attentions. gbytes: what each of them reads and writes, once."""

    tflop: float
    gbytes: float


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flop = 0
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flop += count(*args, **(kwargs or {}), out_val=out)
            touched = [leaf for leaf in tree_leaves((args, out)) if isinstance(leaf, Tensor)]
            self.bytes += BYTES * sum(tensor.numel() for tensor in touched)
        return out


def work_of(config: ModelConfig, *, width: int, height: int, frames: int) -> dict[str, Work]:
    """Work of `encode`, `transformer` and `decode` for one window; `frames` is 4n+1, the picture already aligned."""
    grid = (latent_count(frames), height // 8, width // 8)
    encode, decode = _vae_work(config.vae, frames, grid)
    return {"encode": encode, "transformer": transformer_work(config.dit, grid), "decode": decode}


@cache
@torch.no_grad()
def _vae_work(config: VaeConfig, frames: int, grid: Grid) -> tuple[Work, Work]:
    stride = config.spatial_stride
    with torch.device("meta"):
        vae = VideoVae(config).bfloat16()
        video = torch.empty(1, 3, frames, grid[1] * stride, grid[2] * stride, dtype=torch.bfloat16)
        latent = torch.empty(1, config.latent_channels, *grid, dtype=torch.bfloat16)
        return _counted(lambda: vae.encode(video)), _counted(lambda: vae.decode(latent))


@cache
@torch.no_grad()
def transformer_work(config: DitConfig, grid: Grid) -> Work:
    """Work of one step on a grid of latents."""
    with torch.device("meta"):
        dit = NaDiT(config).bfloat16()
        tokens = torch.empty(1, *grid, config.in_channels, dtype=torch.bfloat16)
        text = torch.empty(1, TEXT_TOKENS, config.text_width, dtype=torch.bfloat16)
        at = torch.empty(1)
        return _counted(lambda: dit(tokens, text, at))


def _counted(run: Any) -> Work:
    with _Counter() as counter:
        run()
    return Work(counter.flop / 1e12, counter.bytes / 1e9)
