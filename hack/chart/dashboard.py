"""The dashboard's JSON, as Grafana's sidecar takes it from a ConfigMap; what it asks is in `panels.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from hack.chart.panels import ROWS, Panel

Json = dict[str, Any]

UID: Final = "video-restoration"
COLUMNS: Final = 24
"""Of Grafana's grid."""
HEIGHTS: Final = {"stat": 4, "timeseries": 8}


def dashboard() -> str:
    """The JSON text."""
    body: Json = {
        "uid": UID,
        "title": "Video restoration",
        "tags": ["video-restoration"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "panels": list(_panels()),
    }
    return json.dumps(body, indent=1) + "\n"


def _panels() -> Iterator[Json]:
    number, top = 0, 0
    for row in ROWS:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
            "panels": [],
        }
        top, left, height = top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                top, left = top + height, 0
            number, height = number + 1, HEIGHTS[panel.kind]
            yield _panel(panel, number, {"x": left, "y": top, "w": panel.width, "h": height})
            left += panel.width
        top += height


def _panel(panel: Panel, number: int, place: Json) -> Json:
    source = {"type": "prometheus", "uid": "${datasource}"}
    body: Json = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "gridPos": place,
        "datasource": source,
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": source, "expr": query.expr, "legendFormat": query.legend}
            for index, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _options(panel),
    }
    if panel.description:
        body["description"] = panel.description
    return body


def _field(panel: Panel) -> Json:
    steps: list[Json] = [{"color": "green", "value": None}]
    if panel.alert_above is not None:
        steps.append({"color": "red", "value": panel.alert_above})
    field: Json = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stacked else "none"}
        field["custom"] = {"fillOpacity": 25 if panel.stacked else 5, "showPoints": "never", "stacking": stacking}
        if panel.alert_above is not None:
            field["custom"]["thresholdsStyle"] = {"mode": "line"}
    return field


def _options(panel: Panel) -> Json:
    if panel.kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
