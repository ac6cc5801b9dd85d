"""Dimensions and rules of the networks, as plain data.

A model is two of these values plus weights. The released 3B and 7B networks follow two slightly different rule sets;
the differences are fields here, so the modules in `dit.py` contain no model names.
"""

from dataclasses import dataclass
from typing import Literal

RopeRule = Literal["multimodal", "axial"]
MlpRule = Literal["swiglu", "gelu"]


@dataclass(frozen=True)
class DitConfig:
    """The diffusion transformer (NaDiT).

    width: channels of both streams, video and text.
    separate_layers: leading layers with their own weights per stream; later layers share one set.
    window: nominal number of windows per axis (time, height, width), one entry per layer.
    shifted: whether a layer's windows are shifted by half a window, one entry per layer.
    rope: "multimodal" rotates video and text by integer positions, "axial" only video, stretched to [-1, 1].
    rope_dim: the number that the frequencies are derived from (see `rope.py`).
    output_head: affine norm and modulation before the last projection (3B) or the projection alone (7B).
    text_ends_early: the last layer's text is neither modulated nor passed through an MLP (3B).
    """

    width: int
    heads: int
    head_dim: int
    layers: int
    separate_layers: int
    text_width: int
    mlp: MlpRule
    mlp_hidden: int
    rope: RopeRule
    rope_dim: int
    output_head: bool
    text_ends_early: bool
    window: tuple[tuple[int, int, int], ...]
    shifted: tuple[bool, ...]
    in_channels: int = 33
    out_channels: int = 16
    patch: tuple[int, int, int] = (1, 2, 2)
    norm_eps: float = 1e-5
    qkv_bias: bool = False

    def __post_init__(self) -> None:
        if not len(self.window) == len(self.shifted) == self.layers:
            raise ValueError("window and shifted need one entry per layer")
        if self.separate_layers > self.layers:
            raise ValueError("there are fewer layers than separate_layers")

    @property
    def inner(self) -> int:
        """Channels of q, of k and of v."""
        return self.heads * self.head_dim


@dataclass(frozen=True)
class VaeConfig:
    """The causal video VAE.

    channels: one entry per spatial level; each level but the last halves height and width.
    temporal_levels: how many of the halving levels (the deepest ones) also halve time.
    encoder_blocks: residual blocks per encoder level; the decoder has one more.
    scaling: latents are multiplied by this after encoding and divided before decoding.
    """

    channels: tuple[int, ...]
    groups: int = 32
    encoder_blocks: int = 2
    latent_channels: int = 16
    image_channels: int = 3
    temporal_levels: int = 2
    norm_eps: float = 1e-6
    scaling: float = 0.9152

    @property
    def spatial_stride(self) -> int:
        return int(2 ** (len(self.channels) - 1))

    @property
    def temporal_stride(self) -> int:
        return int(2**self.temporal_levels)


@dataclass(frozen=True)
class ModelConfig:
    """A named pair of networks."""

    name: str
    dit: DitConfig
    vae: VaeConfig


def swiglu_hidden(width: int, expand_ratio: float) -> int:
    """Two thirds of the usual hidden width, rounded up to a multiple of 256: 2560 × 4 gives 6912."""
    hidden = int(2 * width * expand_ratio / 3)
    return 256 * ((hidden + 255) // 256)


def alternating(layers: int) -> tuple[bool, ...]:
    """Even layers plain, odd layers shifted, as both released networks have it."""
    return tuple(layer % 2 == 1 for layer in range(layers))


def dit_3b_rules(
    *, width: int, heads: int, head_dim: int, layers: int, separate_layers: int, text_width: int, expand_ratio: float
) -> DitConfig:
    """A network of any size that follows the rule set of the released 3B network."""
    return DitConfig(
        width=width,
        heads=heads,
        head_dim=head_dim,
        layers=layers,
        separate_layers=separate_layers,
        text_width=text_width,
        mlp="swiglu",
        mlp_hidden=swiglu_hidden(width, expand_ratio),
        rope="multimodal",
        rope_dim=head_dim,
        output_head=True,
        text_ends_early=True,
        window=((4, 3, 3),) * layers,
        shifted=alternating(layers),
    )


def dit_7b_rules(
    *, width: int, heads: int, head_dim: int, layers: int, text_width: int, expand_ratio: float
) -> DitConfig:
    """A network of any size that follows the rule set of the released 7B network."""
    return DitConfig(
        width=width,
        heads=heads,
        head_dim=head_dim,
        layers=layers,
        separate_layers=layers,
        text_width=text_width,
        mlp="gelu",
        mlp_hidden=int(width * expand_ratio),
        rope="axial",
        rope_dim=head_dim // 2,
        output_head=False,
        text_ends_early=False,
        window=((4, 3, 3),) * layers,
        shifted=alternating(layers),
    )


RELEASED_VAE = VaeConfig(channels=(128, 256, 512, 512))

MODELS: dict[str, ModelConfig] = {
    "seedvr2-3b": ModelConfig(
        name="seedvr2-3b",
        dit=dit_3b_rules(
            width=2560, heads=20, head_dim=128, layers=32, separate_layers=10, text_width=5120, expand_ratio=4
        ),
        vae=RELEASED_VAE,
    ),
    "seedvr2-7b": ModelConfig(
        name="seedvr2-7b",
        dit=dit_7b_rules(width=3072, heads=24, head_dim=128, layers=36, text_width=5120, expand_ratio=4),
        vae=RELEASED_VAE,
    ),
    # Small enough for a CPU. The width must exceed 128: x0 = x_T - v is exact only if the 64 noise values of a token
    # pass the residual stream unharmed beside its 64 condition values, and the blocks need room to work.
    "seedvr2-nano": ModelConfig(
        name="seedvr2-nano",
        dit=dit_3b_rules(width=192, heads=6, head_dim=32, layers=5, separate_layers=1, text_width=128, expand_ratio=2),
        vae=VaeConfig(channels=(8, 16, 32, 64), groups=4),
    ),
}
