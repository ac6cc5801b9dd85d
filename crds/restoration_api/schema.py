"""From the pydantic models to CustomResourceDefinitions.

A CRD wants a *structural* OpenAPI v3 schema: no `$ref`, no `null` alternatives, one type per value, plus the
`x-kubernetes-*` extensions. pydantic's JSON Schema says the same things in another form; this module translates.
Nothing is edited afterwards.
"""

from collections.abc import Mapping
from typing import Any

from restoration_api.resources.common import CLUSTER_ONLY_MARK, DEFAULT_MARK, GROUP, UNION_MARK, VERSION, Part
from restoration_api.resources.definitions import DEFINITIONS, Column, Definition
from restoration_api.resources.rules import VALIDATIONS

JsonSchema = dict[str, Any]

# Order of keys in the generated files: what a value is, before what it may be, before what lies inside it.
_ORDER = (
    "description", "type", "format", "x-kubernetes-int-or-string", "anyOf", "enum", "default", "minimum", "maximum",
    "multipleOf", "minLength", "maxLength", "pattern", "minItems", "maxItems", "minProperties", "maxProperties",
    "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-preserve-unknown-fields", VALIDATIONS,
    "required", "properties", "additionalProperties", "items",
)  # fmt: skip


def custom_resource_definitions() -> dict[str, JsonSchema]:
    """Every CRD by its object name, which is also the stem of its file in `crds/`."""
    return {definition.crd_name: custom_resource_definition(definition) for definition in DEFINITIONS}


def custom_resource_definition(definition: Definition) -> JsonSchema:
    """The CRD of one kind, ready for `kubectl apply`."""
    version: JsonSchema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_column(column) for column in definition.columns],
        "schema": {"openAPIV3Schema": _root(definition)},
    }
    if definition.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in definition.selectable]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        # Uninstalling the chart must not delete every restoration of the cluster.
        "metadata": {"name": definition.crd_name, "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": {
            "group": GROUP,
            "scope": definition.scope,
            "names": {
                "kind": definition.kind,
                "listKind": f"{definition.kind}List",
                "plural": definition.plural,
                "singular": definition.singular,
                "shortNames": [definition.short_name],
                "categories": ["restoration"],
            },
            "versions": [version],
        },
    }


def _column(column: Column) -> JsonSchema:
    entry: JsonSchema = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return entry | {"priority": 1} if column.wide else entry


def structural_schema(model: type[Part], *, cluster_scoped: bool) -> JsonSchema:
    """The structural schema of a model; `cluster_scoped` keeps the fields that only cluster-scoped kinds have.

    Raises:
        ValueError: the model says something that a structural schema cannot.
    """
    document = model.model_json_schema(by_alias=True, mode="validation")
    return _Structural(document.pop("$defs", {}), cluster_scoped=cluster_scoped).translate(document)


def _root(definition: Definition) -> JsonSchema:
    schema = structural_schema(definition.model, cluster_scoped=definition.scope == "Cluster")
    return {
        "description": schema["description"],
        "type": "object",
        "required": ["spec"],
        "properties": {
            # The API server owns these three and allows no more than their types to be said.
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": schema["properties"]["spec"],
            "status": schema["properties"]["status"],
        },
    }


class _Structural:
    """Translates pydantic's JSON Schema nodes; `cluster_scoped` keeps the fields marked for that scope only."""

    def __init__(self, definitions: Mapping[str, JsonSchema], *, cluster_scoped: bool) -> None:
        self._definitions = definitions
        self._cluster_scoped = cluster_scoped

    def translate(self, node: JsonSchema) -> JsonSchema:
        """The structural schema of one node of pydantic's.

        Raises:
            ValueError: the node says something that a structural schema cannot.
        """
        node = self._flatten(node)
        unknown = sorted(set(node) - set(_ORDER))
        if unknown:
            raise ValueError(f"a structural schema cannot say {', '.join(unknown)}: {node}")
        if "properties" in node:
            node["properties"] = {name: self.translate(child) for name, child in node["properties"].items()}
        if "items" in node:
            node["items"] = self.translate(node["items"])
        if "additionalProperties" in node:
            node["additionalProperties"] = self.translate(node["additionalProperties"])
        return {key: node[key] for key in _ORDER if key in node}

    def _flatten(self, node: JsonSchema) -> JsonSchema:
        """`node` itself, without references, `null` alternatives and pydantic's decoration."""
        node = {key: value for key, value in node.items() if key not in ("title", CLUSTER_ONLY_MARK)}
        alternatives = [option for option in node.get("anyOf", ()) if option != {"type": "null"}]
        if len(alternatives) == 1:
            del node["anyOf"]
            node = self._flatten(alternatives[0]) | node
        if "$ref" in node:
            target = self._definitions[node.pop("$ref").rpartition("/")[2]]
            # What a field says of itself comes before the docstring of its class.
            node = self._flatten(target) | node
        if "const" in node:
            node["enum"] = [node.pop("const")]
        if "properties" in node:
            node = self._select(node)
        if "default" in node:
            node = _default(node)
        if DEFAULT_MARK in node:
            node["default"] = node.pop(DEFAULT_MARK)
        return node

    def _select(self, node: JsonSchema) -> JsonSchema:
        """The object without the fields that this scope does not have, and with a rule for its union if it is one."""
        fields = {
            name: child
            for name, child in node["properties"].items()
            if self._cluster_scoped or CLUSTER_ONLY_MARK not in child
        }
        node = node | {"properties": fields}
        members = [name for name in node.pop(UNION_MARK, ()) if name in fields]
        if members:
            present = ", ".join(f"has(self.{name})" for name in members)
            node[VALIDATIONS] = [
                *node.get(VALIDATIONS, ()),
                {
                    "rule": f"[{present}].filter(x, x).size() == 1",
                    "message": f"set exactly one of {', '.join(members)}",
                },
            ]
        return node


def _default(node: JsonSchema) -> JsonSchema:
    """None means "no default"; an object's default is `{}`, so that the defaults inside it stay in one place."""
    default = node.pop("default")
    if default is not None:
        node["default"] = {} if node.get("type") == "object" else default
    return node
