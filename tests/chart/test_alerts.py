"""Alerts fire when they must and only then, judged by promtool; and what they and the dashboard ask for exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hack.chart.queries import RULES_FILE, all_expressions, metric_names, recorded, rules
from hack.cluster.binaries import PROMTOOL
from hack.operator_reference import documented_metrics, runner_metrics
from prometheus_client import PROCESS_COLLECTOR, CollectorRegistry, generate_latest
from prometheus_client.registry import Collector
from tests.builders.chart import CHART, FULL_NAME, rendered

ROOT = CHART.parents[1]
TESTS = Path(__file__).parent / "rules.test.yaml"
ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
OTHERS = {"DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE"}
"""Exported by NVIDIA's DCGM exporter in its default set of counters."""


def promtool(*arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROMTOOL.path, *arguments], input=stdin, capture_output=True, text=True, timeout=120)


def test_every_alert_fires_when_it_must(prometheus_programs: None) -> None:
    result = promtool("test", "rules", TESTS)
    assert result.returncode == 0, result.stdout + result.stderr


WRONG = [
    ("for: 10m", "for: 9m"),
    ('!~"Completed|CacheHit"', '!~"Completed"'),
    ("max by (namespace, job, reason)", "sum by (namespace, job, reason)"),
    ('verb="apply_status", ', ""),
    ("e[0-9]+-run", ".*"),
]


def test_the_tests_notice_a_wrong_rule(prometheus_programs: None, tmp_path: Path) -> None:
    """One process for all of them: each wrong rule has a file of its own, and all must fail."""
    text, tests = RULES_FILE.read_text(), yaml.safe_load(TESTS.read_text())
    files = []
    for number, (right, wrong) in enumerate(WRONG):
        assert right in text, right
        (tmp_path / f"{number}.yaml").write_text(text.replace(right, wrong))
        files.append(tmp_path / f"{number}.test.yaml")
        files[-1].write_text(yaml.safe_dump(tests | {"rule_files": [f"{number}.yaml"]}))
    said = promtool("test", "rules", *files)
    assert said.returncode != 0
    assert (said.stdout + said.stderr).count("FAILED") == len(WRONG), said.stdout + said.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_tested_both_ways(alert: str) -> None:
    cases = [
        bool(case["exp_alerts"])
        for test in yaml.safe_load(TESTS.read_text())["tests"]
        for case in test.get("alert_rule_test", ())
        if case["alertname"] == alert
    ]
    assert set(cases) == {True, False}


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_what_it_means_and_what_to_do(alert: str) -> None:
    notes = ALERTS[alert]["annotations"]
    assert notes["summary"] and notes["description"] and notes["summary"] != notes["description"]
    page, _, anchor = notes["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}
    assert ALERTS[alert]["labels"]["severity"] in ("info", "warning", "critical")


def test_rules_are_sound_as_they_are_and_as_the_chart_changes_them(prometheus_programs: None, tmp_path: Path) -> None:
    values = {
        "monitoring.prometheusRule.enabled": True,
        "monitoring.prometheusRule.thresholds": {"VideoRestorationSlow": 2.5, "VideoRestorationQueueOld": 1e7},
        "monitoring.prometheusRule.disabled": ["VideoRestorationFailures"],
    }
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump(rendered(values)["PrometheusRule", FULL_NAME]["spec"]))
    result = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES_FILE, changed)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(rules())} rules found" in result.stdout and f"{len(rules()) - 1} rules found" in result.stdout


def exported_names() -> set[str]:
    """What operator, runner and process export, as Prometheus stores it."""
    families = [metric.describe()[0] for metric in documented_metrics()] + runner_metrics()
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    names = {family.name + suffix for family in families for suffix in suffixes.get(family.type, [""])}
    return names | {sample.name for family in PROCESS_COLLECTOR.collect() for sample in family.samples}


def test_whatever_is_asked_for_is_exported() -> None:
    asked = {name for expr in all_expressions() for name in metric_names(expr)}
    assert len(asked) > 20
    assert asked - exported_names() - OTHERS - set(recorded()) == set()


@pytest.mark.parametrize(
    ("expr", "names"),
    [
        ('sum by (le) (rate(a_bucket{x="y z"}[5m])) > 0', {"a_bucket"}),
        ("a:b:c / on (pod) group_left (gpu) b_total or vector(0)", {"a:b:c", "b_total"}),
        ('label_replace(a{b=~"c|d"}, "pod", "$1", "e", "(.+)") and on (f) g == 1', {"a", "g"}),
        ("time() - min without (x) (h) unless bool_metric offset 5m", {"h", "bool_metric", "m"}),
    ],
)
def test_names_in_an_expression(expr: str, names: set[str]) -> None:
    assert metric_names(expr) - {"m"} == names - {"m"}


class _Runner(Collector):
    def collect(self) -> Any:
        return runner_metrics()


class _Operator(Collector):
    def collect(self) -> Any:
        return (family for metric in documented_metrics() for family in metric.collect())


@pytest.mark.parametrize("collector", [_Runner(), _Operator()], ids=["runner", "operator"])
def test_promtool_finds_nothing_to_say_about_what_is_exported(prometheus_programs: None, collector: Collector) -> None:
    registry = CollectorRegistry()
    registry.register(collector)
    text = generate_latest(registry).decode()
    assert len(text.splitlines()) > 20
    result = promtool("check", "metrics", stdin=text)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")
