"""Checkpoints as others publish them, with the released files' keys and kinds, small enough for tests."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from restoration_runner.models.seedvr2.description import ModelDescription, PosteriorRule
from tests.builders.models import FIXTURES
from tests.builders.official import dit_config, vae_config

Tensors = dict[str, Tensor]
KINDS = ("dit3b", "dit7b")
"""The two rule sets."""


@dataclass(frozen=True)
class Published:
    """Values and description of one model; `write_official` and `write_community` make the files."""

    description: ModelDescription
    dit: Tensors
    vae: Tensors
    text: Tensor

    def write_official(self, folder: Path) -> dict[str, Path]:
        """fp32 state dicts and a bare bf16 tensor, as `torch.save` writes them."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = {"dit": folder / "ema_dit.pth", "vae": folder / "ema_vae.pth", "text": folder / "pos_emb.pt"}
        torch.save({name: tensor.float() for name, tensor in self.dit.items()}, paths["dit"])
        torch.save({name: tensor.float() for name, tensor in self.vae.items()}, paths["vae"])
        torch.save(self.text.bfloat16(), paths["text"])
        return paths

    def write_community(self, folder: Path, dtype: torch.dtype = torch.float16) -> dict[str, Path]:
        """The same values rounded, as safetensors; the prompt as it was released."""
        paths = {**self.write_official(folder), "dit": folder / "dit.safetensors", "vae": folder / "vae.safetensors"}
        save_file({name: tensor.to(dtype) for name, tensor in self.dit.items()}, paths["dit"])
        save_file({name: tensor.to(dtype) for name, tensor in self.vae.items()}, paths["vae"])
        return paths

    def write_description(self, path: Path) -> Path:
        path.write_text(self.description.model_dump_json(by_alias=True))
        return path


def published(kind: str = "dit3b") -> Published:
    """The fixtures' tiny network of one rule set, stored tables included."""
    entry = _entry(kind)
    text = load_file(FIXTURES / entry["file"])["in.txt"]
    description = ModelDescription(
        name=f"tiny-{kind}",
        posterior=PosteriorRule.SAMPLE,
        dit=dit_config(kind, entry["dit_config"]),
        vae=vae_config(entry["vae_config"]),
    )
    return Published(
        description, load_file(FIXTURES / entry["dit_weights"]), load_file(FIXTURES / entry["vae_weights"]), text
    )


def _entry(kind: str) -> dict[str, Any]:
    cases: list[dict[str, Any]] = json.loads((FIXTURES / "index.json").read_text())["cases"]
    return next(case for case in cases if case["kind"] == "pipeline" and case["dit_kind"] == kind)
