"""The chart on a real API server: install, upgrade, uninstall, and what its objects are allowed to do."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hack.cluster.controlplane import ControlPlane
from tests.builders.chart import (
    CHART,
    FULL_NAME,
    NAMESPACE,
    TAKE_OVER,
    Body,
    as_flags,
    cluster_role_rules,
    helm,
    objects,
    rendered,
    run_helm,
    wait_for_kinds,
)
from tests.builders.resources import make_profile, make_vr

# One process for all files of the group: their releases are cluster-scoped.
pytestmark = pytest.mark.xdist_group("chart")
STORAGE = {"defaultProfile.storage": [{"name": "media", "endpoint": "http://s3.media.svc:8333", "secretName": "s3"}]}


@pytest.fixture
def release(control_plane: ControlPlane, namespace: str) -> Iterator[str]:
    """The chart, installed as release `vr` in a namespace of its own."""
    run_helm(control_plane, "install", "vr", CHART, f"--namespace={namespace}", TAKE_OVER, *as_flags(STORAGE))
    yield namespace
    helm("uninstall", "vr", f"--namespace={namespace}", kubeconfig=control_plane.kubeconfig)


def apply(cluster: ControlPlane, body: Body, *flags: str) -> str:
    return cluster.kubectl("apply", "--validate=strict", "--filename=-", *flags, stdin=json.dumps(body))


def can(cluster: ControlPlane, user: str, verb: str, resource: str, namespace: str, group: str = "") -> bool:
    """What the API server's authorizer answers, by kubectl's own question."""
    resource, _, subresource = resource.partition("/")
    arguments = ["auth", "can-i", verb, f"{resource}.{group}" if group else resource, f"--as={user}"]
    arguments += [f"--namespace={namespace}", *([f"--subresource={subresource}"] if subresource else [])]
    return cluster.kubectl(*arguments, check=False).strip() == "yes"


def test_a_restoration_can_be_applied_right_after_the_install(control_plane: ControlPlane, release: str) -> None:
    wait_for_kinds(control_plane)
    apply(control_plane, make_vr(namespace=release))
    assert "clip" in control_plane.kubectl("get", "vr", "--namespace", release, "--output=name")


def test_uninstalling_keeps_the_restorations(control_plane: ControlPlane, release: str) -> None:
    apply(control_plane, make_vr(namespace=release))
    run_helm(control_plane, "uninstall", "vr", f"--namespace={release}")
    assert "clip" in control_plane.kubectl("get", "vr", "--namespace", release, "--output=name")
    assert FULL_NAME not in control_plane.kubectl("get", "clusterroles", "--output=name")
    # ... and the same release can be installed over what was kept.
    run_helm(control_plane, "install", "vr", CHART, f"--namespace={release}", *as_flags(STORAGE))
    assert "clip" in control_plane.kubectl("get", "vr", "--namespace", release, "--output=name")


def test_an_upgrade_changes_only_what_its_values_change(control_plane: ControlPlane, release: str) -> None:
    def generation() -> int:
        arguments = ["get", "deployment", FULL_NAME, "--namespace", release, "--output=jsonpath={.metadata.generation}"]
        return int(control_plane.kubectl(*arguments))

    upgrade = ["upgrade", "vr", CHART, f"--namespace={release}", *as_flags(STORAGE)]
    before = generation()
    run_helm(control_plane, *upgrade)
    assert generation() == before
    run_helm(control_plane, *upgrade, "--set=log.level=DEBUG")
    assert generation() == before + 1


PEERS = [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "dns"}}}]
RULE = {"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"port": 9000}]}
VALUE_SETS: dict[str, dict[str, Any]] = {
    "default": {},
    "storage": STORAGE,
    "replicas": {"replicas": 3, "priorityClassName": "system-cluster-critical"},
    "replicas spread": {
        "replicas": 2,
        "podDisruptionBudget.enabled": False,
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
        ],
    },
    "namespaces": {"scope.namespaces": ["default", "kube-public"], "scope.clusterProfiles": False},
    "namespaces by label": {"scope.namespaceSelector": "restoration=enabled", "kueue.readWorkloads": True},
    "network policies": {
        "networkPolicy.enabled": True,
        "networkPolicy.operator.apiServer.cidrs": ["192.0.2.1/32", "2001:db8::1/128"],
        "networkPolicy.runner": {"namespaces": ["default", "kube-public"], "dns": PEERS, "storage": [RULE]},
    },
    "monitoring": {
        "monitoring.serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "monitoring.podMonitor": {"enabled": True, "interval": "1m"},
        "monitoring.prometheusRule": {"enabled": True, "thresholds": {"VideoRestorationSlow": 20}},
        "monitoring.dashboard": {"enabled": True, "annotations": {"grafana_folder": "Video"}},
    },
    "argo cd": {"argocd": {"enabled": True, "namespace": "kube-public"}},
    "placed": {
        "nodeSelector": {"pool": "infra"},
        "tolerations": [{"key": "infra", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "imagePullSecrets": ["registry"],
        "podLabels": {"team": "media"},
        "podAnnotations": {"sidecar.istio.io/inject": "false"},
        "extraEnv": [{"name": "VR_WORKERS", "value": "8"}],
    },
    "bare": {
        "crds.install": False,
        "rbac": {"create": False, "aggregateToDefaultRoles": False},
        "serviceAccount": {"create": False, "name": "mine"},
        "fullnameOverride": "restorer",
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
    },
}


@pytest.fixture(scope="module")
def monitoring_kinds(control_plane: ControlPlane) -> Iterator[None]:
    """The kinds of Prometheus' operator, without their schema."""
    kinds = ("ServiceMonitor", "PodMonitor", "PrometheusRule")
    for kind in kinds:
        apply(control_plane, make_crd(kind, group="monitoring.coreos.com"))
    names = [f"{kind.lower()}s.monitoring.coreos.com" for kind in kinds]
    wait_for_kinds(control_plane, *names)
    yield
    control_plane.kubectl("delete", "crd", "--wait=false", *names)


def make_crd(kind: str, *, group: str) -> Body:
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]},
    }


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_the_api_server_takes_what_is_rendered(
    control_plane: ControlPlane, monitoring_kinds: None, values: dict[str, Any]
) -> None:
    """Every object, strictly: an unknown or doubled field is an error."""
    bodies = objects(values, release="vr")
    for body in bodies:
        if body["metadata"].get("namespace") == NAMESPACE:
            body["metadata"]["namespace"] = "default"
    text = "".join(f"---\n{json.dumps(body)}\n" for body in bodies)
    said = control_plane.kubectl("apply", "--dry-run=server", "--validate=strict", "--filename=-", stdin=text)
    assert len(said.splitlines()) == len(bodies)


def test_the_default_profile_is_a_valid_profile(control_plane: ControlPlane, release: str) -> None:
    text = rendered(STORAGE)["ConfigMap", FULL_NAME]["data"]["default-profile.yaml"]
    apply(control_plane, make_profile() | {"spec": yaml.safe_load(text)}, "--dry-run=server")


def test_the_pod_passes_the_restricted_pod_security_standard(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    spec = rendered()["Deployment", FULL_NAME]["spec"]["template"]["spec"] | {"serviceAccountName": "default"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator", "namespace": namespace}, "spec": spec}
    apply(control_plane, pod, "--dry-run=server")
    # The same pod without its guards is refused: the namespace does enforce.
    pod["spec"] = spec | {"securityContext": {}}
    assert "violates PodSecurity" in control_plane_refusal(control_plane, pod)


def control_plane_refusal(cluster: ControlPlane, body: Body) -> str:
    with pytest.raises(Exception, match="failed") as refusal:
        apply(cluster, body, "--dry-run=server")
    return str(refusal.value)


NEVER = [
    ("", "secrets", "get"),
    ("", "secrets", "list"),
    ("", "configmaps", "list"),
    ("", "configmaps", "update"),
    ("", "pods", "create"),
    ("", "pods", "delete"),
    ("", "pods/log", "get"),
    ("", "pods/exec", "create"),
    ("videorestoration.dev", "videorestorations", "update"),
    ("videorestoration.dev", "videorestorations", "patch"),
    ("rbac.authorization.k8s.io", "clusterroles", "get"),
]


def test_the_operator_has_its_rights_and_no_others(control_plane: ControlPlane, release: str) -> None:
    operator = f"system:serviceaccount:{release}:{FULL_NAME}"
    for rule in cluster_role_rules():
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    assert can(control_plane, operator, verb, resource, "default", group), (group, resource, verb)
    for group, resource, verb in NEVER:
        assert not can(control_plane, operator, verb, resource, "default", group), (group, resource, verb)


@pytest.mark.parametrize(
    ("role", "restoration", "profile", "cluster_profile"),
    [("view", False, False, False), ("edit", True, False, False), ("admin", True, True, False)],
)
def test_users_get_rights_with_their_namespace_role(
    control_plane: ControlPlane, release: str, role: str, restoration: bool, profile: bool, cluster_profile: bool
) -> None:
    user = f"someone-with-{role}"
    binding = ["create", "rolebinding", role, f"--clusterrole={role}", f"--user={user}", f"--namespace={release}"]
    control_plane.kubectl(*binding)
    group = "videorestoration.dev"

    def aggregated() -> bool:
        return can(control_plane, user, "get", "videorestorations", release, group)

    control_plane.processes.wait_until("kube-controller-manager", aggregated, what="The aggregation of roles")
    if restoration:  # each role is aggregated by itself
        control_plane.processes.wait_until(
            "kube-controller-manager",
            lambda: can(control_plane, user, "create", "videorestorations", release, group),
            what="The aggregation of the edit role",
        )
    if profile:
        control_plane.processes.wait_until(
            "kube-controller-manager",
            lambda: can(control_plane, user, "create", "restorationprofiles", release, group),
            what="The aggregation of the admin role",
        )
    assert can(control_plane, user, "create", "videorestorations", release, group) is restoration
    assert can(control_plane, user, "create", "restorationprofiles", release, group) is profile
    assert can(control_plane, user, "create", "clusterrestorationprofiles", release, group) is cluster_profile
    assert not can(control_plane, user, "patch", "videorestorations/status", release, group)
