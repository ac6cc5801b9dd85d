"""What `retry` creates: another restoration with the same spec. Pure.

Finished is finished: the operator never starts anything again for an object whose end is recorded, so a retry is a new
object. It gets a name of its own (`clip`, then `clip-r2`, `clip-r3`), for three reasons: the old one stays as the
record of what happened; a GitOps controller that owns the old one finds it unchanged; and between a deletion and a
creation nothing can be lost. Output and parameters are the same, so the work goes on from the finished segments.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from restoration_api.resources import API_VERSION

RETRY_OF: Final = "videorestoration.dev/retry-of"
LONGEST_NAME: Final = 253
_NUMBERED: Final = re.compile(r"^(?P<stem>.+)-r(?P<number>\d+)$")
_KUEUE: Final = "kueue.x-k8s.io/"
_OWNERS: Final = ("argocd.argoproj.io/", "kustomize.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/", "helm.sh/")
_OWNERS_TOO: Final = ("app.kubernetes.io/instance", "app.kubernetes.io/managed-by")


def next_name(name: str) -> str:
    """`clip` → `clip-r2` → `clip-r3`; a name that would be too long loses the end of its stem."""
    found = _NUMBERED.match(name)
    stem, number = (found["stem"], int(found["number"]) + 1) if found else (name, 2)
    suffix = f"-r{number}"
    return stem[: LONGEST_NAME - len(suffix)].rstrip("-.") + suffix


def again(body: Mapping[str, Any], name: str, *, active_deadline_seconds: int | None = None) -> dict[str, Any]:
    """The object to create.

    Labels by which Argo CD, Flux or Helm know what is theirs are left out: they would delete the copy as something that
    is not in git. Of the annotations only Kueue's and our own mean anything on another object.
    """
    old, spec = body["metadata"], dict(body["spec"])
    spec.pop("suspend", None)
    if active_deadline_seconds is not None:
        spec["activeDeadlineSeconds"] = active_deadline_seconds
    labels = {key: value for key, value in (old.get("labels") or {}).items() if not _owners(key)}
    annotations = {key: value for key, value in (old.get("annotations") or {}).items() if key.startswith(_KUEUE)}
    metadata: dict[str, Any] = {"name": name, "namespace": old["namespace"]}
    if labels:
        metadata["labels"] = labels
    metadata["annotations"] = {**annotations, RETRY_OF: old["name"]}
    return {"apiVersion": API_VERSION, "kind": "VideoRestoration", "metadata": metadata, "spec": spec}


def _owners(label: str) -> bool:
    return label.startswith(_OWNERS) or label in _OWNERS_TOO
