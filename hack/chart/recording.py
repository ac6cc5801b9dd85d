"""Metrics as they were exported, with their times: OpenMetrics text that `promtool tsdb create-blocks-from` loads.

Only what the dashboard and the rules ask for is kept, so that a recording of minutes is small enough to keep.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from hack.chart.queries import all_expressions, metric_names, recorded

Labels = tuple[tuple[str, str], ...]

OWNERS: Final = ("namespace", "job", "pod")
"""Labels that Prometheus adds to what a pod exports."""


@dataclass(frozen=True)
class Sample:
    """One number at one time."""

    name: str
    labels: Labels
    at_seconds: float
    value: float


def wanted_names() -> set[str]:
    """Everything that is asked for and exported by somebody."""
    return {name for expr in all_expressions() for name in metric_names(expr)} - set(recorded())


def samples(text: str, *, at_seconds: float, owner: Mapping[str, str], wanted: set[str]) -> Iterable[Sample]:
    """What is wanted of one answer of `/metrics`."""
    for family in text_string_to_metric_families(text):
        for found in family.samples:
            if found.name in wanted:
                labels = tuple(sorted({**found.labels, **owner}.items()))
                yield Sample(found.name, labels, at_seconds, found.value)


def openmetrics(recording: Iterable[Sample]) -> str:
    """The text, series by series and each in order of time. Types are left out, for the names are what counts."""
    series: dict[tuple[str, Labels], list[Sample]] = defaultdict(list)
    for sample in recording:
        series[sample.name, sample.labels].append(sample)
    lines: list[str] = []
    for (name, labels), found in sorted(series.items()):
        head = name + "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels) + "}"
        found.sort(key=lambda sample: sample.at_seconds)
        lines += [f"{head} {sample.value:.10g} {sample.at_seconds:.3f}" for sample in found]
    return "\n".join([*lines, "# EOF", ""])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
