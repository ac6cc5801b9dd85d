"""How each kind is registered: names, scope, and what `kubectl get` prints; `schema.py` makes CRDs of it."""

from dataclasses import dataclass
from typing import Literal

from restoration_api.resources.common import GROUP, Part
from restoration_api.resources.profile import ClusterRestorationProfile, RestorationProfile
from restoration_api.resources.restoration import VideoRestoration


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of `kubectl get`; `wide` ones appear with `-o wide` only."""

    name: str
    path: str
    type: Literal["string", "integer", "date"] = "string"
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Definition:
    """One kind as the API server knows it."""

    model: type[Part]
    plural: str
    short_name: str
    scope: Literal["Namespaced", "Cluster"]
    columns: tuple[Column, ...]
    selectable: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return self.model.__name__

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def crd_name(self) -> str:
        return f"{self.plural}.{GROUP}"


_AGE = Column(name="Age", path=".metadata.creationTimestamp", type="date")

RESTORATION = Definition(
    model=VideoRestoration,
    plural="videorestorations",
    short_name="vr",
    scope="Namespaced",
    selectable=(".spec.profileRef.name", ".status.phase"),
    columns=(
        Column(name="Phase", path=".status.phase"),
        Column(name="Progress", path=".status.progress.summary"),
        Column(name="Attempts", path=".status.attempts.executions", type="integer"),
        _AGE,
        Column(name="Reason", path='.status.conditions[?(@.type=="Succeeded")].reason', wide=True),
        Column(name="Profile", path=".spec.profileRef.name", wide=True),
        # A string, since a date column shows how long ago something was, and `<invalid>` for what is still to come.
        Column(name="ETA", path=".status.progress.estimatedCompletionTime", wide=True),
        Column(name="Node", path=".status.worker.nodeName", wide=True),
        Column(name="Output", path=".status.output.uri", wide=True),
    ),
)

_PROFILE_COLUMNS = (
    Column(name="Model", path=".spec.model.name"),
    Column(name="GPUs", path=".spec.gpu.count", type="integer"),
    Column(name="Ready", path='.status.conditions[?(@.type=="Ready")].status'),
    _AGE,
)

CLUSTER_PROFILE = Definition(
    model=ClusterRestorationProfile,
    plural="clusterrestorationprofiles",
    short_name="crprof",
    scope="Cluster",
    columns=_PROFILE_COLUMNS,
)

PROFILE = Definition(
    model=RestorationProfile,
    plural="restorationprofiles",
    short_name="rprof",
    scope="Namespaced",
    columns=_PROFILE_COLUMNS,
)

DEFINITIONS = (RESTORATION, CLUSTER_PROFILE, PROFILE)
