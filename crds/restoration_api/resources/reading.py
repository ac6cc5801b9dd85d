"""Reading documents that no API server has judged: the chart's default profile, a manifest on somebody's disk.

An object from the API server has been validated and pruned, so reading it may be tolerant. Here a misspelt field must
not be ignored: without its `allowedInputPrefixes` a profile permits everything.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from restoration_api.resources.common import Part

P = TypeVar("P", bound=Part)


def read_strictly(model: type[P], document: Any) -> P:
    """The document as `model`, judged like `kubectl apply --validate=strict` would.

    Raises:
        ValueError: one sentence that begins with the field, as in `storage[0].name: Field required`.
    """
    try:
        value = model.model_validate(document)
    except ValidationError as error:
        raise ValueError(_first_complaint(error, document)) from error
    for path in _unknown_fields(document, value.model_dump(by_alias=True, exclude_unset=True), ()):
        raise ValueError(f"{_field(path)}: unknown field")
    return value


def _first_complaint(error: ValidationError, document: Any) -> str:
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    path = [*_known_steps(first["loc"], document), *(first["loc"][-1:] if first["type"] == "missing" else ())]
    return f"{_field(path)}: {message}" if path else message


def _known_steps(location: Sequence[int | str], document: Any) -> Iterator[int | str]:
    """The steps that lead through the document; pydantic appends names of its own for alternatives of a type."""
    place = document
    for step in location:
        try:
            place = place[step]
        except (KeyError, IndexError, TypeError):
            return
        yield step


def _unknown_fields(document: Any, known: Any, path: tuple[int | str, ...]) -> Iterator[tuple[int | str, ...]]:
    if isinstance(document, Mapping) and isinstance(known, Mapping):
        for name, child in document.items():
            if name in known:
                yield from _unknown_fields(child, known[name], (*path, name))
            else:
                yield (*path, name)
    elif isinstance(document, list) and isinstance(known, list | tuple):
        for index, (child, known_child) in enumerate(zip(document, known, strict=True)):
            yield from _unknown_fields(child, known_child, (*path, index))


def _field(path: Sequence[int | str]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")
