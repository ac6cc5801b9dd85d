"""What the chart's values make of its objects, beyond what is always there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
import yaml
from hack.chart.deploy import install_manifest
from hack.chart.readme import values
from tests.builders.chart import CHART, FULL_NAME, NAMESPACE, Body, as_flags, helm, objects, rendered

from restoration_operator.build.owner import labels as runner_labels

GOLDEN_JOB = CHART.parents[1] / "tests" / "unit" / "operator" / "golden" / "job-nano.yaml"
STORAGE_RULE = {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 9000}]}
POLICIES = {"networkPolicy.enabled": True, "networkPolicy.runner.storage": [STORAGE_RULE]}
EVERYTHING = {
    **POLICIES,
    "replicas": 2,
    "monitoring.serviceMonitor.enabled": True,
    "monitoring.podMonitor.enabled": True,
    "monitoring.prometheusRule.enabled": True,
    "monitoring.dashboard.enabled": True,
}
ALERTS = [
    rule["alert"]
    for group in yaml.safe_load((CHART / "files" / "rules.yaml").read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]


def test_what_needs_other_programs_is_off_by_default() -> None:
    optional = {"NetworkPolicy", "ServiceMonitor", "PodMonitor", "PrometheusRule", "PodDisruptionBudget"}
    assert not optional & {kind for kind, _ in rendered()}
    assert optional <= {kind for kind, _ in rendered(EVERYTHING)}
    assert ("ConfigMap", f"{FULL_NAME}-dashboard") not in rendered()


def test_traces_are_sent_only_where_they_are_wanted() -> None:
    """By OpenTelemetry's own variables; a policy lets operator and runners reach the collector."""

    def variables(values: Mapping[str, Any]) -> dict[str, str]:
        body = rendered(values)[("Deployment", FULL_NAME)]
        env = body["spec"]["template"]["spec"]["containers"][0]["env"]
        return {item["name"]: item["value"] for item in env if item["name"].startswith("OTEL_")}

    rule = {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]}
    wanted = {"tracing.endpoint": "http://collector:4318", "tracing.ratio": 0.25, "networkPolicy.collector": [rule]}
    assert variables({}) == {}
    assert variables(wanted) == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.25",
    }
    for name in (FULL_NAME, f"{FULL_NAME}-runner"):
        assert rule in rendered({**POLICIES, **wanted})[("NetworkPolicy", name)]["spec"]["egress"]
        assert rule not in rendered(POLICIES)[("NetworkPolicy", name)]["spec"]["egress"]


def test_no_hook_but_the_test() -> None:
    hooks = [body["metadata"] for body in objects(EVERYTHING) if "helm.sh/hook" in str(body["metadata"])]
    assert [meta["annotations"]["helm.sh/hook"] for meta in hooks] == ["test"]


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"fullnameOverride": "vr-operator"}, "vr-operator"),
        ({"nameOverride": "restorer"}, "vr-restorer"),
        # The release's name stands alone where it says enough.
        ({"nameOverride": "vr"}, "vr"),
    ],
)
def test_names_can_be_chosen(values: Mapping[str, Any], name: str) -> None:
    assert {"Deployment", "Service", "ConfigMap", "Role"} <= {kind for kind, found in rendered(values) if found == name}


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"tolerations": [{"key": "infra", "operator": "Exists"}]}, "tolerations"),
        ({"nodeSelector": {"pool": "infra"}}, "nodeSelector"),
        ({"affinity": {"nodeAffinity": {}}}, "affinity"),
        ({"priorityClassName": "system-cluster-critical"}, "priorityClassName"),
        ({"podSecurityContext": {"runAsUser": None}}, "securityContext"),
        (
            {
                "topologySpreadConstraints": [
                    {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
                ]
            },
            "topologySpreadConstraints",
        ),
    ],
)
def test_what_is_said_of_the_pod_reaches_it(value: dict[str, Any], path: str) -> None:
    [(key, wanted)] = value.items()
    found = rendered(value)["Deployment", FULL_NAME]["spec"]["template"]["spec"][path]
    if key == "podSecurityContext":  # null takes a default away
        assert "runAsUser" not in found and found["runAsNonRoot"] is True
    else:
        assert found == wanted


def test_a_budget_can_be_left_to_others() -> None:
    assert ("PodDisruptionBudget", FULL_NAME) in rendered({"replicas": 2})
    assert ("PodDisruptionBudget", FULL_NAME) not in rendered({"replicas": 2, "podDisruptionBudget.enabled": False})


class TestNetworkPolicies:
    def policies(self, **changes: Any) -> dict[tuple[str, str], Body]:
        found = [body for body in objects({**POLICIES, **changes}) if body["kind"] == "NetworkPolicy"]
        return {(body["metadata"]["namespace"], body["metadata"]["name"]): body["spec"] for body in found}

    def test_each_pod_has_one(self) -> None:
        """Selectors of policies select the pods they are meant for: the operator's by its Deployment, runners' by what
        the operator gives them."""
        policy = self.policies()[NAMESPACE, FULL_NAME]
        labels = rendered()["Deployment", FULL_NAME]["spec"]["template"]["metadata"]["labels"]
        assert policy["podSelector"]["matchLabels"].items() <= labels.items()
        runner = self.policies()[NAMESPACE, f"{FULL_NAME}-runner"]
        assert runner["podSelector"]["matchLabels"].items() <= runner_labels("uid").items()
        assert not runner["podSelector"]["matchLabels"].items() <= labels.items()

    def test_the_operator_reaches_the_api_server_and_runners(self) -> None:
        [api, runners] = self.policies()[NAMESPACE, FULL_NAME]["egress"]
        assert [port["port"] for port in api["ports"]] == [443, 6443] and "to" not in api
        assert [port["port"] for port in runners["ports"]] == [8080]
        changed = self.policies(**{"networkPolicy.operator.apiServer.cidrs": ["192.0.2.7/32"]})
        assert changed[NAMESPACE, FULL_NAME]["egress"][0]["to"] == [{"ipBlock": {"cidr": "192.0.2.7/32"}}]

    def test_runners_reach_names_and_storage_and_nothing_else(self) -> None:
        [names, storage] = self.policies()[NAMESPACE, f"{FULL_NAME}-runner"]["egress"]
        assert {(port["port"], port["protocol"]) for port in names["ports"]} == {(53, "UDP"), (53, "TCP")}
        assert storage == STORAGE_RULE

    def test_runners_reach_a_model_hub_where_one_is_named(self) -> None:
        rule = {"ports": [{"port": 443}]}
        found = self.policies(**{"networkPolicy.runner.models": [rule]})[NAMESPACE, f"{FULL_NAME}-runner"]["egress"]
        assert found[1:] == [STORAGE_RULE, rule]

    def test_runners_are_asked_by_the_operator_and_by_prometheus(self) -> None:
        [rule] = self.policies()[NAMESPACE, f"{FULL_NAME}-runner"]["ingress"]
        operator, prometheus = rule["from"]
        labels = rendered()["Deployment", FULL_NAME]["spec"]["template"]["metadata"]["labels"]
        assert operator["podSelector"]["matchLabels"].items() <= labels.items()
        assert operator["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": NAMESPACE}
        assert prometheus == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}

    def test_the_test_pod_may_ask_the_operator(self) -> None:
        [rule] = self.policies()[NAMESPACE, FULL_NAME]["ingress"]
        labels = rendered()["Pod", f"{FULL_NAME}-test"]["metadata"]["labels"]
        peers = [peer["podSelector"]["matchLabels"] for peer in rule["from"] if "podSelector" in peer]
        assert any(peer.items() <= labels.items() for peer in peers)

    @pytest.mark.parametrize(
        ("changes", "places"),
        [
            ({}, {NAMESPACE}),
            ({"scope.namespaces": ["studio-a", "studio-b"]}, {"studio-a", "studio-b"}),
            ({"networkPolicy.runner.namespaces": ["studio-c"]}, {"studio-c"}),
        ],
    )
    def test_where_runners_are(self, changes: dict[str, Any], places: set[str]) -> None:
        found = self.policies(**changes)
        assert {place for place, name in found if name.endswith("-runner")} == places

    def test_without_storage_runners_would_be_shut_in(self) -> None:
        result = helm("template", "vr", CHART, "--set=networkPolicy.enabled=true")
        assert result.returncode != 0
        assert "networkPolicy.runner.storage is empty" in result.stderr


class TestMonitoring:
    def test_monitors_select_what_they_are_meant_for(self) -> None:
        found = rendered(EVERYTHING)
        service, monitor = found["Service", FULL_NAME], found["ServiceMonitor", FULL_NAME]["spec"]
        assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        pod = found["Deployment", FULL_NAME]["spec"]["template"]
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
        assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= {
            port["name"] for port in service["spec"]["ports"]
        }
        runner = yaml.safe_load(GOLDEN_JOB.read_text())["spec"]["template"]
        monitor = found["PodMonitor", f"{FULL_NAME}-runner"]["spec"]
        assert monitor["selector"]["matchLabels"].items() <= runner["metadata"]["labels"].items()
        assert set(monitor["podTargetLabels"]) <= set(runner["metadata"]["labels"])
        [port] = runner["spec"]["containers"][0]["ports"]
        assert [endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]] == [port["name"]]

    def test_runners_are_scraped_where_they_are_served(self) -> None:
        def places(values: Mapping[str, Any]) -> Body:
            spec: Body = rendered({"monitoring.podMonitor.enabled": True, **values})[
                "PodMonitor", f"{FULL_NAME}-runner"
            ]["spec"]["namespaceSelector"]
            return spec

        assert places({}) == {"any": True}
        assert places({"scope.namespaces": ["studio-a"]}) == {"matchNames": ["studio-a"]}

    def rules(self, **settings: Any) -> list[Body]:
        given = {f"monitoring.prometheusRule.{key}": value for key, value in settings.items()}
        body = rendered({"monitoring.prometheusRule.enabled": True, **given})["PrometheusRule", FULL_NAME]
        assert body["apiVersion"] == "monitoring.coreos.com/v1"
        return [rule for group in body["spec"]["groups"] for rule in group["rules"]]

    def test_the_rules_are_those_of_the_file(self) -> None:
        """The ones that promtool has tested."""
        groups = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())["groups"]
        assert self.rules() == [rule for group in groups for rule in group["rules"]]

    def test_thresholds_and_omissions(self) -> None:
        before = {rule.get("alert"): rule for rule in self.rules()}
        after = {
            rule.get("alert"): rule
            for rule in self.rules(
                thresholds={"VideoRestorationSlow": 2.5, "VideoRestorationQueueOld": 86400},
                disabled=["VideoRestorationGPUBusy"],
                runbookBase="https://git.example/vr/",
            )
        }
        assert set(before) - set(after) == {"VideoRestorationGPUBusy"}
        assert after["VideoRestorationSlow"]["expr"] == "videorestoration:seconds_per_output_second > 2.5"
        assert after["VideoRestorationQueueOld"]["expr"].endswith("> 86400")
        assert after["VideoRestorationStuck"]["expr"] == before["VideoRestorationStuck"]["expr"]
        url = after["VideoRestorationSlow"]["annotations"]["runbook_url"]
        assert url == "https://git.example/vr/docs/monitoring.md#videorestorationslow"

    @pytest.mark.parametrize("alert", ALERTS)
    def test_every_alert_has_a_number_that_can_be_changed(self, alert: str) -> None:
        [rule] = [rule for rule in self.rules(thresholds={alert: 4321}) if rule.get("alert") == alert]
        assert re.search(r"> 4321\s*$", rule["expr"])

    def test_the_schema_knows_every_alert(self) -> None:
        schema = json.loads((CHART / "values.schema.json").read_text())
        assert schema["definitions"]["alert"]["enum"] == ALERTS

    def test_the_dashboard_is_the_file(self) -> None:
        body = rendered(EVERYTHING)["ConfigMap", f"{FULL_NAME}-dashboard"]
        assert body["metadata"]["labels"]["grafana_dashboard"] == "1"
        [text] = body["data"].values()
        assert json.loads(text) == json.loads((CHART / "files" / "dashboard.json").read_text())


class _Answers(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()
        self.wfile.write(b"ok\n" if self.status == 200 else b"not synced\n")

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [(200, 0, "answers ok"), (503, 1, "answers 503: not synced"), (None, 1, "cannot be reached")],
    ids=["ready", "not synced", "nobody there"],
)
def test_what_helm_test_runs(status: int | None, code: int, said: str) -> None:
    """The very command of the test's pod, against an operator that says this."""
    pod = rendered()["Pod", f"{FULL_NAME}-test"]
    [container] = pod["spec"]["containers"]
    interpreter, flag, program, url = container["command"]
    assert interpreter in (CHART.parents[1] / "Dockerfile.operator").read_text()
    assert url == f"http://{FULL_NAME}.{NAMESPACE}.svc:8080/readyz"
    assert (
        container["image"] == rendered()["Deployment", FULL_NAME]["spec"]["template"]["spec"]["containers"][0]["image"]
    )
    server = HTTPServer(("127.0.0.1", 0), type("Answers", (_Answers,), {"status": status}))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    if status is None:
        server.shutdown()
        server.server_close()
    try:
        here = url.replace(f"{FULL_NAME}.{NAMESPACE}.svc:8080", f"127.0.0.1:{server.server_port}")
        result = subprocess.run([sys.executable, flag, program, here], capture_output=True, text=True, timeout=60)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert result.returncode == code
    assert said in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"monitoring.prometheusRule.disabled": ["VideoRestorationSlw"]}, "/monitoring/prometheusRule/disabled/0"),
        ({"monitoring.prometheusRule.thresholds": {"Slow": 1}}, "invalid propertyName 'Slow'"),
        ({"monitoring.podMonitor.interval": 15}, "/monitoring/podMonitor/interval"),
        ({"networkPolicy.operator.apiServer.cidrs": ["10.0.0.1"]}, "/networkPolicy/operator/apiServer/cidrs/0"),
        ({"networkPolicy.runner.storage": [{"from": []}]}, "/networkPolicy/runner/storage/0"),
        ({"networkPolicy.runner.models": [{"from": []}]}, "/networkPolicy/runner/models/0"),
        ({"extraEnv": [{"name": "VR_WORKERS", "value": 8}]}, "/extraEnv/0/value"),
        ({"podLabels": {"team": 7}}, "/podLabels/team"),
        ({"fullnameOverride": "Operator"}, "/fullnameOverride"),
        ({"scope.namespaceSelector": "restoration in (enabled"}, "/scope/namespaceSelector"),
        # The Deployment's own selector.
        ({"podLabels": {"app.kubernetes.io/component": "x"}}, "invalid propertyName 'app.kubernetes.io/component'"),
        # Null takes a default away; so does `helm upgrade --reuse-values` of what is new in a chart.
        ({"tracing": None}, "missing property 'tracing'"),
        ({"log.level": None}, "at '/log': missing property 'level'"),
        ({"replicas": None}, "missing property 'replicas'"),
    ],
)
def test_a_wrong_value_is_refused_by_name(values: Mapping[str, Any], named: str) -> None:
    result = helm("template", "vr", CHART, *as_flags(values))
    assert result.returncode != 0
    assert named in result.stderr
    assert len(result.stderr.splitlines()) <= 5, "one sentence for one mistake"


@pytest.mark.parametrize(("version", "served"), [("1.30.9", False), ("1.31.0", True), ("1.36.3-gke.1", True)])
def test_kubernetes_versions(version: str, served: bool) -> None:
    result = helm("template", "vr", CHART, f"--kube-version={version}")
    assert (result.returncode == 0) is served
    assert served or "1.31" in result.stderr


def test_no_value_that_is_taken_away_leaves_a_hole() -> None:
    """Null for any of them at the top: refused by its name, or nothing of the objects is null."""
    for path in yaml.safe_load((CHART / "values.yaml").read_text()):
        result = helm("template", "vr", CHART, *as_flags({**EVERYTHING, path: None}))
        if result.returncode:
            assert f"missing property '{path}'" in result.stderr, result.stderr
        else:
            bodies = list(yaml.load_all(result.stdout, Loader=yaml.CSafeLoader))
            assert not [found for body in bodies if body for found in nulls(body)], path


def nulls(node: Any, where: str = "") -> Iterator[str]:
    """Where a null is, but for those of the restorations' own schema."""
    if node is None:
        yield where
    elif isinstance(node, dict):
        if node.get("kind") == "CustomResourceDefinition":
            return
        for key, child in node.items():
            yield from nulls(child, f"{where}/{key}")
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from nulls(child, f"{where}/{number}")


def test_two_releases_share_no_object() -> None:
    """Of other names, in one namespace even; the CRDs are one release's."""

    def made(release: str) -> set[tuple[str, str, str]]:
        bodies = objects({**EVERYTHING, "crds.install": False}, release=release)
        return {(body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"]) for body in bodies}

    one, other = made("one"), made("r" * 53)
    assert len(one) == len(other) > 10
    assert not one & other


def test_names_that_look_like_numbers_stay_names() -> None:
    """helm and Kubernetes let a release, a namespace and much else be called 42."""
    named = {
        "fullnameOverride": "42",
        "scope.namespaces": ["7"],
        "imagePullSecrets": ["8"],
        "priorityClassName": "9",
        "serviceAccount.name": "10",
        "argocd": {"enabled": True, "namespace": "11"},
    }
    result = helm("template", "42", CHART, "--namespace=123", *as_flags({**EVERYTHING, **named}))
    assert result.returncode == 0, result.stderr
    texts = {"name", "namespace", "serviceAccountName", "priorityClassName", "app.kubernetes.io/instance"}
    wrong = [
        (body["kind"], key, value)
        for body in yaml.load_all(result.stdout, Loader=yaml.CSafeLoader)
        for key, value in fields(body)
        if key in texts and not isinstance(value, str | dict)
    ]
    assert wrong == []


def fields(node: Any) -> Iterator[tuple[str, Any]]:
    """Every key of every map, with its value."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield key, value
            yield from fields(value)
    elif isinstance(node, list):
        for child in node:
            yield from fields(child)


def test_the_schema_covers_every_value() -> None:
    """Each key of values.yaml is in the schema by name, or lies in a map that is free on purpose."""
    free = {"defaultProfile", "resources", "podSecurityContext", "securityContext"}
    schema = json.loads((CHART / "values.schema.json").read_text())

    def known(path: list[str], node: Body) -> bool:
        return not path or (path[0] in node.get("properties", {}) and known(path[1:], node["properties"][path[0]]))

    names = [value.path for value in values((CHART / "values.yaml").read_text())]
    assert [name for name in names if name.split(".")[0] not in free and not known(name.split("."), schema)] == []
    open_maps = [key for key, node in schema["properties"].items() if node.get("additionalProperties") is True]
    assert set(open_maps) <= free


def test_every_value_is_explained() -> None:
    """By a comment of its own, of the map it is in, or of its only neighbour."""
    unexplained = [
        value.path
        for value in values((CHART / "values.yaml").read_text())
        if value.top and value.default is not None and not value.comment
    ]
    assert unexplained == []


def test_plain_manifests_are_the_chart_without_helm() -> None:
    text = install_manifest()
    assert "helm.sh" not in text and "Helm" not in text.split("---")[1]
    assert text == (CHART.parents[1] / "deploy" / "install.yaml").read_text(), "run `make chart`"
    kinds = [body["kind"] for body in yaml.safe_load_all(text)]
    assert kinds[0] == "Namespace" and "Pod" not in kinds
    assert kinds.index("CustomResourceDefinition") < kinds.index("Deployment")
