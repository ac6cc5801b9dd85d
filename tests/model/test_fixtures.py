"""The networks reproduce the stored results of the released code, on the CPU in fp32, at each case's own tolerance."""

import json
from pathlib import Path

import pytest
import torch

from tests.model import fixtures
from tests.model.comparing import Place

FOLDER = Path(__file__).parent / "fixtures_data"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    "case", [case for case in fixtures.read_cases(FOLDER) if case.kind in fixtures.CHECKS], ids=lambda case: case.name
)
def test_case(case: fixtures.Case) -> None:
    result = fixtures.run_case(case, Place())
    assert result.problem is None


def test_program_counts_unbuilt_kinds_as_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "index.json").write_text(json.dumps({"cases": [{"kind": "dit99b", "file": "x.safetensors"}]}))
    assert fixtures.main([str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 1 failed"


def test_program_finds_a_wrong_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads((FOLDER / "windows.json").read_text())
    rows[0]["windows"][0][1] += 1
    (tmp_path / "windows.json").write_text(json.dumps(rows))
    (tmp_path / "index.json").write_text(json.dumps({"cases": [{"kind": "windows", "file": "windows.json"}]}))
    assert fixtures.main([str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 1 failed"


def test_program_without_an_index_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fixtures.main([str(tmp_path)]) == 2
    assert "index.json cannot be read" in capsys.readouterr().err
