"""The pod of a role that computes nothing, made from the pod that computes: same image, files and rights, no GPU.

A profile says where GPUs are with node selectors, tolerations, a runtime class and whatever its `specPatch` adds. None
of it may keep such a pod waiting for a GPU node, or bring one up. What says nothing of GPUs stays: the processor that
the image was built for, tolerations of spot nodes or of a team's own. Weights that lie on nodes or in a volume of
theirs are reached only from there, so with these the placement stays and only the GPU goes.
"""

from dataclasses import dataclass
from typing import Any, Final

from restoration_api.resources import ProfileSpec
from restoration_operator.build.model import tied_to_nodes
from restoration_operator.build.quantity import smaller
from restoration_operator.views import RUNNER_CONTAINER

Json = dict[str, Any]

PLATFORM_LABELS: Final = ("kubernetes.io/arch", "kubernetes.io/os")
GPU_PLACEMENT: Final = ("affinity", "runtimeClassName", "topologySpreadConstraints")
KEPT_RESOURCES: Final = ("ephemeral-storage",)
"""The input has to fit whatever the role."""


@dataclass(frozen=True, kw_only=True)
class LightResources:
    """What such a pod is given, or what the profile gives to the one that computes where that is less."""

    cpu: str = "250m"
    memory: str = "256Mi"
    memory_limit: str = "4Gi"


def without_gpu(spec: Json, profile: ProfileSpec, resources: LightResources) -> Json:
    """The pod's spec (specPatch applied) without all that is there for a GPU's sake; `spec` is not changed."""
    light = {key: value for key, value in spec.items() if key != "resourceClaims"}
    if profile.gpu.count and not tied_to_nodes(profile):
        light = {key: value for key, value in light.items() if key not in GPU_PLACEMENT}
        selector = {key: value for key, value in spec.get("nodeSelector", {}).items() if key in PLATFORM_LABELS}
        tolerations = [item for item in spec.get("tolerations", ()) if not _is_for_gpus(item, profile)]
        light |= {"nodeSelector": selector, "tolerations": tolerations}
    light["containers"] = [
        _container(item, resources) if item["name"] == RUNNER_CONTAINER else item for item in spec["containers"]
    ]
    return {key: value for key, value in light.items() if value not in ([], {})}


def _is_for_gpus(toleration: Json, profile: ProfileSpec) -> bool:
    """A toleration of everything is one of GPU nodes, too; clouds name theirs `nvidia.com/gpu` or `sku=gpu`."""
    key = toleration.get("key")
    vendor = profile.gpu.resource_name.partition("/")[0]
    words = f"{key} {toleration.get('value', '')}".lower()
    return key is None or "gpu" in words or key.startswith(f"{vendor}/")


def _container(container: Json, resources: LightResources) -> Json:
    given = container.get("resources", {})
    requests, limits = given.get("requests", {}), given.get("limits", {})
    kept = {name: {key: part[key] for key in KEPT_RESOURCES if key in part} for name, part in given.items()}
    # A limit of processor time only where the profile has one: quotas that count limits insist on it.
    most = {
        **({"cpu": limits["cpu"]} if "cpu" in limits else {}),
        "memory": smaller(limits.get("memory"), resources.memory_limit),
    }
    least = {
        # What has a limit and no request requests its limit; and no request may be above a limit.
        "cpu": smaller(requests.get("cpu", limits.get("cpu")), resources.cpu),
        "memory": smaller(smaller(requests.get("memory"), most["memory"]), resources.memory),
    }
    light = {"requests": least | kept.get("requests", {}), "limits": most | kept.get("limits", {})}
    return {**container, "resources": light}
