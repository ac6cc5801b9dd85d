"""Every key of a checkpoint is accounted for, and the official names come out of our modules."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.models.seedvr2.checkpoint import (
    Layout,
    build_dit,
    build_vae,
    dit_layout,
    dit_tensors,
    read_tensors,
    vae_layout,
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


KEYS = Path(__file__).parent / "checkpoint_keys"
"""Every key of the released files with its shape, as the released code's modules have them."""
LAYOUTS = {
    "dit_3b": (dit_layout(MODELS["seedvr2-3b"].dit), 603, 3_391_475_776),
    "dit_7b": (dit_layout(MODELS["seedvr2-7b"].dit), 1092, 8_239_607_872),
    "vae": (vae_layout(MODELS["seedvr2-3b"].vae), 250, 250_648_227),
}


def released(name: str) -> Tensors:
    """The file's tensors without memory."""
    shapes: dict[str, list[int]] = json.loads((KEYS / f"{name}.json").read_text())
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def inner(name: str, key: str) -> bool:
    """Of the 36 blocks of the 7B three are enough: the rest differ in their number."""
    return name == "dit_7b" and key.startswith("blocks.") and key.split(".")[1] not in ("0", "1", "35")


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_those_of_the_released_files(name: str) -> None:
    layout, tensors, parameters = LAYOUTS[name]
    assert {**layout.shapes, **layout.tables} == {key: tensor.shape for key, tensor in released(name).items()}
    assert len(layout.shapes) == tensors
    assert sum(shape.numel() for shape in layout.shapes.values()) == parameters


@pytest.mark.parametrize("name", LAYOUTS)
def test_released_files_are_read_and_written_back_under_their_names(name: str) -> None:
    weights, meta = released(name), torch.device("meta")
    if name == "vae":
        saved = vae_tensors(build_vae(MODELS["seedvr2-3b"].vae, weights, device=meta, dtype=torch.bfloat16))
    else:
        config = MODELS[name.replace("dit_", "seedvr2-")].dit
        saved = dit_tensors(build_dit(config, weights, device=meta, dtype=torch.bfloat16))
    tables = {key for key in weights if key.endswith("rope.freqs")}
    assert {key: tensor.shape for key, tensor in saved.items()} == {
        key: tensor.shape for key, tensor in weights.items() if key not in tables
    }


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_key_of_the_released_files_is_insisted_on(name: str) -> None:
    layout, weights = LAYOUTS[name][0], released(name)
    for key in weights:
        if inner(name, key):
            continue
        others = {other: tensor for other, tensor in weights.items() if other != key}
        misshapen = torch.empty([*weights[key].shape, 1], device="meta")
        if key in layout.tables:
            layout.check(others, source="x")
        else:
            assert complaint(layout, others).endswith(f"missing tensors: {key}.")
        assert f"wrong shape: {key} is" in complaint(layout, {**weights, key: misshapen})
        assert complaint(layout, {**weights, f"{key}_": weights[key]}).endswith(f"unknown tensors: {key}_.")


def complaint(layout: Layout, weights: Tensors) -> str:
    with pytest.raises(RestorationError) as caught:
        layout.check(weights, source="x")
    assert caught.value.reason is FailureReason.MODEL_INVALID
    return caught.value.message


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
