"""Model folders small enough for tests: the fixtures' tiny weights, a fraction of a second for a few 64×64 frames."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from restoration_runner.models.seedvr2.checkpoint import build_dit, build_vae
from restoration_runner.models.seedvr2.description import ModelDescription, PosteriorRule
from restoration_runner.models.seedvr2.folder import write_folder
from tests.builders.official import dit_config, vae_config

FIXTURES = Path(__file__).parents[1] / "model" / "fixtures_data"
TINY = "seedvr2-tiny"


def tiny_description(
    *,
    posterior: PosteriorRule = PosteriorRule.SAMPLE,
    encoder_warmup: int = 2,
    decoder_warmup: int = 2,
    rules: str = "dit3b",
) -> ModelDescription:
    """The dimensions of the fixtures' pipeline with the rules of the 3B (`dit3b`) or the 7B network (`dit7b`)."""
    entry = _pipeline_entry(rules)
    return ModelDescription(
        name=TINY,
        posterior=posterior,
        encoder_warmup_latents=encoder_warmup,
        decoder_warmup_latents=decoder_warmup,
        dit=dit_config(rules, entry["dit_config"]),
        vae=vae_config(entry["vae_config"]),
    )


def write_tiny_model(folder: Path, description: ModelDescription | None = None) -> Path:
    """Write a complete model folder, the same bytes every time; returns `folder`."""
    description = description or tiny_description()
    entry = _pipeline_entry("dit3b" if description.dit.rope == "multimodal" else "dit7b")
    cpu, half = torch.device("cpu"), torch.float16
    dit = build_dit(description.dit, load_file(FIXTURES / entry["dit_weights"]), device=cpu, dtype=half)
    vae = build_vae(description.vae, load_file(FIXTURES / entry["vae_weights"]), device=cpu, dtype=half)
    text = load_file(FIXTURES / entry["file"])["in.txt"]
    write_folder(folder, description, dit, vae, text, dtype=half)
    return folder


def _pipeline_entry(rules: str) -> dict[str, Any]:
    cases: list[dict[str, Any]] = json.loads((FIXTURES / "index.json").read_text())["cases"]
    return next(case for case in cases if case["kind"] == "pipeline" and case["dit_kind"] == rules)
