"""Objects as the programs read them: the models judge as the API server does, and ignore what they do not know."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError
from tests.builders.crd_cases import Case, cases
from tests.builders.resources import UNSET, make_profile, make_vr, model_of, parse

from restoration_api.resources import (
    ClusterRestorationProfile,
    ConditionType,
    Part,
    RestorationProfile,
    VideoRestoration,
    VideoRestorationStatus,
    read_strictly,
)
from restoration_api.resources.common import field_name
from restoration_api.resources.status import Attempt, Attempts
from restoration_api.schema import custom_resource_definitions

SHARED_CASES = [case for case in cases() if not case.server_only]
SENTENCE = re.compile(r"spec(\.[A-Za-z0-9]+(\[\d+\])?)*: \S")


@pytest.mark.parametrize("case", [case for case in cases() if case.refusal is None and not case.server_only], ids=str)
def test_model_accepts_what_the_server_accepts(case: Case) -> None:
    once = parse(case.body())
    assert type(once).model_validate(once.to_json()) == once
    assert read_strictly(model_of(case.kind), case.body()) == once


@pytest.mark.parametrize("case", [case for case in cases() if case.refusal], ids=str)
def test_model_refuses_what_the_server_refuses(case: Case) -> None:
    """Strict reading names the field, since nobody else has looked at the document; tolerant reading just refuses."""
    with pytest.raises(ValueError) as refusal:
        read_strictly(model_of(case.kind), case.body())
    assert SENTENCE.match(str(refusal.value))
    if not case.server_only:
        with pytest.raises(ValidationError):
            parse(case.body())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"storage.0.allowedInputPrefix": ["s3://a/"]}, "spec.storage[0].allowedInputPrefix: unknown field"),
        ({"storage.0.allowed_input_prefixes": []}, "spec.storage[0].allowed_input_prefixes: unknown field"),
        ({"storage.0.name": UNSET}, "spec.storage[0].name: Field required"),
        ({"model.source": {}}, "spec.model.source: set exactly one of builtin, image"),
        ({"resources": {"requests": {"cpu": 1.5}}}, "spec.resources.requests.cpu: "),
        ({"pod.specPatch": {"anything": {"goes": 1}}}, None),
    ],
    ids=str,
)
def test_sentences_of_strict_reading(changes: Mapping[str, Any], sentence: str | None) -> None:
    body = make_profile(changes)
    if sentence is None:
        read_strictly(ClusterRestorationProfile, body)
    else:
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
            read_strictly(ClusterRestorationProfile, body)


def test_every_rule_with_a_twin_gives_the_servers_sentence() -> None:
    """Somebody whose default profile is refused at start reads the same words as with `kubectl apply`."""
    sentences = str(custom_resource_definitions())
    ours = [case for case in SHARED_CASES if case.refusal is not None and case.refusal in sentences]
    assert len(ours) > 50
    for case in ours:
        with pytest.raises(ValidationError, match=re.escape(str(case.refusal))):
            parse(case.body())


def test_every_constraint_has_a_refused_row() -> None:
    """A bound that nobody tries to leave is a bound that may be wrong."""
    refused = [(_touched(case), str(case.refusal)) for case in cases() if case.refusal]
    untested = [
        f"{kind}.{path}: {sentence}"
        for kind, path, sentence in _constraints()
        if not any(f"{kind}.{path}" in touched and why in sentence for touched, why in refused)
    ]
    assert untested == []


def test_unknown_fields_are_ignored_everywhere() -> None:
    """A newer CRD may be installed than the one this program was built with."""
    body = make_vr({"novelty": {"a": 1}, "output.novelty": 1, "input.clip": {"startMilliseconds": 1, "novelty": 2}})
    body["status"] = {"novelty": 1, "attempts": {"executions": 2, "novelty": 1}}
    body["metadata"] |= {"managedFields": [{"manager": "kubectl"}], "selfLink": ""}
    seen = VideoRestoration.model_validate(body)
    assert seen.status.attempts.executions == 2
    assert "novelty" not in str(seen.to_json())
    assert "managedFields" not in str(seen.to_json())


COUNTERS = {
    "executions": 0,
    "retries": 0,
    "infrastructureRetries": 0,
    "disruptions": 0,
    "failuresInARow": 0,
    "runningSeconds": 0,
}


def test_a_status_from_the_future_is_read_as_far_as_it_is_understood() -> None:
    """After a rollback, the older operator meets words of the newer one; what it must remember survives."""
    body = make_vr()
    body["status"] = {
        "phase": "Planning",
        "profile": {"kind": "Template", "name": "a"},
        "progress": {"stage": "Thinking", "framesDone": 3},
        "attempts": {"executions": 7},
        "output": {
            "verification": {"verdict": "Certified", "decodedFrames": 5},
            "streams": [
                {"index": 0, "type": "video", "action": "Restored"},
                {"index": 1, "type": "audio", "action": "Denoised"},
            ],
        },
    }
    assert VideoRestoration.model_validate(body).status.to_json() == {
        "conditions": [],
        "profile": {"name": "a"},
        "attempts": {**COUNTERS, "executions": 7},
        "attemptHistory": [],
        "progress": {"framesDone": 3},
        "output": {
            "verification": {"decodedFrames": 5},
            "streams": [{"index": 0, "type": "video", "action": "Restored"}],
        },
    }


def test_what_must_be_remembered_is_never_guessed() -> None:
    """A count of executions that cannot be read must not become 0: numbers are never reused."""
    body = make_vr()
    body["status"] = {"attempts": {"executions": -1}}
    with pytest.raises(ValidationError):
        VideoRestoration.model_validate(body)


def test_items_of_a_list_need_no_kind() -> None:
    """The API server leaves `apiVersion` and `kind` out of the elements of a list."""
    body = make_vr()
    del body["apiVersion"], body["kind"]
    assert VideoRestoration.model_validate(body).kind == "VideoRestoration"


def test_an_object_of_another_kind_is_refused() -> None:
    with pytest.raises(ValidationError):
        RestorationProfile.model_validate(make_profile(kind="ClusterRestorationProfile"))


def test_defaults_are_those_of_the_schema() -> None:
    spec = VideoRestoration.model_validate(make_vr()).spec
    assert spec.to_json() == {
        "profileRef": {"kind": "ClusterRestorationProfile", "name": "default"},
        "input": {"uri": "s3://media/raw/clip.mp4"},
        "output": {
            "uri": "s3://media/restored/clip.mp4",
            "overwrite": "IfDifferent",
            "container": "MP4",
            "audio": "Auto",
        },
        "suspend": False,
        "retryPolicy": {
            "maxRetries": 3,
            "maxInfrastructureRetries": 5,
            "backoffSeconds": 10,
            "maxBackoffSeconds": 300,
        },
        "cleanup": {"jobTTLSeconds": 3600, "segments": "Delete"},
        "cache": "Use",
    }


@pytest.mark.parametrize(
    ("python_name", "json_name"),
    [
        ("uri", "uri"),
        ("job_ttl_seconds", "jobTTLSeconds"),
        ("ttl_seconds_after_finished", "ttlSecondsAfterFinished"),
        ("memory_hint_mib", "memoryHintMiB"),
        ("peak_gpu_memory_bytes", "peakGPUMemoryBytes"),
        ("gpu_milliseconds", "gpuMilliseconds"),
        ("multi_gpu", "multiGPU"),
        ("allow_https", "allowHTTPS"),
        ("ca_config_map_name", "caConfigMapName"),
    ],
)
def test_field_names(python_name: str, json_name: str) -> None:
    assert field_name(python_name) == json_name


def test_status_is_written_as_kubernetes_writes_it() -> None:
    """Whole seconds in UTC; unset fields are absent, counters are zero; the same status gives the same text."""
    status = VideoRestorationStatus(
        attempts=Attempts(executions=1),
        attempt_history=(Attempt(execution=1, start_time=datetime(2026, 3, 1, 12, 0, 0, 999999, tzinfo=UTC)),),
    )
    assert status.to_json() == {
        "conditions": [],
        "attempts": {**COUNTERS, "executions": 1},
        "attemptHistory": [{"execution": 1, "startTime": "2026-03-01T12:00:00Z"}],
    }


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValidationError):
        Attempt(execution=1, start_time=datetime(2026, 3, 1, 12))


def test_conditions_are_looked_up_by_type() -> None:
    condition = {"status": "True", "lastTransitionTime": "2026-03-01T12:00:00Z", "reason": "Valid", "message": "ok"}
    status = VideoRestorationStatus.model_validate({"conditions": [condition | {"type": "Accepted"}]})
    assert status.condition(ConditionType.ACCEPTED) == "True"
    assert status.condition(ConditionType.FINISHED) is None


def test_parts_cannot_be_changed() -> None:
    spec = VideoRestoration.model_validate(make_vr()).spec
    with pytest.raises(ValidationError):
        spec.suspend = True  # type: ignore[misc]


@pytest.mark.parametrize("model", Part.__subclasses__(), ids=lambda model: model.__name__)
def test_constructors_take_python_names(model: type[Part]) -> None:
    assert all(name.islower() for name in model.model_fields)


# What the API server says when a constraint is violated. Rows hold a part of it.
COMPLAINTS = {
    "minimum": "should be greater than or equal to {}",
    "maximum": "should be less than or equal to {}",
    "multipleOf": "should be a multiple of {}",
    "minLength": "should be at least {} chars",
    "maxLength": "may not be more than {}",
    "pattern": "should match",
    "enum": "Unsupported value",
    "minItems": "should have at least {} items",
    "maxItems": "must have at most {} items",
    "minProperties": "should have at least {} properties",
    "maxProperties": "must have at most {}",
    "x-kubernetes-list-map-keys": "Duplicate value",
}


def _constraints() -> Iterator[tuple[str, str, str]]:
    """Kind, path and the complaint about its violation, for every constraint of every spec."""
    for crd in custom_resource_definitions().values():
        spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        for path, sentence in _complaints(spec, ""):
            yield crd["spec"]["names"]["kind"], path, sentence


def _complaints(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for constraint, sentence in COMPLAINTS.items():
        # Two fields exist, so that more than two cannot be set.
        if constraint in node and not (constraint == "maxProperties" and "properties" in node):
            yield path, sentence.format(node[constraint])
    if node.get("x-kubernetes-list-type") == "set":
        yield path, "Duplicate value"
    for rule in node.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"]:
            yield path + (rule.get("fieldPath", "") if path else rule.get("fieldPath", "")[1:]), rule["message"]
    for name, child in node.get("properties", {}).items():
        below = f"{path}.{name}" if path else name
        if name in node.get("required", ()):
            yield path or name, "Required value"
        yield from _complaints(child, below)
    for element in ("items", "additionalProperties"):
        if element in node:
            yield from _complaints(node[element], path)


def _touched(case: Case) -> set[str]:
    """Every path that the row's changes touch, and the paths above it."""
    touched: set[str] = set()
    for path, value in case.changes.items():
        steps = [step for step in path.split(".") if not step.isdigit()]
        touched |= {".".join(steps[: length + 1]) for length in range(len(steps))}
        touched |= {f"{'.'.join(steps)}.{below}" for below in _paths(value)}
    return {f"{case.kind}.{path}" for path in touched}


def _paths(value: Any) -> set[str]:
    if isinstance(value, list):
        return {path for item in value for path in _paths(item)}
    if not isinstance(value, dict):
        return set()
    return set(value) | {f"{name}.{path}" for name, child in value.items() for path in _paths(child)}
