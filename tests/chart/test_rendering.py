"""What helm makes of the chart's values, and which values it refuses."""

from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest
import yaml
from hack.chart.argocd import config_data
from tests.builders.chart import CHART, FULL_NAME, NAMESPACE, Body, as_flags, granted, helm, objects, rendered, rights

from restoration_operator import cluster

CRD_NAMES = {
    "videorestorations.videorestoration.dev",
    "restorationprofiles.videorestoration.dev",
    "clusterrestorationprofiles.videorestoration.dev",
}
RBAC_KINDS = {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
DIGEST = "sha256:" + "0f" * 32


def deployment(values: Mapping[str, Any] | None = None) -> Body:
    return rendered(values)["Deployment", FULL_NAME]


def pod_spec(values: Mapping[str, Any] | None = None) -> Body:
    spec: Body = deployment(values)["spec"]["template"]["spec"]
    return spec


def environment(values: Mapping[str, Any] | None = None) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in pod_spec(values)["containers"][0]["env"]}


def test_helm_lint_finds_nothing() -> None:
    result = helm("lint", CHART, "--strict", *as_flags({"defaultProfile.storage": [{"name": "media"}]}))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "[WARNING]" not in result.stdout


@pytest.mark.parametrize(("replicas", "strategy"), [(1, "Recreate"), (2, "RollingUpdate")])
def test_replicas_share_a_lease(replicas: int, strategy: str) -> None:
    values = {"replicas": replicas}
    spec = deployment(values)["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (replicas, strategy)
    assert (("PodDisruptionBudget", FULL_NAME) in rendered(values)) is (replicas > 1)
    assert ("topologySpreadConstraints" in pod_spec(values)) is (replicas > 1)
    # With one replica too: nothing else keeps apart a pod on a lost node and its successor.
    assert environment(values)["VR_LEASE_NAME"] == FULL_NAME
    by_name = [rule for rule in rendered(values)["Role", FULL_NAME]["rules"] if "resourceNames" in rule]
    assert [(rule["resourceNames"], rule["verbs"]) for rule in by_name] == [([FULL_NAME], ["get", "update"])]


def test_selector_matches_the_pods_and_survives_an_upgrade() -> None:
    spec = deployment({"podLabels": {"team": "media"}})["spec"]
    labels, selector = spec["template"]["metadata"]["labels"], spec["selector"]["matchLabels"]
    assert selector.items() <= labels.items()
    assert labels["team"] == "media"
    # Selectors are immutable: nothing that changes with a version may be in them.
    assert not {"app.kubernetes.io/version", "helm.sh/chart"} & set(selector)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({"repository": "registry.example/op"}, "registry.example/op:0.1.0"),
        ({"repository": "registry.example/op", "tag": "edge"}, "registry.example/op:edge"),
        ({"repository": "registry.example/op", "tag": "edge", "digest": DIGEST}, f"registry.example/op@{DIGEST}"),
    ],
)
def test_image_reference(image: Mapping[str, str], expected: str) -> None:
    assert pod_spec({"image": image})["containers"][0]["image"] == expected
    assert environment({"runner.image": image})["VR_RUNNER_IMAGE"] == expected


def test_service_links_cannot_reach_the_settings() -> None:
    # A Service named vr-http would otherwise define VR_HTTP_PORT.
    assert pod_spec()["enableServiceLinks"] is False


def test_crds_are_upgraded_with_the_release_and_kept_without_it() -> None:
    crds = {name: body for (kind, name), body in rendered().items() if kind == "CustomResourceDefinition"}
    assert set(crds) == CRD_NAMES
    for body in crds.values():
        assert body["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize(
    ("values", "absent"),
    [
        ({"crds.install": False}, {"CustomResourceDefinition"}),
        ({"rbac.create": False, "rbac.aggregateToDefaultRoles": False}, RBAC_KINDS),
        ({"serviceAccount.create": False}, {"ServiceAccount"}),
    ],
)
def test_parts_that_can_be_left_out(values: Mapping[str, Any], absent: set[str]) -> None:
    full, without = {kind for kind, _ in rendered()}, {kind for kind, _ in rendered(values)}
    assert full - without == absent


def test_default_profile_reaches_the_operator_as_a_file() -> None:
    storage = [{"name": "media", "endpoint": "https://minio.media.svc:9000", "secretName": "media-s3"}]
    objects = rendered({"defaultProfile.storage": storage})
    profile = yaml.safe_load(objects["ConfigMap", FULL_NAME]["data"]["default-profile.yaml"])
    assert profile["storage"] == storage
    assert profile["model"] == {"name": "seedvr2-nano", "source": {"builtin": {}}}
    assert profile["gpu"]["count"] == 0
    pod = objects["Deployment", FULL_NAME]["spec"]["template"]["spec"]
    [volume] = [volume for volume in pod["volumes"] if volume.get("configMap")]
    [mount] = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == volume["name"]]
    assert volume["configMap"]["name"] == FULL_NAME
    assert environment()["VR_DEFAULT_PROFILE_FILE"] == f"{mount['mountPath']}/default-profile.yaml"


def test_another_model_source_replaces_the_builtin_one() -> None:
    values = {"defaultProfile.model.source": {"builtin": None, "persistentVolumeClaim": {"claimName": "weights"}}}
    profile = yaml.safe_load(rendered(values)["ConfigMap", FULL_NAME]["data"]["default-profile.yaml"])
    assert profile["model"]["source"] == {"persistentVolumeClaim": {"claimName": "weights"}}


def test_the_account_is_bound_where_the_operator_runs() -> None:
    objects = rendered({"serviceAccount.name": "restorer"})
    [subject] = objects["ClusterRoleBinding", FULL_NAME]["subjects"]
    assert subject == {"kind": "ServiceAccount", "name": "restorer", "namespace": NAMESPACE}
    assert objects["Deployment", FULL_NAME]["spec"]["template"]["spec"]["serviceAccountName"] == "restorer"


def places(values: Mapping[str, Any]) -> dict[str, set[tuple[str, str, str]]]:
    """What may be done where: by namespace, the empty one being the whole cluster."""
    found: dict[str, set[tuple[str, str, str]]] = {}
    for body in rights(values):
        place = body["metadata"].get("namespace", "") if body["kind"] == "Role" else ""
        for rule in body.get("rules", ()):
            cells = product(rule["apiGroups"], rule["resources"], rule["verbs"])
            found.setdefault(place, set()).update(cells)
    return found


def test_with_a_list_of_namespaces_nothing_is_granted_elsewhere() -> None:
    allowed = places({"scope.namespaces": ["studio-a", "studio-b"]})
    profiles = "clusterrestorationprofiles"
    group = "videorestoration.dev"
    assert allowed[""] == {
        (group, profiles, "list"),
        (group, profiles, "watch"),
        (group, f"{profiles}/status", "patch"),
    }
    leases = {("coordination.k8s.io", "leases", verb) for verb in ("get", "create", "update")}
    assert allowed[NAMESPACE] == leases | {("batch", "jobs", "create")}
    assert allowed["studio-a"] == allowed["studio-b"]
    everywhere = places({})[""]
    missing = everywhere - allowed["studio-a"] - allowed[""]
    assert missing == {("", "nodes", "get")}, "a lost node is then judged by time alone"
    assert environment({"scope.namespaces": ["studio-a", "studio-b"]})["VR_WATCH_NAMESPACES"] == "studio-a,studio-b"


def test_without_cluster_profiles_nothing_at_all_is_granted_cluster_wide() -> None:
    values = {"scope.namespaces": ["studio-a"], "scope.clusterProfiles": False}
    assert "" not in places(values)
    assert environment(values)["VR_CLUSTER_PROFILES"] == "false"


def test_with_a_selector_namespaces_are_read() -> None:
    values = {"scope.namespaceSelector": "restoration=enabled"}
    assert places(values)[""] - places({})[""] == {("", "namespaces", "list"), ("", "namespaces", "watch")}
    assert environment(values)["VR_NAMESPACE_SELECTOR"] == "restoration=enabled"


def test_two_scopes_are_refused() -> None:
    values = {"scope.namespaces": ["studio-a"], "scope.namespaceSelector": "restoration=enabled"}
    result = helm("template", "vr", CHART, *as_flags(values))
    assert result.returncode != 0
    assert "exclude each other" in result.stderr


def test_the_role_says_what_the_operator_says_it_needs() -> None:
    """The table in the docstring of `restoration_operator.cluster`: group, resource, verbs in columns."""
    groups = {"(core)": ""}
    needed: dict[tuple[str, str], set[str]] = {}
    for row in (cluster.__doc__ or "").splitlines():
        columns = [column for column in row.strip().split("  ") if column]
        if row.startswith("    ") and len(columns) >= 3:
            group, resource, verbs = (column.strip() for column in columns[:3])
            needed[groups.get(group, group), resource] = set(verbs.split())
    allowed: dict[tuple[str, str], set[str]] = {}
    # Everything that can be asked for, in one release.
    most = {"kueue.readWorkloads": True, "scope.namespaceSelector": "restoration=enabled"}
    for group, resource, verb in granted(most):
        allowed.setdefault((group, resource), set()).add(verb)
    assert len(needed) > 5
    assert allowed == needed


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"image.repository": ""}, "/image/repository"),
        ({"image.digest": "0f0f"}, "/image/digest"),
        ({"image.pullPolicy": "Sometimes"}, "/image/pullPolicy"),
        ({"crds.instal": True}, "/crds"),
        ({"defaultProfle": {}}, "defaultProfle"),
        ({"log.level": "verbose"}, "/log/level"),
        ({"replicas": 1.5}, "/replicas"),
        ({"scope.namespaces": ["Studio"]}, "/scope/namespaces/0"),
        ({"defaultProfile.storage": [{"endpoint": "https://minio"}]}, "/defaultProfile/storage/0"),
        ({"defaultProfile.storage": [{"name": "a", "endpoint": "minio:9000"}]}, "/defaultProfile/storage/0/endpoint"),
        ({"defaultProfile.model.source.hostPath": {"path": "/models"}}, "/defaultProfile/model/source"),
        ({"defaultProfile.gpu.count": -1}, "/defaultProfile/gpu/count"),
    ],
)
def test_a_wrong_value_is_refused_by_name(values: Mapping[str, Any], named: str) -> None:
    result = helm("template", "vr", CHART, *as_flags(values))
    assert result.returncode != 0
    assert named in result.stderr


def test_settings_for_argo_cd_are_only_what_is_ours() -> None:
    assert ("ConfigMap", "argocd-cm") not in rendered()
    body = rendered({"argocd": {"enabled": True, "namespace": "cd"}})["ConfigMap", "argocd-cm"]
    metadata = body["metadata"]
    assert metadata["namespace"] == "cd"
    # Argo CD looks at nothing without this label, and whoever deletes the release must not delete its settings.
    assert metadata["labels"] == {"app.kubernetes.io/part-of": "argocd"}
    assert metadata["annotations"]["helm.sh/resource-policy"] == "keep"
    assert set(metadata["annotations"]["argocd.argoproj.io/sync-options"].split(",")) == {
        "ServerSideApply=true",
        "ClientSideApplyMigration=false",
        "Prune=false",
        "Delete=false",
    }
    assert body["data"] == config_data()
    assert all("videorestoration.dev_" in key for key in body["data"])


SCOPES: list[Mapping[str, Any]] = [
    {},
    {"scope.namespaces": ["studio-a", "studio-b"]},
    {"scope.namespaces": ["studio-a"], "scope.clusterProfiles": False},
    {"scope.namespaceSelector": "restoration=enabled", "kueue.readWorkloads": True},
    {"replicas": 3},
    {"rbac.aggregateToDefaultRoles": True},
]


@pytest.mark.parametrize("values", SCOPES, ids=str)
def test_no_role_of_any_scope_reaches_a_secret(values: Mapping[str, Any]) -> None:
    """Neither by name nor by a wildcard; that of users included, who may have rights of their own."""
    roles = [body for body in objects(values) if body["kind"] in ("Role", "ClusterRole")]
    assert roles
    for rule in (rule for body in roles for rule in body["rules"]):
        words = {*rule.get("apiGroups", ()), *rule.get("resources", ()), *rule["verbs"]}
        assert not [word for word in words if "*" in word or "secret" in word], rule
        assert not words & {"escalate", "bind", "impersonate", "serviceaccounts/token", "pods/exec", "pods/log"}, rule
