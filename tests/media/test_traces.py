"""One trace from apply to published object, as a collector gets it; and what happens where there is none."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.builders import clips
from tests.builders.clips import Clip
from tests.builders.collector import Collector, collector
from tests.builders.jobs import make_request
from tests.builders.models import write_tiny_model

from restoration_api import traces
from restoration_api.outcome import FailureReason, Outcome, Stage
from restoration_api.resources import VideoRestoration, VideoRestorationStatus
from restoration_operator.traces import Traces
from restoration_runner.errors import RestorationError
from restoration_runner.pod import PodOptions, work_in_pod
from restoration_runner.stopping import InterruptedByRequestError
from restoration_runner.tracing import tracing

UID = "0c5e1a77-6f4e-4b86-9d55-3a0b2d0c9f11"
SECRET = "token-that-nobody-may-see"


@pytest.fixture
def receiver() -> Iterator[Collector]:
    with collector() as running:
        yield running


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


def restoration(status: dict[str, Any] | None = None) -> VideoRestoration:
    metadata = {"name": "clip", "namespace": "films", "uid": UID, "creationTimestamp": stamp(0), "resourceVersion": "1"}
    spec = {"input": {"uri": "s3://media/secret-name.mp4"}, "output": {"uri": "s3://media/restored.mp4"}}
    return VideoRestoration.model_validate({"metadata": metadata, "spec": spec, "status": status or {}})


BEGUN = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)


def stamp(seconds: int) -> str:
    return (BEGUN + timedelta(seconds=seconds)).isoformat()


def finished(reason: str = "Completed") -> dict[str, Any]:
    success = "True" if reason == "Completed" else "False"
    entry = {"message": "", "lastTransitionTime": stamp(600), "observedGeneration": 1, "reason": reason}
    conditions = [{"type": "Succeeded", "status": success, **entry}, {"type": "Finished", "status": "True", **entry}]
    attempt = {"execution": 1, "jobName": "vr-clip-e1-run", "podName": "p", "nodeName": "n1", "reason": reason}
    return {
        "conditions": conditions,
        "startTime": stamp(4),
        "completionTime": stamp(600),
        "attempts": {"executions": 1},
        "attemptHistory": [{**attempt, "startTime": stamp(4), "endTime": stamp(599)}],
    }


def job() -> dict[str, Any]:
    """A Job as far as it matters here: a runner and a sidecar of somebody's."""
    env = [{"name": "VR_UID", "value": UID}]
    containers = [{"name": "runner", "env": env}, {"name": "sidecar"}]
    return {
        "metadata": {"labels": {"videorestoration.dev/execution": "1"}},
        "spec": {"backoffLimit": 0, "template": {"metadata": {}, "spec": {"containers": containers}}},
    }


def environment_of(manifest: dict[str, Any]) -> dict[str, str]:
    runner = manifest["spec"]["template"]["spec"]["containers"][0]
    return {item["name"]: item["value"] for item in runner["env"]}


def run_pod(folder: Path, model: Path, *, source: Path | None = None) -> Outcome:
    source = source or clips.write(folder / "in.mp4", Clip(frames=25, width=64, height=64))
    request = make_request(source.as_uri(), (folder / "out.mp4").as_uri(), model).to_json()
    file, message = folder / "request.json", folder / "message"
    file.write_text(request)
    digest = hashlib.sha256(request.encode()).hexdigest()
    options = PodOptions(request=file, request_sha256=digest, scratch=folder, http_port=0, termination_log=message)
    work_in_pod("run", options)
    return Outcome.model_validate_json(message.read_text())


def test_from_apply_to_published_object_it_is_one_tree(
    receiver: Collector, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.address, "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={SECRET}"}
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    operator = Traces(os.environ)
    manifest = operator.equip(restoration(), job())
    assert SECRET not in str(manifest)
    for name, value in environment_of(manifest).items():
        monkeypatch.setenv(name, value)

    outcome = run_pod(tmp_path, model)
    operator.recorded(restoration(), restoration(finished()).status)
    asyncio.run(operator.close())

    assert outcome.reason == "Completed"
    assert outcome.segments_total is not None
    spans = {one.span: one for one in receiver.spans}
    assert len(spans) == len(receiver.spans)
    assert {one.trace for one in receiver.spans} == {f"{traces.trace_id(UID):032x}"}
    [whole] = [one for one in receiver.spans if not one.parent]
    assert whole.name == "VideoRestoration"
    assert all(one.parent in spans for one in receiver.spans if one is not whole)

    def above(name: str) -> set[str]:
        return {spans[one.parent].name for one in receiver.named(name)}

    assert above("wait") == above("execution 1") == {"VideoRestoration"}
    assert above("runner run") == {"execution 1"}
    stages = ["Fetching", "Probing", "LoadingModel", "Restoring", "Assembling", "Uploading"]
    assert sorted(stages, key=lambda name: receiver.named(name)[0].begun_ns) == stages
    assert all(above(name) == {"runner run"} for name in stages)
    segments = receiver.named("segment")
    assert [one.attributes["vr.segment"] for one in segments] == list(range(outcome.segments_total))
    assert sum(one.attributes["vr.frames"] for one in segments) == 25
    assert above("segment") == {"Restoring"}
    [joined], [verified] = receiver.named("join"), receiver.named("verify")
    assert above("join") == above("verify") == {"Assembling"}
    assert joined.ended_ns <= verified.begun_ns
    assert verified.ended_ns <= receiver.named("Uploading")[0].begun_ns
    for name in ("restore", "encode", "upload"):
        assert len(receiver.named(name)) == len(segments)
        assert above(name) == {"segment"}
    timings = outcome.timings
    assert timings is not None
    assert sum(one.attributes["vr.decode_milliseconds"] for one in segments) == timings.decode_milliseconds
    assert sum(one.attributes["vr.inference_milliseconds"] for one in segments) == timings.inference_milliseconds
    encoded = receiver.named("encode")
    assert sum(one.attributes["vr.busy_milliseconds"] for one in encoded) == timings.encode_milliseconds
    for one in receiver.spans:
        assert one.begun_ns <= one.ended_ns
        assert one.failed is None
        assert not any(word in str(one) for word in (SECRET, "s3://", "file://", "secret-name", str(tmp_path)))
    assert {one.service for one in receiver.spans} == {"video-restoration-operator", "video-restoration-runner"}


def test_a_failure_is_marked_with_its_class(
    receiver: Collector, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.address)
    monkeypatch.setenv("TRACEPARENT", traces.traceparent(UID, 1, sampled=True))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video " * 100)
    run_pod(tmp_path, model, source=broken)
    operator = Traces(os.environ)
    operator.recorded(restoration(), restoration(finished("InvalidInput")).status)
    asyncio.run(operator.close())
    failed = {one.name: one.failed for one in receiver.spans if one.failed}
    assert failed["runner run"] == failed["execution 1"] == failed["VideoRestoration"] == "InvalidInput"


def test_a_step_that_fails_is_marked_with_its_class(receiver: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.address)
    failure = RestorationError(FailureReason.VERIFICATION_FAILED, "one frame is missing")
    with tracing("run") as spans:
        spans.enter(Stage.ASSEMBLING)
        with spans.current.around("join"):
            pass
        with pytest.raises(RestorationError), spans.current.around("verify"):
            raise failure
        with pytest.raises(InterruptedByRequestError), spans.current.around("verify"):
            raise InterruptedByRequestError("told to stop")
    assert [(one.name, one.failed) for one in receiver.spans] == [
        ("join", None),
        ("verify", "VerificationFailed"),
        ("verify", None),
    ]


def test_a_status_is_told_once(receiver: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.address)
    operator = Traces(os.environ)
    over = restoration(finished()).status
    operator.recorded(restoration(), over)
    operator.recorded(restoration(finished()), over)
    asyncio.run(operator.close())
    assert sorted(one.name for one in receiver.spans) == ["VideoRestoration", "execution 1", "wait"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
    ids=["nothing said", "empty", "disabled", "no exporter", "gRPC"],
)
def test_without_a_collector_nothing_is_recorded(environment: dict[str, str]) -> None:
    operator = Traces(environment)
    manifest = job()
    assert operator.equip(restoration(), manifest) is manifest
    operator.recorded(restoration(), VideoRestorationStatus.model_validate(finished()))
    asyncio.run(operator.close())
    threads = set(threading.enumerate())
    with tracing("run", environment) as spans:
        assert spans.current.child("stage") is spans.current
    assert set(threading.enumerate()) == threads


def test_a_profile_says_more_than_the_operator() -> None:
    operator = Traces({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    manifest = job()
    own = {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://elsewhere:4318"}
    manifest["spec"]["template"]["spec"]["containers"][0]["env"].append(own)
    equipped = operator.equip(restoration(), manifest)
    assert environment_of(equipped)["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://elsewhere:4318"
    assert environment_of(equipped)["TRACEPARENT"] == traces.traceparent(UID, 1, sampled=True)
    assert equipped["spec"]["template"]["spec"]["containers"][1] == {"name": "sidecar"}
    assert environment_of(job()) == {"VR_UID": UID}


def test_who_samples_nothing_sends_nothing(receiver: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.address)
    operator = Traces(os.environ)
    assert environment_of(operator.equip(restoration(), job()))["TRACEPARENT"].endswith("-00")
    operator.recorded(restoration(), restoration(finished()).status)
    asyncio.run(operator.close())
    assert receiver.spans == []


def test_a_collector_that_does_not_answer_holds_nobody(
    receiver: Collector, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work is done and reported while the collector still holds the first request."""
    receiver.open.clear()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.address)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
    outcome = run_pod(tmp_path, model)
    assert outcome.reason == "Completed"
    assert receiver.asked.is_set()
    assert receiver.spans == []


def test_a_collector_that_is_not_there_changes_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    assert run_pod(tmp_path, model).reason == "Completed"


def test_numbers_follow_from_the_uid_and_are_never_those_of_another() -> None:
    other = UID.replace("0c5e", "0c5f")
    assert traces.traceparent(UID, 2, sampled=True) == traces.traceparent(UID, 2, sampled=True)
    spans = {traces.restoration_span_id(UID), *(traces.execution_span_id(UID, number) for number in range(9))}
    assert len(spans) == 10
    assert traces.trace_id(other) != traces.trace_id(UID)
    version, trace, span, flags = traces.traceparent(UID, 1, sampled=True).split("-")
    assert (version, len(trace), len(span), flags) == ("00", 32, 16, "01")
