"""Configurations in the option names of the released code, as the numeric fixtures carry them."""

from collections.abc import Mapping
from typing import Any

from restoration_runner.models.seedvr2.config import DitConfig, VaeConfig, swiglu_hidden

SHIFTED = {"720pwin_by_size_bysize": False, "720pswin_by_size_bysize": True}


def dit_config(kind: str, options: Mapping[str, Any]) -> DitConfig:
    """`kind` is "dit3b" or "dit7b". Raises ValueError for an option the modules do not have."""
    _require(options, "txt_dim", options["vid_dim"])
    _require(options, "emb_dim", 6 * options["vid_dim"])
    _require(options, "ada", "single")
    layers = options["num_layers"]
    is_3b = kind == "dit3b"
    _require(options, "mlp_type", "swiglu" if is_3b else "normal")
    if is_3b:
        _require(options, "rope_type", "mmrope3d")
    return DitConfig(
        width=options["vid_dim"],
        heads=options["heads"],
        head_dim=options["head_dim"],
        layers=layers,
        separate_layers=_separate_layers(options) if is_3b else layers,
        text_width=options["txt_in_dim"],
        mlp="swiglu" if is_3b else "gelu",
        mlp_hidden=_hidden(kind, options),
        rope="multimodal" if is_3b else "axial",
        rope_dim=options["rope_dim"] if is_3b else options["head_dim"] // 2,
        output_head=options.get("vid_out_norm") is not None,
        text_ends_early=is_3b,
        window=tuple((w[0], w[1], w[2]) for w in options["window"]),
        shifted=tuple(SHIFTED[method] for method in options["window_method"]),
        in_channels=options["vid_in_channels"],
        out_channels=options["vid_out_channels"],
        patch=tuple(options["patch_size"]),
        norm_eps=options["norm_eps"],
        qkv_bias=options["qk_bias"],
    )


def vae_config(options: Mapping[str, Any], *, scaling: float = 0.9152) -> VaeConfig:
    """The VAE's options; raises ValueError for an option the modules do not have."""
    for name, value in (("act_fn", "silu"), ("use_quant_conv", False), ("use_post_quant_conv", False)):
        _require(options, name, value)
    levels = len(options["block_out_channels"])
    _require(options, "spatial_downsample_factor", 2 ** (levels - 1))
    _require(options, "temporal_downsample_factor", 2 ** options["temporal_scale_num"])
    _require(options, "out_channels", options["in_channels"])
    return VaeConfig(
        channels=tuple(options["block_out_channels"]),
        groups=options["norm_num_groups"],
        encoder_blocks=options["layers_per_block"],
        latent_channels=options["latent_channels"],
        image_channels=options["in_channels"],
        temporal_levels=options["temporal_scale_num"],
        scaling=scaling,
    )


def _hidden(kind: str, options: Mapping[str, Any]) -> int:
    if kind == "dit3b":
        return swiglu_hidden(options["vid_dim"], options["expand_ratio"])
    return int(options["vid_dim"] * options["expand_ratio"])


def _separate_layers(options: Mapping[str, Any]) -> int:
    """A number of leading layers, or one flag per layer."""
    value: int | list[bool] = options["mm_layers"]
    if isinstance(value, int):
        return value
    count = sum(value)
    if list(value) != [i < count for i in range(len(value))]:
        raise ValueError(f"mm_layers is {value!r}; only leading layers can have separate weights")
    return count


def _require(options: Mapping[str, Any], name: str, expected: object) -> None:
    if name in options and options[name] != expected:
        raise ValueError(f"{name} is {options[name]!r}; only {expected!r} is built")
