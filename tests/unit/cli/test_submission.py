"""The objects that `submit` and `retry` create: valid for the models that the CRDs come from."""

from __future__ import annotations

from typing import Any

import pytest
from tests.builders.resources import make_vr

from restoration_api.resources import VideoRestoration
from restoration_cli import again, submission
from restoration_cli.errors import CommandError
from restoration_cli.submission import Wish

NAMES = [
    ("clip", "clip-r2"),
    ("clip-r2", "clip-r3"),
    ("clip-r9", "clip-r10"),
    ("clip-r", "clip-r-r2"),
    ("r2", "r2-r2"),
    ("n" * 253, "n" * 250 + "-r2"),
    ("n" * 249 + ".-xy", "n" * 249 + "-r2"),
]


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_names_of_retries(name: str, expected: str) -> None:
    assert again.next_name(name) == expected


def test_a_retry_has_the_spec_and_none_of_its_owners_marks() -> None:
    labels = {
        "kueue.x-k8s.io/queue-name": "gpu",
        "team": "archive",
        "app.kubernetes.io/instance": "videos",
        "argocd.argoproj.io/instance": "videos",
    }
    old = make_vr({"suspend": True, "restoration.seed": 7}, labels=labels)
    old["metadata"] |= {
        "uid": "u",
        "resourceVersion": "7",
        "ownerReferences": [{"kind": "Batch"}],
        "annotations": {"argocd.argoproj.io/tracking-id": "x", "kueue.x-k8s.io/x": "y", "kubectl…": "{}"},
    }
    made = again.again(old | {"status": {"phase": "Failed"}}, "clip-r2", active_deadline_seconds=60)
    assert made == {
        "apiVersion": "videorestoration.dev/v1alpha1",
        "kind": "VideoRestoration",
        "metadata": {
            "name": "clip-r2",
            "namespace": "default",
            "labels": {"kueue.x-k8s.io/queue-name": "gpu", "team": "archive"},
            "annotations": {"kueue.x-k8s.io/x": "y", "videorestoration.dev/retry-of": "clip"},
        },
        "spec": {
            "input": {"uri": "s3://media/raw/clip.mp4"},
            "output": {"uri": "s3://media/restored/clip.mp4"},
            "restoration": {"seed": 7},
            "activeDeadlineSeconds": 60,
        },
    }
    assert old["spec"]["suspend"] is True


WISHES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"profile": "team"}, {"profileRef": {"kind": "ClusterRestorationProfile", "name": "team"}}),
    (
        {"profile": "team", "namespaced_profile": True},
        {"profileRef": {"kind": "RestorationProfile", "name": "team"}},
    ),
    ({"scale": 4}, {"restoration": {"target": {"scaleFactor": 4}}}),
    ({"short_side": 720, "seed": 0}, {"restoration": {"target": {"shortSide": 720}, "seed": 0}}),
    ({"strength": 0.0}, {"restoration": {"strength": 0.0}}),
    ({"recompute": True}, {"cache": "Bypass"}),
]


@pytest.mark.parametrize(("wish", "expected"), WISHES)
def test_wishes(wish: dict[str, Any], expected: dict[str, Any]) -> None:
    made = submission.submission(Wish(input_uri="s3://m/a.mp4", output_uri="s3://m/b.mp4", **wish), "media")
    spec = {"input": {"uri": "s3://m/a.mp4"}, "output": {"uri": "s3://m/b.mp4"}}
    assert made["spec"] == spec | expected
    assert made["metadata"] == {"generateName": "a-", "namespace": "media"}
    VideoRestoration.model_validate(made)


@pytest.mark.parametrize(
    ("uri", "prefix"),
    [
        ("s3://m/Movie Night (1).final.mkv", "movie-night-1-final-"),
        ("s3://m/日本.mp4", "video-"),
        ("s3://m/" + "x" * 300, "x" * 40 + "-"),
        ("https://example.com/a/b.mov", "b-"),
    ],
)
def test_names_come_from_the_input(uri: str, prefix: str) -> None:
    assert submission.name_prefix(uri) == prefix


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [("s3://m/", "s3://m/a b.mp4"), ("s3://m/raw/new/", "s3://m/raw/new/a b.mp4"), ("s3://m/raw", None), ("m/", None)],
)
def test_where_a_file_goes(prefix: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(CommandError, match="with the slash at the end"):
            submission.upload_uri(prefix, "a b.mp4")
    else:
        assert submission.upload_uri(prefix, "a b.mp4") == expected


def test_the_output_lies_beside_the_input() -> None:
    assert submission.default_output("s3://m/raw/clip.old.mov") == "s3://m/raw/clip.old-restored.mp4"
    with pytest.raises(CommandError, match="--output"):
        submission.default_output("https://example.com/clip.mp4")
