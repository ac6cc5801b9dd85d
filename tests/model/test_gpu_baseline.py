"""The GPU benchmark runs, here with small networks on the CPU, so that it works at the first try where a GPU is."""

import json
from pathlib import Path

import pytest
import torch
from benchmarks import gpu_baseline

from restoration_runner.models.seedvr2.vae import VideoVae


def rows(tmp_path: Path, *more: str) -> list[dict[str, object]]:
    torch.set_num_threads(1)
    path = tmp_path / "rows.json"
    gpu_baseline.main(["--device", "cpu", "--tiny", "--frames", "5", "--json", str(path), *more])
    found: list[dict[str, object]] = json.loads(path.read_text())["rows"]
    return found


def test_every_model_and_size_has_its_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(tmp_path)
    assert [(row["model"], row["width"]) for row in found] == [
        (f"seedvr2-{size}-tiny", width) for size in ("3b", "7b") for width in (64, 96)
    ]
    for row in found:
        assert row["problem"] is None
        assert all(isinstance(row[f"{stage}_s"], float) for stage in ("encode", "transformer", "decode", "total"))
    assert len(capsys.readouterr().out.splitlines()) == 2 + 2 + 4


def test_a_case_that_does_not_fit_does_not_end_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(VideoVae, "decode", refuse)
    found = rows(tmp_path, "--models", "seedvr2-3b")
    assert all("memory" in str(row["problem"]) for row in found)
    assert len(found) == 2
    assert "memory" in capsys.readouterr().out
