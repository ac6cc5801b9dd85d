"""Who may run: one row per reason, each with the sentence that the user reads."""

from collections.abc import Mapping
from typing import Any

import pytest
from tests.builders.observations import UID, at, observe, profile, restoration

from restoration_operator.decide.admission import Impossible, Refused, Terms, admit
from restoration_operator.decide.types import NoProfile, Profile, Rival

DIGEST = f"sha256:{'0123456789abcdef' * 4}"

STORAGE = {"name": "media", "endpoint": "http://s3:8333", "secretName": "media-s3"}
NOT_FOUND = NoProfile(reason="ProfileNotFound", message="there is no ClusterRestorationProfile 'fast'")

# name, changes of the restoration, of the profile, reason, part of the message
REFUSALS: list[tuple[str, Mapping[str, Any], Mapping[str, Any], str, str]] = [
    (
        "input outside the permitted prefixes",
        {"input.uri": "s3://media/secret/clip.mp4"},
        {"storage": [STORAGE | {"allowedInputPrefixes": ["s3://media/raw/"]}]},
        "NotPermitted",
        "spec.input.uri is s3://media/secret/clip.mp4, but storage 'media' of ClusterRestorationProfile 'default'",
    ),
    (
        "output outside the permitted prefixes",
        {"output.uri": "s3://media/raw-private/clip.mp4"},
        {"storage": [STORAGE | {"allowedOutputPrefixes": ["s3://media/raw/"]}]},
        "NotPermitted",
        "permits only s3://media/raw/",
    ),
    ("prefixes are not normalised", {"input.uri": "s3://media/raw/../secret.mp4"}, {}, "", ""),
    (
        "https without permission",
        {"input.uri": "https://example.org/clip.mp4"},
        {},
        "NotPermitted",
        "input.allowHTTPS",
    ),
    ("https with permission", {"input.uri": "https://example.org/clip.mp4"}, {"input.allowHTTPS": True}, "", ""),
    (
        "more workers than allowed",
        {"execution.parallelism": 4},
        {"limits.maxParallelism": 2},
        "LimitExceeded",
        "spec.execution.parallelism is 4, but ClusterRestorationProfile 'default' allows at most 2",
    ),
    ("the schema's limit without limits", {"execution.parallelism": 9}, {}, "LimitExceeded", "at most 8"),
    (
        "unknown storage",
        {"output.storage": "edge"},
        {},
        "ProfileNotReady",
        "spec.output.storage is 'edge', but ClusterRestorationProfile 'default' has no such storage entry, only media",
    ),
    (
        "an https input needs no storage",
        {"input.uri": "https://example.org/clip.mp4", "input.storage": "nowhere"},
        {"input.allowHTTPS": True},
        "",
        "",
    ),
    (
        "two service accounts for one pod",
        {},
        {
            "storage": [
                {"name": "a", "workloadIdentity": {"serviceAccountName": "one"}},
                {"name": "b", "workloadIdentity": {"serviceAccountName": "two"}},
            ]
        },
        "ProfileNotReady",
        "(one, two), a pod has one",
    ),
    (
        "weights from anywhere",
        {},
        {"model.source": {"download": {"uri": "https://example.com/model"}}, "model.digest": DIGEST},
        "ProfileNotReady",
        "put the model's folder into a bucket (s3://), a repository (hf://), an image or a volume",
    ),
    (
        "weights that nobody pinned",
        {},
        {"model.source": {"download": {"uri": "hf://someone/model"}}},
        "ProfileNotReady",
        "model.source.download, which needs model.digest",
    ),
    (
        "weights in a storage that the profile has not",
        {},
        {"model.source": {"download": {"uri": "s3://m/a", "storage": "else"}}, "model.digest": DIGEST},
        "ProfileNotReady",
        "model.source.download.storage is 'else'",
    ),
    ("pinned weights", {}, {"model.source": {"download": {"uri": "hf://a/b"}}, "model.digest": DIGEST}, "", ""),
    ("all is well", {}, {}, "", ""),
]


@pytest.mark.parametrize(
    ("changes", "profile_changes", "reason", "message"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS]
)
def test_refusals(changes: Mapping[str, Any], profile_changes: Mapping[str, Any], reason: str, message: str) -> None:
    verdict = admit(observe(restoration(changes), profile=profile(profile_changes)), at(1))
    if not reason:
        assert isinstance(verdict, Terms), verdict
        return
    assert isinstance(verdict, Refused)
    assert verdict.reason == reason
    assert message in verdict.message
    assert verdict.blocked


@pytest.mark.parametrize(("age", "blocked"), [(0, False), (59, False), (60, True), (3600, True)])
def test_a_missing_profile_is_nobodys_fault_for_a_minute(age: float, blocked: bool) -> None:
    verdict = admit(observe(restoration(), profile=NOT_FOUND), at(age))
    assert isinstance(verdict, Refused)
    assert verdict.reason == "ProfileNotFound"
    assert verdict.blocked is blocked
    assert verdict.again_at == (None if blocked else at(60))


def test_a_profile_that_is_not_ready_blocks_at_once() -> None:
    missing = NoProfile(reason="ProfileNotReady", message="set the chart's value defaultProfile.storage")
    verdict = admit(observe(restoration(), profile=missing), at(0))
    assert isinstance(verdict, Refused)
    assert verdict.blocked


def rival(**changes: Any) -> Rival:
    values: dict[str, Any] = {
        "uid": "other",
        "namespace": "studio-b",
        "name": "first",
        "created": at(-10),
        "reserved": False,
        "endpoint": "http://s3.storage.svc:8333",
    }
    return Rival(**(values | changes))


@pytest.mark.parametrize(
    ("other", "claimed"),
    [
        (rival(), True),
        (rival(created=at(10)), False),
        (rival(created=at(10), reserved=True), True),
        (rival(created=at(0), uid=UID[:-1] + "a"), True),
        (rival(created=at(0), uid=UID[:-1] + "f"), False),
        (rival(endpoint="http://elsewhere:9000"), False),
        (rival(endpoint=None), False),
    ],
    ids=[
        "older",
        "younger",
        "younger but running",
        "same age, lower uid",
        "same age, higher uid",
        "other endpoint",
        "?",
    ],
)
def test_one_output_has_one_writer(other: Rival, claimed: bool) -> None:
    verdict = admit(observe(restoration(), rivals=(other,)), at(1))
    if claimed:
        assert isinstance(verdict, Refused)
        assert verdict.reason == "OutputClaimed"
        assert "studio-b/first" in verdict.message
        assert not verdict.blocked, "nobody has to act: the other one will finish"
    else:
        assert isinstance(verdict, Terms)


def test_values_that_exclude_each_other_can_never_run() -> None:
    odd = profile({"defaults": {"chunkFrames": 21, "overlapFrames": 8}})
    assert isinstance(admit(observe(restoration(), profile=odd), at(1)), Terms)
    wish = {"restoration.chunk": {"frames": 9, "overlapFrames": 4}}
    assert isinstance(admit(observe(restoration(wish), profile=odd), at(1)), Terms)
    only_overlap: Profile = profile({"defaults": {"overlapFrames": 12}})
    verdict = admit(observe(restoration(), profile=only_overlap), at(1))
    assert isinstance(verdict, Impossible)
    assert "chunk.overlapFrames must be less than half of chunk.frames" in verdict.message
