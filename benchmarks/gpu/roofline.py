"""A picture of what `stages --json` wrote: how fast each stage computes, under the two ceilings of the GPU.

Across: operations for each byte, if every product read its operands and wrote its result once; up: operations a second;
both logarithmic. The slope is the measured copy rate, the flat line the measured matrix product.
"""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT, MARGIN = 860, 520, 70
COLOURS = {"encode": "#1b6ca8", "transformer": "#b5473c", "decode": "#2f7d4f"}


@dataclass(frozen=True)
class Point:
    stage: str
    label: str
    is_plain: bool
    intensity: float
    """Operations for each byte."""
    tflop_per_s: float


def points_of(found: dict[str, Any]) -> list[Point]:
    """One for each stage of each row that was measured."""
    points = []
    for row in found["rows"]:
        for stage in COLOURS if row["problem"] is None else ():
            tflop, gbytes = row["tflop"][stage], row["gbytes"][stage]
            label = f"{row['model']} {row['path']} {row['height']}p {row['knobs']}".strip()
            points.append(Point(stage, label, row["path"] == "plain", 1000 * tflop / gbytes, tflop / row[f"{stage}_s"]))
    return points


class Axes:
    """Logarithmic, around what is shown."""

    def __init__(self, xs: list[float], ys: list[float]) -> None:
        self.x = (_decade(min(xs), math.floor), _decade(max(xs), math.ceil))
        self.y = (_decade(min(ys), math.floor), _decade(max(ys), math.ceil))

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - self.x[0]) / (self.x[1] - self.x[0])
        up = (math.log10(y) - self.y[0]) / (self.y[1] - self.y[0])
        return MARGIN + across * (WIDTH - 2 * MARGIN), HEIGHT - MARGIN - up * (HEIGHT - 2 * MARGIN)

    def grid(self) -> list[str]:
        lines = []
        for power in range(self.x[0], self.x[1] + 1):
            (x, y0), (_, y1) = self.place(10.0**power, 10.0 ** self.y[0]), self.place(10.0**power, 10.0 ** self.y[1])
            lines += [_line(x, y0, x, y1, "#ddd"), _text(x, HEIGHT - MARGIN + 18, f"{10.0**power:g}", "middle")]
        for power in range(self.y[0], self.y[1] + 1):
            (x0, y), (x1, _) = self.place(10.0 ** self.x[0], 10.0**power), self.place(10.0 ** self.x[1], 10.0**power)
            lines += [_line(x0, y, x1, y, "#ddd"), _text(MARGIN - 8, y + 4, f"{10.0**power:g}", "end")]
        return lines


def picture(found: dict[str, Any]) -> str:
    """SVG."""
    points = points_of(found)
    machine = found["machine"]
    flat, slope = machine["matmul_tflops"], machine["copy_gb_s"] / 1000  # TFLOP/s for each operation a byte
    ridge = flat / slope
    axes = Axes([ridge, *(p.intensity for p in points)], [flat, *(p.tflop_per_s for p in points)])
    left, right, bottom = 10.0 ** axes.x[0], 10.0 ** axes.x[1], 10.0 ** axes.y[0]
    start = max(left, bottom / slope)
    bend = axes.place(ridge, flat)
    parts = axes.grid()
    parts += [_line(*axes.place(start, start * slope), *bend, "#000"), _line(*bend, *axes.place(right, flat), "#000")]
    for point in points:
        x, y = axes.place(point.intensity, point.tflop_per_s)
        title = (
            f"{point.label}, {point.stage}: {point.tflop_per_s:.0f} TFLOP/s at {point.intensity:.0f} operations a byte"
        )
        parts.append(_circle(x, y, COLOURS[point.stage], is_hollow=point.is_plain, inner=_title(title)))
    for number, (stage, colour) in enumerate(COLOURS.items()):
        y = MARGIN + 18 * number
        parts += [_circle(MARGIN + 20, y, colour), _text(MARGIN + 32, y + 4, stage)]
    plain = MARGIN + 18 * len(COLOURS)
    parts += [_circle(MARGIN + 20, plain, "#444", is_hollow=True), _text(MARGIN + 32, plain + 4, "plain networks")]
    parts += [
        _text(WIDTH / 2, HEIGHT - 22, "operations a byte, each operand read once", "middle"),
        _text(MARGIN, 40, f"TFLOP/s of the plain networks' arithmetic. {machine['device']}, torch {machine['torch']}"),
        _text(*axes.place(right, flat * 1.06), f"matrix product {flat:.0f}", "end"),
    ]
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    style = 'font-family="sans-serif" font-size="12"'
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n<rect {size} fill="#fff"/>\n{body}\n</svg>\n'


def _circle(x: float, y: float, colour: str, *, is_hollow: bool = False, inner: str = "") -> str:
    look = f'fill="#fff" stroke="{colour}" stroke-width="2"' if is_hollow else f'fill="{colour}"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" {look}>{inner}</circle>'


def _decade(value: float, rounding: Any) -> int:
    return int(rounding(math.log10(value)))


def _line(x0: float, y0: float, x1: float, y1: float, colour: str) -> str:
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="what `stages --json` wrote")
    parser.add_argument("target", type=Path, help="the SVG to write")


def main(chosen: argparse.Namespace) -> None:
    chosen.target.write_text(picture(json.loads(chosen.source.read_text())))
    print(chosen.target)
