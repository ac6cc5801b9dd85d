"""Draws the dashboard from a recording: each panel's queries, asked of a real Prometheus, as lines.

python -m hack.chart.picture          docs/images/dashboard.png from tests/chart/recorded.om.gz

Not Grafana, which is not among what this project can build: the same queries, names, places and units, drawn plainly.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageDraw, ImageFont

from hack.chart.dashboard import COLUMNS, dashboard
from hack.chart.gpu_numbers import with_gpu_numbers
from hack.chart.paths import ROOT
from hack.chart.prometheus import Prometheus, prometheus
from hack.chart.queries import written_out
from hack.chart.record import RECORDING
from hack.cluster.binaries import PROMETHEUS, PROMTOOL
from hack.cluster.build import ensure_built
from hack.cluster.console import Console

PICTURE: Final = ROOT / "docs" / "images" / "dashboard.png"
WIDTH: Final = 1440
UNIT: Final = 26
"""Pixels of one row of Grafana's grid."""
POINTS: Final = 120
"""Of each line."""
GROUND, PAPER, INK, FAINT, RED = "#111217", "#181b1f", "#d8d9da", "#6e7380", "#f2495c"
COLOURS: Final = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#b877d9", "#8ab8ff", "#fade2a", "#ff7383", "#96d98d")
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Line:
    """One series: its name, and numbers by time; None where there is none."""

    name: str
    numbers: dict[float, float]


def main() -> int:
    """Returns the process's exit code."""
    ensure_built((PROMTOOL, PROMETHEUS), Console())
    recording = with_gpu_numbers(gzip.decompress(RECORDING.read_bytes()).decode())
    times = [float(at) for at in re.findall(r" ([0-9.]+)$", recording, re.MULTILINE)]
    with tempfile.TemporaryDirectory() as folder, prometheus(recording, Path(folder)) as server:
        image = draw(server, min(times), max(times))
    PICTURE.parent.mkdir(exist_ok=True)
    image.quantize(64).save(PICTURE, optimize=True)
    print(f"wrote {PICTURE} ({PICTURE.stat().st_size // 1024} KiB)")
    return 0


def draw(server: Prometheus, start: float, end: float) -> Image.Image:
    """The whole dashboard between two times."""
    panels = json.loads(dashboard())["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    image = Image.new("RGB", (WIDTH, rows * UNIT), GROUND)
    pen = ImageDraw.Draw(image)
    for panel in panels:
        place = panel["gridPos"]
        left, top = place["x"] * WIDTH // COLUMNS, place["y"] * UNIT
        box = (left + 3, top + 3, left + place["w"] * WIDTH // COLUMNS - 3, top + place["h"] * UNIT - 3)
        if panel["type"] == "row":
            pen.text((box[0] + 4, box[1] + 2), panel["title"], INK, font=_font(15))
            continue
        pen.rectangle(box, PAPER)
        pen.text((box[0] + 8, box[1] + 5), panel["title"], INK, font=_font(13))
        lines = list(_ask(server, panel, start, end))
        if panel["type"] == "stat":
            _number(pen, box, panel, lines)
        else:
            _plot(pen, box, panel, lines, start, end)
    return image


def _ask(server: Prometheus, panel: dict[str, Any], start: float, end: float) -> Iterator[Line]:
    for target in panel["targets"]:
        step = max(5.0, (end - start) / POINTS)
        for series in server.query_range(written_out(target["expr"]), start=start, end=end, step_seconds=step):
            name = _named(target["legendFormat"], series["metric"])
            numbers = {float(at): float(value) for at, value in series["values"] if value not in ("NaN", "+Inf")}
            yield Line(name, numbers)


def _named(legend: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), legend)


def _number(pen: ImageDraw.ImageDraw, box: Box, panel: dict[str, Any], lines: list[Line]) -> None:
    value = list(lines[0].numbers.values())[-1] if lines and lines[0].numbers else 0.0
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    colour = RED if len(steps) > 1 and value >= steps[1]["value"] else COLOURS[0]
    text = _with_unit(value, panel["fieldConfig"]["defaults"]["unit"])
    pen.text(((box[0] + box[2]) // 2, (box[1] + box[3]) // 2 + 10), text, colour, font=_font(32), anchor="mm")


def _plot(
    pen: ImageDraw.ImageDraw, box: Box, panel: dict[str, Any], lines: list[Line], start: float, end: float
) -> None:
    field = panel["fieldConfig"]["defaults"]
    stacked = field["custom"]["stacking"]["mode"] == "normal"
    shown = _stacked(lines) if stacked else lines
    most = max((value for line in shown for value in line.numbers.values()), default=0.0) or 1.0
    left, top, right, bottom = box[0] + 52, box[1] + 28, box[2] - 10, box[3] - 34
    for share in (0.0, 0.5, 1.0):
        y = round(bottom - share * (bottom - top))
        pen.line((left, y, right, y), "#2c3235")
        pen.text((left - 6, y), _with_unit(share * most, field["unit"]), FAINT, font=_font(10), anchor="rm")
    x = box[0] + 10
    for line, colour in zip(shown, cycle(COLOURS), strict=False):
        points = [
            (left + (at - start) / (end - start) * (right - left), bottom - value / most * (bottom - top))
            for at, value in sorted(line.numbers.items())
        ]
        times = sorted(line.numbers)
        for (before, after), (first, second) in zip(pairwise(points), pairwise(times), strict=True):
            if second - first < (end - start) / 20:  # a gap is a gap
                pen.line((*before, *after), colour, 2)
        name = line.name.rpartition("/")[2][:34]
        if x + pen.textlength(name, font=_font(10)) + 20 < box[2]:
            pen.rectangle((x, box[3] - 17, x + 8, box[3] - 15), colour)
            pen.text((x + 12, box[3] - 22), name, FAINT, font=_font(10))
            x += round(pen.textlength(name, font=_font(10))) + 24


def _stacked(lines: list[Line]) -> list[Line]:
    """Each on top of those before it."""
    below: dict[float, float] = {}
    stack = []
    for line in lines:
        numbers = {at: value + below.get(at, 0.0) for at, value in line.numbers.items()}
        below |= numbers
        stack.append(Line(line.name, numbers))
    return stack


def _with_unit(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB"
    if unit == "percentunit":
        return f"{100 * value:.0f} %"
    digits = 0 if value >= 10 or value == int(value) else 1 if value >= 1 else 3
    return f"{value:.{digits}f}" + {"s": " s", "percent": " %", "reqps": "/s"}.get(unit, "")


def _font(size: int) -> Any:
    return ImageFont.load_default(size)


if __name__ == "__main__":
    sys.exit(main())
