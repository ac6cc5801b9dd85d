"""What rules and panels ask for: the names in PromQL, and recorded names written out."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from hack.chart.panels import ROWS
from hack.chart.paths import CHART

RULES_FILE: Final = CHART / "files" / "rules.yaml"
_KEYWORDS: Final = frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan"})
_NOT_NAMES: Final = (
    r'"[^"]*"',
    r"\{[^}]*\}",
    r"\[[^\]]*\]",
    r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)",
)
"""Texts, matchers, ranges and lists of labels."""


def metric_names(expr: str) -> set[str]:
    """Names of the metrics in an expression: words that are neither keywords nor followed by a parenthesis."""
    for pattern in _NOT_NAMES:
        expr = re.sub(pattern, " ", expr)
    words = re.finditer(r"[A-Za-z_:][A-Za-z0-9_:]*(\s*\()?", expr)
    return {found[0] for found in words if found[1] is None} - _KEYWORDS


def rules() -> list[dict[str, Any]]:
    """Every rule of the chart."""
    groups = yaml.safe_load(RULES_FILE.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def recorded() -> dict[str, str]:
    """Recorded names and what they stand for."""
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def written_out(expr: str) -> str:
    """An expression with what its recorded names stand for, and Grafana's own variable as five minutes."""
    for name, meaning in recorded().items():
        expr = expr.replace(name, f"({meaning})")
    return expr.replace("$__rate_interval", "5m")


def all_expressions() -> list[str]:
    """Of every rule and every panel."""
    panels = [query.expr for row in ROWS for panel in row.panels for query in panel.queries]
    return [*(rule["expr"] for rule in rules()), *panels]
