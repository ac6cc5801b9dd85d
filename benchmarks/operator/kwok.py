"""Everything on: Job controller, scheduler, garbage collector, and KWOK in place of kubelets, which ends pods at once.

What it shows is a restoration's way through a whole control plane that shares its cores with the operator; how much of
that is the operator's own work is what the other scenarios measure.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Any, Final

import yaml
from hack.cluster.binaries import KWOK
from hack.cluster.build import ensure_built
from hack.cluster.console import Console

from benchmarks.operator import life
from benchmarks.operator.api import JOBS, SUCCEEDED, VRS, Watch
from benchmarks.operator.bench import Bench, Figures, Operator, quantile
from benchmarks.operator.sizes import Sizes

NODE: Final = "kwok"
ROOM: Final = {"cpu": "10k", "memory": "100Ti", "ephemeral-storage": "1Pi", "pods": "100k"}


async def everything(bench: Bench, sizes: Sizes) -> Figures:
    """A burst of restorations, from their creation to `Succeeded`."""
    await _node(bench)
    _start_kwok(bench)
    namespace, count = await bench.api.namespace("everything"), sizes.round_vrs
    async with (
        Operator(bench, namespace) as operator,
        Watch(bench.api, JOBS.format(namespace)) as jobs,
        Watch(bench.api, VRS.format(namespace), fields=SUCCEEDED) as finished,
    ):
        await asyncio.sleep(2)
        mine, server, began = operator.cpu_s(), bench.server_cpu_s(), time.monotonic()
        await life.make(bench.api, namespace, range(count))
        await finished.count(count)
        took = max(finished.seen.values()) - began
        mine, server = operator.cpu_s() - mine, bench.server_cpu_s() - server
    since = [when - began for when in finished.seen.values()]
    return {
        "vrs": count,
        "seconds": took,
        "vrs_per_s": count / took,
        "jobs": len(jobs.seen),
        "finished_p50_s": statistics.median(since),
        "finished_p99_s": quantile(since, 0.99),
        "operator_cpu_ms_per_vr": 1000 * mine / count,
        "server_cpu_ms_per_vr": 1000 * server / count,
    }


async def _node(bench: Bench) -> None:
    """One node with room for all; the node controller's taint goes when it is seen ready."""
    await bench.api.call("POST", "/api/v1/nodes", {"metadata": {"name": NODE}})


def _start_kwok(bench: Bench) -> None:
    ensure_built((KWOK,), Console())
    configuration: Path = bench.plane.folder / "kwok.yaml"
    configuration.write_text(
        yaml.safe_dump_all([_node_stage(), _running_stage(), _succeeded_stage(), _deleted_stage()])
    )
    command: list[str | Path] = [
        KWOK.path,
        f"--kubeconfig={bench.plane.kubeconfig}",
        f"--config={configuration}",
        "--manage-all-nodes=true",
        "--node-lease-duration-seconds=40",
    ]
    bench.plane.processes.start("kwok", command)


def _stage(name: str, kind: str, when: list[dict[str, Any]], then: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": when},
            "next": then,
        },
    }


def _template(status: dict[str, Any]) -> dict[str, str]:
    """JSON is YAML; only the times are KWOK's to fill in."""
    return {"statusTemplate": json.dumps(status).replace('"NOW"', "{{ Now | Quote }}")}


def _when(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


def _true(kind: str) -> dict[str, str]:
    return {"type": kind, "status": "True", "reason": "Played", "lastTransitionTime": "NOW"}


def _node_stage() -> dict[str, Any]:
    ready = '.status.conditions.[] | select( .type == "Ready" ) | .status'
    status = {
        "conditions": [{**_true("Ready"), "lastHeartbeatTime": "NOW"}],
        "capacity": ROOM,
        "allocatable": ROOM,
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
    }
    return _stage("node-ready", "Node", [_when(ready, "NotIn", "True")], _template(status))


def _running_stage() -> dict[str, Any]:
    # No address: the operator would ask it for progress.
    status = {
        "phase": "Running",
        "startTime": "NOW",
        "conditions": [_true("Initialized"), _true("Ready"), _true("ContainersReady")],
        "containerStatuses": [_container({"running": {"startedAt": "NOW"}}, ready=True)],
    }
    return _stage("pod-running", "Pod", [_alive(), _when(".status.phase", "In", "Pending")], _template(status))


def _succeeded_stage() -> dict[str, Any]:
    ended = {"exitCode": 0, "reason": "Completed", "message": life.REPORT, "startedAt": "NOW", "finishedAt": "NOW"}
    status = {"phase": "Succeeded", "containerStatuses": [_container({"terminated": ended}, ready=False)]}
    return _stage("pod-succeeded", "Pod", [_alive(), _when(".status.phase", "In", "Running")], _template(status))


def _deleted_stage() -> dict[str, Any]:
    return _stage("pod-deleted", "Pod", [_when(".metadata.deletionTimestamp", "Exists")], {"delete": True})


def _alive() -> dict[str, Any]:
    return _when(".metadata.deletionTimestamp", "DoesNotExist")


def _container(state: dict[str, Any], *, ready: bool) -> dict[str, Any]:
    return {"name": "runner", "image": "runner", "imageID": "", "ready": ready, "restartCount": 0, "state": state}
