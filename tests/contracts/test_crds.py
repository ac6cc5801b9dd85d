"""The CRDs are what their models say, what was agreed for v1alpha1, and small enough for plain `kubectl apply`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hack.crds import ROOT, drifted, generated
from pydantic import Field

from restoration_api.resources import Part
from restoration_api.resources.definitions import DEFINITIONS, Definition
from restoration_api.schema import custom_resource_definition, custom_resource_definitions, structural_schema

GOLDEN = Path(__file__).parent / "v1alpha1"
# Client-side `kubectl apply` stores the object in an annotation of at most 262144 bytes; others are far beyond.
LARGEST_CRD_BYTES = 60_000

by_kind = pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: definition.kind)


def test_generated_files_equal_their_source() -> None:
    assert drifted() == [], "run `make crds`"


def test_no_other_crd_lies_beside_the_generated_ones() -> None:
    assert {f"crds/{path.name}" for path in (ROOT / "crds").glob("*.yaml")} == {
        path for path in generated() if path.startswith("crds/")
    }


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    for path, text in generated().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    victim = "crds/videorestorations.videorestoration.dev.yaml"
    assert drifted(tmp_path) == []
    (tmp_path / victim).write_text(generated()[victim].replace("maximum: 4320", "maximum: 4321", 1))
    assert drifted(tmp_path) == [victim]


@by_kind
def test_crd_means_what_was_agreed(definition: Definition) -> None:
    """The golden files are the reviewed form of the API, without descriptions: a change of meaning shows up there."""
    agreed = yaml.safe_load((GOLDEN / f"{definition.plural}.yaml").read_text())
    assert _without_descriptions(custom_resource_definition(definition)) == agreed


@by_kind
def test_crd_is_small(definition: Definition) -> None:
    assert len(json.dumps(custom_resource_definition(definition), separators=(",", ":"))) < LARGEST_CRD_BYTES


@by_kind
def test_every_field_explains_itself(definition: Definition) -> None:
    """`kubectl explain` shows these sentences."""
    silent = [path for path, node in _fields(definition) if not node.get("description", "").endswith(".")]
    assert silent == []


@by_kind
def test_every_value_is_bounded(definition: Definition) -> None:
    """An unbounded string or list makes CEL rules too expensive, and lets one object fill etcd."""
    assert [path for path, node in _nodes(definition) if not _is_bounded(node)] == []


@by_kind
def test_every_integer_says_its_width(definition: Definition) -> None:
    assert [path for path, node in _nodes(definition) if node.get("type") == "integer" and "format" not in node] == []


def test_the_two_strengths_are_the_only_fractions() -> None:
    """Floats do not round-trip reliably across languages; these two are written by people and never by us."""
    fractions = {
        f"{definition.kind}.{path}"
        for definition in DEFINITIONS
        for path, node in _nodes(definition)
        if node.get("type") == "number"
    }
    assert fractions == {
        f"{place}.{field}"
        for place in (
            "VideoRestoration.spec.restoration",
            "ClusterRestorationProfile.spec.defaults",
            "RestorationProfile.spec.defaults",
        )
        for field in ("denoiseStrength", "strength")
    }


@pytest.mark.parametrize(
    "path",
    [
        "restoration",
        "restoration.seed",
        "restoration.colorCorrection",
        "restoration.denoiseStrength",
        "restoration.strength",
        "restoration.target",
        "restoration.chunk",
        "restoration.chunk.overlapFrames",
        "output.codec",
        "output.crf",
        "output.preset",
        "execution",
        "execution.segmentFrames",
        "startDeadlineSeconds",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
    ],
)
def test_what_a_profile_may_default_has_no_default_of_its_own(path: str) -> None:
    """With one, "unset" could not be told from "chosen"."""
    assert "default" not in dict(_fields(DEFINITIONS[0]))[f"spec.{path}"]


def test_kinds_of_profile_differ_in_two_fields_only() -> None:
    cluster, namespaced = (
        {path for path, _ in _fields(definition)} for definition in DEFINITIONS if "Profile" in definition.kind
    )
    assert namespaced < cluster
    assert cluster - namespaced == {
        "spec.model.source.hostPath",
        "spec.model.source.hostPath.path",
        "spec.pod.specPatch",
    }


def test_generator_refuses_what_a_structural_schema_cannot_say() -> None:
    class Exclusive(Part):
        size: int = Field(gt=0)

    with pytest.raises(ValueError, match="cannot say exclusiveMinimum"):
        structural_schema(Exclusive, cluster_scoped=True)


def test_names_of_the_generated_objects() -> None:
    assert set(custom_resource_definitions()) == {
        "videorestorations.videorestoration.dev",
        "clusterrestorationprofiles.videorestoration.dev",
        "restorationprofiles.videorestoration.dev",
    }


def _without_descriptions(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: _without_descriptions(child)
            for key, child in node.items()
            if not (key == "description" and isinstance(child, str))
        }
    return [_without_descriptions(child) for child in node] if isinstance(node, list) else node


def _is_bounded(node: dict[str, Any]) -> bool:
    match node.get("type"):
        case "string":
            fixed_length = str(node.get("pattern", "")).endswith("{64}$")
            return "maxLength" in node or "enum" in node or node.get("format") == "date-time" or fixed_length
        case "array":
            return "maxItems" in node
        case "object":
            return "maxProperties" in node or "additionalProperties" not in node
    return True


def _fields(definition: Definition) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every named field of spec and status with its path; elements of lists and maps are looked into."""
    return ((path, node) for path, node in _nodes(definition) if not path.endswith("[]"))


def _nodes(definition: Definition) -> Iterator[tuple[str, dict[str, Any]]]:
    schema = custom_resource_definition(definition)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for name in ("spec", "status"):
        yield from _walk(name, schema["properties"][name])


def _walk(path: str, node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from _walk(f"{path}.{name}", child)
    for element in ("items", "additionalProperties"):
        if element in node:
            yield from _walk(f"{path}[]", node[element])
