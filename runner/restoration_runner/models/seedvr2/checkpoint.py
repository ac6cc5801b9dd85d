"""Weights on disk to modules and back: the one place that knows the official names.

Files use the official key names, whoever made them, so a released checkpoint and ours are read by the same code.
Reading is strict: every key is accounted for, and an unknown, missing or misshapen one is named. Only safetensors files
are read; a pickle could run code.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.models.seedvr2.config import DitConfig, VaeConfig
from restoration_runner.models.seedvr2.dit import NaDiT
from restoration_runner.models.seedvr2.half import parameter_dtype
from restoration_runner.models.seedvr2.rope import frequencies
from restoration_runner.models.seedvr2.vae import VideoVae

Rules = tuple[tuple[str, str], ...]
M = TypeVar("M", bound=nn.Module)

_STREAMS = {"video": "vid", "text": "txt", "both": "all"}

_DIT_BLOCK: Rules = tuple(
    (rf"^(blocks\.\d+)\.{ours}\.{layer}\.", rf"\1.{official.format(stream)}.")
    for ours, stream in _STREAMS.items()
    for layer, official in (
        ("qkv", "attn.proj_qkv.{}"),
        ("q_norm", "attn.norm_q.{}"),
        ("k_norm", "attn.norm_k.{}"),
        ("out", "attn.proj_out.{}"),
        ("modulation", "ada.{}"),
        (r"mlp\.gate", "mlp.{}.proj_in_gate"),
        (r"mlp\.up", "mlp.{}.proj_in"),
        (r"mlp\.down", "mlp.{}.proj_out"),
    )
)

DIT_RULES: Rules = (
    (r"^patch_in\.", "vid_in.proj."),
    (r"^text_in\.", "txt_in."),
    (r"^time_in\.first\.", "emb_in.proj_in."),
    (r"^time_in\.second\.", "emb_in.proj_hid."),
    (r"^time_in\.third\.", "emb_in.proj_out."),
    (r"^head\.norm\.", "vid_out_norm."),
    (r"^head\.", "vid_out_ada.out_"),
    (r"^patch_out\.", "vid_out.proj."),
    *_DIT_BLOCK,
)

VAE_RULES: Rules = (
    (r"^encoder\.levels\.(\d+)\.blocks\.(\d+)\.", r"encoder.down_blocks.\1.resnets.\2."),
    (r"^encoder\.levels\.(\d+)\.resample\.conv\.", r"encoder.down_blocks.\1.downsamplers.0.conv."),
    (r"^decoder\.levels\.(\d+)\.blocks\.(\d+)\.", r"decoder.up_blocks.\1.resnets.\2."),
    (r"^decoder\.levels\.(\d+)\.resample\.expand\.", r"decoder.up_blocks.\1.upsamplers.0.upscale_conv."),
    (r"^decoder\.levels\.(\d+)\.resample\.conv\.", r"decoder.up_blocks.\1.upsamplers.0.conv."),
    (r"\.middle\.before\.", ".mid_block.resnets.0."),
    (r"\.middle\.after\.", ".mid_block.resnets.1."),
    (r"\.middle\.attention\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.middle\.attention\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.middle\.attention\.out\.", ".mid_block.attentions.0.to_out.0."),
    (r"\.skip\.", ".conv_shortcut."),
    (r"\.norm_out\.", ".conv_norm_out."),
)

# Older files of the same VAE name the attention's projections differently.
_OLD_VAE_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@dataclass(frozen=True)
class Layout:
    """What a checkpoint file of one network holds, by official name.

    shapes: the weights; all of them must be there. tables: derived tensors that official files carry beside them; they
    may be there and are ignored, because recomputing them in fp32 is more exact than any stored 16-bit copy.
    """

    shapes: Mapping[str, torch.Size]
    tables: Mapping[str, torch.Size]

    @property
    def parameters(self) -> int:
        return sum(shape.numel() for shape in self.shapes.values())

    def check(self, tensors: Mapping[str, Tensor], *, source: str) -> None:
        """Compare names, shapes and kinds; tensors on the meta device will do. `source` names the file in errors.

        Raises:
            RestorationError: `ModelInvalid`, naming missing, unknown and misshapen keys and those that are no floats.
        """
        _check_keys(tensors, self.shapes, self.tables, source=source)


def official_name(ours: str, rules: Rules) -> str:
    """The name in a checkpoint file of one of our parameters."""
    for pattern, replacement in rules:
        ours = re.sub(pattern, replacement, ours)
    return ours


def dit_layout(config: DitConfig) -> Layout:
    """Keys and shapes of a transformer's file."""
    with torch.device("meta"):
        model = NaDiT(config)
    shape = frequencies(config.rope, config.rope_dim).shape
    return Layout(_shapes(model, DIT_RULES), {f"blocks.{i}.attn.rope.rope.freqs": shape for i in range(config.layers)})


def vae_layout(config: VaeConfig) -> Layout:
    """Keys and shapes of a VAE's file, under the newer attention names (`modern_vae_name`)."""
    with torch.device("meta"):
        model = VideoVae(config)
    return Layout(_shapes(model, VAE_RULES), {})


def _shapes(model: nn.Module, rules: Rules) -> dict[str, torch.Size]:
    return {official_name(name, rules): p.shape for name, p in model.named_parameters()}


def build_dit(
    config: DitConfig, tensors: Mapping[str, Tensor], *, device: torch.device, dtype: torch.dtype, source: str = "dit"
) -> NaDiT:
    """NaDiT with the given weights. `source` names the file in errors.

    Raises RestorationError(ModelInvalid) naming every kind of key that does not fit.
    """
    dit_layout(config).check(tensors, source=source)
    with torch.device("meta"):
        model = NaDiT(config)
    return _fill(model, tensors, DIT_RULES, device=device, dtype=dtype)


def build_vae(
    config: VaeConfig, tensors: Mapping[str, Tensor], *, device: torch.device, dtype: torch.dtype, source: str = "vae"
) -> VideoVae:
    """VideoVae with the given weights; accepts the older attention names too. Errors as for `build_dit`."""
    renamed = {modern_vae_name(name): tensor for name, tensor in tensors.items()}
    vae_layout(config).check(renamed, source=source)
    with torch.device("meta"):
        model = VideoVae(config)
    return _fill(model, renamed, VAE_RULES, device=device, dtype=dtype)


def dit_tensors(model: NaDiT) -> dict[str, Tensor]:
    """Weights under official names, ready to be saved."""
    return {official_name(name, DIT_RULES): p.detach().contiguous() for name, p in model.named_parameters()}


def vae_tensors(model: VideoVae) -> dict[str, Tensor]:
    """Weights under official names, ready to be saved."""
    return {official_name(name, VAE_RULES): p.detach().contiguous() for name, p in model.named_parameters()}


def read_tensors(path: Path, *, device: torch.device | None = None) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU or read straight onto `device`.

    Raises RestorationError(ModelInvalid) if it cannot be read.
    """
    try:
        return load_file(path, device=str(device or "cpu"))
    except FileNotFoundError:
        raise _invalid(f"{path.name} is missing from the model folder {path.parent}.") from None
    except (SafetensorError, OSError) as error:
        raise _invalid(f"{path.name} is not a readable safetensors file: {error}. Fetch the model again.") from error


def modern_vae_name(name: str) -> str:
    """Older files of the same VAE call the attention's projections query, key, value and proj_attn."""
    head, dot, tail = name.partition(".attentions.0.")
    word, point, rest = tail.partition(".")
    return f"{head}{dot}{_OLD_VAE_NAMES.get(word, word)}{point}{rest}" if dot else name


def _fill(model: M, tensors: Mapping[str, Tensor], rules: Rules, *, device: torch.device, dtype: torch.dtype) -> M:
    ours = {official_name(name, rules): name for name, _ in model.named_parameters()}
    # On the device first: it converts types in no time, and a host copies what it need not convert.
    weights = {mine: tensors[name].to(device).to(parameter_dtype(tensors[name], dtype)) for name, mine in ours.items()}
    model.eval().requires_grad_(False)  # before: tensors that were read in inference mode cannot have gradients
    model.load_state_dict(weights, assign=True)
    return model


def _check_keys(
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, torch.Size],
    tables: Mapping[str, torch.Size],
    *,
    source: str,
) -> None:
    known = {**tables, **shapes}
    wrong = [
        f"{name} is {list(tensor.shape)} instead of {list(known[name])}"
        for name, tensor in tensors.items()
        if name in known and tensor.shape != known[name]
    ]
    problems = [
        _listing("missing tensors", [name for name in shapes if name not in tensors]),
        _listing("unknown tensors", [name for name in tensors if name not in known]),
        _listing("tensors of the wrong shape", wrong),
        _listing("tensors that are not floating point", [n for n, t in tensors.items() if not t.is_floating_point()]),
    ]
    found = "; ".join(problem for problem in problems if problem)
    if found:
        raise _invalid(f"{source} does not hold the weights that its configuration describes: {found}.")


def _listing(what: str, names: Iterable[str], *, shown: int = 4) -> str:
    names = list(names)
    if not names:
        return ""
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{what}: {', '.join(names[:shown])}{rest}"


def _invalid(message: str) -> RestorationError:
    return RestorationError(FailureReason.MODEL_INVALID, message)
