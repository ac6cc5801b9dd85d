"""Custom resources as users write them: the shortest valid object, plus the changes that a test is about.

Changes are written by path: `make_vr({"output.codec": "ProRes", "input.etag": "abc"})`. Paths start at `spec`, numbers
index lists, and `UNSET` removes a field.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from restoration_api.resources import API_VERSION, ClusterRestorationProfile, RestorationProfile, VideoRestoration


class _Unset:
    """A name instead of an address: tests are told apart, and shared out between processes, by what they print."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = _Unset()
"""Removes the field that a path names."""

Body = dict[str, Any]

_VR_SPEC: Body = {
    "input": {"uri": "s3://media/raw/clip.mp4"},
    "output": {"uri": "s3://media/restored/clip.mp4"},
}
_PROFILE_SPEC: Body = {
    "model": {"name": "seedvr2-nano", "source": {"builtin": {}}},
    "gpu": {"count": 0},
    "storage": [{"name": "media", "endpoint": "http://s3.storage.svc:8333", "secretName": "media-s3"}],
}


def make_vr(
    changes: Mapping[str, Any] | None = None,
    *,
    name: str = "clip",
    namespace: str = "default",
    labels: Mapping[str, str] | None = None,
) -> Body:
    """A `VideoRestoration` to apply: input and output only, everything else left to defaults."""
    metadata: Body = {"name": name, "namespace": namespace}
    if labels:
        metadata["labels"] = dict(labels)
    return _body("VideoRestoration", metadata, _VR_SPEC, changes)


def make_profile(
    changes: Mapping[str, Any] | None = None,
    *,
    kind: str = "ClusterRestorationProfile",
    name: str = "default",
    namespace: str = "default",
) -> Body:
    """A profile to apply, of either kind: nano on the CPU, one storage entry with a Secret."""
    metadata: Body = {"name": name}
    if kind == "RestorationProfile":
        metadata["namespace"] = namespace
    return _body(kind, metadata, _PROFILE_SPEC, changes)


def model_of(kind: str) -> type[VideoRestoration] | type[ClusterRestorationProfile] | type[RestorationProfile]:
    """The model of a kind."""
    models = (VideoRestoration, ClusterRestorationProfile, RestorationProfile)
    return {model.__name__: model for model in models}[kind]


def parse(body: Body) -> VideoRestoration | ClusterRestorationProfile | RestorationProfile:
    """The object as the operator sees it."""
    return model_of(body["kind"]).model_validate(body)


def changed(document: Body, changes: Mapping[str, Any]) -> Body:
    """A copy of `document` in which every path of `changes` has its value.

    Raises:
        KeyError: a path to remove does not exist.
    """
    result = deepcopy(document)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place: Any = result
        for step in parents:
            place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
        if value is UNSET:
            del place[int(last) if isinstance(place, list) else last]
        else:
            place[int(last) if isinstance(place, list) else last] = deepcopy(value)
    return result


def _body(kind: str, metadata: Body, spec: Body, changes: Mapping[str, Any] | None) -> Body:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": changed(spec, changes or {})}
