"""A restoration as the commands see it.

Only metadata, status and the few fields of the spec that are shown are read: an object of a newer schema, with a codec
that this program has never heard of, can still be listed, watched, suspended and cancelled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import ValidationError

from restoration_api.resources import Condition, ConditionType, Metadata, VideoRestorationStatus
from restoration_cli.errors import CommandError

OPERATOR = "videorestoration.dev/operator"


@dataclass(frozen=True)
class Restoration:
    """One `VideoRestoration`. `body` is the object as the API server sent it."""

    metadata: Metadata
    status: VideoRestorationStatus
    body: Mapping[str, Any]

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Read an object.

        Raises:
            CommandError: metadata or status is of a form that this version does not know.
        """
        try:
            metadata = Metadata.model_validate(body.get("metadata") or {})
            return cls(metadata, VideoRestorationStatus.model_validate(body.get("status") or {}), body)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            name = (body.get("metadata") or {}).get("name")
            raise CommandError(
                f"VideoRestoration {name}: {where} cannot be read; is there a newer version of kubectl-vr?"
            ) from error

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def key(self) -> tuple[str, str]:
        return self.metadata.namespace or "", self.metadata.name

    @property
    def spec(self) -> Mapping[str, Any]:
        spec: Mapping[str, Any] = self.body.get("spec") or {}
        return spec

    @property
    def finished(self) -> bool:
        return self.status.condition(ConditionType.FINISHED) == "True"

    @property
    def succeeded(self) -> bool:
        return self.finished and self.status.condition(ConditionType.SUCCEEDED) == "True"

    def condition(self, kind: ConditionType) -> Condition | None:
        """The condition, or None before the operator's first visit."""
        return next((item for item in self.status.conditions if item.type == kind), None)
