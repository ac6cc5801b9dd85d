"""Every class of failure on a real control plane: what is recorded, which budget is charged, what comes next.

All rows of the table live at the same time, each as a restoration of its own.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.builders import outcomes
from tests.builders.kubelet import Kubelet
from tests.builders.live_api import ApiServer, Json, condition, eventually

from restoration_api.outcome import EXIT_CODES, FAILURES, Budget, FailureReason

pytestmark = [pytest.mark.xdist_group("operator"), pytest.mark.usefixtures("shared_operator")]
R = FailureReason
COUNTERS = {
    Budget.RETRIES: "retries",
    Budget.INFRASTRUCTURE: "infrastructureRetries",
    Budget.DISRUPTIONS: "disruptions",
}
FEW = {"maxRetries": 20, "backoffSeconds": 1}


@dataclass(frozen=True, kw_only=True)
class Way:
    """How the pod of a first execution ends, and what the operator should make of it."""

    reason: FailureReason
    says: str
    end: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `Kubelet.end`."""
    refused: str = ""
    """Reason for which the kubelet does not admit the pod at all."""
    deleted: str = ""
    """`pod`, or the way in which its Job is deleted."""


def said(code: int, reason: FailureReason) -> Way:
    """The runner ends with the exit code of a class and a report."""
    sentence = f"a sentence about {reason}"
    return Way(reason=reason, says=sentence, end={"exit_code": code, "message": outcomes.failed(reason, sentence)})


WAYS = {
    **{f"exit-{code}": said(code, reason) for code, reason in EXIT_CODES.items()},
    "oom-killed": Way(reason=R.HOST_OUT_OF_MEMORY, says="OOMKilled", end={"exit_code": 137, "reason": "OOMKilled"}),
    "killed-by-hand": Way(reason=R.UNKNOWN, says="exit code 137", end={"exit_code": 137}),
    "unforeseen": Way(reason=R.UNKNOWN, says="ValueError: boom", end={"exit_code": 1, "message": "ValueError: boom"}),
    "terminated": Way(reason=R.POD_DELETED, says="exit code 143", end={"exit_code": 143}),
    "shut-down": Way(reason=R.NODE_SHUTDOWN, says="shut down", end={"exit_code": 143, "pod_reason": "Terminated"}),
    "deadline": Way(
        reason=R.DEADLINE_EXCEEDED, says="activeDeadline", end={"exit_code": 143, "pod_reason": "DeadlineExceeded"}
    ),
    "not-admitted": Way(reason=R.STARTUP_FAILURE, says="no GPU is healthy", refused="UnexpectedAdmissionError"),
    "wrong-node": Way(reason=R.STARTUP_FAILURE, says="no GPU is healthy", refused="NodeAffinity"),
    "pod-deleted": Way(reason=R.POD_DELETED, says="deleted by somebody else", deleted="pod"),
    "job-deleted": Way(reason=R.POD_DELETED, says="deleted by somebody else", deleted="Background"),
    "job-deleted-in-the-foreground": Way(reason=R.POD_DELETED, says="deleted by somebody else", deleted="Foreground"),
}
ELSEWHERE = {R.PREEMPTED, R.EVICTED, R.NODE_LOST, R.SNAPSHOT_TAMPERED}
"""Disruptions stay inside the Job (`test_endings`), the other two have tests of their own."""


async def play(api: ApiServer, kubelet: Kubelet, namespace: str, name: str, way: Way) -> None:
    """Let the first execution end like that."""
    changes = {"output.uri": f"s3://media/restored/{name}.mp4", "retryPolicy": FEW}
    body = await api.apply(namespace, changes, name=name)
    pod = await kubelet.pod(namespace, uid=body["metadata"]["uid"])
    if way.refused:
        await kubelet.refuse(pod, way.refused, "no GPU is healthy")
        return
    await kubelet.start(pod)
    await api.until(namespace, "Scheduled", "Running", name=name)
    if way.deleted == "pod":
        await api.call("DELETE", f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}")
    elif way.deleted:
        job = pod["metadata"]["ownerReferences"][0]["name"]
        path = f"/apis/batch/v1/namespaces/{namespace}/jobs/{job}"
        await api.call("DELETE", path, {"propagationPolicy": way.deleted})
    else:
        await kubelet.end(pod, **way.end)


async def after(api: ApiServer, kubelet: Kubelet, namespace: str, name: str, way: Way) -> Json:
    """The restoration once it is over or its second Job was seen."""

    async def settled() -> Json | None:
        body = await api.restoration(namespace, name)
        if way.deleted:
            await kubelet.find_no_report(namespace, body["metadata"]["uid"])
        over = condition(body, "Finished")[0] == "True"
        return body if over or len(body["status"].get("attemptHistory", ())) > 1 else None

    body = await eventually(settled, what=f"{name}: it is over, or goes on", seconds=90)
    assert body is not None
    return body


def verdict(body: Json) -> tuple[str, dict[str, int], str]:
    """Class of the first execution, what was counted, and how it went on."""
    status = body["status"]
    counters = {name: status["attempts"][name] for name in COUNTERS.values() if status["attempts"][name]}
    over = condition(body, "Finished")
    return status["attemptHistory"][0]["reason"], counters, over[1] if over[0] == "True" else "another execution"


def says(way: Way, entry: Json) -> str:
    """What the message holds: another sentence where the bucket was asked what a deleted pod could no longer tell."""
    asked = way.deleted and entry["jobName"].endswith("-assemble")
    return "left no report" if asked else way.says


@pytest.mark.timeout(300)
async def test_every_class(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    await asyncio.gather(*(play(api, kubelet, namespace, name, way) for name, way in WAYS.items()))
    ends = (after(api, kubelet, namespace, name, way) for name, way in WAYS.items())
    bodies = dict(zip(WAYS, await asyncio.gather(*ends), strict=True))
    expected = {}
    for name, way in WAYS.items():
        row = FAILURES[way.reason]
        charged = {} if row.permanent else {COUNTERS[row.budget]: 1}
        expected[name] = (way.reason.value, charged, way.reason.value if row.permanent else "another execution")
    assert {name: verdict(body) for name, body in bodies.items()} == expected
    first = {name: body["status"]["attemptHistory"][0] for name, body in bodies.items()}
    messages = {name: entry["message"] for name, entry in first.items()}
    assert [name for name, way in WAYS.items() if says(way, first[name]) not in messages[name]] == [], messages
    jobs = await api.jobs(namespace)
    assert_jobs_of_permanent_classes_know(jobs)
    assert_second_jobs_differ(jobs, kubelet.node)


def test_the_table_is_complete() -> None:
    assert {way.reason for way in WAYS.values()} | ELSEWHERE == set(FailureReason)


def assert_jobs_of_permanent_classes_know(jobs: list[Json]) -> None:
    """`podFailurePolicy` ends them at once."""
    codes = {f"exit-{code}" for code, reason in EXIT_CODES.items() if FAILURES[reason].permanent}
    first = {owner(job): job for job in jobs if owner(job) in codes}
    assert {name: job["status"]["conditions"][-1]["reason"] for name, job in first.items()} == dict.fromkeys(
        codes, "PodFailurePolicy"
    )


def assert_second_jobs_differ(jobs: list[Json], node: str) -> None:
    """A faulty GPU's node is avoided, and what ran out of memory is told to use less; nobody else is told anything."""
    second = {owner(job): job["spec"]["template"]["spec"] for job in jobs if number(job) == "2"}
    away = {name: json.dumps(pod["affinity"]) for name, pod in second.items() if "affinity" in pod}
    assert set(away) == {"exit-20"}
    assert node in away["exit-20"]
    hinted = {name for name, pod in second.items() if any("--memory-hint" in it for it in pod["containers"][0]["args"])}
    assert hinted == {"oom-killed"}


def owner(job: Json) -> str:
    name: str = job["metadata"]["ownerReferences"][0]["name"]
    return name


def number(job: Json) -> str:
    label: str = job["metadata"]["labels"]["videorestoration.dev/execution"]
    return label


async def test_what_is_seen_between_two_executions(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    await api.apply(namespace, {"retryPolicy": {"backoffSeconds": 600, "maxBackoffSeconds": 600}})
    pod = await kubelet.pod(namespace)
    await kubelet.start(pod)
    await kubelet.end(pod, 21, outcomes.failed(R.STORAGE_ERROR, "503 from s3"))
    body = await api.until(namespace, "Scheduled", "BackingOff")
    assert body["status"]["phase"] == "Retrying"
    assert condition(body, "Finished") == ("False", "InProgress")
    message = next(item["message"] for item in body["status"]["conditions"] if item["type"] == "Scheduled")
    pattern = r"execution 2 starts at \S+Z \(1 of 3 retries\); execution 1 ended with StorageError: 503 from s3"
    assert re.fullmatch(pattern, message)
    await api.job_ttl(namespace, 3600)
    # It keeps what it has claimed: nobody else may write its output meanwhile.
    await api.apply(namespace, {"input.uri": "s3://media/raw/other.mp4"}, name="second")
    await api.until(namespace, "Accepted", "OutputClaimed", name="second")


async def test_the_budget_is_used_up(api: ApiServer, kubelet: Kubelet, namespace: str) -> None:
    await api.apply(namespace, {"retryPolicy": {"backoffSeconds": 1, "maxRetries": 1}})
    for execution in (1, 2):
        pod = await kubelet.pod(namespace, execution=execution)
        await kubelet.start(pod)
        await kubelet.end(pod, 1, f"boom {execution}")
    body = await api.finished(namespace)
    assert condition(body, "Succeeded") == ("False", "RetriesExhausted")
    message = next(item["message"] for item in body["status"]["conditions"] if item["type"] == "Succeeded")
    assert "maxRetries=1" in message
    assert "Unknown" in message
    assert "boom 2" in message
    assert body["status"]["attempts"]["retries"] == 1
    assert [item["reason"] for item in body["status"]["attemptHistory"]] == ["Unknown", "Unknown"]
