"""What the contracts have in common: one JSON form, strict reading, canonical writing.

Every message that crosses a line between two programs (or between a program and its later self) is a `Contract`.
JSON names are camelCase, Python names snake_case. Unknown fields are refused: a message with a field that its reader
does not know was written by a newer program, and to ignore the field would be to do something else than was asked.
"""

import hashlib
import json
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Contract(BaseModel):
    """Immutable message part; camelCase in JSON, both spellings accepted in Python."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    def to_json(self) -> str:
        """The canonical JSON text of this message (see `canonical_json`)."""
        return canonical_json(self.model_dump(mode="json", by_alias=True, exclude_none=True))

    def content_hash(self) -> str:
        """Hex sha256 of the canonical JSON text."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a message.

        Raises:
            pydantic.ValidationError: the text is not JSON, or not this message.
        """
        return cls.model_validate_json(text)


class VersionedContract(Contract):
    """A whole message: carries the version of its schema as `schema`."""

    schema_version: Literal[1] = Field(default=1, alias="schema")


def canonical_json(value: Any) -> str:
    """Equal values give equal text: sorted keys, no spaces, shortest decimals, integral floats as integers.

    The last rule makes `1` and `1.0` hash alike: a person may write a strength either way and means the same.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot hold.
    """
    return json.dumps(_integral(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _integral(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _integral(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_integral(item) for item in value]
    return value
