"""NaDiT prepared for a GPU: packed rows `[video | text]`, and a handful of fused kernels between the matrix products.

Per block: qkv product, gather (norm, rotation, windows), attention, scatter, out product, residual with norm and
modulation, up product, activation, down product, residual with the next block's norm and modulation.

Products are in the weights' type; norms, modulation, activation and the residual stream are fp32. The stream in bf16
would save 2 % of the time (64 passes of 154 instead of 228 us, 3B, 720p, 21 frames, H100) and double the error of the
output: 2.5 % instead of 1.3 % of its norm with random weights, where the plain network in bf16 has 3.0 %.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from restoration_runner.models.kernels.gated_mlp import product_gelu, swiglu_in_place
from restoration_runner.models.kernels.modulated_norm import add_gated, add_gated_and_norm, norm_modulated
from restoration_runner.models.seedvr2.attention import RopeSpec
from restoration_runner.models.seedvr2.config import DitConfig
from restoration_runner.models.seedvr2.dit import NaDiT, from_tokens, to_tokens
from restoration_runner.models.seedvr2.fast.dit_attention import packed_attention
from restoration_runner.models.seedvr2.fast.dit_knobs import DitKnobs
from restoration_runner.models.seedvr2.fast.dit_store import (
    MatrixStore,
    QuantisedMatrices,
    ResidentMatrices,
    StreamedMatrices,
)
from restoration_runner.models.seedvr2.fast.dit_weights import (
    ATTN_GATE,
    ATTN_SCALE,
    ATTN_SHIFT,
    MLP_GATE,
    MLP_SCALE,
    MLP_SHIFT,
    Matrices,
    ModulationTable,
    PackedBlock,
    Vectors,
    blocks_of,
    hidden_width,
    pack_block,
    quantised,
    take_vectors,
)
from restoration_runner.models.seedvr2.fast.dit_windows import PackedWindows, pack_windows
from restoration_runner.models.seedvr2.windows import Grid

ScaleShift = tuple[Tensor, Tensor]

KEPT_GRIDS = 8
"""Token grids whose tables are kept: a runner has one, and a tail of a scene another."""


class FastDit(nn.Module):
    """Called as `NaDiT` is; the velocity is fp32 whatever the weights are, so that it is rounded once.

    The plain module is not needed afterwards. `release` empties it, block by block as they are taken, so that the
    weights never exist twice; it is useless then. `to()` does not move this module: make another.
    """

    def __init__(
        self,
        dit: NaDiT,
        *,
        device: torch.device | None = None,
        knobs: DitKnobs | None = None,
        release: bool = False,
        fp8_weights: bool = False,
    ) -> None:
        """device: where to compute; by default where the plain module's weights are. fp8_weights: as in `fp8.py`."""
        super().__init__()
        self.config, self.knobs = dit.config, knobs or DitKnobs()
        self.device = device or dit.patch_in.weight.device
        self.dtype = dit.patch_in.weight.dtype
        if not self.supports(self.config, self.dtype, self.device):
            raise ValueError(f"the fast transformer computes in fp32 and bf16, not in {self.dtype}")
        self._modulation = ModulationTable(dit, self.device)
        self._patch_in, self._text_in, self._patch_out = (
            [x.detach().to(self.device, copy=True) for x in (layer.weight, layer.bias)]
            for layer in (dit.patch_in, dit.text_in, dit.patch_out)
        )
        self._vectors = [take_vectors(block, self.device) for block in blocks_of(dit)]
        is_streamed = self.knobs.streamed_weights and self.device.type == "cuda"
        stored_on = torch.device("cpu") if is_streamed else self.device
        store = partial(StreamedMatrices, device=self.device) if is_streamed else ResidentMatrices
        self._store: MatrixStore
        if fp8_weights:
            small = (quantised(block, stored_on) for block in _packed(dit, self.device, release=release))
            self._store = QuantisedMatrices(small, store, dtype=self.dtype)
        else:
            self._store = store(_packed(dit, stored_on, release=release))
        if release:
            _empty(dit)
        self._windows: dict[tuple[Grid, int], tuple[PackedWindows, ...]] = {}

    @staticmethod
    def supports(config: DitConfig, dtype: torch.dtype, device: torch.device) -> bool:
        """Whether this implementation takes such a network there.

        fp16 needs the plain one's scaled products; GPUs before Ampere have no bf16.
        """
        if device.type == "cuda" and torch.cuda.is_available() and torch.cuda.get_device_capability(device) < (8, 0):
            return False
        return dtype in (torch.float32, torch.bfloat16) and device.type in ("cuda", "cpu")

    def set_knobs(self, knobs: DitKnobs) -> None:
        """Other numbers of rows at once. Where the weights are is decided when the network is made."""
        if knobs.streamed_weights != self.knobs.streamed_weights:
            raise ValueError("streamed_weights cannot be changed: make another FastDit")
        self.knobs = knobs

    @property
    def weight_bytes(self) -> int:
        """What the matrices of the blocks take of the device's memory."""
        return self._store.device_bytes

    @torch.no_grad()
    def forward(self, video: Tensor, text: Tensor, timestep: Tensor) -> Tensor:
        """Velocity `[B, t, h, w, out]` fp32 from `video [B, t, h, w, in]`, `text [B, L, text_width]`, `timestep [B]`.

        h and w must be multiples of the patch. The clips of a batch are computed one after another.
        """
        clips = zip(video, text, timestep, strict=True)
        return torch.stack([self._clip(clip, words, at[None]) for clip, words, at in clips])

    def windows(self, grid: Grid, text_tokens: int) -> tuple[PackedWindows, ...]:
        """One set of tables per block; blocks of the same kind share theirs. Kept for the last few grids."""
        key = (grid, text_tokens)
        if key not in self._windows:
            while len(self._windows) >= KEPT_GRIDS:
                self._windows.pop(next(iter(self._windows)))
            self._windows[key] = self._pack_windows(grid, text_tokens)
        return self._windows[key]

    def _pack_windows(self, grid: Grid, text_tokens: int) -> tuple[PackedWindows, ...]:
        config = self.config
        rope = RopeSpec(config.rope, config.rope_dim, config.head_dim, text_tokens)
        kinds = list(zip(config.window, config.shifted, strict=True))
        made = {
            (nominal, shifted): pack_windows(grid, nominal, shifted=shifted, rope=rope, device=self.device)
            for nominal, shifted in dict.fromkeys(kinds)
        }
        return tuple(made[kind] for kind in kinds)

    def _clip(self, video: Tensor, text: Tensor, timestep: Tensor) -> Tensor:
        t, h, w = (size // patch for size, patch in zip(video.shape[:3], self.config.patch, strict=True))
        table, head = self._modulation(timestep)
        tokens = t * h * w
        x = torch.empty(tokens + len(text), self.config.width, device=self.device, dtype=torch.float32)
        _project(to_tokens(video[None].to(self.dtype), self.config.patch)[0], self._patch_in, x[:tokens])
        _project(text.to(self.dtype), self._text_in, x[tokens:])
        final = self._blocks(x, table, head, self.windows((t, h, w), len(text)), tokens)
        weight, bias = self._patch_out
        return from_tokens(_product_fp32(final, weight)[None] + bias.float(), (t, h, w), self.config.patch)[0]

    def _blocks(
        self, x: Tensor, table: Tensor, head: ScaleShift | None, windows: Sequence[PackedWindows], tokens: int
    ) -> Tensor:
        """The residual stream `x [N + L, width]` through all blocks; what the last projection reads `[N, width]`."""
        last = self.config.layers - 1
        update = torch.empty_like(x, dtype=self.dtype)
        first = (table[0, ATTN_SCALE], table[0, ATTN_SHIFT])
        norm_modulated(x, scale=first[0], shift=first[1], text_from=tokens, eps=self.config.norm_eps, out=update)
        for index, matrices in enumerate(self._store.blocks()):
            vectors, modulation = self._vectors[index], table[index]
            qkv = [self._qkv(update, matrices, vectors, tokens)]
            del update  # the widest moment is next
            mixed = self._attention(qkv, vectors, windows[index], len(x) - tokens)
            if index == last:  # nothing reads the text after the last attention
                x, mixed = x[:tokens], mixed[:tokens]
            update = torch.empty_like(x, dtype=self.dtype)
            _products(mixed, matrices.out, tokens, out=update)
            del mixed
            before_mlp = (modulation[MLP_SCALE], modulation[MLP_SHIFT])
            self._add(x, update, vectors.out_bias, modulation[ATTN_GATE], tokens, following=before_mlp)
            self._mlp(update, matrices, vectors, tokens)
            following = (table[index + 1, ATTN_SCALE], table[index + 1, ATTN_SHIFT]) if index < last else head
            self._add(x, update, vectors.down_bias, modulation[MLP_GATE], tokens, following=following)
        return x.to(self.dtype) if head is None else update

    def _qkv(self, normed: Tensor, matrices: Matrices, vectors: Vectors, tokens: int) -> Tensor:
        qkv = normed.new_empty(len(normed), 3 * self.config.inner)
        _products(normed, matrices.qkv, tokens, out=qkv, bias=vectors.qkv_bias)
        return qkv

    def _attention(self, qkv: list[Tensor], vectors: Vectors, windows: PackedWindows, text_tokens: int) -> Tensor:
        return packed_attention(
            qkv,
            vectors,
            windows,
            heads=self.config.heads,
            eps=self.config.norm_eps,
            text_tokens=text_tokens,
            batch_rows=self.knobs.attention_rows,
        )

    def _mlp(self, normed: Tensor, matrices: Matrices, vectors: Vectors, tokens: int) -> None:
        """In place, in equal parts of the rows."""
        width = hidden_width(self.config)
        parts = -(-len(normed) // (self.knobs.mlp_rows or len(normed)))
        step = -(-len(normed) // parts)
        for start in range(0, len(normed), step):
            rows, text_from = normed[start : start + step], max(0, tokens - start)
            wide = rows.new_empty(len(rows), width)
            if vectors.up_bias is None:
                _products(rows, matrices.up, text_from, out=wide)
                wide = swiglu_in_place(wide)
            else:
                _products(rows, matrices.up, text_from, out=wide, bias=vectors.up_bias, gelu=True)
            _products(wide, matrices.down, text_from, out=rows)

    def _add(
        self,
        x: Tensor,
        update: Tensor,
        bias: Tensor | None,
        gate: Tensor,
        tokens: int,
        *,
        following: ScaleShift | None,
    ) -> None:
        """The update onto the residual stream; what follows reads its norm, which takes the update's place."""
        if following is None:
            add_gated(x, update, bias=bias, gate=gate, text_from=tokens)
            return
        scale, shift = following
        add_gated_and_norm(
            x,
            update,
            bias=bias,
            gate=gate,
            scale=scale,
            shift=shift,
            text_from=tokens,
            eps=self.config.norm_eps,
            out=update,
        )


def _packed(dit: NaDiT, device: torch.device, *, release: bool) -> Iterator[PackedBlock]:
    for block in blocks_of(dit):
        yield pack_block(block, device)
        if release:
            _empty(block)


def _empty(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.data = torch.empty(0, dtype=parameter.dtype, device=parameter.device)


def _products(
    x: Tensor,
    weights: Sequence[Tensor],
    text_from: int,
    *,
    out: Tensor,
    bias: Tensor | None = None,
    gelu: bool = False,
) -> None:
    """`x @ weightᵀ (+ bias, then GELU)`: rows before `text_from` with the first weight, the others with the last."""
    cuts = (0, len(x)) if len(weights) == 1 and bias is None else (0, min(text_from, len(x)), len(x))
    for stream, (start, stop) in enumerate(pairwise(cuts)):
        if start == stop:
            continue
        rows, weight = x[start:stop], weights[min(stream, len(weights) - 1)].t()
        if bias is None:
            torch.mm(rows, weight, out=out[start:stop])
        elif gelu:
            product_gelu(rows, weight, bias[stream], out=out[start:stop])
        else:
            torch.addmm(bias[stream], rows, weight, out=out[start:stop])


def _project(x: Tensor, layer: Sequence[Tensor], out: Tensor) -> None:
    weight, bias = layer
    if out.dtype is x.dtype:
        torch.addmm(bias, x, weight.t(), out=out)
    else:
        torch.add(_product_fp32(x, weight), bias, out=out)


def _product_fp32(x: Tensor, weight: Tensor) -> Tensor:
    """A product that is not rounded to 16 bits."""
    if x.dtype is torch.float32 or not x.is_cuda:
        return x.float() @ weight.float().t()
    return torch.mm(x, weight.t(), out_dtype=torch.float32)
