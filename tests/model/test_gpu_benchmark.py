"""The GPU benchmarks run, here with small networks on the CPU, so that they work at the first try where a GPU is."""

import argparse
import json
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from benchmarks.gpu import arithmetic, busy, copies, dit, numerics, start
from benchmarks.gpu.__main__ import main

from restoration_runner.models import kernels
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


def test_the_transformer_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dit, "KNOBS", dit.KNOBS[:2])
    words = ("dit", "--what", "accuracy", "speed", "knobs", "--models", "seedvr2-3b", "--seeds", "1", "--repeats", "1")
    result = found(tmp_path, *words)
    assert [row["path"] for row in result["rows"][:4]] == ["plain", "fast", "fp8", "fast"]
    assert all(row["step_ms"] > 0 and row["problem"] is None for row in result["rows"])
    assert all("ANOTHER" not in row["knobs"] for row in result["rows"])
    errors = {row["path"]: row["output"] for row in result["errors"]}
    assert errors["fast fp32"] < 1e-5
    assert 1e-4 < errors["fast bf16"] < errors["plain bf16"] < errors["fast fp8"] < 0.2
    assert "seedvr2-3b" in capsys.readouterr().out


def test_every_kernel_has_its_gain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the networks that use it; none is forgotten but the one that only a GPU's attention asks for."""
    rows = found(tmp_path, "kernels", "--frames", "5", "--repeats", "1")["rows"]
    used: dict[str, list[str]] = {}
    for row in rows:
        assert row["ms"] > 0 and row["fallback_ms"] > 0
        used.setdefault(row["network"], []).append(row["kernel"])
    both_ends = ["group_sums", "normalise", "residual", "winograd"]
    transformer = ["gated_mlp", "modulated_norm", "window_gather", "window_scatter"]
    assert used == {
        "encode, Winograd": sorted([*both_ends, "unfold_taps"]),
        "decode, Winograd": sorted([*both_ends, "pixel_shuffle"]),
        "encode, 1 frame": sorted([*both_ends[:-1], "unfold_taps"]),
        "decode, 1 frame": sorted([*both_ends[:-1], "pixel_shuffle"]),
        "seedvr2-3b": transformer,
        "seedvr2-3b, 8 bits": sorted([*transformer, "dequantise"]),
    }
    shipped = {path.stem for path in Path(kernels.__path__[0]).glob("*.py")} - {"__init__", "launch", "softmax_rows"}
    assert {name for names in used.values() for name in names} == shipped
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(rows)


def test_every_layer_has_its_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of both halves of the VAE, in every form; errors grow from one rounding to a few."""
    result = found(tmp_path, "layers", "--networks", "vae", "seedvr2-3b", "--seeds", "1")
    rows = {(row["network"], row["layer"], row["path"]): row["ulp"] for row in result["rows"]}
    vae = [layer for network, layer, path in rows if (network, path) == ("vae", "fast")]
    nano = MODELS["seedvr2-nano"]
    levels, blocks = len(nano.vae.channels), nano.vae.encoder_blocks
    assert len(vae) == len(set(vae)) == levels * (2 * blocks + 1) + 2 * (levels - 1 + 3 + 2)
    assert vae[0] == "encoder.conv_in" and vae[-1] == "decoder.conv_out"
    forms = ("plain", "fast", "fast, Winograd")
    assert all(0.1 < rows["vae", layer, form] < 3 for layer in vae for form in forms)
    assert all(rows["vae", "encoder.conv_in", form] < 0.3 for form in forms)
    transformer = [(layer, path) for network, layer, path in rows if network == "seedvr2-3b"]
    names = [*(f"blocks.{i}" for i in range(nano.dit.layers)), "output"]
    assert transformer == list(product(names, ("plain", "fast")))
    assert len(capsys.readouterr().out.splitlines()) == 1 + 1 + len(vae) + 1 + len(names)


def test_final_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "FRAMES", {"seedvr2-nano": 1, "seedvr2-3b": 5})
    rows = found(tmp_path, "numerics", "--models", "seedvr2-3b", "--seeds", "1")["rows"]
    assert all(30 < row["db"] < 70 and row["same_bytes"] for row in rows)
    db = {(row["path"], row["precision"]): row["db"] for row in rows}
    low, plain, *fast = sorted(db, key=lambda form: db[form])
    assert (low, plain) == (("fast, Winograd, FP8", "FP8"), ("plain", "BF16"))
    assert set(fast) == {("fast, rings", "BF16"), ("fast, Winograd", "BF16")}


def test_the_plan_beside_what_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a CPU nothing is gauged; the case runs with the knobs that were asked for, and what cannot fit is refused."""
    strips = "480p/5/24/stage_by_stage=1,vae.strip_rows=16,vae.past_on_host=1,vae.second_level=1"
    rows = found(tmp_path, "memory", "--cases", strips, "480p/1/8", "480p/5/1")["rows"]
    assert [row["card_gib"] for row in rows] == [24, 8]
    assert all(row["row"]["frames_per_s"] > 0 and row["predicted_gib"]["peak"] > 0 for row in rows)
    assert rows[0]["row"]["settings"]["vae.second_level"] == "True"
    assert "takes" in (shown := capsys.readouterr().out) and "second_level=True" in shown


def test_what_stands_around_the_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "ROUNDS", 1)
    result = found(tmp_path, "copies", "--sizes", "480p")
    assert result["noiseIsEqual"] and result["replaysAreEqual"]
    assert len(result["rows"]) == 12
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


def test_a_clip_goes_through_the_whole_runner(tmp_path: Path) -> None:
    """A long one, and short ones."""
    row = found(
        tmp_path, "clip", "--frames", "8", "--short", "4", "--count", "2", "--window", "5", "--scratch", str(tmp_path)
    )
    assert [row[what]["frames"] for what in ("first", "clip", "first short", "short clips")] == [8, 8, 4, 8]
    assert (row["clip"]["width"], row["clip"]["height"], row["path"]) == (84, 48, "fast")
    assert row["clip"]["run_s"] > row["clip"]["inference_s"] > 0


def test_the_marks_of_a_start(tmp_path: Path) -> None:
    """In this process; the command does it in fresh ones."""
    torch.set_num_threads(1)
    words = ["start", "--device", "cpu", "--tiny", "--frames", "5", "--window", "5", "--folder", str(tmp_path)]
    main([*words, "--role", "write"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(start.ENVIRONMENT_BEGUN, str(time.time()))
        chosen = argparse.Namespace(device="cpu", window=5, precision="BF16", without_digest=False)
        found = start.run(tmp_path, chosen)
    marks = [found[name] for name in start.MARKS]
    assert marks == sorted(marks)  # on a CPU nothing is loaded beside planning
    assert (found["compiled"], found["found"]) == (0, 0)


@pytest.mark.parametrize(
    ("records", "busy_ms", "span_ms", "gap_ms"),
    [
        ([], 0, 0, 0),
        ([(5, 2, "a")], 2, 2, 0),
        ([(0, 4, "a"), (1, 2, "b"), (3, 3, "a")], 6, 6, 0),  # two streams at once count once
        ([(10, 1, "a"), (0, 4, "a"), (6, 2, "b")], 7, 11, 2),  # in any order
    ],
)
def test_busy_time_of_a_trace(
    records: list[tuple[float, float, str]], busy_ms: float, span_ms: float, gap_ms: float
) -> None:
    seen = busy.summed(records)
    assert (seen.busy_ms, seen.span_ms, seen.longest_gap_ms) == (busy_ms, span_ms, gap_ms)


def test_the_roofline_is_drawn_from_the_figures(tmp_path: Path) -> None:
    stages = {"encode": 1.0, "transformer": 2.0, "decode": 3.0}
    row = {
        "model": "m & m",
        "path": "fast",
        "height": 720,
        "knobs": "",
        "problem": None,
        "tflop": {stage: 100 * value for stage, value in stages.items()},
        "gbytes": dict.fromkeys(stages, 500.0),
        **{f"{stage}_s": 0.5 for stage in stages},
    }
    machine = {"matmul_tflops": 800.0, "copy_gb_s": 2800.0, "device": "a GPU", "torch": "2"}
    source = tmp_path / "stages.json"
    source.write_text(json.dumps({"machine": machine, "rows": [row, {**row, "problem": "too large"}]}))
    main(["roofline", str(source), str(tmp_path / "roofline.svg")])
    tree = ElementTree.fromstring((tmp_path / "roofline.svg").read_text())
    named = [title.text or "" for title in tree.iter("{http://www.w3.org/2000/svg}title")]
    assert [title.partition(": ")[2] for title in named] == [
        f"{200 * value:.0f} TFLOP/s at {200 * value:.0f} operations a byte" for value in stages.values()
    ]
