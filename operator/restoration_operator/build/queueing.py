"""What a Job needs to be a first-class Kueue workload: labels and annotations, copied from the restoration.

Kueue stops climbing owner references at a kind that it does not know, so the Job is its workload without a line of code
there (`FindAncestorJobManagedByKueue` in its jobframework). The operator never sets `spec.suspend`, Kueue's webhook
does; and it never writes a Job's template again, in which Kueue puts node selectors and tolerations. Queues hand out
GPUs: a Job of a role that needs none does not stand in line.
"""

from collections.abc import Mapping
from typing import Final

LABELS: Final = (
    "kueue.x-k8s.io/queue-name",
    "kueue.x-k8s.io/priority-class",
    "kueue.x-k8s.io/max-exec-time-seconds",
)
JOB_ANNOTATIONS: Final = ("kueue.x-k8s.io/job-min-parallelism",)
"""Partial admission: fewer workers now rather than all later."""
POD_ANNOTATIONS: Final = "kueue.x-k8s.io/podset-"
"""Topology requests (required, preferred, unconstrained, slices) all begin so, and belong on the pod template."""

QUEUED_ROLE: Final = "run"


def labels(given: Mapping[str, str], role: str) -> dict[str, str]:
    """Of the Job, from the labels of its restoration."""
    return {key: given[key] for key in LABELS if key in given} if role == QUEUED_ROLE else {}


def job_annotations(given: Mapping[str, str], role: str) -> dict[str, str]:
    """Of the Job, from the annotations of its restoration."""
    return {key: given[key] for key in JOB_ANNOTATIONS if key in given} if role == QUEUED_ROLE else {}


def pod_annotations(given: Mapping[str, str], role: str) -> dict[str, str]:
    """Of the pod template, from the annotations of the restoration."""
    if role != QUEUED_ROLE:
        return {}
    return {key: value for key, value in given.items() if key.startswith(POD_ANNOTATIONS)}
