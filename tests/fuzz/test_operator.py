"""What strangers can make the operator read: reports of runners, answers of whatever listens at a pod's address, and
objects that anybody with rights in a namespace may create. None of it may stop the operator or spoil a status."""

import contextlib
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from tests.builders import mutations, observations, outcomes
from tests.builders.mutations import document_of, each, text_of
from tests.builders.observations import T0, at, job, pod, profile, restoration
from tests.builders.resources import make_profile

from restoration_api.outcome import FailureReason, Progress, Stage
from restoration_api.resources import ClusterRestorationProfile, VideoRestorationStatus
from restoration_operator.decide import progress
from restoration_operator.decide.decision import decide
from restoration_operator.decide.types import PolledProgress
from restoration_operator.profile_file import BuiltinProfile, ImageFiller
from restoration_operator.views import JobEnd, JobView, PodView, Terminated

MESSAGES = (
    outcomes.succeeded(),
    outcomes.succeeded(reason="CacheHit"),
    outcomes.planned(),
    outcomes.unfinished(),
    outcomes.failed(FailureReason.STORAGE_ERROR, "no answer"),
)
STATUS = observations.started().status.to_json()


def sendable(status: VideoRestorationStatus) -> None:
    """What the API server would say of it: the model has the schema's bounds, and the body must be JSON."""
    body = status.to_json()
    json.dumps(body, allow_nan=False).encode()
    VideoRestorationStatus.model_validate(body)
    assert len(json.dumps(body)) < 200_000


def test_a_report_of_any_kind_ends_in_a_status_that_can_be_stored() -> None:
    def check(case: tuple[int, str]) -> None:
        code, text = case
        ended = Terminated(
            exit_code=code, reason="Error" if code else "Completed", message=text, started=at(7), finished=at(60)
        )
        over = JobEnd(succeeded=code == 0, reason="", message="", at=at(60))
        seen = observations.observe(restoration(status=STATUS), jobs=[job(end=over)], pods=[pod(ended)])
        decision = decide(seen, at(70))
        sendable(decision.status)

    def make(chance: random.Random) -> tuple[int, str]:
        text = text_of(json.loads(chance.choice(MESSAGES)), chance).decode(errors="replace")
        return chance.choice((0, 0, 0, 1, 10, 21, 143, 255)), text

    each(150, make, check)


def test_an_answer_of_any_kind_is_progress_or_none() -> None:
    sample = Progress(execution=1, stage=Stage.RESTORING, frames_done=5, frames_total=9, updated_at=T0)

    def check(text: bytes) -> None:
        try:
            said = Progress.from_json(text)
        except ValidationError:
            return
        stored = progress.merge(None, PolledProgress(pod_uid="p", progress=said, unchanged_since=T0))
        sendable(VideoRestorationStatus(progress=stored))

    each(200, lambda chance: text_of(json.loads(sample.to_json()), chance), check)


def as_served(body: dict[str, Any]) -> dict[str, Any]:
    """A pod as the API server gives it."""
    body["status"] |= {"phase": "Failed", "startTime": "2026-01-01T12:00:03Z", "podIP": "10.0.0.1"}
    return body


POD: dict[str, Any] = {
    "metadata": {
        "namespace": "default",
        "name": "clip-pod",
        "uid": observations.POD_UID,
        "labels": {"videorestoration.dev/uid": observations.UID, "videorestoration.dev/execution": "1"},
        "creationTimestamp": "2026-01-01T12:00:02Z",
        "deletionTimestamp": "2026-01-01T12:01:00Z",
        "deletionGracePeriodSeconds": 30,
        "ownerReferences": [{"kind": "Job", "name": "clip-e1", "uid": observations.JOB_UID, "controller": True}],
    },
    "spec": {"nodeName": "node-1", "containers": [{"name": "runner"}]},
    "status": {
        "phase": "Failed",
        "startTime": "2026-01-01T12:00:03Z",
        "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T12:00:08Z"}],
        "containerStatuses": [
            {
                "name": "runner",
                "state": {
                    "terminated": {
                        "exitCode": 1,
                        "reason": "Error",
                        "message": "no",
                        "startedAt": "2026-01-01T12:00:07Z",
                        "finishedAt": "2026-01-01T12:00:40Z",
                    }
                },
            }
        ],
    },
}
JOB: dict[str, Any] = {
    "metadata": {
        "namespace": "default",
        "name": job().name,
        "uid": observations.JOB_UID,
        "labels": {"videorestoration.dev/execution": "1", "videorestoration.dev/role": "run"},
        "annotations": {"videorestoration.dev/start-deadline-seconds": "600"},
        "creationTimestamp": "2026-01-01T12:00:02Z",
        "ownerReferences": [{"kind": "VideoRestoration", "uid": observations.UID, "controller": True}],
    },
    "spec": {
        "ttlSecondsAfterFinished": 3600,
        "template": {
            "spec": {
                "activeDeadlineSeconds": 600,
                "containers": [{"name": "runner", "args": ["run", "--memory-hint-mib=4000"]}],
            }
        },
    },
    "status": {"startTime": "2026-01-01T12:00:02Z"},
}
# What the API server admits of somebody who may create pods: any label, any int64.
ADMITTED = [
    ("labels", "videorestoration.dev/execution", ("", "0", "1" * 63, "٣", "-1", "1.5", "x" * 63)),
    ("labels", "videorestoration.dev/role", ("", "run", "x" * 63)),
    ("annotations", "videorestoration.dev/start-deadline-seconds", ("", "9" * 18, "9" * 5000, "²", "-5")),
    ("metadata", "deletionGracePeriodSeconds", (0, 2**31, 10**12, 10**14, 2**63 - 1)),
    ("metadata", "ownerReferences", ([], None)),
    ("pod", "activeDeadlineSeconds", (1, 2**31 - 1)),
    ("spec", "ttlSecondsAfterFinished", (0, 2**31 - 1)),
    ("status", "startTime", (None, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z")),
    ("metadata", "deletionTimestamp", (None, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z")),
    ("args", "", ("--memory-hint-mib=" + "9" * 5000, "--memory-hint-mib=x", "--memory-hint-mib=")),
]


def admitted(sample: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """The object with a few of its fields at the ends of what is admitted."""
    body = json.loads(json.dumps(sample))
    for where, key, values in chance.sample(ADMITTED, 3):
        value, meta = chance.choice(values), body["metadata"]
        template = body["spec"].get("template", {}).get("spec", body["spec"])
        if where == "args":
            template["containers"][0]["args"] = [value]
        else:
            place = {"metadata": meta, "spec": body["spec"], "status": body["status"], "pod": template}
            place.get(where, meta.setdefault(where, {}) if where in ("labels", "annotations") else meta)[key] = value
    return body


def test_objects_of_strangers_do_not_stop_the_operator() -> None:
    def check(case: tuple[dict[str, Any], dict[str, Any]]) -> None:
        job_body, pod_body = case
        seen_job, seen_pod = JobView.of(job_body), PodView.of(pod_body)
        for views in ([seen_pod], [replace(seen_pod, gone=True)], [replace(seen_pod, container=None, phase="Pending")]):
            seen = observations.observe(restoration(status=STATUS), jobs=[seen_job], pods=views)
            sendable(decide(seen, at(70)).status)

    each(150, lambda chance: (admitted(JOB, chance), admitted(POD, chance)), check)


LARGE = (1, 2**31 - 1)
NUMBERS: list[tuple[str, tuple[int, ...]]] = [
    ("defaults.startDeadlineSeconds", (1, 2**31, 10**14, 2**63 - 1)),
    ("defaults.activeDeadlineSeconds", (1, 2**31, 10**14, 2**63 - 1)),
    ("defaults.ttlSecondsAfterFinished", LARGE),
    ("limits.maxActive", LARGE),
    ("limits.maxInputBytes", (1, 2**63 - 1)),
    ("gpu.minMemoryMiB", (0, 2**63 - 1)),
]


def test_profiles_with_any_number_that_the_schema_admits_can_be_decided_with() -> None:
    def make(chance: random.Random) -> dict[str, int]:
        return {name: chance.choice(values) for name, values in chance.sample(NUMBERS, 3)}

    def check(numbers: dict[str, int]) -> None:
        chosen = profile(numbers)
        for status in ({}, STATUS):
            seen = observations.observe(restoration(status=status), profile=chosen)
            sendable(decide(seen, at(70)).status)
        waiting = job(start_deadline_seconds=numbers.get("defaults.startDeadlineSeconds"))
        sendable(
            decide(observations.observe(restoration(status=STATUS), profile=chosen, jobs=[waiting]), at(70)).status
        )

    each(60, make, check)


def test_a_profile_file_of_any_kind_is_a_profile_or_a_sentence(tmp_path: Path) -> None:
    sample, file = make_profile()["spec"], tmp_path / "default-profile.yaml"

    def check(content: bytes) -> None:
        file.write_bytes(content)
        BuiltinProfile(file, ImageFiller("runner:1", None))()

    def make(chance: random.Random) -> bytes:
        if chance.random() < 0.3:
            return mutations.bytes_of(yaml.safe_dump(sample).encode(), chance)
        return text_of(sample, chance)

    each(60, make, check)


def test_a_profile_of_any_kind_is_read_or_refused() -> None:
    body = make_profile() | {"kind": "ClusterRestorationProfile"}

    def check(document: Any) -> None:
        with contextlib.suppress(ValidationError):
            ClusterRestorationProfile.model_validate(document)

    each(100, lambda chance: document_of(body, chance), check)
