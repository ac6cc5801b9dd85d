"""Plays the kubelet against a real control plane: one node that takes pods, and pods that do what a test says.

Everything else is genuine: the scheduler places the pods, the Job controller judges them, garbage collection and the
TTL controller clean up.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from restoration_api.outcome import EXIT_INTERRUPTED
from tests.builders import outcomes
from tests.builders.live_api import ApiServer, Json, RefusedError, eventually

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Kubelet:
    """A node and its agent; an async context manager. Pods that are deleted end at once with exit code 143."""

    def __init__(self, api: ApiServer, *, node: str = "node-1", obedient: bool = True) -> None:
        """`obedient`: pods that are deleted end; False plays a node that has gone silent."""
        self._api = api
        self.node = node
        self.obedient = obedient

    async def __aenter__(self) -> Self:
        with suppress(RefusedError):
            await self._api.call("DELETE", f"/api/v1/nodes/{self.node}")
        await self._api.call("POST", "/api/v1/nodes", {"metadata": {"name": self.node}})
        lease = {"metadata": {"name": self.node}, "spec": {"holderIdentity": self.node, "leaseDurationSeconds": 40}}
        with suppress(RefusedError):
            await self._api.call("POST", LEASES, lease)
        await self._beat()
        # The node controller taints a new node until it has seen it ready.
        await self._api.merge(f"/api/v1/nodes/{self.node}", {"spec": {"taints": None}})
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._task.cancel()
        with suppress(RefusedError):
            await self._api.call("DELETE", f"/api/v1/nodes/{self.node}")

    # What a test lets happen.

    async def pod(self, namespace: str, *, execution: int = 1, uid: str | None = None) -> Json:
        """The newest pod of an execution (of the restoration with this uid), once the scheduler has placed it."""

        async def placed() -> Json | None:
            found = [
                pod
                for pod in await self._api.pods(namespace)
                if pod["metadata"]["labels"].get("videorestoration.dev/execution") == str(execution)
                and uid in (None, pod["metadata"]["labels"].get("videorestoration.dev/uid"))
                and pod["spec"].get("nodeName")
            ]
            return max(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)

        pod = await eventually(placed, what=f"a pod of execution {execution} in {namespace} on a node")
        assert pod is not None
        return pod

    async def create(self, pod: Json, *, ago_seconds: float = 0) -> None:
        """The kubelet has taken the pod (so long ago) and creates its container."""
        waiting = {"waiting": {"reason": "ContainerCreating"}}
        taken = (datetime.now(UTC) - timedelta(seconds=ago_seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        await self._status(pod, {"phase": "Pending", "startTime": taken, **_container(waiting, started=False)})

    async def say(self, pod: Json, reason: str, message: str, *, kind: str = "Warning") -> None:
        """An Event of the kubelet's about a pod."""
        meta = pod["metadata"]
        about = {"kind": "Pod", "apiVersion": "v1", **{key: meta[key] for key in ("namespace", "name", "uid")}}
        body = {
            "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
            "involvedObject": about,
            "reason": reason,
            "message": message,
            "type": kind,
            "source": {"component": "kubelet", "host": self.node},
            "firstTimestamp": now(),
            "lastTimestamp": now(),
            "count": 1,
        }
        await self._api.call("POST", f"/api/v1/namespaces/{meta['namespace']}/events", body)

    async def start(self, pod: Json, *, ip: str = "127.0.0.1") -> None:
        """The container runs and its startup probe has passed."""
        running = {"running": {"startedAt": now()}}
        await self._status(
            pod,
            {
                "phase": "Running",
                "startTime": now(),
                "podIP": ip,
                "podIPs": [{"ip": ip}],
                "conditions": [_true("Ready"), _true("ContainersReady"), _true("Initialized")],
                **_container(running, started=True),
            },
        )

    async def wait_in(self, pod: Json, reason: str, message: str) -> None:
        """The container cannot be started."""
        waiting = {"waiting": {"reason": reason, "message": message}}
        await self._status(pod, {"phase": "Pending", "startTime": now(), **_container(waiting, started=False)})

    async def end(
        self,
        pod: Json,
        exit_code: int,
        message: str = "",
        *,
        reason: str | None = None,
        pod_reason: str | None = None,
        disruption: str | None = None,
    ) -> None:
        """The container has ended; `message` is what it wrote to its termination log."""
        ended = {
            "exitCode": exit_code,
            "reason": reason or ("Completed" if exit_code == 0 else "Error"),
            "message": message,
            "startedAt": now(),
            "finishedAt": now(),
        }
        status: Json = {
            "phase": "Succeeded" if exit_code == 0 else "Failed",
            "startTime": now(),
            **_container({"terminated": ended}, started=False),
        }
        if pod_reason:
            status["reason"] = pod_reason
        if disruption:
            status["conditions"] = [{**_true("DisruptionTarget"), "reason": disruption}]
        await self._status(pod, status)

    async def refuse(self, pod: Json, reason: str, message: str) -> None:
        """The kubelet does not admit the pod: its container never starts."""
        await self._status(pod, {"phase": "Failed", "reason": reason, "message": message, "startTime": now()})

    async def find_no_report(self, namespace: str, uid: str) -> None:
        """Whoever has been sent to ask the bucket how an execution of this restoration ended finds nothing there.

        Nobody is sent as a rule. But a listing without a deleted pod may reach the operator before the watch has told
        that pod's last words.
        """
        for pod in await self._api.pods(namespace):
            labels = pod["metadata"]["labels"]
            asks = labels.get("videorestoration.dev/role") == "assemble" and labels["videorestoration.dev/uid"] == uid
            if asks and pod["spec"].get("nodeName") and pod["status"]["phase"] == "Pending":
                await self.start(pod)
                await self.end(pod, EXIT_INTERRUPTED, outcomes.unfinished())

    async def remove(self, pod: Json) -> None:
        """The pod object goes away at once."""
        path = self._path(pod)
        with suppress(RefusedError):
            await self._api.call("DELETE", path, {"gracePeriodSeconds": 0})

    async def go_silent(self) -> None:
        """The node stops answering: what is deleted stays, and its condition says so."""
        self.obedient = False
        gone = {**_true("Ready"), "status": "Unknown", "reason": "NodeStatusUnknown", "message": "played by a test"}
        await self._api.merge(f"/api/v1/nodes/{self.node}/status", {"status": {"conditions": [gone]}})

    # What it does by itself.

    async def _run(self) -> None:
        beats = 0
        while True:
            with suppress(RefusedError):
                if self.obedient:
                    await self._end_deleted()
                beats += 1
                if beats % 12 == 0 and self.obedient:
                    await self._beat()
            await asyncio.sleep(0.4)

    async def _end_deleted(self) -> None:
        for pod in await self._api.items(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{self.node}"):
            if not pod["metadata"].get("deletionTimestamp"):
                continue
            if pod["status"].get("phase") in ("Pending", "Running"):
                await self.end(pod, 143)
            await self.remove(pod)

    async def _beat(self) -> None:
        room = {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "4Ti", "pods": "500", "nvidia.com/gpu": "8"}
        ready = {**_true("Ready"), "lastHeartbeatTime": now(), "reason": "KubeletReady", "message": "played by a test"}
        status = {"capacity": room, "allocatable": room, "conditions": [ready]}
        await self._api.merge(f"/api/v1/nodes/{self.node}/status", {"status": status})
        renewed = (datetime.now(UTC) + timedelta(0)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        await self._api.merge(f"{LEASES}/{self.node}", {"spec": {"renewTime": renewed}})

    async def _status(self, pod: Json, status: Json) -> None:
        await self._api.call(
            "PATCH",
            f"{self._path(pod)}/status",
            {"status": status},
            content_type="application/strategic-merge-patch+json",
        )

    def _path(self, pod: Json) -> str:
        return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _true(kind: str) -> Json:
    return {"type": kind, "status": "True", "lastTransitionTime": now()}


def _container(state: Json, *, started: bool) -> dict[str, Any]:
    container = {
        "name": "runner",
        "image": "runner:1",
        "imageID": "",
        "ready": started,
        "started": started,
        "restartCount": 0,
        "state": state,
    }
    return {"containerStatuses": [container]}
