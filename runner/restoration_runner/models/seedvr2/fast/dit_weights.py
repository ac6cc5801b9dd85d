"""The weights of the fast transformer's blocks, taken from the plain module.

Matrices, nearly all of the bytes, are packed into one flat tensor per block, so that a block can be moved by one copy.
Vectors are few; they stay on the device in fp32, video's and text's side by side. The modulation is one table for all
blocks: the timestep's part is added to all learned vectors at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restoration_runner.models.seedvr2 import fp8
from restoration_runner.models.seedvr2.config import DitConfig
from restoration_runner.models.seedvr2.dit import (
    Block,
    GeluMlp,
    NaDiT,
    StreamLayers,
    SwiGlu,
    TimeEmbedding,
    timestep_sinusoid,
)

ALIGNMENT = 128
"""Elements: every matrix begins at a multiple of 256 bytes, as a fresh allocation would."""

ATTN_SHIFT, ATTN_SCALE, ATTN_GATE, MLP_SHIFT, MLP_SCALE, MLP_GATE = range(6)
"""Slots of the modulation, in the order of the timestep embedding."""

MODULATION = ("attn_shift", "attn_scale", "attn_gate", "mlp_shift", "mlp_scale", "mlp_gate")


@dataclass(frozen=True)
class Matrices:
    """One block's matrices `[out, in]`: one for both streams, or video's and text's; only video's where text ends.

    up: gate and up of SwiGLU joined `[2·hidden, width]`, or up of the GELU MLP.
    """

    qkv: tuple[Tensor, ...]
    out: tuple[Tensor, ...]
    up: tuple[Tensor, ...]
    down: tuple[Tensor, ...]


@dataclass(frozen=True)
class Vectors:
    """One block's vectors `[2, n]`: video, text. None where there is none.

    What is added inside a matrix product (`qkv_bias`, `up_bias`) has the matrices' type, the rest is fp32.
    """

    qkv_bias: Tensor | None
    q_norm: Tensor
    k_norm: Tensor
    out_bias: Tensor
    up_bias: Tensor | None
    down_bias: Tensor | None


@dataclass(frozen=True)
class PackedBlock:
    """Matrices in one flat tensor; `shapes` says how they lie in it, field after field."""

    flat: Tensor
    shapes: tuple[tuple[tuple[int, int], ...], ...]

    def matrices(self, flat: Tensor | None = None) -> Matrices:
        """Views into this block's flat tensor, or into a copy of it."""
        pieces = self._views(self.flat if flat is None else flat)
        return Matrices(*(tuple(next(pieces) for _ in field) for field in self.shapes))

    def _views(self, flat: Tensor) -> Iterator[Tensor]:
        start = 0
        for rows, columns in (shape for field in self.shapes for shape in field):
            yield flat[start : start + rows * columns].view(rows, columns)
            start += _aligned(rows * columns)


@dataclass(frozen=True)
class QuantisedBlock:
    """A block's matrices in 8 bits, and one scale for each of their rows (`fp8.py`)."""

    packed: PackedBlock
    scales: tuple[tuple[Tensor, ...], ...]


def quantised(block: PackedBlock, device: torch.device) -> QuantisedBlock:
    """The 8-bit matrices on `device`, the scales where the block is."""
    flat = torch.empty(block.flat.numel(), dtype=fp8.STORED, device=device)
    packed = PackedBlock(flat, block.shapes)
    scales = []
    for given, places in zip(fields_of(block.matrices()), fields_of(packed.matrices()), strict=True):
        made = [fp8.quantise(matrix) for matrix in given]
        for place, (q, _) in zip(places, made, strict=True):
            place.copy_(q)
        scales.append(tuple(scale for _, scale in made))
    return QuantisedBlock(packed, tuple(scales))


def fields_of(matrices: Matrices) -> tuple[tuple[Tensor, ...], ...]:
    return matrices.qkv, matrices.out, matrices.up, matrices.down


def _aligned(elements: int) -> int:
    return -(-elements // ALIGNMENT) * ALIGNMENT


def blocks_of(dit: NaDiT) -> list[Block]:
    return [block for block in dit.blocks if isinstance(block, Block)]


def streams(block: Block) -> tuple[StreamLayers, ...]:
    """The one set of both streams, or video's and text's."""
    return (block.both,) if block.is_shared else (block.video, block.text)


def _up(layers: StreamLayers) -> list[Tensor]:
    mlp: SwiGlu | GeluMlp = layers.mlp
    return [mlp.gate.weight, mlp.up.weight] if isinstance(mlp, SwiGlu) else [mlp.up.weight]


def pack_block(block: Block, device: torch.device) -> PackedBlock:
    """The block's matrices on `device`. Text's matrices behind the last attention are left out: nothing uses them."""
    sets = streams(block)
    full = sets[:1] if block.is_last else sets
    fields = [
        [[layers.qkv.weight] for layers in sets],
        [[layers.out.weight] for layers in full],
        [_up(layers) for layers in full],
        [[layers.mlp.down.weight] for layers in full],
    ]
    shapes = tuple(tuple((sum(len(part) for part in parts), parts[0].shape[1]) for parts in field) for field in fields)
    total = sum(_aligned(rows * columns) for field in shapes for rows, columns in field)
    packed = PackedBlock(torch.empty(total, dtype=sets[0].qkv.weight.dtype, device=device), shapes)
    matrices = packed.matrices()
    targets = (matrices.qkv, matrices.out, matrices.up, matrices.down)
    for target, parts in (
        (t, p) for ts, field in zip(targets, fields, strict=True) for t, p in zip(ts, field, strict=True)
    ):
        start = 0
        for part in parts:
            target[start : start + len(part)].copy_(part)
            start += len(part)
    return packed


def take_vectors(block: Block, device: torch.device) -> Vectors:
    sets = streams(block)
    full = sets[:1] if block.is_last else sets

    def both(vectors: list[Tensor | None], dtype: torch.dtype = torch.float32) -> Tensor | None:
        found = [vector.detach() for vector in vectors if vector is not None]
        if not found:
            return None
        return torch.stack([found[0], found[-1]]).to(device, dtype).contiguous()

    def norms(name: str) -> Tensor:
        made = both([getattr(layers, name).weight for layers in sets])
        assert made is not None
        return made

    out_bias = both([layers.out.bias for layers in full])
    assert out_bias is not None
    return Vectors(
        qkv_bias=both([layers.qkv.bias for layers in sets], sets[0].qkv.weight.dtype),
        q_norm=norms("q_norm"),
        k_norm=norms("k_norm"),
        out_bias=out_bias,
        up_bias=both([layers.mlp.up.bias for layers in full], sets[0].qkv.weight.dtype),
        down_bias=both([layers.mlp.down.bias for layers in full]),
    )


class ModulationTable(nn.Module):
    """All blocks' modulation for a timestep: `[layers, 6, 2, width]` fp32, and the output head's scale and shift.

    Computed anew for every call: 0.1 ms beside a step of 200 ms, and no timestep is special.
    """

    def __init__(self, dit: NaDiT, device: torch.device) -> None:
        super().__init__()
        config = dit.config
        with torch.device("meta"):  # random numbers, as layers begin with, would be drawn for nothing
            self.time_in = TimeEmbedding(config.width).requires_grad_(False)
        dtype = dit.patch_in.weight.dtype
        given = {name: weight.to(device, dtype, copy=True) for name, weight in dit.time_in.state_dict().items()}
        self.time_in.load_state_dict(given, assign=True)
        self._bare_text = config.text_ends_early
        self._learned = torch.stack([_learned(block) for block in blocks_of(dit)]).to(device)
        self._head: tuple[Tensor, Tensor, Tensor] | None = None
        if config.output_head:
            norm, scale, shift = (
                x.detach().to(device, torch.float32, copy=True)
                for x in (dit.head.norm.weight, dit.head.scale, dit.head.shift)
            )
            self._head = (norm, scale, shift)

    def forward(self, timestep: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """timestep `[1]`. The head's vectors are `[2, width]`, as kernels take them, or None without a head."""
        e = self._embedding(timestep)
        table = self._learned + e[:, None]
        if self._bare_text:
            table[-1, ATTN_SHIFT, 1] = 0.0
            table[-1, ATTN_SCALE, 1] = 1.0
        if self._head is None:
            return table, None
        norm, scale, shift = self._head
        made = norm * (e[ATTN_SCALE] + scale), e[ATTN_SHIFT] + shift
        return table, (made[0].expand(2, -1).contiguous(), made[1].expand(2, -1).contiguous())

    def _embedding(self, timestep: Tensor) -> Tensor:
        """`[6, width]` in fp32, whatever the weights' type."""
        first, second, third = self.time_in.first, self.time_in.second, self.time_in.third
        x = timestep_sinusoid(timestep)
        for layer in (first, second):
            x = F.silu(F.linear(x, layer.weight.float(), layer.bias.float()))
        e: Tensor = F.linear(x, third.weight.float(), third.bias.float())
        return e.view(-1, 6).t()


def _learned(block: Block) -> Tensor:
    """`[6, 2, width]` fp32: video, text. Text without modulation gets any values; `forward` replaces them."""
    sets = [layers for layers in streams(block) if hasattr(layers, "modulation")]
    return torch.stack(
        [torch.stack([getattr(sets[i].modulation, name).detach().float() for i in (0, -1)]) for name in MODULATION]
    )


def hidden_width(config: DitConfig) -> int:
    """Columns of the MLP's widest product."""
    return 2 * config.mlp_hidden if config.mlp == "swiglu" else config.mlp_hidden
