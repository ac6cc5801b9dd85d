"""NaDiT, the diffusion transformer: one network evaluation turns noise and a degraded latent into a velocity.

Two streams, video tokens and text tokens, meet only in window attention. In the leading layers each stream has its own
weights, later layers share one set. One clip is one sequence; a batch holds clips of the same size.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restoration_runner.models.seedvr2.attention import RopeSpec, WindowLayout, window_attention, window_layout
from restoration_runner.models.seedvr2.config import DitConfig
from restoration_runner.models.seedvr2.half import Linear
from restoration_runner.models.seedvr2.windows import Grid

SINUSOID = 256


class RmsNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) over the last axis, statistics in fp32 whatever the activations are."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.eps) * self.weight


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """RMSNorm without weight."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + eps)).to(x.dtype)


def timestep_sinusoid(timestep: Tensor) -> Tensor:
    """`[B]` raw timesteps (1000.0, not 1.0) to `[B, 256]` fp32: sines first, then cosines.

    The frequencies come from the CPU: a GPU's `exp` may differ in the last bit, which a timestep of 1000 turns into an
    angle that is off by 6e-5.
    """
    half = SINUSOID // 2
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(half, dtype=torch.float32) / half)
    angles = timestep.float()[:, None] * frequencies.to(timestep.device, non_blocking=True)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class TimeEmbedding(nn.Module):
    """Timestep `[B]` to the shared modulation `[B, 6·width]`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Linear(SINUSOID, width)
        self.second = Linear(width, width)
        self.third = Linear(width, 6 * width)

    def forward(self, timestep: Tensor) -> Tensor:
        x = timestep_sinusoid(timestep).to(self.first.bias.dtype)
        embedding: Tensor = self.third(F.silu(self.second(F.silu(self.first(x)))))
        return embedding


def split_embedding(embedding: Tensor) -> tuple[Tensor, ...]:
    """`[B, 6·width]` to six `[B, 1, width]`: attention shift, scale, gate, then the MLP's; channel is slowest."""
    return embedding.view(embedding.shape[0], 1, -1, 6).unbind(-1)


class Modulation(nn.Module):
    """Per-stream vectors added to the shared timestep embedding. No implicit "1 +": the scale has learned it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn_shift = nn.Parameter(torch.zeros(width))
        self.attn_scale = nn.Parameter(torch.ones(width))
        self.attn_gate = nn.Parameter(torch.ones(width))
        self.mlp_shift = nn.Parameter(torch.zeros(width))
        self.mlp_scale = nn.Parameter(torch.ones(width))
        self.mlp_gate = nn.Parameter(torch.ones(width))

    def before_attention(self, x: Tensor, e: tuple[Tensor, ...]) -> Tensor:
        return x * (e[1] + self.attn_scale) + (e[0] + self.attn_shift)

    def after_attention(self, x: Tensor, e: tuple[Tensor, ...]) -> Tensor:
        return x * (e[2] + self.attn_gate)

    def before_mlp(self, x: Tensor, e: tuple[Tensor, ...]) -> Tensor:
        return x * (e[4] + self.mlp_scale) + (e[3] + self.mlp_shift)

    def after_mlp(self, x: Tensor, e: tuple[Tensor, ...]) -> Tensor:
        return x * (e[5] + self.mlp_gate)


class SwiGlu(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = Linear(width, hidden, bias=False)
        self.up = Linear(width, hidden, bias=False)
        self.down = Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return out


class GeluMlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = Linear(width, hidden)
        self.down = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.gelu(self.up(x), approximate="tanh"))
        return out


class StreamLayers(nn.Module):
    """The weights of one block for one stream (or for both, where they are shared)."""

    def __init__(self, config: DitConfig, *, attention_only: bool) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = Linear(config.width, 3 * config.inner, bias=config.qkv_bias)
        self.q_norm = RmsNorm(config.head_dim, config.norm_eps)
        self.k_norm = RmsNorm(config.head_dim, config.norm_eps)
        self.out = Linear(config.inner, config.width)
        if not attention_only:
            self.modulation = Modulation(config.width)
            mlp = SwiGlu if config.mlp == "swiglu" else GeluMlp
            self.mlp = mlp(config.width, config.mlp_hidden)

    def project(self, x: Tensor) -> Tensor:
        """`[B, n, width]` to q, k, v as `[B, n, 3, heads, head_dim]`, q and k normalised."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        return torch.stack([self.q_norm(q), self.k_norm(k), v], dim=2)


class Block(nn.Module):
    """Window attention, then an MLP, both modulated by the timestep and added to the residual streams."""

    def __init__(self, config: DitConfig, index: int) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.is_last = index == config.layers - 1
        self.text_is_bare = self.is_last and config.text_ends_early
        if index < config.separate_layers:
            self.video = StreamLayers(config, attention_only=False)
            self.text = StreamLayers(config, attention_only=self.text_is_bare)
        else:
            self.both = StreamLayers(config, attention_only=False)
        self.is_shared = index >= config.separate_layers

    def forward(
        self, video: Tensor, text: Tensor, e: tuple[Tensor, ...], layout: WindowLayout
    ) -> tuple[Tensor, Tensor]:
        """video `[B, N, width]`, text `[B, L, width]`; the last block returns the text it was given."""
        v, t = (self.both, self.both) if self.is_shared else (self.video, self.text)
        video_in = v.modulation.before_attention(rms_norm(video, self.eps), e)
        text_in = rms_norm(text, self.eps)
        if not self.text_is_bare:
            text_in = t.modulation.before_attention(text_in, e)
        video_mixed, text_mixed = window_attention(
            v.project(video_in), t.project(text_in), layout, products=v.qkv.weight.dtype
        )
        video = video + v.modulation.after_attention(v.out(video_mixed), e)
        video = video + v.modulation.after_mlp(v.mlp(v.modulation.before_mlp(rms_norm(video, self.eps), e)), e)
        if self.is_last:
            return video, text  # nothing reads the text after the last attention
        text = text + t.modulation.after_attention(t.out(text_mixed), e)
        text = text + t.modulation.after_mlp(t.mlp(t.modulation.before_mlp(rms_norm(text, self.eps), e)), e)
        return video, text


class OutputHead(nn.Module):
    """Affine norm and a modulation that reads the *attention* slot of the timestep embedding.

    Two slots would be expected here; the released network was trained with this one and depends on it.
    """

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.norm = RmsNorm(config.width, config.norm_eps)
        self.shift = nn.Parameter(torch.zeros(config.width))
        self.scale = nn.Parameter(torch.ones(config.width))

    def forward(self, x: Tensor, e: tuple[Tensor, ...]) -> Tensor:
        normed: Tensor = self.norm(x)
        return normed * (e[1] + self.scale) + (e[0] + self.shift)


def to_tokens(x: Tensor, patch: Grid) -> Tensor:
    """`[B, t, h, w, C]` to `[B, t'·h'·w', pt·ph·pw·C]`, raster order, channel fastest inside a token."""
    B, t, h, w, C = x.shape
    pt, ph, pw = patch
    x = x.reshape(B, t // pt, pt, h // ph, ph, w // pw, pw, C)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(B, (t // pt) * (h // ph) * (w // pw), pt * ph * pw * C)


def from_tokens(x: Tensor, grid: Grid, patch: Grid) -> Tensor:
    """Inverse of `to_tokens`; `grid` counts tokens."""
    pt, ph, pw = patch
    t, h, w = grid
    x = x.unflatten(-1, (pt, ph, pw, -1)).unflatten(1, (t, h, w))
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(x.shape[0], t * pt, h * ph, w * pw, -1)


Layouts = tuple[WindowLayout, ...]


class NaDiT(nn.Module):
    """The whole transformer."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.config = config
        patch_size = math.prod(config.patch)
        self.patch_in = Linear(config.in_channels * patch_size, config.width)
        self.text_in = Linear(config.text_width, config.width)
        self.time_in = TimeEmbedding(config.width)
        self.blocks = nn.ModuleList(Block(config, index) for index in range(config.layers))
        if config.output_head:
            self.head = OutputHead(config)
        self.patch_out = Linear(config.width, config.out_channels * patch_size)
        self._layouts: dict[tuple[Grid, int, torch.device], Layouts] = {}

    def forward(self, video: Tensor, text: Tensor, timestep: Tensor, layouts: Layouts | None = None) -> Tensor:
        """Velocity `[B, t, h, w, out]` from `video [B, t, h, w, in]`, `text [B, L, text_width]`, `timestep [B]`.

        h and w must be multiples of the patch. `layouts` may be passed by a caller that compiles this module.
        """
        grid = self.token_grid(video.shape)
        layouts = layouts or self.layouts(grid, text.shape[1], video.device)
        x: Tensor = self.patch_in(to_tokens(video, self.config.patch))
        y: Tensor = self.text_in(text)
        e = split_embedding(self.time_in(timestep))
        for block, layout in zip(self.blocks, layouts, strict=True):
            x, y = block(x, y, e, layout)
        if self.config.output_head:
            x = self.head(x, e)
        return from_tokens(self.patch_out(x), grid, self.config.patch)

    def token_grid(self, shape: torch.Size) -> Grid:
        """Token grid of an input of shape `[B, t, h, w, C]`."""
        t, h, w = (size // patch for size, patch in zip(shape[1:4], self.config.patch, strict=True))
        return (t, h, w)

    def layouts(self, grid: Grid, text_tokens: int, device: torch.device) -> Layouts:
        """One window layout per layer; layers of the same kind share theirs. Kept for the last few grids."""
        key = (grid, text_tokens, device)
        if key not in self._layouts:
            if len(self._layouts) >= 8:
                self._layouts.clear()
            self._layouts[key] = self._build_layouts(grid, text_tokens, device)
        return self._layouts[key]

    def _build_layouts(self, grid: Grid, text_tokens: int, device: torch.device) -> Layouts:
        config = self.config
        rope = RopeSpec(config.rope, config.rope_dim, config.head_dim, text_tokens)
        kinds = list(zip(config.window, config.shifted, strict=True))
        # Tables made inside inference mode could not be used for training later.
        with torch.inference_mode(False):
            made = {
                (nominal, shifted): window_layout(grid, nominal, shifted=shifted, rope=rope, device=device)
                for nominal, shifted in dict.fromkeys(kinds)
            }
        return tuple(made[kind] for kind in kinds)
