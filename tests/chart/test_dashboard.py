"""The dashboard answers its questions: a real Prometheus with recorded metrics is asked every one of them."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
from hack.chart.gpu_numbers import with_gpu_numbers
from hack.chart.panels import ROWS, Panel
from hack.chart.prometheus import Prometheus, PrometheusError, prometheus
from hack.chart.queries import rules, written_out
from hack.chart.record import RECORDING
from tests.builders.chart import CHART

# One process for all that ask the server.
pytestmark = pytest.mark.xdist_group("prometheus")
LARGEST_BYTES = 100_000
"""A ConfigMap holds a mebibyte, but client-side apply an annotation of a quarter of that."""
DASHBOARD: dict[str, Any] = json.loads((CHART / "files" / "dashboard.json").read_text())
PANELS = {panel.title: panel for row in ROWS for panel in row.panels}
EMPTY_HERE: set[str] = set()
"""Panels about what did not happen while the recording was made."""


def test_it_fits() -> None:
    assert len((CHART / "files" / "dashboard.json").read_bytes()) < LARGEST_BYTES


def test_panels_lie_beside_each_other() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
    assert all(place["x"] + place["w"] <= 24 for place in places)

    def overlap(a: dict[str, int], b: dict[str, int]) -> bool:
        across = a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"]
        return across and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]

    assert not [pair for pair in combinations(places, 2) if overlap(*pair)]


def test_every_panel_asks_the_chosen_prometheus() -> None:
    [variable] = DASHBOARD["templating"]["list"]
    assert variable["type"] == "datasource"
    shown = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert [panel["title"] for panel in shown] == list(PANELS)
    sources = {target["datasource"]["uid"] for panel in shown for target in panel["targets"]}
    assert sources == {f"${{{variable['name']}}}"}


@pytest.fixture(scope="module")
def recording() -> str:
    return with_gpu_numbers(gzip.decompress(RECORDING.read_bytes()).decode())


@pytest.fixture(scope="module")
def server(prometheus_programs: None, recording: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with prometheus(recording, tmp_path_factory.mktemp("prometheus")) as running:
        yield running


@pytest.fixture(scope="module")
def times(recording: str) -> tuple[float, float]:
    """Of the first and the last sample."""
    found = [float(at) for at in re.findall(r" ([0-9.]+)$", recording, re.MULTILINE)]
    return min(found), max(found)


def answers(server: Prometheus, expr: str, times: tuple[float, float]) -> bool:
    """Whether it gives a number that is not NaN at any time of the recording."""
    found = server.query_range(written_out(expr), start=times[0], end=times[1], step_seconds=15)
    return any(value != "NaN" for series in found for _, value in series["values"])


@pytest.mark.parametrize("panel", PANELS.values(), ids=PANELS)
def test_every_query_of_a_panel_is_answered(server: Prometheus, times: tuple[float, float], panel: Panel) -> None:
    silent = [query.expr for query in panel.queries if not answers(server, query.expr, times)]
    assert (silent == []) is (panel.title not in EMPTY_HERE), silent


@pytest.mark.parametrize("record", [rule["record"] for rule in rules() if "record" in rule])
def test_every_recorded_name_has_numbers(server: Prometheus, times: tuple[float, float], record: str) -> None:
    assert answers(server, record, times)


def test_legends_name_labels_that_there_are(server: Prometheus, times: tuple[float, float]) -> None:
    for panel in PANELS.values():
        for query in panel.queries:
            wanted = set(re.findall(r"{{(\w+)}}", query.legend))
            found = server.query_range(written_out(query.expr), start=times[0], end=times[1], step_seconds=15)
            assert all(wanted <= set(series["metric"]) for series in found), (panel.title, query.legend)


def test_a_query_that_is_wrong_is_refused(server: Prometheus, times: tuple[float, float]) -> None:
    with pytest.raises(PrometheusError, match="parse error"):
        server.query("sum by (", at_seconds=times[1])
