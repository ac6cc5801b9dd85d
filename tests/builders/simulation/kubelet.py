"""The node: pods start, run and end as fate has it, unless somebody ends them first or the node goes silent."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any, Final

from restoration_api.outcome import EXIT_CODES, FAILURES
from restoration_operator.views import EXECUTION_LABEL
from tests.builders import outcomes
from tests.builders.simulation.server import NAMESPACE, Change, Json, SimulatedServer, text

NODES: Final = ("node-1", "node-2", "node-3")


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What a pod is going to do if nobody disturbs it."""

    kind: str
    start_seconds: float
    run_seconds: float
    exit_code: int = 0
    message: str = ""
    reason: str = ""
    """Of the container's end."""
    pod_reason: str = ""
    disruption: str = ""
    waits: str = ""
    """What it waits for before it starts: nothing, a node, an image, a volume."""
    waits_seconds: float = 0.0


SUCCESS: Final = outcomes.succeeded()
PLANNED: Final = outcomes.planned()
UNFINISHED: Final = outcomes.unfinished()
CACHE_HIT: Final = outcomes.succeeded(reason="CacheHit")
REPORTS: Final = {
    code: outcomes.failed(reason, f"simulated: {FAILURES[reason].meaning}") for code, reason in EXIT_CODES.items()
}
LONG_LOG: Final = "Traceback (most recent call last):\n" + "x" * 4000

# How often each end occurs, of 100.
ENDS: Final[dict[str, int]] = {
    "success": 34,
    "cache hit": 3,
    "success without report": 4,
    "permanent": 10,
    "permanent without report": 3,
    "transient": 16,
    "interrupted": 3,
    "unknown": 6,
    "out of memory": 5,
    "evicted": 5,
    "preempted": 3,
    "shut down": 2,
    "refused": 4,
    "deadline": 2,
}


def fate(seed: int, pod: str, *, quiet: bool) -> Fate:
    """The fate of a pod, by its name: what it would say at its end depends on its Job's role."""
    success, interrupted = SUCCESS, ""
    if "-plan-" in pod:
        success = PLANNED
    elif "-assemble-" in pod:
        interrupted = UNFINISHED
    dice = random.Random(f"{seed}/{pod}")
    start, run = dice.choice((0.5, 2, 8)), dice.choice((1, 20, 90))
    if quiet:
        return Fate(kind="success", start_seconds=start, run_seconds=run, message=success)
    [kind] = dice.choices(list(ENDS), list(ENDS.values()))
    waits = dice.choice(("", "", "", "", "node", "image", "volume"))
    pauses = {"start_seconds": start, "run_seconds": run, "waits_seconds": dice.choice((10, 200))}
    common: dict[str, Any] = {"kind": kind, "waits": waits, **pauses}
    codes = [code for code, reason in EXIT_CODES.items() if FAILURES[reason].permanent == kind.startswith("permanent")]
    code = dice.choice(codes)
    match kind:
        case "success":
            return Fate(**common, message=success)
        case "cache hit":
            return Fate(**common, message=CACHE_HIT)
        case "success without report":
            return Fate(**common)
        case "permanent" | "transient":
            return Fate(**common, exit_code=code, message=REPORTS[code])
        case "permanent without report":
            return Fate(**common, exit_code=code)
        case "interrupted":
            return Fate(**common, exit_code=143, message=interrupted)
        case "unknown":
            return Fate(**common, exit_code=dice.choice((1, 137)), message=LONG_LOG)
        case "out of memory":
            return Fate(**common, exit_code=137, reason="OOMKilled")
        case "evicted":
            return Fate(**common, exit_code=137, pod_reason="Evicted", disruption="TerminationByKubelet")
        case "preempted":
            return Fate(**common, exit_code=143, disruption="PreemptionByScheduler")
        case "shut down":
            return Fate(**common, exit_code=137, pod_reason="NodeShutdown", disruption="TerminationByKubelet")
        case "deadline":
            return Fate(**common, exit_code=137, pod_reason="DeadlineExceeded")
    return Fate(**common, pod_reason="UnexpectedAdmissionError")


class Kubelet:
    """All nodes at once; one at a time may be silent."""

    def __init__(self, server: SimulatedServer, loop: asyncio.AbstractEventLoop, seed: int) -> None:
        self._server = server
        self._loop = loop
        self._seed = seed
        self._late: list[str] = []
        """Pods that something was to happen to while their node was silent."""
        self.quiet = False
        """From now on every pod succeeds."""
        self.ended: list[tuple[str, Json]] = []
        """Kind of fate and body of every pod that came to its own end."""
        for name in NODES:
            ready = {"conditions": [{"type": "Ready", "status": "True"}]}
            server.create("nodes", {"metadata": {"name": name}, "status": ready})
        server.listeners.append(self._hear)

    def silence(self, node: str) -> None:
        """A node stops answering."""
        self._ready(node, "Unknown")

    def wake(self) -> None:
        """All nodes answer again, and catch up."""
        for node in NODES:
            self._ready(node, "True")
        late, self._late = self._late, []
        for name in late:
            self._loop.call_later(1, self._step, name)

    def disrupt(self, pod: Json, why: str) -> None:
        """Something ends a pod and says so."""
        if pod["status"]["phase"] in ("Pending", "Running"):
            self._end(pod, Fate(kind="", start_seconds=0, run_seconds=0, exit_code=143, disruption=why))

    def _ready(self, node: str, status: str) -> None:
        body = self._server.objects["nodes"][node]
        self._server.patch_status("nodes", body, conditions=[{"type": "Ready", "status": status}])

    def _hear(self, change: Change) -> None:
        if change.resource != "pods" or change.type == "DELETED":
            return
        name = change.body["metadata"]["name"]
        if change.type == "ADDED":
            self._loop.call_later(0.2, self._step, name)
        elif "deletionTimestamp" in change.body["metadata"]:
            self._loop.call_later(1.5, self._step, name)

    def _step(self, name: str) -> None:
        """Whatever is due for a pod now."""
        pod = self._server.objects["pods"].get(name)
        if pod is None:
            return
        if not self._answers(pod):
            self._late.append(name)
            return
        expected = fate(self._seed, name, quiet=self.quiet)
        over = pod["status"]["phase"] in ("Succeeded", "Failed")
        if "deletionTimestamp" in pod["metadata"]:
            if over:
                self._server.remove("pods", name)
            else:
                self._end(pod, Fate(kind="", start_seconds=0, run_seconds=0, exit_code=143))
                self._loop.call_later(0.5, self._step, name)
        elif not over:
            self._advance(pod, expected)

    def _advance(self, pod: Json, expected: Fate) -> None:
        name, phase = pod["metadata"]["name"], pod["status"]["phase"]
        if phase == "Pending" and "nodeName" not in pod["spec"]:
            if expected.waits == "node" and not pod["status"].get("conditions"):
                no = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU is free"}
                self._server.patch_status("pods", pod, conditions=[no])
                self._loop.call_later(expected.waits_seconds, self._step, name)
            else:
                self._place(pod)
                wait = expected.waits_seconds if expected.waits in ("image", "volume") else expected.start_seconds
                self._loop.call_later(wait, self._step, name)
        elif phase == "Pending" and expected.kind == "refused":
            self._end(pod, expected)
        elif phase == "Pending":
            self._run(pod)
            self._loop.call_later(expected.run_seconds, self._step, name)
        elif _ended(pod) is None and not expected.pod_reason and not expected.disruption:
            # A kubelet tells the container's end first, and the pod's when its sandbox is gone.
            ended = {"name": "runner", "state": {"terminated": self._words(expected)}}
            self._server.patch_status("pods", pod, containerStatuses=[ended])
            self._loop.call_later(expected.start_seconds, self._step, name)
        else:
            self._end(pod, expected)

    def _place(self, pod: Json) -> None:
        execution = int(pod["metadata"]["labels"][EXECUTION_LABEL])
        expected = fate(self._seed, pod["metadata"]["name"], quiet=self.quiet)
        state = {"reason": "ContainerCreating"}
        if expected.waits == "image":
            state = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
        placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": text(self._server.clock())}
        status = {
            **pod["status"],
            "conditions": [placed],
            "startTime": text(self._server.clock()),
            "containerStatuses": [{"name": "runner", "state": {"waiting": state}}],
        }
        spec = {**pod["spec"], "nodeName": NODES[execution % len(NODES)]}
        self._server.put("pods", {**pod, "spec": spec, "status": status})
        if expected.waits == "volume":
            self._tell_why(pod)

    def _tell_why(self, pod: Json) -> None:
        meta = pod["metadata"]
        event = {
            "metadata": {"name": f"{meta['name']}.{self._server.version}", "namespace": NAMESPACE},
            "involvedObject": {"uid": meta["uid"]},
            "type": "Warning",
            "reason": "FailedMount",
            "message": 'MountVolume.SetUp failed for volume "storage": secret "media-s3" not found',
            "lastTimestamp": text(self._server.clock()),
        }
        self._server.create("events", event)

    def _run(self, pod: Json) -> None:
        now = text(self._server.clock())
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": now}
        self._server.patch_status(
            "pods",
            pod,
            phase="Running",
            podIP="10.0.0.1",
            conditions=[*pod["status"].get("conditions", ()), ready],
            containerStatuses=[{"name": "runner", "state": {"running": {"startedAt": now}}}],
        )

    def _end(self, pod: Json, end: Fate) -> None:
        status: Json = {"phase": "Succeeded" if end.exit_code == 0 and not end.pod_reason else "Failed"}
        if end.pod_reason:
            status |= {"reason": end.pod_reason, "message": f"simulated: {end.pod_reason}"}
        if _ended(pod) is not None:
            status["phase"] = "Succeeded" if _ended(pod)["exitCode"] == 0 and not end.pod_reason else "Failed"
        elif end.kind != "refused" and pod["status"]["phase"] == "Running":
            status["containerStatuses"] = [{"name": "runner", "state": {"terminated": self._words(end)}}]
        elif end.kind != "refused":
            status["phase"] = "Failed"
        if end.disruption:
            target = {"type": "DisruptionTarget", "status": "True", "reason": end.disruption}
            status["conditions"] = [*pod["status"].get("conditions", ()), target]
        ended = self._server.patch_status("pods", pod, **status)
        self.ended.append((end.kind, ended))

    def _words(self, end: Fate) -> Json:
        return {
            "exitCode": end.exit_code,
            "reason": end.reason or ("Completed" if end.exit_code == 0 else "Error"),
            "message": end.message,
            "finishedAt": text(self._server.clock()),
        }

    def _answers(self, pod: Json) -> bool:
        name = pod["spec"].get("nodeName")
        if name is None:
            return True
        conditions = self._server.objects["nodes"][name]["status"]["conditions"]
        return bool(conditions[0]["status"] == "True")


def _ended(pod: Json) -> Any:
    """How its container has ended; None if it has not."""
    statuses = pod["status"].get("containerStatuses") or ({},)
    return statuses[0].get("state", {}).get("terminated")
