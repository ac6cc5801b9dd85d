"""What the custom resources are made of: a tolerant base model, scalar types and their wire formats, metadata.

The API server has validated, defaulted and pruned an object before anybody here sees it. The models therefore ignore
fields they do not know (a newer schema may be installed than this program was built with) and read only what the
programs need.

Two kinds of default are kept apart on purpose: `default=` is written into the CRD and applied by the API server;
`default_factory=` exists in Python only and leaves "unset" visible to whoever asks the API server.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    Strict,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from restoration_api.resources.rules import VALIDATIONS, Rule

GROUP = "videorestoration.dev"
VERSION = "v1alpha1"
API_VERSION: Literal["videorestoration.dev/v1alpha1"] = "videorestoration.dev/v1alpha1"

# Words that Kubernetes field names write in capitals, unless they come first.
_CAPITALS = {"gpu": "GPU", "https": "HTTPS", "mib": "MiB", "ttl": "TTL"}

# Marks a field that only the cluster-scoped kind has; the generator removes the mark, and for other kinds the field.
CLUSTER_ONLY_MARK = "x-restoration-cluster-only"
CLUSTER_ONLY: dict[str, Any] = {CLUSTER_ONLY_MARK: True}
# Lists the members of a union; the generator turns it into a CEL rule about the members that are left.
UNION_MARK = "x-restoration-union"
# The default of a whole object, given by its parts; the generator takes it as it is.
DEFAULT_MARK = "x-restoration-default"
# A status that nobody has written is one of no generation. kstatus (Flux, `helm --wait`) takes an object without any
# status for one that is ready; this one it waits for.
NOT_LOOKED_AT: dict[str, Any] = {DEFAULT_MARK: {"observedGeneration": -1}}


def field_name(python_name: str) -> str:
    """`job_ttl_seconds` → `jobTTLSeconds`: the JSON name of a field."""
    first, *others = python_name.split("_")
    return first + "".join(_CAPITALS.get(word, word.capitalize()) for word in others)


class Part(BaseModel):
    """Base of every object inside a custom resource: frozen, camelCase in JSON, tolerant of unknown fields."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=field_name, populate_by_name=True)

    rules: ClassVar[tuple[Rule, ...]] = ()
    """CEL rules about this object, in the order in which they appear in the CRD."""
    union: ClassVar[tuple[str, ...]] = ()
    """Python names of the fields of which exactly one must be set; empty for anything but a union."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        # Most classes have none, and a call of Python costs more than reading all that they consist of.
        bound = bool(cls.rules or cls.union)
        return core_schema.no_info_after_validator_function(cls._obey_rules, schema) if bound else schema

    def _obey_rules(self) -> Self:
        for rule in type(self).rules:
            rule.enforce(self)
        if self.union and sum(getattr(self, member) is not None for member in self.union) != 1:
            raise ValueError(f"set exactly one of {', '.join(map(field_name, self.union))}")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        document = handler.resolve_ref_schema(handler(schema))
        if cls.rules:
            document[VALIDATIONS] = [rule.entry() for rule in cls.rules]
        if cls.union:
            document[UNION_MARK] = [field_name(member) for member in cls.union]
        return document

    def to_json(self) -> dict[str, Any]:
        """The object as the API server expects it: camelCase, times as RFC 3339 strings, unset fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def rfc3339(moment: datetime) -> str:
    """Whole seconds in UTC, the form in which Kubernetes itself writes times."""
    # Not `strftime`: it costs ten times as much, and an operator writes a million of these.
    return moment.astimezone(UTC).isoformat(timespec="seconds").removesuffix("+00:00") + "Z"


Int32 = Annotated[int, Strict(), Field(json_schema_extra={"format": "int32"})]
Int64 = Annotated[int, Strict(), Field(json_schema_extra={"format": "int64"})]
Double = Annotated[float, Strict(), Field(json_schema_extra={"format": "double"})]
Boolean = Annotated[bool, Strict()]
Time = Annotated[AwareDatetime, PlainSerializer(rfc3339, when_used="json")]

_INT_OR_STRING: dict[str, Any] = {
    "x-kubernetes-int-or-string": True,
    "anyOf": [{"type": "integer"}, {"type": "string"}],
}
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
# A size as Kubernetes writes it, judged by the API server when the Job is created.
IntOrString = Annotated[Annotated[int, Strict()] | str, WithJsonSchema(_INT_OR_STRING)]
# An amount of a resource: a bounded form of the same, since a typing mistake here would surface only in a Job.
Quantity = Annotated[
    Annotated[int, Strict()] | Annotated[str, Field(pattern=_QUANTITY)],
    WithJsonSchema(_INT_OR_STRING | {"pattern": _QUANTITY}),
]
# Any JSON object, kept as it is.
FreeForm = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})]

# Values that the VideoRestoration and a profile's defaults must bound alike.
Seed = Annotated[Int64, Field(ge=0, le=4294967295)]
Strength = Annotated[Double, Field(ge=0, le=1)]
SegmentFrames = Annotated[Int32, Field(ge=1, le=100000)]
OverlapFrames = Annotated[Int32, Field(ge=0, le=512, multiple_of=4)]
ShortSide = Annotated[Int32, Field(ge=64, le=4320, multiple_of=2)]
ScaleFactor = Annotated[Int32, Field(ge=1, le=8)]
Crf = Annotated[Int32, Field(ge=0, le=63)]
ImagePullPolicy = Literal["Always", "IfNotPresent", "Never"]
StorageName = Annotated[str, Field(min_length=1, max_length=63)]
ObjectName = Annotated[str, Field(min_length=1, max_length=253)]

CRF_NEEDS_CODEC = Rule(
    cel='!has(self.crf) || !has(self.codec) || !(self.codec in ["ProRes", "FFV1"])',
    field_path=".crf",
    message="crf does not apply to ProRes and FFV1",
    holds=lambda it: it.crf is None or it.codec not in ("ProRes", "FFV1"),
)
CRF_RANGE = Rule(
    cel='!has(self.crf) || !has(self.codec) || self.codec in ["AV1"] || self.crf <= 51',
    field_path=".crf",
    message="crf is 0-51 for H264 and HEVC, 0-63 for AV1",
    holds=lambda it: it.crf is None or it.codec is None or it.codec == "AV1" or it.crf <= 51,
)


class OwnerReference(Part):
    """Who owns an object; the API server deletes the object after its owner."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False


class Metadata(Part):
    """The part of `metadata` that the programs read; `managedFields` and the rest are dropped while parsing."""

    name: str = ""
    namespace: str | None = None
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    labels: Mapping[str, str] = Field(default_factory=dict)
    annotations: Mapping[str, str] = Field(default_factory=dict)
    owner_references: tuple[OwnerReference, ...] = ()


class Condition(Part):
    """One `metav1.Condition`."""

    type: str = Field(max_length=316, pattern="^[A-Za-z][A-Za-z0-9]*$", description="What this condition is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether the condition holds.")
    observed_generation: Int64 | None = Field(
        default=None, ge=0, description="metadata.generation that this condition was computed from."
    )
    last_transition_time: Time = Field(description="When `status` last changed.")
    reason: str = Field(
        min_length=1,
        max_length=1024,
        pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        description="One CamelCase word for programs.",
    )
    message: str = Field(max_length=32768, description="One sentence for people.")
