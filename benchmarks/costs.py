"""What a minute of video costs, from the measured speeds in RESULTS.md and your price of a GPU's hour.

    python -m benchmarks.costs --gpu-hour 2.50
    python -m benchmarks.costs --gpu-hour 2.50 --fps 60 --utilisation 0.8 --json costs.json

GPU minutes for a minute of video are `fps ÷ measured frames/s`; money is that times the price. Nothing is measured here
and nothing is assumed but what is given: `--utilisation` is the part of the paid time in which the GPU restores, which
pays for starting pods, reading models, decoding, encoding and for standing idle.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
SECTION = "GPU"
"""How headings of sections begin that hold speeds of a GPU."""


@dataclass(frozen=True)
class Speed:
    """One measured row: what was restored, under which heading, and how fast."""

    section: str
    what: str
    frames_per_second: float


@dataclass(frozen=True)
class Cost:
    """GPU time and money for one minute of video, at one price of a GPU's hour."""

    section: str
    what: str
    frames_per_second: float
    gpu_minutes: float
    price: float


def speeds(text: str) -> list[Speed]:
    """Every row of every table of a GPU's section that has a column `frames/s` with a number in it."""
    return [speed for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:] for speed in _of_section(section)]


def _of_section(section: str) -> Iterator[Speed]:
    heading = section.partition("\n")[0].strip()
    if not heading.startswith(SECTION):
        return
    head: list[str] = []
    for line in section.splitlines():
        cells = [cell.strip().strip("*") for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            head = []
        elif not head:
            head = cells
        elif "frames/s" in head and len(cells) == len(head):
            number = cells[head.index("frames/s")]
            if re.fullmatch(r"\d+(\.\d+)?", number) and float(number) > 0:
                known = [cells[head.index(name)] for name in ("model", "size", "knobs") if name in head]
                # Another form of table has what its rows share in the corner, and the rest in the first column.
                named = known or [part for part in (head[0], cells[0]) if part]
                yield Speed(heading, ", ".join(named), float(number))


def costs(found: list[Speed], *, gpu_hour: float, fps: float, utilisation: float) -> list[Cost]:
    """What each of them makes of a minute of video."""
    return [
        Cost(
            section=speed.section,
            what=speed.what,
            frames_per_second=speed.frames_per_second,
            gpu_minutes=round(minutes := fps / speed.frames_per_second / utilisation, 3),
            price=round(minutes / 60 * gpu_hour, 4),
        )
        for speed in found
    ]


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if RESULTS.md has no speed of a GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.costs", description=str(__doc__).split("\n")[0])
    parser.add_argument("--gpu-hour", type=_positive, required=True, help="what an hour of the measured GPU costs you")
    parser.add_argument("--fps", type=_positive, default=25.0, help="frames a second of the video (default 25)")
    parser.add_argument("--utilisation", type=_part, default=1.0, help="part of paid time that restores (default 1)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="measured figures (default RESULTS.md)")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args(arguments)
    found = speeds(options.results.read_text(encoding="utf-8"))
    if not found:
        print(f"error: {options.results} has no table of a GPU's frames/s", file=sys.stderr)
        return 1
    rows = costs(found, gpu_hour=options.gpu_hour, fps=options.fps, utilisation=options.utilisation)
    print(f"one minute of video at {options.fps:g} frames/s, {options.gpu_hour:g} for an hour of the GPU measured")
    for section in dict.fromkeys(row.section for row in rows):
        print(f"\n{section}\n\n| what was measured | frames/s | GPU minutes | price |\n| --- | --- | --- | --- |")
        for row in rows:
            if row.section == section:
                print(f"| {row.what} | {row.frames_per_second:g} | {row.gpu_minutes:.2f} | {row.price:.3f} |")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    return 0


def _positive(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _part(text: str) -> float:
    value = _positive(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text} is more than all of the time")
    return value


if __name__ == "__main__":
    sys.exit(main())
