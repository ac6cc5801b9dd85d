"""The GPU benchmarks run, here with small networks on the CPU, so that they work at the first try where a GPU is."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.gpu import arithmetic, copies
from benchmarks.gpu.__main__ import main

from restoration_runner.models.seedvr2.config import MODELS, RELEASED_VAE
from restoration_runner.models.seedvr2.vae import VideoVae


def found(tmp_path: Path, *words: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    path = tmp_path / "found.json"
    main([*words, "--device", "cpu", "--tiny", "--json", str(path)])
    read: dict[str, Any] = json.loads(path.read_text())
    return read


STAGES = ("stages", "--sizes", "480p", "--windows", "5")


def test_every_model_and_path_has_its_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = found(tmp_path, *STAGES)["rows"]
    models, paths = ("seedvr2-3b-tiny", "seedvr2-7b-tiny"), ("plain", "fast")
    assert [(row["model"], row["path"]) for row in rows] == list(product(models, paths))
    for row in rows:
        assert row["problem"] is None
        assert all(row[f"{stage}_s"] > 0 for stage in ("encode", "transformer", "decode", "total", "cold"))
        assert row["ceiling"] > 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + 4


def test_a_case_that_does_not_fit_does_not_end_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    decode = VideoVae.decode

    def refuse(vae: VideoVae, latent: torch.Tensor, state: object = None) -> torch.Tensor:
        if latent.device.type == "cpu":  # and not where the arithmetic is counted
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decode(vae, latent)

    monkeypatch.setattr(VideoVae, "decode", refuse)
    rows = found(tmp_path, *STAGES, "--paths", "plain")["rows"]
    assert ["memory" in row["problem"] for row in rows] == [True, True]
    assert "memory" in capsys.readouterr().out


def test_the_transformer_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("dit", "--what", "accuracy", "speed", "knobs", "--models", "seedvr2-3b", "--seeds", "1", "--repeats", "1")
    result = found(tmp_path, *words)
    assert [row["path"] for row in result["rows"][:3]] == ["plain", "fast", "fast"]
    assert all(row["step_ms"] > 0 and row["problem"] is None for row in result["rows"])
    assert all("ANOTHER" not in row["knobs"] for row in result["rows"])
    errors = {row["path"]: row["output"] for row in result["errors"]}
    assert errors["fast fp32"] < 1e-5
    assert 1e-4 < errors["fast bf16"] < errors["plain bf16"]
    assert "seedvr2-3b" in capsys.readouterr().out


def test_what_stands_around_the_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "ROUNDS", 1)
    result = found(tmp_path, "copies", "--sizes", "480p")
    assert result["noiseIsEqual"]
    assert len(result["rows"]) == 10
    assert all(row["host_ms"] > 0 for row in result["rows"])


def test_the_arithmetic_is_that_of_the_released_networks() -> None:
    """Counted by hand from the configuration: 11.77 and 4.53 million multiplications a pixel of the VAE's
    convolutions (`decode`, `encode`), without the attention in its middle; twelve linear layers' worth a token of
    the transformer."""
    config = replace(MODELS["seedvr2-nano"], vae=RELEASED_VAE)
    work = arithmetic.work_of(config, width=128, height=128, frames=5)
    pixels = 128 * 128 * 5
    # The first frame of a clip is padded with itself, and its upsamplings make frames that are dropped.
    assert work["decode"].tflop * 1e12 == pytest.approx(2 * 11.77e6 * pixels, rel=0.25)
    assert work["encode"].tflop * 1e12 == pytest.approx(2 * 4.53e6 * pixels, rel=0.25)
    tokens = 2 * 8 * 8 + arithmetic.TEXT_TOKENS
    width, hidden = config.dit.width, config.dit.mlp_hidden
    linear = 2 * tokens * config.dit.layers * (4 * width * width + 3 * width * hidden)
    assert work["transformer"].tflop * 1e12 == pytest.approx(linear, rel=0.25)


def test_the_vae_has_its_knobs_and_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("plain", "8 strips")
    of = found(tmp_path, "vae", "--sizes", "480p", "--frames", "5", "--settings", *settings, "--repeats", "1")
    assert [(row["path"], row["part"]) for row in of["rows"]] == list(product(settings, ("encode", "decode")))
    assert all(row["ms"] > 0 and row["state_gib"] > 0 and row["problem"] is None for row in of["rows"])
    assert of["rows"][-1]["knobs"]["strip_rows"] == 4
    assert len(capsys.readouterr().out.splitlines()) == 2 + 4
