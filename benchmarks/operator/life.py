"""Plays Job controller, scheduler and kubelet, and makes restorations: the other half of every scenario.

A pod needs no node to be believed: what the operator reads of it is its status.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tests.builders import outcomes
from tests.builders.resources import make_vr

from benchmarks.operator.api import JOBS, PODS, VRS, Api, Json, all_of

REPORT = outcomes.succeeded(frames=24_000)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def restoration(namespace: str, number: int) -> Json:
    """One of many: each with an output of its own."""
    name = f"clip-{number:05d}"
    uris = {"input.uri": f"s3://media/raw/{name}.mp4", "output.uri": f"s3://media/restored/{namespace}/{name}.mp4"}
    return make_vr(uris, name=name, namespace=namespace)


async def make(api: Api, namespace: str, numbers: range) -> list[Json]:
    """Create restorations as fast as the server takes them; returns them as stored."""
    path = VRS.format(namespace)
    bodies = [restoration(namespace, number) for number in numbers]
    return await all_of([lambda body=body: api.call("POST", path, body) for body in bodies])


async def start_pod(api: Api, job: Json) -> str:
    """The Job controller makes the pod, a kubelet takes it; returns its name."""
    meta = job["metadata"]
    name = f"{meta['name']}-x1x1x"
    labels = {
        **meta.get("labels", {}),
        "batch.kubernetes.io/job-name": meta["name"],
        "batch.kubernetes.io/controller-uid": meta["uid"],
    }
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
    pod = {
        "metadata": {"name": name, "labels": labels, "ownerReferences": [owner]},
        # On a node that does not exist: the scheduler has no part in what is measured.
        "spec": {"nodeName": "played", "restartPolicy": "Never", "containers": [{"name": "runner", "image": "runner"}]},
    }
    await api.call("POST", PODS.format(meta["namespace"]), pod)
    running = {
        "phase": "Running",
        "startTime": now(),
        "conditions": [_true("PodScheduled"), _true("Ready")],
        **_container({"running": {"startedAt": now()}}),
    }
    await api.patch(f"{PODS.format(meta['namespace'])}/{name}/status", {"status": running})
    return name


async def end_pod(api: Api, job: Json) -> None:
    """The runner has succeeded."""
    meta = job["metadata"]
    ended = {"exitCode": 0, "reason": "Completed", "message": REPORT, "startedAt": now(), "finishedAt": now()}
    status = {"phase": "Succeeded", **_container({"terminated": ended})}
    await api.patch(f"{PODS.format(meta['namespace'])}/{meta['name']}-x1x1x/status", {"status": status})


async def break_pod(api: Api, job: Json) -> None:
    """The runner has died without a report, of an exit code that no retry changes: only the Job says it is over."""
    meta = job["metadata"]
    ended = {"exitCode": 10, "reason": "Error", "message": "", "startedAt": now(), "finishedAt": now()}
    status = {"phase": "Failed", **_container({"terminated": ended})}
    await api.patch(f"{PODS.format(meta['namespace'])}/{meta['name']}-x1x1x/status", {"status": status})


async def fail(api: Api, job: Json) -> None:
    """The Job controller has seen that it has failed."""
    meta = job["metadata"]
    status = {
        "startTime": now(),
        "failed": 1,
        "uncountedTerminatedPods": {},
        "conditions": [_true("FailureTarget"), {**_true("Failed"), "reason": "PodFailurePolicy"}],
    }
    await api.patch(f"{JOBS.format(meta['namespace'])}/{meta['name']}/status", {"status": status})


async def complete(api: Api, job: Json) -> None:
    """The Job controller has seen it."""
    meta = job["metadata"]
    status = {
        "startTime": now(),
        "completionTime": now(),
        "succeeded": 1,
        "uncountedTerminatedPods": {},
        "conditions": [_true("SuccessCriteriaMet"), _true("Complete")],
    }
    await api.patch(f"{JOBS.format(meta['namespace'])}/{meta['name']}/status", {"status": status})


async def whole(api: Api, job: Json) -> None:
    """From the Job to its end."""
    await start_pod(api, job)
    await end_pod(api, job)
    await complete(api, job)


def _true(kind: str) -> Json:
    return {"type": kind, "status": "True", "lastTransitionTime": now()}


def _container(state: Json) -> dict[str, Any]:
    container = {"name": "runner", "image": "runner", "imageID": "", "ready": True, "restartCount": 0, "state": state}
    return {"containerStatuses": [container]}
