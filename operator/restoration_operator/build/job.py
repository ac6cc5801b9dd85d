"""Turns a profile and a request into the `batch/v1` Job of one execution.

`backoffLimit` is 0 because a retry is a new execution: its template differs (other node, other memory hint), and Job
templates are immutable. Disruptions alone stay inside the Job. `podReplacementPolicy: Failed` keeps two writers apart.
There is no liveness probe: it would kill a runner whose HTTP thread starves behind a long native call.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from restoration_api.outcome import HTTP_PORT, PERMANENT_EXIT_CODES
from restoration_api.resources import ProfileSpec, VideoRestoration
from restoration_api.resources.profile import PodTemplate, Storage
from restoration_operator.build import model, queueing
from restoration_operator.build.light import LightResources, without_gpu
from restoration_operator.build.names import Role, job_name, volume_name
from restoration_operator.build.owner import labels, owner_reference
from restoration_operator.build.patch import strategic_merge
from restoration_operator.build.quantity import total
from restoration_operator.build.request import storage_in_use
from restoration_operator.build.snapshot import REQUEST_KEY
from restoration_operator.views import (
    EXECUTION_LABEL,
    MEMORY_HINT_ARGUMENT,
    ROLE_LABEL,
    RUNNER_CONTAINER,
    START_DEADLINE_ANNOTATION,
    UID_LABEL,
)

Json = dict[str, Any]

STAY_ANNOTATIONS: Final = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""Keep autoscalers from moving a running GPU pod to save a node."""

RUNNER_ID: Final = 65532
"""User and group of the runner image."""

TMP_SIZE: Final = "1Gi"
KERNEL_FOLDER: Final = "/kernels"
"""Where the volume of `gpu.kernelCacheClaimName` is; the runner adds what it compiles."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What differs from one execution to the next; everything else is the request's and the profile's."""

    number: int
    role: Role = Role.RUN
    active_deadline_seconds: int | None = None
    memory_hint_mib: int | None = None
    excluded_nodes: tuple[str, ...] = ()
    segments: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that a Job is made of."""

    restoration: VideoRestoration
    profile: ProfileSpec
    """The snapshot: `image` is set."""
    snapshot_name: str
    request_hash: str
    execution: Execution
    light: LightResources = field(default_factory=LightResources)
    """Of a role that needs no GPU."""


def build_job(plan: Plan) -> Json:
    """The manifest to POST; the same plan always gives the same manifest."""
    meta = plan.restoration.metadata
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(meta.name, meta.uid, execution=plan.execution.number, role=plan.execution.role),
            "namespace": meta.namespace,
            "labels": {
                **_wanted_labels(plan),
                **queueing.labels(meta.labels, plan.execution.role),
                **_own_labels(plan),
            },
            # Labels stop at 63 characters and the cache key is known to the runner only: hence the first two.
            "annotations": {
                "videorestoration.dev/name": meta.name,
                "videorestoration.dev/request-hash": plan.request_hash,
                **_start_deadline(plan.profile),
                **queueing.job_annotations(meta.annotations, plan.execution.role),
            },
            "ownerReferences": [owner_reference(plan.restoration)],
        },
        "spec": {
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _failure_rules()},
            "template": {
                "metadata": {
                    "labels": {**_wanted_labels(plan), **_own_labels(plan)},
                    "annotations": {
                        **_pod_annotations(_pod(plan)),
                        **queueing.pod_annotations(meta.annotations, plan.execution.role),
                    },
                },
                "spec": _pod_spec(plan),
            },
        },
    }


def _start_deadline(profile: ProfileSpec) -> Json:
    """The profile may change while the Job waits; what was agreed on stays."""
    seconds = profile.defaults.start_deadline_seconds if profile.defaults else None
    return {} if seconds is None else {START_DEADLINE_ANNOTATION: str(seconds)}


def _failure_rules() -> list[Json]:
    return [
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": RUNNER_CONTAINER,
                "operator": "In",
                "values": list(PERMANENT_EXIT_CODES),
            },
        },
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]


def _pod_spec(plan: Plan) -> Json:
    pod, execution = _pod(plan), plan.execution
    spec: Json = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": execution.active_deadline_seconds,
        "serviceAccountName": service_account(plan.profile),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": pod.termination_grace_period_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": RUNNER_ID,
            "runAsGroup": RUNNER_ID,
            "fsGroup": RUNNER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "imagePullSecrets": [{"name": name} for name in plan.profile.image_pull_secrets or ()],
        "nodeSelector": dict(pod.node_selector or {}),
        "affinity": _away_from(execution.excluded_nodes),
        "tolerations": _tolerations(plan),
        "priorityClassName": pod.priority_class_name,
        "runtimeClassName": pod.runtime_class_name,
        "schedulerName": pod.scheduler_name,
        "containers": [_container(plan)],
        "volumes": _volumes(plan),
    }
    present = {key: value for key, value in spec.items() if value not in (None, "", [], {})}
    patched = strategic_merge(present, pod.spec_patch) if pod.spec_patch else present
    return patched if execution.role is Role.RUN else without_gpu(patched, plan.profile, plan.light)


def _container(plan: Plan) -> Json:
    pod = _pod(plan)
    container: Json = {
        "name": RUNNER_CONTAINER,
        "image": plan.profile.image,
        "imagePullPolicy": plan.profile.image_pull_policy,
        "args": _arguments(plan),
        "ports": [{"name": "http", "containerPort": HTTP_PORT}],
        "env": [
            # The operator's own come last: of two variables with one name the later wins.
            *({"name": item.name, "value": item.value or ""} for item in pod.env or ()),
            {"name": "VR_EXECUTION", "value": str(plan.execution.number)},
            {"name": "VR_UID", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{UID_LABEL}']"}}},
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            # Part of a segment's fingerprint: a container cannot learn its own image's name.
            {"name": "VR_IMAGE", "value": plan.profile.image},
            *([{"name": "TRITON_CACHE_DIR", "value": KERNEL_FOLDER}] if _kernel_claim(plan) else ()),
        ],
        "resources": _resources(plan.profile, plan.execution.role),
        "startupProbe": {
            "httpGet": {"path": "/healthz", "port": "http"},
            # Ten minutes to answer, and a second until that is seen: `Running` and progress begin with it, and short
            # clips are over before they would be asked a second time every five (decision 0035).
            "periodSeconds": 1,
            "failureThreshold": 600,
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": _mounts(plan),
    }
    return {key: value for key, value in container.items() if value not in (None, {})}


def _arguments(plan: Plan) -> list[str]:
    execution = plan.execution
    arguments = [execution.role.value, f"--request=/etc/vr/{REQUEST_KEY}", f"--request-sha256={plan.request_hash}"]
    if execution.role is not Role.RUN:
        return arguments
    if execution.memory_hint_mib is not None:
        arguments.append(f"{MEMORY_HINT_ARGUMENT}{execution.memory_hint_mib}")
    if execution.segments is not None:
        arguments.append(f"--segments={execution.segments}")
    return arguments


def _resources(profile: ProfileSpec, role: Role) -> Json:
    requests = dict(profile.resources.requests or {}) if profile.resources else {}
    limits = dict(profile.resources.limits or {}) if profile.resources else {}
    if profile.gpu.count:
        limits[profile.gpu.resource_name] = str(profile.gpu.count)
    # An emptyDir is taken from the node's disk: without a request the scheduler would not know.
    scratch = profile.scratch.size_limit if profile.scratch.storage_class_name is None else None
    disk = total(scratch, model.node_disk(profile, role))
    if disk is not None:
        requests.setdefault("ephemeral-storage", disk)
        limits.setdefault("ephemeral-storage", disk)
    return {key: value for key, value in (("requests", requests), ("limits", limits)) if value}


def _mounts(plan: Plan) -> list[Json]:
    mounts: list[Json] = [{"name": "request", "mountPath": "/etc/vr", "readOnly": True}]
    for entry in storage_in_use(plan.restoration.spec, plan.profile):
        if entry.secret_name:
            folder = f"/var/run/vr/storage/{entry.name}"
            mounts.append({"name": volume_name("storage", entry.name), "mountPath": folder, "readOnly": True})
        if entry.ca_config_map_name or entry.ca_secret_name:
            folder = f"/var/run/vr/storage-ca/{entry.name}"
            mounts.append({"name": volume_name("ca", entry.name), "mountPath": folder, "readOnly": True})
    mounts += model.mounts(plan.profile)
    if _kernel_claim(plan):
        mounts.append({"name": "kernels", "mountPath": KERNEL_FOLDER})
    return [*mounts, {"name": "work", "mountPath": "/scratch"}, {"name": "tmp", "mountPath": "/tmp"}]


def _volumes(plan: Plan) -> list[Json]:
    request = {"name": plan.snapshot_name, "items": [{"key": REQUEST_KEY, "path": REQUEST_KEY}]}
    volumes: list[Json] = [{"name": "request", "configMap": request}]
    for entry in storage_in_use(plan.restoration.spec, plan.profile):
        if entry.secret_name:
            secret = {"secretName": entry.secret_name, "defaultMode": model.SECRET_MODE}
            volumes.append({"name": volume_name("storage", entry.name), "secret": secret})
        authorities = _authorities(entry)
        if authorities is not None:
            volumes.append({"name": volume_name("ca", entry.name), **authorities})
    volumes += model.volumes(plan.profile, plan.execution.role)
    kernels = _kernel_claim(plan)
    if kernels:
        volumes.append({"name": "kernels", "persistentVolumeClaim": {"claimName": kernels}})
    return [
        *volumes,
        {"name": "work", **_scratch(plan.profile)},
        {"name": "tmp", "emptyDir": {"sizeLimit": TMP_SIZE}},
    ]


def _authorities(entry: Storage) -> Json | None:
    """Of a Secret, too, only the certificate: cert-manager keeps the server's private key beside it."""
    only = [{"key": "ca.crt", "path": "ca.crt"}]
    if entry.ca_config_map_name:
        return {"configMap": {"name": entry.ca_config_map_name, "items": only}}
    if entry.ca_secret_name:
        return {"secret": {"secretName": entry.ca_secret_name, "items": only, "defaultMode": model.SECRET_MODE}}
    return None


def _kernel_claim(plan: Plan) -> str | None:
    """Only where kernels are compiled: a volume ties a pod to the places that reach it."""
    is_computing = plan.execution.role is Role.RUN and plan.profile.gpu.count > 0
    return plan.profile.gpu.kernel_cache_claim_name if is_computing else None


def _scratch(profile: ProfileSpec) -> Json:
    scratch = profile.scratch
    if scratch.storage_class_name is None:
        return {"emptyDir": {"sizeLimit": scratch.size_limit}}
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": scratch.storage_class_name,
        "resources": {"requests": {"storage": scratch.size_limit}},
    }
    return {"ephemeral": {"volumeClaimTemplate": {"spec": claim}}}


def _tolerations(plan: Plan) -> list[Json]:
    tolerations = [item.to_json() for item in _pod(plan).tolerations or ()]
    gpu = plan.profile.gpu
    if gpu.count and not any(item.get("key") in (None, gpu.resource_name) for item in tolerations):
        # GPU nodes are usually tainted with the resource's name, so that only pods that ask for it come.
        tolerations.append({"key": gpu.resource_name, "operator": "Exists", "effect": "NoSchedule"})
    return tolerations


def _away_from(nodes: tuple[str, ...]) -> Json | None:
    if not nodes:
        return None
    term = {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": list(nodes)}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def service_account(profile: ProfileSpec) -> str:
    """The account of the pod: the workload identity's, else the profile's, else the namespace's `default`."""
    identities = (entry.workload_identity for entry in profile.storage)
    names = [identity.service_account_name for identity in identities if identity is not None]
    chosen = profile.pod.service_account_name if profile.pod else None
    return names[0] if names else chosen or "default"


def _pod(plan: Plan) -> PodTemplate:
    return plan.profile.pod or PodTemplate()


def _pod_annotations(pod: PodTemplate) -> dict[str, str]:
    return {**(pod.annotations or {}), **({} if pod.allow_consolidation else STAY_ANNOTATIONS)}


def _wanted_labels(plan: Plan) -> dict[str, str]:
    """Labels that the profile asks for; the operator's own win over them."""
    pod, given = _pod(plan), plan.restoration.metadata.labels
    return {**(pod.labels or {}), **{key: given[key] for key in pod.propagate_labels or () if key in given}}


def _own_labels(plan: Plan) -> dict[str, str]:
    return {
        **labels(plan.restoration.metadata.uid),
        EXECUTION_LABEL: str(plan.execution.number),
        ROLE_LABEL: plan.execution.role.value,
    }
