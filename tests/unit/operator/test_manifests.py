"""Golden manifests: reviewers read YAML, not asserts. `UPDATE_GOLDEN=1 pytest …` writes them anew."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.builders.observations import profile, restoration

from restoration_api.request import Request
from restoration_api.resources import ProfileSpec, VideoRestoration
from restoration_operator.build.job import Execution, Plan, build_job
from restoration_operator.build.names import Role
from restoration_operator.build.patch import strategic_merge
from restoration_operator.build.quantity import total
from restoration_operator.build.request import resolve_request
from restoration_operator.build.snapshot import config_map, profile_text, take_snapshot

GOLDEN = Path(__file__).parent / "golden"

PRODUCTION_PROFILE: Mapping[str, Any] = {
    "image": "registry.example.com/vr-runner:0.1.0",
    "imagePullSecrets": ["registry"],
    "model": {
        "name": "seedvr2-3b",
        "precision": "FP16",
        "source": {"image": {"reference": "registry.example.com/models/seedvr2-3b:1"}},
    },
    "gpu": {"count": 1, "minMemoryMiB": 40000, "kernelCacheClaimName": "vr-kernels"},
    "resources": {"requests": {"cpu": "8", "memory": "32Gi"}, "limits": {"memory": "32Gi"}},
    "scratch": {"sizeLimit": "80Gi"},
    "storage": [
        {
            "name": "archive",
            "endpoint": "https://s3.eu-central-1.amazonaws.com",
            "region": "eu-central-1",
            "workloadIdentity": {"serviceAccountName": "vr-runner"},
        },
        {
            "name": "edge",
            "endpoint": "https://minio.media.svc:9000",
            "addressing": "Path",
            "caConfigMapName": "minio-ca",
            "secretName": "media-s3",
        },
        {"name": "unused", "secretName": "not-for-this-runner"},
    ],
    "defaults": {"target": {"shortSide": 1080}, "chunkFrames": 49, "crf": 16, "activeDeadlineSeconds": 43200},
    "limits": {"maxParallelism": 8, "maxInputBytes": 1000000000},
    "pod": {
        "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L40S"},
        "tolerations": [{"key": "cloud.google.com/gke-spot", "operator": "Exists"}],
        "priorityClassName": "batch-low",
        "propagateLabels": ["team", "absent"],
        "labels": {"app.kubernetes.io/managed-by": "somebody-else", "studio": "a"},
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "specPatch": {
            "hostNetwork": False,
            "containers": [{"name": "runner", "env": [{"name": "NCCL_DEBUG", "value": "WARN"}]}],
        },
    },
}
PRODUCTION_VR: Mapping[str, Any] = {
    "input.uri": "s3://archive/s01/e03.mxf",
    "output": {"uri": "s3://restored/s01/e03.mov", "storage": "edge", "container": "MOV", "codec": "ProRes"},
    "restoration": {"target": {"width": 1920, "height": 1080}, "seed": 42},
    "activeDeadlineSeconds": 21600,
}
LABELS = {"kueue.x-k8s.io/queue-name": "gpu-batch", "team": "restoration"}


def production() -> tuple[VideoRestoration, ProfileSpec]:
    asked = restoration(PRODUCTION_VR, name="season-1-episode-03", labels=LABELS)
    return asked, ProfileSpec.model_validate(PRODUCTION_PROFILE)


def nano() -> tuple[VideoRestoration, ProfileSpec]:
    return restoration(name="movie-night"), profile().spec


def plan(asked: VideoRestoration, chosen: ProfileSpec, **execution: Any) -> Plan:
    snapshot = take_snapshot(profile_text(chosen), resolve_request(asked.spec, chosen))
    return Plan(
        restoration=asked,
        profile=chosen,
        snapshot_name="vr-snapshot",
        request_hash=snapshot.request_hash,
        execution=Execution(**({"number": 1} | execution)),
    )


def matches_golden(name: str, document: Any) -> None:
    file = GOLDEN / f"{name}.yaml"
    text = yaml.safe_dump(json.loads(json.dumps(document)), sort_keys=False, width=120)
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text(), f"{file.name} differs; if that is meant, run with UPDATE_GOLDEN=1"


def test_job_of_the_simplest_restoration() -> None:
    matches_golden("job-nano", build_job(plan(*nano())))


def test_job_in_production() -> None:
    job = build_job(plan(*production(), number=2, active_deadline_seconds=21600, memory_hint_mib=30000, segments="3-7"))
    matches_golden("job-production", job)


def test_job_that_plans_in_production() -> None:
    matches_golden("job-production-plan", build_job(plan(*production(), role=Role.PLAN, active_deadline_seconds=21600)))


@pytest.mark.parametrize("case", [nano, production])
def test_request(case: Any) -> None:
    asked, chosen = case()
    request = resolve_request(asked.spec, chosen)
    matches_golden(f"request-{case.__name__}", json.loads(request.to_json()))
    assert Request.from_json(request.to_json()) == request


def test_the_snapshot_is_immutable_and_owned() -> None:
    asked, chosen = nano()
    snapshot = take_snapshot(profile_text(chosen), resolve_request(asked.spec, chosen))
    body = config_map(asked, snapshot, "vr-movie-night-7f3c9a1b")
    assert body["immutable"] is True
    assert body["metadata"]["ownerReferences"][0]["uid"] == asked.metadata.uid
    assert snapshot.profile() == chosen


class TestJob:
    """What a line of a golden file does not explain."""

    def test_no_gpu_no_resource_no_toleration(self) -> None:
        pod = build_job(plan(*nano()))["spec"]["template"]["spec"]
        assert "tolerations" not in pod
        assert not any("gpu" in name for name in pod["containers"][0]["resources"]["limits"])

    def test_a_gpu_is_asked_for_and_its_taint_tolerated(self) -> None:
        asked, chosen = restoration(), profile({"gpu": {"count": 2}}).spec
        pod = build_job(plan(asked, chosen))["spec"]["template"]["spec"]
        assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
        assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]

    def test_the_profiles_own_gpu_toleration_is_left_as_it_is(self) -> None:
        own = {"key": "nvidia.com/gpu", "operator": "Equal", "value": "present", "effect": "NoSchedule"}
        chosen = profile({"gpu": {"count": 1}, "pod.tolerations": [own]}).spec
        assert build_job(plan(restoration(), chosen))["spec"]["template"]["spec"]["tolerations"] == [own]

    def test_our_labels_win(self) -> None:
        labels = build_job(plan(*production()))["metadata"]["labels"]
        assert labels["app.kubernetes.io/managed-by"] == "vr-operator"
        assert labels["studio"] == "a"
        assert labels["team"] == "restoration"
        assert "absent" not in labels

    def test_only_the_storage_in_use_is_mounted(self) -> None:
        volumes = build_job(plan(*production()))["spec"]["template"]["spec"]["volumes"]
        assert [volume["secret"]["secretName"] for volume in volumes if "secret" in volume] == ["media-s3"]

    def test_builtin_weights_mount_nothing(self) -> None:
        asked, chosen = nano()
        names = [volume["name"] for volume in build_job(plan(asked, chosen))["spec"]["template"]["spec"]["volumes"]]
        assert "model" not in names
        assert resolve_request(asked.spec, chosen).model.path == "/models/seedvr2-nano"

    @pytest.mark.parametrize(
        ("source", "volume"),
        [
            ({"persistentVolumeClaim": {"claimName": "weights"}}, "persistentVolumeClaim"),
            ({"hostPath": {"path": "/srv/weights"}}, "hostPath"),
            ({"image": {"reference": "models:1"}}, "image"),
        ],
    )
    def test_other_weights_are_mounted_read_only(self, source: dict[str, Any], volume: str) -> None:
        pod = build_job(plan(restoration(), profile({"model.source": source}).spec))["spec"]["template"]["spec"]
        [model] = [item for item in pod["volumes"] if item["name"] == "model"]
        [mount] = [item for item in pod["containers"][0]["volumeMounts"] if item["name"] == "model"]
        assert volume in model
        assert mount == {"name": "model", "mountPath": "/models", "readOnly": True}

    @pytest.mark.parametrize(
        "source",
        [
            {"persistentVolumeClaim": {"claimName": "weights", "subPath": "seedvr2/3b"}},
            {"image": {"reference": "models:1", "subPath": "seedvr2/3b"}},
        ],
    )
    def test_a_folder_of_a_volume(self, source: dict[str, Any]) -> None:
        pod = build_job(plan(restoration(), profile({"model.source": source}).spec))["spec"]["template"]["spec"]
        [mount] = [item for item in pod["containers"][0]["volumeMounts"] if item["name"] == "model"]
        assert mount == {"name": "model", "mountPath": "/models", "readOnly": True, "subPath": "seedvr2/3b"}

    def test_excluded_nodes(self) -> None:
        pod = build_job(plan(*nano(), excluded_nodes=("node-7",)))["spec"]["template"]["spec"]
        [term] = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        assert term["matchFields"][0]["values"] == ["node-7"]

    def test_autoscalers_may_move_it_only_if_allowed(self) -> None:
        stays = build_job(plan(*nano()))["spec"]["template"]["metadata"]["annotations"]
        moves = build_job(plan(restoration(), profile({"pod.allowConsolidation": True}).spec))
        assert stays["karpenter.sh/do-not-disrupt"] == "true"
        assert moves["spec"]["template"]["metadata"]["annotations"] == {}


DIGEST = f"sha256:{'0123456789abcdef' * 4}"
FETCHED = "/models/seedvr2-nano-0123456789abcdef"


class TestDownload:
    """Weights that the runner fetches: where to, with which rights, and what it is told."""

    def made(
        self, source: dict[str, Any], changes: dict[str, Any] | None = None, *, role: Role = Role.RUN
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The pod's spec, and the request's model."""
        wanted = {"model.source": {"download": source}, "model.digest": DIGEST, **(changes or {})}
        asked, chosen = restoration(), profile(wanted).spec
        pod = build_job(plan(asked, chosen, role=role))["spec"]["template"]["spec"]
        return pod, json.loads(resolve_request(asked.spec, chosen).model.to_json())

    def volume(self, pod: dict[str, Any], name: str = "model") -> dict[str, Any]:
        [volume] = [item for item in pod["volumes"] if item["name"] == name]
        return dict(volume)

    def mount(self, pod: dict[str, Any], name: str = "model") -> dict[str, Any]:
        [mount] = [item for item in pod["containers"][0]["volumeMounts"] if item["name"] == name]
        return dict(mount)

    def test_to_a_volume_of_the_pods_own(self) -> None:
        pod, model = self.made({"uri": "s3://models/nano", "sizeLimit": "30Gi"})
        assert self.volume(pod) == {"name": "model", "emptyDir": {"sizeLimit": "30Gi"}}
        assert self.mount(pod) == {"name": "model", "mountPath": "/models"}
        assert model["path"] == FETCHED
        assert model["download"] == {
            "uri": "s3://models/nano",
            "storage": "media",
            "token": False,
            "maxBytes": 30 << 30,
            "shared": False,
        }

    def test_the_scheduler_is_told_of_the_disk_it_takes(self) -> None:
        source = {"uri": "hf://a/b", "sizeLimit": "30Gi"}
        pod, _ = self.made(source, {"scratch.sizeLimit": "80Gi"})
        planning, _ = self.made(source, {"scratch.sizeLimit": "80Gi"}, role=Role.PLAN)
        elsewhere, _ = self.made(source, {"scratch.storageClassName": "fast"})
        kept, _ = self.made({**source, "cacheClaimName": "weights"}, {"scratch.sizeLimit": "80Gi"})
        disks = [
            item["containers"][0]["resources"]["requests"]["ephemeral-storage"]
            for item in (pod, planning, elsewhere, kept)
        ]
        assert disks == ["110Gi", str((80 << 30) + (64 << 20)), "30Gi", "80Gi"]
        assert self.volume(planning)["emptyDir"] == {"sizeLimit": "64Mi"}

    def test_to_a_claim_that_keeps_them(self) -> None:
        placed = {"gpu.count": 1, "pod": {"nodeSelector": PLACED}}
        pod, model = self.made({"uri": "hf://a/b", "cacheClaimName": "weights"}, placed, role=Role.PLAN)
        assert self.volume(pod) == {"name": "model", "persistentVolumeClaim": {"claimName": "weights"}}
        assert model["download"]["shared"] is True
        assert pod["nodeSelector"] == PLACED  # the claim may be reached from there only

    def test_the_hubs_token_is_a_file_and_nothing_else_knows_it(self) -> None:
        source = {"uri": "hf://a/b/c", "revision": "main", "endpoint": "https://hub.local/hf", "tokenSecretName": "hub"}
        pod, model = self.made(source)
        secret = {"secretName": "hub", "items": [{"key": "token", "path": "token"}], "defaultMode": 0o440}
        assert self.volume(pod, "model-token") == {"name": "model-token", "secret": secret}
        folder = {"name": "model-token", "mountPath": "/var/run/vr/model-token", "readOnly": True}
        assert self.mount(pod, "model-token") == folder
        told = {"uri": "hf://a/b/c", "revision": "main", "endpoint": "https://hub.local/hf", "token": True}
        assert model["download"] == told | {"maxBytes": 20 << 30, "shared": False}

    def test_the_bucket_of_the_weights_brings_its_own_credentials(self) -> None:
        storage = [{"name": "media", "secretName": "media-s3"}, {"name": "models", "secretName": "models-s3"}]
        pod, model = self.made({"uri": "s3://models/nano", "storage": "models"}, {"storage": storage})
        mounted = [item["secret"]["secretName"] for item in pod["volumes"] if "secret" in item]
        assert mounted == ["media-s3", "models-s3"]
        assert model["download"]["storage"] == "models"

    def test_the_pod_stays_as_restricted_as_it_was(self) -> None:
        pod, _ = self.made({"uri": "hf://a/b", "tokenSecretName": "hub", "cacheClaimName": "weights"})
        usual = build_job(plan(*nano()))["spec"]["template"]["spec"]
        assert pod["securityContext"] == usual["securityContext"]
        assert pod["containers"][0]["securityContext"] == usual["containers"][0]["securityContext"]
        assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("quantities", "sum_"),
    [
        ((None, None), None),
        ((None, "3Gi"), "3Gi"),
        (("80Gi", "30Gi"), "110Gi"),
        (("1Gi", "1Mi"), str((1 << 30) + (1 << 20))),
        ((1000, "1k"), "2000"),
        (("1.5Gi", "0.5Gi"), str(2 << 30)),
        ((5, 6), "11"),
    ],
)
def test_total(quantities: tuple[str | int | None, ...], sum_: str | None) -> None:
    assert total(*quantities) == sum_


SPOT = {"key": "cloud.google.com/gke-spot", "operator": "Exists"}
TEAM = {"key": "team", "operator": "Equal", "value": "studio-a", "effect": "NoSchedule"}
PLACED = {"nvidia.com/gpu.product": "NVIDIA-L40S", "kubernetes.io/arch": "arm64", "pool": "gpus"}


class TestJobWithoutGpu:
    """The same pod, less what is there for a GPU's sake."""

    def pod(self, changes: dict[str, Any], *, role: Role = Role.PLAN, **execution: Any) -> dict[str, Any]:
        asked = restoration(labels=LABELS)
        job = build_job(plan(asked, profile(changes).spec, role=role, **execution))
        assert "kueue.x-k8s.io/queue-name" not in job["metadata"]["labels"]
        found: dict[str, Any] = job["spec"]["template"]["spec"]
        assert not any("gpu" in name for part in found["containers"][0]["resources"].values() for name in part)
        return found

    @pytest.mark.parametrize("role", [Role.PLAN, Role.ASSEMBLE])
    def test_it_has_its_role_and_nothing_that_only_restoring_needs(self, role: Role) -> None:
        pod = self.pod({"gpu.count": 1}, role=role, memory_hint_mib=1000, segments="0-3")
        assert pod["containers"][0]["args"][0] == role.value
        assert len(pod["containers"][0]["args"]) == 3
        assert "tolerations" not in pod

    @pytest.mark.parametrize(
        "toleration",
        [
            {"key": "nvidia.com/gpu", "operator": "Exists"},
            {"key": "nvidia.com/mig", "operator": "Exists"},
            {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"},
            {"operator": "Exists"},
        ],
    )
    def test_it_goes_to_no_gpu_node(self, toleration: dict[str, Any]) -> None:
        changes = {"gpu.count": 1, "pod": {"nodeSelector": PLACED, "tolerations": [SPOT, toleration, TEAM]}}
        pod = self.pod(changes)
        assert pod["tolerations"] == [SPOT, TEAM]
        assert pod["nodeSelector"] == {"kubernetes.io/arch": "arm64"}

    def test_nor_does_the_patch_send_it_there(self) -> None:
        patch = {
            "affinity": {"nodeAffinity": {}},
            "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}],
            "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["s3"]}],
            "containers": [{"name": "runner", "resources": {"claims": [{"name": "gpu"}]}}, {"name": "sidecar"}],
        }
        pod = self.pod(
            {"gpu.count": 1, "pod": {"runtimeClassName": "nvidia", "specPatch": patch}}, excluded_nodes=("n",)
        )
        assert pod.keys().isdisjoint({"affinity", "resourceClaims", "runtimeClassName", "nodeSelector"})
        assert pod["containers"][0]["resources"].keys() == {"requests", "limits"}
        assert (pod["hostAliases"], pod["containers"][1]) == (patch["hostAliases"], {"name": "sidecar"})

    @pytest.mark.parametrize(
        "source", [{"hostPath": {"path": "/srv/weights"}}, {"persistentVolumeClaim": {"claimName": "w"}}]
    )
    def test_weights_that_lie_on_nodes_keep_it_there(self, source: dict[str, Any]) -> None:
        placed = {"nodeSelector": PLACED, "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]}
        pod = self.pod({"gpu.count": 1, "model.source": source, "pod": placed})
        assert (pod["nodeSelector"], pod["tolerations"]) == (PLACED, placed["tolerations"])

    def test_where_no_gpu_is_asked_for_the_placement_is_not_for_one(self) -> None:
        pod = self.pod({"gpu.count": 0, "pod": {"nodeSelector": {"pool": "batch"}, "runtimeClassName": "gvisor"}})
        assert (pod["nodeSelector"], pod["runtimeClassName"]) == ({"pool": "batch"}, "gvisor")

    @pytest.mark.parametrize(
        ("given", "light"),
        [
            ({}, ({"cpu": "250m", "memory": "256Mi"}, {"memory": "4Gi"})),
            (
                {"requests": {"cpu": "8", "memory": "32Gi"}, "limits": {"memory": "32Gi", "cpu": "16"}},
                ({"cpu": "250m", "memory": "256Mi"}, {"memory": "4Gi", "cpu": "16"}),
            ),
            (
                {"requests": {"cpu": "100m", "memory": "200M"}, "limits": {"memory": "1Gi"}},
                ({"cpu": "100m", "memory": "200M"}, {"memory": "1Gi"}),
            ),
            (  # a limit alone is the request too, and the API server refuses a request above it
                {"limits": {"memory": "192Mi", "cpu": "100m"}},
                ({"cpu": "100m", "memory": "192Mi"}, {"memory": "192Mi", "cpu": "100m"}),
            ),
            ({"requests": {"memory": "64Mi"}}, ({"cpu": "250m", "memory": "64Mi"}, {"memory": "4Gi"})),
        ],
    )
    def test_it_is_given_little_and_never_more_than_the_profile_gives(self, given: Any, light: Any) -> None:
        resources = self.pod({"gpu.count": 1, "resources": given})["containers"][0]["resources"]
        disk = {"ephemeral-storage": resources["limits"]["ephemeral-storage"]}
        assert (resources["requests"], resources["limits"]) == (light[0] | disk, light[1] | disk)


@pytest.mark.parametrize(
    ("base", "patch", "merged"),
    [
        ({"a": 1, "b": 2}, {"b": None, "c": 3}, {"a": 1, "c": 3}),
        ({"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"x": 1, "y": 2}}),
        (
            {"containers": [{"name": "runner", "image": "a", "env": [{"name": "X", "value": "1"}]}]},
            {"containers": [{"name": "runner", "env": [{"name": "Y", "value": "2"}]}, {"name": "side"}]},
            {
                "containers": [
                    {"name": "runner", "image": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
                    {"name": "side"},
                ]
            },
        ),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}, {"tolerations": [{"key": "b"}]}),
        ({"containers": [{"name": "runner"}]}, {"containers": ["nonsense"]}, {"containers": ["nonsense"]}),
        (
            {"volumes": [{"name": "a"}, {"name": "b"}]},
            {"volumes": [{"name": "a", "$patch": "delete"}]},
            {"volumes": [{"name": "b"}]},
        ),
    ],
    ids=[
        "remove and add",
        "objects merge",
        "lists of named things merge by name",
        "tolerations are replaced",
        "nonsense",
        "delete",
    ],
)
def test_spec_patch(base: dict[str, Any], patch: dict[str, Any], merged: dict[str, Any]) -> None:
    assert strategic_merge(base, patch) == merged


def test_of_a_secret_with_an_authority_only_the_certificate_is_mounted() -> None:
    """cert-manager keeps the server's private key in the same Secret."""
    asked, _ = nano()
    entry = {"name": "media", "endpoint": "https://minio.media.svc:9000", "caSecretName": "minio-tls"}
    job = build_job(plan(asked, profile({"storage": [entry]}).spec))
    pod = job["spec"]["template"]["spec"]
    [volume] = [volume for volume in pod["volumes"] if volume["name"] == "ca-media"]
    assert volume["secret"]["secretName"] == "minio-tls"
    assert volume["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]
    assert "storage-media" not in [volume["name"] for volume in pod["volumes"]]
