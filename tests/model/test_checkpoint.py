"""Every key of a checkpoint is accounted for, and the official names come out of our modules."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.models.seedvr2.checkpoint import (
    DIT_RULES,
    VAE_RULES,
    build_dit,
    build_vae,
    dit_tensors,
    official_name,
    read_tensors,
    vae_tensors,
)
from restoration_runner.models.seedvr2.config import MODELS
from restoration_runner.models.seedvr2.dit import NaDiT
from restoration_runner.models.seedvr2.vae import VideoVae
from tests.builders.models import FIXTURES, tiny_description

CPU = torch.device("cpu")
Tensors = dict[str, Tensor]


def dit_weights() -> Tensors:
    return load_file(FIXTURES / "dit3b_tiny.weights.safetensors")


def vae_weights() -> Tensors:
    return load_file(FIXTURES / "vae_tiny.weights.safetensors")


def load_dit(weights: Tensors) -> NaDiT:
    return build_dit(tiny_description().dit, weights, device=CPU, dtype=torch.float32, source="dit.safetensors")


def load_vae(weights: Tensors) -> VideoVae:
    return build_vae(tiny_description().vae, weights, device=CPU, dtype=torch.float32, source="vae.safetensors")


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda weights: {key: tensor for key, tensor in weights.items() if key != name}


def with_tensor(name: str, tensor: Tensor) -> Callable[[Tensors], Tensors]:
    return lambda weights: {**weights, name: tensor}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without("txt_in.bias"), "missing tensors: txt_in.bias"),
        (with_tensor("blocks.9.attn.bias", torch.zeros(3)), "unknown tensors: blocks.9.attn.bias"),
        (with_tensor("txt_in.bias", torch.zeros(65)), "wrong shape: txt_in.bias is [65] instead of [64]"),
        (with_tensor("blocks.0.attn.rope.rope.freqs", torch.zeros(9)), "wrong shape: blocks.0.attn.rope.rope.freqs"),
        (with_tensor("txt_in.bias", torch.zeros(64, dtype=torch.int64)), "not floating point: txt_in.bias"),
        (lambda _weights: {}, "missing tensors: patch"),
    ],
)
def test_dit_that_does_not_fit(change: Callable[[Tensors], Tensors], sentence: str) -> None:
    with pytest.raises(RestorationError) as caught:
        load_dit(change(dit_weights()))
    assert caught.value.reason is FailureReason.MODEL_INVALID
    expected = sentence if not sentence.endswith("patch") else "missing tensors: vid_in.proj.weight"
    assert expected in caught.value.message
    assert caught.value.message.startswith("dit.safetensors does not hold")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without("encoder.conv_in.weight"), "missing tensors: encoder.conv_in.weight"),
        (with_tensor("loss.logvar", torch.zeros(1)), "unknown tensors: loss.logvar"),
        # A 2-D kernel of an image VAE is not inflated silently.
        (with_tensor("encoder.conv_in.weight", torch.zeros(8, 3, 3, 3)), "encoder.conv_in.weight is [8, 3, 3, 3]"),
    ],
)
def test_vae_that_does_not_fit(change: Callable[[Tensors], Tensors], sentence: str) -> None:
    with pytest.raises(RestorationError) as caught:
        load_vae(change(vae_weights()))
    assert caught.value.reason is FailureReason.MODEL_INVALID
    assert sentence in caught.value.message


def test_long_lists_are_cut() -> None:
    with pytest.raises(RestorationError) as caught:
        load_dit({})
    assert len(caught.value.message) < 400
    assert " more" in caught.value.message


def test_derived_tables_may_be_absent() -> None:
    load_dit({name: tensor for name, tensor in dit_weights().items() if not name.endswith("freqs")})


def test_older_attention_names_are_read() -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = {}
    for name, tensor in vae_weights().items():
        for new, former in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{former}.")
        weights[name] = tensor
    assert weights.keys() != vae_weights().keys()
    modern, older = vae_tensors(load_vae(vae_weights())), vae_tensors(load_vae(weights))
    assert all(torch.equal(modern[name], older[name]) for name in modern)


def test_weights_survive_a_round_trip() -> None:
    dit, vae = dit_weights(), vae_weights()
    saved = {**dit_tensors(load_dit(dit)), **vae_tensors(load_vae(vae))}
    for name, tensor in {**dit, **vae}.items():
        if not name.endswith("rope.freqs"):
            assert torch.equal(saved.pop(name), tensor.float()), name
    assert saved == {}


def dit_3b_shapes() -> dict[str, tuple[int, ...]]:
    """Section by section, what the released 3B file holds."""
    expected: dict[str, tuple[int, ...]] = {
        "vid_in.proj.weight": (2560, 132),
        "txt_in.weight": (2560, 5120),
        "emb_in.proj_hid.weight": (2560, 2560),
        "emb_in.proj_out.weight": (15360, 2560),
        "blocks.9.attn.proj_qkv.txt.weight": (7680, 2560),
        "blocks.10.attn.proj_qkv.all.weight": (7680, 2560),
        "blocks.0.attn.norm_k.vid.weight": (128,),
        "blocks.31.mlp.all.proj_in_gate.weight": (6912, 2560),
        "blocks.31.ada.all.mlp_gate": (2560,),
        "vid_out_norm.weight": (2560,),
        "vid_out_ada.out_shift": (2560,),
        "vid_out.proj.bias": (64,),
    }
    return expected


@pytest.mark.parametrize(
    ("name", "tensors", "parameters"), [("seedvr2-3b", 603, 3_391_475_776), ("seedvr2-7b", 1092, 8_239_607_872)]
)
def test_released_sizes(name: str, tensors: int, parameters: int) -> None:
    with torch.device("meta"):
        model = NaDiT(MODELS[name].dit)
    shapes = {official_name(key, DIT_RULES): tuple(p.shape) for key, p in model.named_parameters()}
    assert len(shapes) == tensors
    assert sum(p.numel() for p in model.parameters()) == parameters
    if name == "seedvr2-3b":
        assert dit_3b_shapes().items() <= shapes.items()


def test_released_vae_size() -> None:
    with torch.device("meta"):
        model = VideoVae(MODELS["seedvr2-3b"].vae)
    shapes = {official_name(key, VAE_RULES): tuple(p.shape) for key, p in model.named_parameters()}
    assert len(shapes) == 250
    assert sum(p.numel() for p in model.parameters()) == 250_648_227
    assert shapes["decoder.up_blocks.1.upsamplers.0.upscale_conv.weight"] == (4096, 512, 1, 1, 1)
    assert shapes["decoder.mid_block.attentions.0.to_out.0.bias"] == (512,)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "x.safetensors is missing"), (b"\x80\x04pickle", "not a readable"), (b"", "not a readable")],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RestorationError) as caught:
        read_tensors(path)
    assert caught.value.reason is FailureReason.MODEL_INVALID
    assert sentence in caught.value.message


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(RestorationError):
        read_tensors(path)
