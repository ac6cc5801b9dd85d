"""Kubernetes' strategic merge, as far as a pod's spec needs it: the meaning of `profile.pod.specPatch`.

Objects merge key by key and `null` removes a key. A list of objects that have names merges by name (containers,
volumes, env) or by mount path, and an item with `$patch: delete` goes; every other list is replaced, tolerations
included, as the API server does.
"""

from collections.abc import Mapping
from typing import Any, Final

MERGE_KEYS: Final = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "resourceClaims": "name",
    "hostAliases": "ip",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "topologySpreadConstraints": "topologyKey",
}
"""`patchMergeKey` of the lists that the Kubernetes API declares with `patchStrategy: merge` inside a pod's spec."""


def strategic_merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `patch` laid over it; neither is changed."""
    merged = dict(base)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = strategic_merge(below if isinstance(below, Mapping) else {}, value)
        elif key in MERGE_KEYS and _mergeable(value):
            merged[key] = _merge_lists(merged.get(key) or [], value, MERGE_KEYS[key])
        else:
            merged[key] = value
    return merged


def _mergeable(value: Any) -> bool:
    """Whether it is what the API declares at this place; anything else is for the API server to refuse."""
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)


def _merge_lists(base: list[Any], patch: list[Any], key: str) -> list[Any]:
    merged = list(base)
    for item in patch:
        place = next((at for at, old in enumerate(merged) if old.get(key) == item.get(key)), None)
        if item.get("$patch") == "delete":
            merged = [old for old in merged if old.get(key) != item.get(key)]
        elif place is None:
            merged.append(item)
        else:
            merged[place] = strategic_merge(merged[place], item)
    return merged
