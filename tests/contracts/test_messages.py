"""Messages written by the first version must be read by every later one: files of v1, kept as they were written.

A file whose name says `minimal` or how a job ended holds required fields and little else; the others hold every field
there is. Until the first release a new field is added to them; after it they are left alone, and the full message gets
a second file beside the first.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from restoration_api.base import VersionedContract, canonical_json
from restoration_api.ledger import Manifest, Marker, Plan, cache_key, request_key
from restoration_api.outcome import Outcome, Progress
from restoration_api.request import Request

GOLDEN = Path(__file__).parent / "v1"
MODELS: dict[str, type[VersionedContract]] = {
    "request": Request,
    "progress": Progress,
    "outcome": Outcome,
    "plan": Plan,
    "marker": Marker,
    "manifest": Manifest,
}
FILES = sorted(GOLDEN.glob("*.json"))

every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
every_message = pytest.mark.parametrize("name", MODELS)


def test_every_message_has_its_files() -> None:
    assert {model_name(file) for file in FILES} == set(MODELS)


@every_file
def test_old_message_is_read_and_written_the_same(file: Path) -> None:
    """Nothing of it is lost, changed or renamed; fields that have been added since have their defaults."""
    document = json.loads(file.read_text())
    message = MODELS[model_name(file)].from_json(file.read_text())
    assert contains(json.loads(message.to_json()), document)


def test_the_hash_of_a_request_stays_what_it_was() -> None:
    """It stands in the arguments of running Jobs: an upgraded operator must find it again."""
    text = (GOLDEN / "request.json").read_text()
    assert Request.from_json(text).to_json() == canonical_json(json.loads(text))


@every_message
def test_full_message_holds_every_field(name: str) -> None:
    """So that a new field cannot be forgotten. What a manifest quotes has its own file."""
    written = set(paths_of(json.loads((GOLDEN / f"{name}.json").read_text())))
    quoted = ("plan.", "markers.") if name == "manifest" else ()
    missing = {field for field in fields_of(MODELS[name]) if not field.startswith(quoted)} - written
    assert not missing, f"add these to tests/contracts/v1/{name}.json, or to a second file once v1 is released"


@every_message
@pytest.mark.parametrize("change", [{"schema": 2}, {"schema": 0}, {"schema": "1"}, {"novelty": 1}], ids=str)
def test_message_of_another_schema_is_refused(name: str, change: dict[str, Any]) -> None:
    """A field its reader does not know was written by a newer program: to ignore it would be to do something else."""
    document = json.loads((GOLDEN / f"{name}.json").read_text())
    with pytest.raises(ValidationError):
        MODELS[name].from_json(json.dumps(document | change))


@every_message
@pytest.mark.parametrize("text", ["", "null", "[]", '{"schema":1}', '{"schema":1'], ids=repr)
def test_what_is_no_message_is_refused(name: str, text: str) -> None:
    with pytest.raises(ValidationError):
        MODELS[name].from_json(text)


@every_file
def test_truncated_message_is_refused(file: Path) -> None:
    """A pod may die while it writes its termination message."""
    text = canonical_json(json.loads(file.read_text()))
    for length in range(1, len(text), max(1, len(text) // 50)):
        with pytest.raises(ValidationError):
            MODELS[model_name(file)].from_json(text[:length])


def test_keys_of_the_golden_request_stay_what_they_were() -> None:
    """Another value means that every finished restoration is computed again after the upgrade."""
    request = Request.from_json((GOLDEN / "request.json").read_text())
    plan = Plan.from_json((GOLDEN / "plan.json").read_text())
    computed = cache_key(request, input_=plan.input, model_digest=plan.model_digest, engine_version=plan.engine_version)
    assert computed == plan.cache_key
    assert request_key(request, input_=plan.input) == plan.request_key


def model_name(file: Path) -> str:
    return file.stem.partition("-")[0]


def contains(whole: Any, part: Any) -> bool:
    """Whether `part` is `whole` with some fields of objects left out."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and contains(whole[key], part[key]) for key in part)
    return bool(whole == part)


def paths_of(value: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from paths_of(item, prefix)
    elif isinstance(value, dict):
        for name, child in value.items():
            yield f"{prefix}{name}"
            yield from paths_of(child, f"{prefix}{name}.")


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        # Of a union (the target's size) one alternative is written, which the file's reader has accepted.
        if path.rpartition(".")[0].endswith("target"):
            continue
        yield path
        for inner in models_in(field.annotation):
            yield from fields_of(inner, f"{path}.")


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (tuple, Union, UnionType):
        for argument in get_args(annotation):
            yield from models_in(argument)
