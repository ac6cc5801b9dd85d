"""What the real API server makes of our CRDs: the judge of ranges, unions, CEL rules, defaults and immutability."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from hack.cluster.controlplane import ControlPlane
from tests.builders.apiserver import DRY_RUN, STRICT, Answer, ApiServer, resource_path, with_our_kinds
from tests.builders.crd_cases import Case, cases
from tests.builders.resources import UNSET, Body, changed, make_profile, make_vr, parse

from restoration_api.outcome import FailureReason
from restoration_api.resources import API_VERSION, VideoRestorationStatus
from restoration_api.resources.definitions import DEFINITIONS, Definition

ROOT = Path(__file__).resolve().parents[2]
LARGEST_ANNOTATIONS_BYTES = 262_144
NOON = "2026-03-01T12:00:00Z"

# One worker, one after the other: a control plane of their own for half of the rows would cost more than it saves.
pytestmark = pytest.mark.xdist_group("control-plane")
by_kind = pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: definition.kind)


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane) -> Iterator[ApiServer]:
    """The control plane with our CRDs, installed in the plainest way there is."""
    with with_our_kinds(control_plane) as api:
        yield api


@pytest.fixture(scope="module")
def own_namespace(control_plane: ControlPlane) -> Iterator[str]:
    """For tests that need a stored object, and none that others would see."""
    control_plane.create_namespace("crd-validation")
    yield "crd-validation"
    control_plane.kubectl("delete", "namespace", "crd-validation", "--wait=false")


# -- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases(), ids=str)
def test_server_judges_as_the_table_says(server: ApiServer, case: Case) -> None:
    answer = server.create(case.body(), DRY_RUN)
    if case.refusal is None:
        assert answer.accepted, answer.message
        # Nothing was pruned, and the server's defaults are the ones that Python fills in.
        python = parse(answer.body if case.server_only else case.body())
        assert answer.body["spec"] == python.spec.to_json()
    else:
        assert answer.status in (400, 422)
        assert case.refusal in answer.message


@pytest.mark.parametrize("name", ["a", "a.b-c", "n" * 253])
def test_any_legal_name_is_allowed(server: ApiServer, name: str) -> None:
    assert server.create(make_vr(name=name), DRY_RUN).accepted


def test_unknown_fields_are_pruned_where_nobody_asks_for_strictness(server: ApiServer) -> None:
    answer = server.create(make_vr({"restoration.noiseScale": 0.1}), {"dryRun": "All"})
    assert answer.accepted
    assert answer.body["spec"]["restoration"] == {}


# -- immutability -----------------------------------------------------------------------------------------------------

CHUNK = {"chunk": {"frames": 21}}
MANAGER = {"managedBy": "kueue.x-k8s.io/multikueue"}
FORBIDDEN = "Forbidden: {} is immutable"

# (as created, what the update changes, the field that the refusal names or None where the update is accepted)
UPDATES: list[tuple[Mapping[str, Any], Mapping[str, Any], str | None]] = [
    ({}, {}, None),
    ({}, {"input.uri": "s3://media/raw/other.mp4"}, "input"),
    ({}, {"input.etag": "abc"}, "input"),
    ({"input.etag": "abc"}, {"input.etag": UNSET}, "input"),
    ({"input.etag": "abc"}, {"input.etag": "abd"}, "input"),
    ({}, {"input.clip": {"startMilliseconds": 0}}, "input"),
    ({"input.clip": {"startMilliseconds": 0}}, {"input.clip": UNSET}, "input"),
    ({"input.clip": {"startMilliseconds": 0}}, {"input.clip.durationMilliseconds": 5}, "input"),
    ({}, {"input.storage": "archive"}, "input"),
    ({}, {"output.uri": "s3://media/restored/other.mp4"}, "output"),
    ({}, {"output.overwrite": "Always"}, "output"),
    ({}, {"output.overwrite": UNSET}, None),
    ({}, {"output.codec": "HEVC"}, "output"),
    ({"output.codec": "HEVC"}, {"output.codec": UNSET}, "output"),
    ({"output.crf": 18}, {"output.crf": 19}, "output"),
    ({}, {"output.preset": "slow"}, "output"),
    ({}, {"profileRef.name": "other"}, "profileRef"),
    ({}, {"profileRef.kind": "RestorationProfile"}, "profileRef"),
    ({}, {"profileRef": UNSET}, None),
    ({}, {"profileRef": {}}, None),
    ({"profileRef.name": "team"}, {"profileRef": UNSET}, "profileRef"),
    ({}, {"restoration": {}}, "restoration"),
    ({}, {"restoration.strength": 0.5}, "restoration"),
    ({"restoration": {}}, {"restoration": UNSET}, "restoration"),
    ({"restoration": CHUNK}, {"restoration": UNSET}, "restoration"),
    ({"restoration": CHUNK}, {"restoration.chunk.frames": 25}, "restoration"),
    ({"restoration": CHUNK}, {"restoration.chunk.overlapFrames": 4}, "restoration"),
    ({"restoration": CHUNK}, {"restoration.seed": 0}, "restoration"),
    ({"restoration.seed": 0}, {"restoration.seed": UNSET}, "restoration"),
    ({"restoration.strength": 1}, {"restoration.strength": 1.0}, None),
    ({"restoration.strength": 1}, {"restoration.strength": 0.9}, "restoration"),
    ({"restoration.strength": 1.0}, {"restoration.strength": 1}, None),
    ({"restoration.denoiseStrength": 0}, {"restoration.denoiseStrength": 0.0}, None),
    ({"restoration.denoiseStrength": 0}, {"restoration.denoiseStrength": UNSET}, "restoration"),
    ({}, {"execution": {}}, "execution"),
    ({}, {"execution.parallelism": 2}, "execution"),
    ({"execution.parallelism": 2}, {"execution": UNSET}, "execution"),
    ({"execution.parallelism": 2}, {"execution.parallelism": 3}, "execution"),
    ({"execution.parallelism": 2}, {"execution.segmentFrames": 60}, "execution"),
    ({"execution": {}}, {"execution.mode": UNSET}, None),
    ({}, MANAGER, "managedBy"),
    (MANAGER, {"managedBy": UNSET}, "managedBy"),
    (MANAGER, {"managedBy": "example.com/other"}, "managedBy"),
    # What may change while the work goes on.
    ({}, {"suspend": True}, None),
    ({"suspend": True}, {"suspend": UNSET}, None),
    ({}, {"retryPolicy.maxRetries": 0}, None),
    ({"retryPolicy.maxDisruptions": 5}, {"retryPolicy": UNSET}, None),
    ({}, {"startDeadlineSeconds": 60}, None),
    ({}, {"activeDeadlineSeconds": 60}, None),
    ({"activeDeadlineSeconds": 60}, {"activeDeadlineSeconds": UNSET}, None),
    ({}, {"ttlSecondsAfterFinished": 0}, None),
    ({}, {"cleanup.jobTTLSeconds": 0}, None),
    ({}, {"cleanup.segments": "Retain"}, None),
    ({}, {"cache": "Bypass"}, None),
    # Mutable, but not into something invalid.
    ({}, {"activeDeadlineSeconds": 0}, "should be greater than or equal to 1"),
]


@pytest.mark.parametrize(("created", "update", "refused"), UPDATES, ids=str)
def test_updates(
    server: ApiServer, own_namespace: str, created: Mapping[str, Any], update: Mapping[str, Any], refused: str | None
) -> None:
    stored = _created(server, make_vr(created, name=f"update-{uuid4().hex}", namespace=own_namespace))
    answer = server.replace(stored | {"spec": changed(stored["spec"], update)}, DRY_RUN)
    if refused is None:
        assert answer.accepted, answer.message
    else:
        assert answer.status == 422
        sentence = f"spec.{refused}: Forbidden: {refused} is immutable"
        assert (sentence if refused[0].islower() and " " not in refused else refused) in answer.message


def test_profiles_may_change(server: ApiServer) -> None:
    stored = _created(server, make_profile(name="mutable"))
    update = {"gpu.count": 1, "defaults": {"crf": 20}, "model.name": "seedvr2-3b"}
    assert server.replace(stored | {"spec": changed(stored["spec"], update)}, DRY_RUN).accepted
    assert server.request("DELETE", resource_path(stored)).accepted


# -- status -----------------------------------------------------------------------------------------------------------


def _condition(**changes: Any) -> Body:
    condition = {
        "type": "Accepted",
        "status": "True",
        "lastTransitionTime": NOON,
        "reason": "Valid",
        "message": "",
        "observedGeneration": 1,
    }
    return {key: value for key, value in (condition | changes).items() if value is not UNSET}


def _streams(count: int) -> list[Body]:
    return [{"index": index, "type": "audio", "action": "Copied"} for index in range(count)]


REASONS = sorted(
    {
        *map(str, FailureReason),
        *("Pending", "Valid", "ProfileNotFound", "ProfileNotReady", "LimitExceeded", "NotPermitted", "OutputClaimed"),
        *("NameConflict", "ChildRejected", "Running", "CacheHit", "Queued", "Unschedulable", "PodRejected"),
        *("MountFailed", "ImagePullError", "StartDeadlineExceeded", "UserRequested", "NotSuspended", "Completed"),
        *("RetriesExhausted", "InProgress"),
    }
)

# (status, part of the refusal or None where it is accepted)
STATUSES: list[tuple[Body, str | None]] = [
    ({}, None),
    *[({"phase": phase}, None) for phase in ("Pending", "Queued", "Starting", "Running", "Assembling", "Suspended")],
    *[({"phase": phase}, None) for phase in ("Retrying", "Succeeded", "Failed")],
    ({"phase": "Done"}, "Unsupported value"),
    ({"observedGeneration": -1}, None),
    ({"observedGeneration": -2}, "should be greater than or equal to -1"),
    ({"conditions": [_condition()]}, None),
    *[({"conditions": [_condition(reason=reason)]}, None) for reason in REASONS],
    *[({"attemptHistory": [{"execution": 1, "reason": reason}]}, None) for reason in REASONS],
    ({"conditions": [_condition(status=status) for status in ("Maybe",)]}, "Unsupported value"),
    ({"conditions": [_condition(reason="")]}, "should be at least 1 chars"),
    ({"conditions": [_condition(reason="two words")]}, "should match"),
    ({"conditions": [_condition(reason="Trailing:")]}, "should match"),
    ({"conditions": [_condition(reason="R" * 1025)]}, "may not be more than 1024"),
    ({"conditions": [_condition(type="")]}, "should match"),
    ({"conditions": [_condition(type="With-Dash")]}, "should match"),
    ({"conditions": [_condition(type="T" * 317)]}, "may not be more than 316"),
    ({"conditions": [_condition(message="m" * 32768)]}, None),
    ({"conditions": [_condition(message="m" * 32769)]}, "may not be more than 32768"),
    ({"conditions": [_condition(observedGeneration=-1)]}, "should be greater than or equal to 0"),
    ({"conditions": [_condition(lastTransitionTime="yesterday")]}, "must be of type date-time"),
    *[
        ({"conditions": [_condition(**{field: UNSET})]}, "Required value")
        for field in ("type", "status", "lastTransitionTime", "reason", "message")
    ],
    ({"conditions": [_condition(observedGeneration=UNSET)]}, None),
    ({"conditions": [_condition(), _condition(status="False")]}, "Duplicate value"),
    ({"conditions": [_condition(type=f"T{index}") for index in range(16)]}, None),
    ({"conditions": [_condition(type=f"T{index}") for index in range(17)]}, "must have at most 16 items"),
    ({"startTime": "12:00"}, "must be of type date-time"),
    ({"completionTime": NOON}, None),
    ({"profile": {"kind": "Builtin", "name": "default"}}, None),
    ({"profile": {"kind": "Default"}}, "Unsupported value"),
    ({"profile": {"hash": "h" * 65}}, "may not be more than 64"),
    ({"profile": {"snapshotName": "n" * 254}}, "may not be more than 253"),
    ({"jobName": "j" * 63}, None),
    ({"jobName": "j" * 64}, "may not be more than 63"),
    ({"worker": {"gpu": "g" * 129}}, "may not be more than 128"),
    ({"worker": {"nodeName": "n" * 254}}, "may not be more than 253"),
    (
        {
            "attempts": {
                "executions": 3,
                "retries": 2,
                "infrastructureRetries": 0,
                "disruptions": 1,
                "failuresInARow": 2,
                "runningSeconds": 90,
            }
        },
        None,
    ),
    *[
        ({"attempts": {field: -1}}, "should be greater than or equal to 0")
        for field in ("executions", "retries", "infrastructureRetries", "disruptions")
    ],
    ({"attemptHistory": [{}]}, "Required value"),
    ({"attemptHistory": [{"execution": 0}]}, "should be greater than or equal to 1"),
    ({"attemptHistory": [{"execution": 1}, {"execution": 1}]}, "Duplicate value"),
    ({"attemptHistory": [{"execution": number} for number in range(1, 11)]}, None),
    ({"attemptHistory": [{"execution": number} for number in range(1, 12)]}, "must have at most 10 items"),
    ({"attemptHistory": [{"execution": 1, "exitCode": 137, "segments": "0-16,18"}]}, None),
    ({"attemptHistory": [{"execution": 1, "message": "m" * 1025}]}, "may not be more than 1024"),
    ({"attemptHistory": [{"execution": 1, "reason": "r" * 65}]}, "may not be more than 64"),
    ({"attemptHistory": [{"execution": 1, "segments": "1" * 1025}]}, "may not be more than 1024"),
    ({"attemptHistory": [{"execution": 1, "memoryHintMiB": 0}]}, "should be greater than or equal to 1"),
    ({"attemptHistory": [{"execution": 1, "activeDeadlineSeconds": 0}]}, "should be greater than or equal to 1"),
    ({"attemptHistory": [{"execution": 1, "excludedNodes": ["a", "b"]}]}, None),
    ({"attemptHistory": [{"execution": 1, "excludedNodes": ["a", "a"]}]}, "Duplicate value"),
    ({"attemptHistory": [{"execution": 1, "excludedNodes": [""]}]}, "should be at least 1 chars"),
    (
        {"attemptHistory": [{"execution": 1, "excludedNodes": [f"n{index}" for index in range(17)]}]},
        "must have at most 16 items",
    ),
    *[
        ({"progress": {"stage": stage}}, None)
        for stage in ("Fetching", "Probing", "FetchingModel", "LoadingModel", "Restoring", "Assembling", "Uploading")
    ],
    ({"progress": {"stage": "Thinking"}}, "Unsupported value"),
    ({"progress": {"percent": 100, "summary": "100% 24000/24000"}}, None),
    ({"progress": {"percent": 101}}, "should be less than or equal to 100"),
    ({"progress": {"percent": -1}}, "should be greater than or equal to 0"),
    ({"progress": {"percent": 41.5}}, "must be of type integer"),
    ({"progress": {"summary": "s" * 33}}, "may not be more than 32"),
    *[
        ({"progress": {field: -1}}, "should be greater than or equal to 0")
        for field in ("framesDone", "framesTotal", "segmentsDone", "segmentsTotal", "milliFramesPerSecond")
    ],
    ({"input": {"frameRate": "24000/1001"}}, None),
    ({"input": {"frameRate": 23.976}}, "must be of type string"),
    ({"input": {"codec": "c" * 33}}, "may not be more than 32"),
    ({"output": {"sha256": "h" * 65}}, "may not be more than 64"),
    ({"output": {"uri": "u" * 2049}}, "may not be more than 2048"),
    ({"output": {"verification": {"verdict": "PassedWithRepairs", "repairedFrames": 2}}}, None),
    ({"output": {"verification": {"verdict": "Failed"}}}, "Unsupported value"),
    ({"output": {"streams": _streams(64)}}, None),
    ({"output": {"streams": _streams(65)}}, "must have at most 64 items"),
    ({"output": {"streams": [{"index": 0, "type": "video"}]}}, "Required value"),
    ({"output": {"streams": [{"index": 0, "type": "video", "action": "Lost"}]}}, "Unsupported value"),
    ({"output": {"streams": [{"index": 0, "type": "video", "action": "Dropped", "detail": "d" * 257}]}}, "than 256"),
    ({"timings": {"totalMilliseconds": 1.5}}, "must be of type integer"),
    ({"cacheKey": "k" * 65}, "may not be more than 64"),
    ({"cacheHit": "yes"}, "must be of type boolean"),
    ({"novelty": 1}, "unknown field"),
]


@pytest.fixture(scope="module")
def restoration(server: ApiServer, own_namespace: str) -> Body:
    """One stored restoration that tests of the status write to, with dry runs only."""
    return _created(server, make_vr(namespace=own_namespace))


@pytest.mark.parametrize(("status", "refusal"), STATUSES, ids=lambda value: str(value)[:60])
def test_status(server: ApiServer, restoration: Body, status: Body, refusal: str | None) -> None:
    answer = server.replace(restoration | {"status": status}, DRY_RUN, subresource="/status")
    if refusal is None:
        assert answer.accepted, answer.message
        assert answer.body["status"] == status
        written = VideoRestorationStatus.model_validate(status).to_json()
        assert written | status == written
    else:
        assert answer.status in (400, 422)
        assert refusal in answer.message


def test_a_status_with_every_field_survives_the_server(server: ApiServer, restoration: Body) -> None:
    schema = _stored_crd(server, DEFINITIONS[0])["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    full = _example(schema["properties"]["status"])
    answer = server.replace(restoration | {"status": full}, DRY_RUN, subresource="/status")
    assert answer.accepted, answer.message
    assert answer.body["status"] == full == VideoRestorationStatus.model_validate(full).to_json()


def test_before_the_first_visit_the_status_is_of_no_generation(restoration: Body) -> None:
    """What kstatus waits for: docs/decisions/0027-a-status-before-the-first-visit.md."""
    assert restoration["metadata"]["generation"] == 1
    assert restoration["status"] == {"observedGeneration": -1}


def test_users_cannot_write_status_and_the_operator_cannot_write_spec(server: ApiServer, restoration: Body) -> None:
    user = server.replace(restoration | {"status": {"phase": "Succeeded"}}, DRY_RUN)
    assert "phase" not in user.body.get("status", {})
    suspended = restoration | {"spec": restoration["spec"] | {"suspend": True}, "status": {"phase": "Running"}}
    operator = server.replace(suspended, DRY_RUN, subresource="/status")
    assert (operator.body["spec"]["suspend"], operator.body["status"]["phase"]) == (False, "Running")


def test_a_stale_status_apply_is_refused(server: ApiServer, namespace: str) -> None:
    """Without its resourceVersion the second apply would be accepted and un-finish a finished restoration."""
    stored = _created(server, make_vr(namespace=namespace))
    stale = stored["metadata"]["resourceVersion"]
    assert server.apply_status(_status_apply(stored, stale, "True")).accepted
    assert server.apply_status(_status_apply(stored, stale, "False")).status == 409
    seen = server.request("GET", resource_path(stored)).body
    assert seen["status"]["conditions"][0]["status"] == "True"


def test_a_status_apply_does_not_reach_a_namesake(server: ApiServer, namespace: str) -> None:
    """The user deleted the object and created another under its name while the operator was deciding."""
    stored = _created(server, make_vr(namespace=namespace))
    assert server.request("DELETE", resource_path(stored)).accepted
    again = _created(server, make_vr(namespace=namespace))
    assert again["metadata"]["uid"] != stored["metadata"]["uid"]
    assert server.apply_status(_status_apply(stored, stored["metadata"]["resourceVersion"], "True")).status == 409


# -- what kubectl shows and does --------------------------------------------------------------------------------------


@by_kind
def test_client_side_apply_has_room_for_the_annotation(
    server: ApiServer, control_plane: ControlPlane, definition: Definition
) -> None:
    """`kubectl apply` keeps the whole object in an annotation, which the API server bounds together with the others."""
    annotations = _stored_crd(server, definition)["metadata"]["annotations"]
    assert "kubectl.kubernetes.io/last-applied-configuration" in annotations
    assert sum(len(key) + len(value) for key, value in annotations.items()) < LARGEST_ANNOTATIONS_BYTES / 4
    again = control_plane.kubectl("apply", "--filename", ROOT / f"crds/{definition.crd_name}.yaml")
    assert again.strip().endswith("unchanged")


@by_kind
def test_crd_has_no_objections_against_it(server: ApiServer, definition: Definition) -> None:
    conditions = _stored_crd(server, definition)["status"]["conditions"]
    assert {item["type"]: item["status"] for item in conditions} == {"NamesAccepted": "True", "Established": "True"}


def _blocks(file: Path) -> list[str]:
    """The YAML texts in a file that show objects of ours: the file itself, or the code blocks of a page."""
    text = file.read_text(encoding="utf-8")
    blocks = re.findall(r"^```ya?ml\n(.*?)^```", text, re.DOTALL | re.MULTILINE) if file.suffix == ".md" else [text]
    return [block for block in blocks if API_VERSION in block]


# Where people copy manifests from: examples, and the code blocks of every page.
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
EXAMPLES = [*(ROOT / "examples").rglob("*.yaml"), ROOT / "tests/contracts/v1alpha1/manifests.yaml"]
MANIFESTS = sorted(file for file in (*PAGES, *EXAMPLES) if _blocks(file))


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_manifest_passes_strict_validation(
    server: ApiServer, control_plane: ControlPlane, manifest: Path, namespace: str
) -> None:
    documents = [document for block in _blocks(manifest) for document in yaml.safe_load_all(block)]
    ours = [document for document in documents if document and document.get("apiVersion") == API_VERSION]
    assert ours
    for body in ours:
        body["metadata"].pop("namespace", None)
        control_plane.kubectl(
            "--namespace", namespace, "apply", "--validate=strict", "--dry-run=server", "--filename", "-",
            stdin=json.dumps(body),
        )  # fmt: skip


def test_restorations_are_selected_by_profile_and_phase(
    server: ApiServer, control_plane: ControlPlane, namespace: str
) -> None:
    for name, profile, phase in (("a", "default", "Failed"), ("b", "team", "Failed"), ("c", "team", "Running")):
        _with_status(server, make_vr({"profileRef.name": profile}, name=name, namespace=namespace), {"phase": phase})

    def selected(selector: str) -> list[str]:
        answer = control_plane.kubectl("-n", namespace, "get", "vr", "--field-selector", selector, "--output", "name")
        return [line.rpartition("/")[2] for line in answer.split()]

    assert selected("status.phase=Failed") == ["a", "b"]
    assert selected("spec.profileRef.name=team") == ["b", "c"]
    assert selected("status.phase=Failed,spec.profileRef.name=team") == ["b"]
    assert selected("status.phase!=Failed") == ["c"]


def test_columns(server: ApiServer, control_plane: ControlPlane, namespace: str) -> None:
    _with_status(
        server,
        make_vr({"profileRef.name": "team"}, name="movie-night", namespace=namespace),
        {
            "phase": "Running",
            "attempts": {"executions": 2},
            "progress": {"summary": "41% 9840/24000", "estimatedCompletionTime": "2999-12-31T23:59:59Z"},
            "conditions": [_condition(type="Succeeded", status="Unknown", reason="InProgress")],
            "worker": {"nodeName": "gpu-1"},
            "output": {"uri": "s3://media/restored/clip.mp4"},
        },
    )
    assert _table(control_plane, namespace, "vr") == [
        ["NAME", "PHASE", "PROGRESS", "ATTEMPTS", "AGE"],
        ["movie-night", "Running", "41% 9840/24000", "2", "*"],
    ]
    assert _table(control_plane, namespace, "vr", "--output", "wide") == [
        ["NAME", "PHASE", "PROGRESS", "ATTEMPTS", "AGE", "REASON", "PROFILE", "ETA", "NODE", "OUTPUT"],
        [
            *("movie-night", "Running", "41% 9840/24000", "2", "*", "InProgress", "team"),
            *("2999-12-31T23:59:59Z", "gpu-1", "s3://media/restored/clip.mp4"),
        ],
    ]


def test_columns_of_profiles(server: ApiServer, control_plane: ControlPlane, namespace: str) -> None:
    profile = make_profile(kind="RestorationProfile", name="nano", namespace=namespace)
    _with_status(server, profile, {"conditions": [_condition(type="Ready")]})
    assert _table(control_plane, namespace, "rprof") == [
        ["NAME", "MODEL", "GPUS", "READY", "AGE"],
        ["nano", "seedvr2-nano", "0", "True", "*"],
    ]


def test_category_lists_every_kind(server: ApiServer, control_plane: ControlPlane, namespace: str) -> None:
    _created(server, make_vr(namespace=namespace))
    _created(server, make_profile(kind="RestorationProfile", name="nano", namespace=namespace))
    listed = control_plane.kubectl("--namespace", namespace, "get", "restoration", "--output", "name").split()
    assert {line.partition(".")[0] for line in listed} >= {"videorestoration", "restorationprofile"}


def test_waiting_for_the_end(server: ApiServer, control_plane: ControlPlane, namespace: str) -> None:
    finished = {"conditions": [_condition(type="Finished", reason="Completed")]}
    _with_status(server, make_vr(namespace=namespace), finished)
    answer = control_plane.kubectl("-n", namespace, "wait", "--for=condition=Finished", "vr/clip", "--timeout=60s")
    assert "condition met" in answer


@pytest.mark.parametrize("field", ["vr.spec.output.crf", "crprof.spec.storage.allowedInputPrefixes", "rprof.spec.pod"])
def test_kubectl_explains_fields(server: ApiServer, control_plane: ControlPlane, field: str) -> None:
    definition = next(item for item in DEFINITIONS if item.short_name == field.partition(".")[0])
    node = _stored_crd(server, definition)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for step in field.split(".")[1:]:
        node = node.get("items", node)["properties"][step]
    assert node["description"] in " ".join(control_plane.kubectl("explain", field).split())


# -- helpers ----------------------------------------------------------------------------------------------------------


def _created(server: ApiServer, body: Body) -> Body:
    answer = server.create(body)
    assert answer.accepted, answer.message
    return answer.body


def _with_status(server: ApiServer, body: Body, status: Body) -> None:
    answer: Answer = server.replace(_created(server, body) | {"status": status}, STRICT, subresource="/status")
    assert answer.accepted, answer.message


def _status_apply(stored: Body, resource_version: str, finished: str) -> Body:
    metadata = {key: stored["metadata"][key] for key in ("name", "namespace")}
    return {
        "apiVersion": stored["apiVersion"],
        "kind": stored["kind"],
        "metadata": metadata | {"resourceVersion": resource_version},
        "status": {"conditions": [_condition(type="Finished", status=finished)]},
    }


def _stored_crd(server: ApiServer, definition: Definition) -> Body:
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{definition.crd_name}"
    return server.request("GET", path).body


def _table(control_plane: ControlPlane, namespace: str, *arguments: str) -> list[list[str]]:
    """What kubectl prints, cut at its columns; an age is shown as `*`."""
    text = control_plane.kubectl("--namespace", namespace, "get", *arguments)
    rows = [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in text.splitlines()]
    age = rows[0].index("AGE")
    return [rows[0], *([*row[:age], "*", *row[age + 1 :]] for row in rows[1:])]


def _example(node: Body) -> Any:
    """A value that fills every field of a schema node."""
    match node["type"]:
        case "object":
            return {name: _example(child) for name, child in node["properties"].items()}
        case "array":
            return [_example(node["items"])]
        case "integer":
            return 1
        case "boolean":
            return True
    if node.get("format") == "date-time":
        return NOON
    return node["enum"][0] if "enum" in node else "a"
