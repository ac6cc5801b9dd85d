"""The price of a minute of video follows from the measured table and what is given, and from nothing else."""

import json
from pathlib import Path

import pytest
from benchmarks.costs import RESULTS, Speed, main, speeds

TEXT = """# Results

## A CPU

| size | frames/s |
| --- | --- |
| 640×360 | 1.5 |

## GPU: the restorer

| size | knobs | frames/s | live |
| --- | --- | --- | --- |
| 720p | none | **12.5** | 9 |
| 1080p | strips | not measured | |

What all rows share may stand in the corner:

| 720p × 21 | encode | frames/s |
| --- | --- | --- |
| 3B fast | 0.3 s | 17.5 |

Other tables have other columns:

| size | seconds |
| --- | --- |
| 720p | 3 |
"""


def test_only_measured_speeds_of_gpus_count() -> None:
    assert speeds(TEXT) == [
        Speed("GPU: the restorer", "720p, none", 12.5),
        Speed("GPU: the restorer", "720p × 21, 3B fast", 17.5),
    ]
    assert len(speeds(RESULTS.read_text())) >= 3


# A minute at 25 frames a second is 1500 frames: at 12.5 a second 2 minutes of GPU, at 6 an hour 0.20.
PRICES = [([], 2.0, 0.2), (["--fps", "50"], 4.0, 0.4), (["--utilisation", "0.5"], 4.0, 0.4)]


@pytest.mark.parametrize(("more", "minutes", "price"), PRICES)
def test_a_minute_of_video(more: list[str], minutes: float, price: float, tmp_path: Path) -> None:
    results, rows = tmp_path / "results.md", tmp_path / "rows.json"
    results.write_text(TEXT)
    assert main(["--gpu-hour", "6", "--results", str(results), "--json", str(rows), *more]) == 0
    [row, _] = json.loads(rows.read_text())
    assert (row["gpu_minutes"], row["price"]) == (minutes, price)


@pytest.mark.parametrize(
    "wrong", [["--gpu-hour", "0"], ["--gpu-hour", "nan"], ["--gpu-hour", "1", "--utilisation", "2"]]
)
def test_prices_that_are_none_are_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2


def test_without_measurements_there_is_no_price(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.md").write_text("# Results\n")
    assert main(["--gpu-hour", "1", "--results", str(tmp_path / "empty.md")]) == 1
    assert "no table of a GPU's frames/s" in capsys.readouterr().err
