"""Rules that plain OpenAPI cannot say, each written once for the API server and once for Python.

The API server judges what users apply, in CEL. The same models also read documents that no API server has seen, above
all the built-in default profile from the chart's values, so every rule carries its Python twin. The table in
`tests/cluster/test_crd_validation.py` puts the same objects before both judges and fails when they disagree.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

VALIDATIONS = "x-kubernetes-validations"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One CEL rule and its Python twin.

    Stands in a model's `rules`, or in `Annotated[...]` for a rule about a single value. `field_path` is where the API
    server reports the violation, relative to the value that the rule is about. `holds` receives the parsed value; it
    is None for transition rules (they compare with `oldSelf`), which only the API server can judge.
    """

    cel: str
    message: str
    field_path: str | None = None
    reason: Literal["FieldValueForbidden"] | None = None
    holds: Callable[[Any], bool] | None = None

    def entry(self) -> dict[str, str]:
        """The rule as an element of `x-kubernetes-validations`."""
        entry = {"rule": self.cel, "message": self.message}
        if self.field_path is not None:
            entry["fieldPath"] = self.field_path
        if self.reason is not None:
            entry["reason"] = self.reason
        return entry

    def enforce(self, value: Any) -> Any:
        """Return `value`, or raise ValueError with the message that the API server would give."""
        if self.holds is not None and not self.holds(value):
            raise ValueError(self.message)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.enforce, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        document = handler(schema)
        document.setdefault(VALIDATIONS, []).append(self.entry())
        return document


def immutable(field: str, *, optional: bool, remedy: str = "") -> Rule:
    """The field never changes, and if it is optional it is neither added nor removed.

    The rule belongs to the parent: on the field itself `self == oldSelf` is not evaluated when an optional field
    appears or disappears (Kubernetes, CRD documentation on transition rules), which would leave a hole.
    """
    same = f"self.{field} == oldSelf.{field}"
    if optional:
        same = f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || {same})"
    message = f"{field} is immutable" + (f"; {remedy}" if remedy else "")
    return Rule(cel=same, message=message, field_path=f".{field}", reason="FieldValueForbidden")


@dataclass(frozen=True)
class ListMap:
    """A list that the API server merges by `key`; two elements with the same key are refused."""

    key: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._distinct, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [self.key]}

    def _distinct(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        keys = [getattr(element, self.key) for element in value]
        repeated = {key for key in keys if keys.count(key) > 1}
        if repeated:
            raise ValueError(f"two entries have the same {self.key}: {', '.join(sorted(map(str, repeated)))}")
        return value


@dataclass(frozen=True)
class ListSet:
    """A list in which no value appears twice."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._distinct, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {"x-kubernetes-list-type": "set"}

    @staticmethod
    def _distinct(value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a value appears twice")
        return value
