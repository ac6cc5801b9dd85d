"""What a user gets with somebody else's credentials, and what a team's own profile may ask for: one row per trick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tests.builders.observations import at, observe, profile, restoration, settle

from restoration_operator.decide.admission import Refused, Terms, admit
from restoration_operator.decide.types import CreateJob

PREFIX = "s3://archive/restored/"
INPUT, OUTPUT = "storage.0.allowedInputPrefixes", "storage.0.allowedOutputPrefixes"

INSIDE = [
    "s3://archive/restored/a.mp4",
    "s3://archive/restored/deep/er/a.mp4",
    "s3://archive/restored/..a/b...mp4",
    "s3://archive/restored//a.mp4",
    "s3://archive/restored/100%/a.mp4",
]
OUTSIDE = {
    "another folder": "s3://archive/raw/a.mp4",
    "a folder of a longer name": "s3://archive/restored-private/a.mp4",
    "a file of the folder's name": "s3://archive/restored",
    "a bucket of a longer name": "s3://archive-private/restored/a.mp4",
    "a bucket in front": "s3://x/s3://archive/restored/a.mp4",
    "another case": "s3://archive/Restored/a.mp4",
    "a bucket in another case": "s3://Archive/restored/a.mp4",
    "up and away": "s3://archive/restored/../raw/a.mp4",
    "up at the end": "s3://archive/restored/a/..",
    "here": "s3://archive/restored/./a.mp4",
    "up, encoded": "s3://archive/restored/%2e%2E/raw/a.mp4",
    "up, half encoded": "s3://archive/restored/.%2e/raw/a.mp4",
    "the slash encoded": "s3://archive/restored%2Fa.mp4",
    "a slash too many": "s3://archive//restored/a.mp4",
}


def verdict(changes: Mapping[str, Any], **limits: Any) -> object:
    return admit(observe(restoration(changes), profile=profile(limits)), at(1))


@pytest.mark.parametrize("uri", INSIDE)
def test_inside_the_prefix(uri: str) -> None:
    assert isinstance(verdict({"output.uri": uri}, **{OUTPUT: [PREFIX]}), Terms)
    assert isinstance(verdict({"input.uri": uri}, **{INPUT: [PREFIX]}), Terms)


@pytest.mark.parametrize("uri", OUTSIDE.values(), ids=OUTSIDE)
@pytest.mark.parametrize(("field", "limit"), [("input.uri", INPUT), ("output.uri", OUTPUT)], ids=["input", "output"])
def test_outside_the_prefix(field: str, limit: str, uri: str) -> None:
    refused = verdict({field: uri}, **{limit: ["s3://elsewhere/", PREFIX]})
    assert isinstance(refused, Refused)
    assert refused.reason == "NotPermitted"
    assert refused.message.startswith(f"spec.{field} is {uri}"), "it names field and value"


def test_prefixes_of_one_direction_say_nothing_about_the_other() -> None:
    uris = {"input.uri": "s3://raw/a.mp4", "output.uri": "s3://archive/restored/a.mp4"}
    assert isinstance(verdict(uris, **{OUTPUT: [PREFIX]}), Terms)


def test_https_is_no_way_around_input_prefixes() -> None:
    uris = {"input.uri": "https://archive.example/raw/a.mp4", "output.uri": PREFIX + "a.mp4"}
    refused = verdict(uris, **{INPUT: [PREFIX]})
    assert isinstance(refused, Refused)
    assert "allowHTTPS" in refused.message
    assert isinstance(verdict(uris, **{INPUT: [PREFIX], "input.allowHTTPS": True}), Terms)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"pod.specPatch": {"hostNetwork": True}}, "pod.specPatch"),
        ({"pod.specPatch": {}}, "pod.specPatch"),
        ({"model.source": {"hostPath": {"path": "/etc"}}}, "model.source.hostPath"),
    ],
    ids=["specPatch", "empty specPatch", "hostPath"],
)
def test_what_only_administrators_may(changes: dict[str, Any], field: str) -> None:
    """The schema of the namespaced kind lacks these fields; this is for a CRD that somebody has changed."""
    refused = admit(observe(restoration(), profile=profile(changes, kind="RestorationProfile")), at(1))
    assert isinstance(refused, Refused)
    assert field in refused.message
    assert isinstance(admit(observe(restoration(), profile=profile(changes)), at(1)), Terms)


HOSTILE: dict[str, Any] = {
    "pod.serviceAccountName": "cluster-admin",
    "pod.priorityClassName": "system-node-critical",
    "pod.runtimeClassName": "unconfined",
    "pod.schedulerName": "mine",
    "pod.nodeSelector": {"node-role.kubernetes.io/control-plane": ""},
    "pod.tolerations": [{"operator": "Exists"}],
    "pod.env": [{"name": "VR_UID", "value": "another"}, {"name": "LD_PRELOAD", "value": "/tmp/evil.so"}],
    "pod.labels": {"videorestoration.dev/uid": "another", "app.kubernetes.io/managed-by": "another"},
    "pod.annotations": {"container.apparmor.security.beta.kubernetes.io/runner": "unconfined"},
    "pod.allowConsolidation": True,
    "image": "attacker/image:1",
    "imagePullSecrets": ["theirs"],
    "resources.limits": {"memory": "1Ti"},
}


@pytest.mark.parametrize("field", HOSTILE)
def test_a_team_profile_makes_no_pod_that_a_restricted_namespace_would_refuse(field: str) -> None:
    """Whatever it sets: no token, no root, no capability, nothing of the node, and labels that are the operator's."""
    team = profile({field: HOSTILE[field]}, kind="RestorationProfile")
    _, decision = settle(observe(restoration(), profile=team), at(1))
    [manifest] = [action.manifest for action in decision.actions if isinstance(action, CreateJob)]
    pod, template = manifest["spec"]["template"]["spec"], manifest["spec"]["template"]["metadata"]
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"} & set(pod)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert all("hostPath" not in volume for volume in pod["volumes"])
    [container] = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all("hostPort" not in port for port in container["ports"])
    for labels in (manifest["metadata"]["labels"], template["labels"]):
        assert labels["videorestoration.dev/uid"] == restoration().metadata.uid
        assert labels["app.kubernetes.io/managed-by"] == "vr-operator"
    last = {item["name"]: item for item in container["env"]}  # of two variables with one name the later wins
    assert "valueFrom" in last["VR_UID"]


LABELS = {"team": "a", "cost-center": "s1", "private": "x"}


def test_labels_for_cost_reports_reach_job_and_pod() -> None:
    chosen = profile({"pod.propagateLabels": ["team", "cost-center", "absent"]})
    _, decision = settle(observe(restoration(labels=LABELS), profile=chosen), at(1))
    [manifest] = [action.manifest for action in decision.actions if isinstance(action, CreateJob)]
    for labels in (manifest["metadata"]["labels"], manifest["spec"]["template"]["metadata"]["labels"]):
        assert {key: labels[key] for key in ("team", "cost-center")} == {"team": "a", "cost-center": "s1"}
        assert not {"private", "absent"} & set(labels)


@pytest.mark.parametrize("allowed", [True, False])
def test_autoscalers_leave_runners_alone_unless_told_otherwise(allowed: bool) -> None:
    _, decision = settle(observe(restoration(), profile=profile({"pod.allowConsolidation": allowed})), at(1))
    [manifest] = [action.manifest for action in decision.actions if isinstance(action, CreateJob)]
    annotations = manifest["spec"]["template"]["metadata"].get("annotations", {})
    assert ("cluster-autoscaler.kubernetes.io/safe-to-evict" in annotations) is not allowed
    assert annotations.get("karpenter.sh/do-not-disrupt") == (None if allowed else "true")
