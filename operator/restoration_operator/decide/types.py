"""What decisions are made from and what they consist of.

The rule that joins them is *record, then act*: a decision's status is written first; its actions are carried out only
when the stored status already says what it should. A crash anywhere in between leaves a status from which the same
actions follow again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

from restoration_api.outcome import Outcome, Progress
from restoration_api.resources import ProfileSpec, VideoRestoration, VideoRestorationStatus
from restoration_operator.build.job import Plan, build_job
from restoration_operator.build.light import LightResources
from restoration_operator.build.snapshot import Snapshot, profile_text
from restoration_operator.views import JobView, PodView, WarningEvent

ProfileKind = Literal["ClusterRestorationProfile", "RestorationProfile", "Builtin"]

PlanJobs = Literal["Always", "GPU", "Never"]
"""For which profiles a Job of its own plans before another one restores; `GPU`: those that ask for GPUs."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The profile that a restoration refers to, as it is now."""

    kind: ProfileKind
    name: str
    generation: int | None
    """None for the built-in profile, which is a file."""
    spec: ProfileSpec

    @cached_property
    def text(self) -> str:
        """`profile.json` of a snapshot; written once, for one profile serves thousands of decisions."""
        return profile_text(self.spec)


@dataclass(frozen=True, kw_only=True)
class NoProfile:
    """Why there is none."""

    reason: Literal["ProfileNotFound", "ProfileNotReady"]
    message: str


@dataclass(frozen=True, kw_only=True)
class Rival:
    """Another unfinished restoration with the same output URI."""

    uid: str
    namespace: str
    name: str
    created: datetime | None
    reserved: bool
    """It has an execution number already."""
    endpoint: str | None
    """Resolved endpoint of its output; None where it cannot be resolved (yet)."""


@dataclass(frozen=True, kw_only=True)
class Slots:
    """How many Jobs of a profile exist, and how many older restorations wait for one."""

    active: int
    ahead: int


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """The API server did not take a child; `reason` is the condition's."""

    reason: Literal["ChildRejected", "NameConflict"]
    message: str
    retry_at: datetime


@dataclass(frozen=True, kw_only=True)
class StoredSnapshot:
    """What a snapshot's name holds in the API server; `content` is None if nothing usable is there."""

    name: str
    content: Snapshot | None


@dataclass(frozen=True, kw_only=True)
class PolledProgress:
    """One answer of a runner and the pod that gave it."""

    pod_uid: str
    progress: Progress
    unchanged_since: datetime
    """When it began to say just this, by the operator's clock: that of a runner may be wrong."""


@dataclass(frozen=True, kw_only=True)
class QueueWord:
    """What Kueue says about the wait of a Job; the message is empty if it says nothing."""

    job_uid: str
    message: str
    read_at: datetime


@dataclass(frozen=True, kw_only=True)
class Observation:
    """Everything that a decision about one restoration may depend on, besides the time."""

    restoration: VideoRestoration
    jobs: tuple[JobView, ...] = ()
    """Jobs with this uid as controlling owner."""
    pods: tuple[PodView, ...] = ()
    """Runner pods with this uid, gone ones included as far as they are remembered."""
    profile: Profile | NoProfile
    rivals: tuple[Rival, ...] = ()
    slots: Slots = Slots(active=0, ahead=0)
    queue: QueueWord | None = None
    """None: not looked at."""
    queue_readable: bool = False
    """Whether Kueue's Workloads may be read."""
    place_told_at: datetime | None = None
    """When its place in line was written last, or first seen, by this process."""
    polled: PolledProgress | None = None
    snapshot: StoredSnapshot | None = None
    """None: not looked at."""
    refusal: Refusal | None = None
    warnings: Mapping[str, WarningEvent] = field(default_factory=dict)
    """Newest Warning event by the uid of the object that it is about, as far as it was read."""
    nodes_ready: Mapping[str, bool] = field(default_factory=dict)
    """By name, as far as it was read; a node that does not exist is not ready."""
    confirmed: bool = False
    """Jobs and pods were listed from the API server for this very decision: what is missing does not exist."""
    lost_node_seconds: int = 300
    stale_progress: timedelta = timedelta(minutes=10)
    caused_at: datetime | None = None
    """When the reason of `Scheduled` changed last, as far as this process knows: a condition does not say."""
    worded_at: datetime | None = None
    """The same of its message."""
    plan_jobs: PlanJobs = "Always"
    light: LightResources = field(default_factory=LightResources)
    """What Jobs are given that need no GPU."""


# What a decision may ask to be read before it is made again.


@dataclass(frozen=True)
class LookAtChildren:
    """List Jobs and pods of this restoration: the store may lag behind, and something seems to be missing."""


@dataclass(frozen=True)
class LookAtSnapshot:
    """Read the snapshot ConfigMap."""

    name: str


@dataclass(frozen=True)
class LookAtEvents:
    """Read the newest Warning event of an object: Kubernetes says "why" only there."""

    uid: str


@dataclass(frozen=True)
class LookAtNode:
    """Read whether a node is ready."""

    name: str


@dataclass(frozen=True)
class LookAtQueue:
    """Read the Workload of a Job that is held back."""

    job_uid: str


Look = LookAtChildren | LookAtSnapshot | LookAtEvents | LookAtNode | LookAtQueue


# What a decision may ask to be done.


@dataclass(frozen=True)
class EnsureSnapshot:
    """Create the ConfigMap, or find out what lies at its name."""

    name: str
    snapshot: Snapshot


@dataclass(frozen=True)
class CreateJob:
    """Create the Job, or adopt the one of that name if it is ours and alive. Comes after its `EnsureSnapshot`."""

    plan: Plan

    @property
    def manifest(self) -> dict[str, Any]:
        """Built when it is asked for: of two decisions about a new Job, the first only reserves its number."""
        return build_job(self.plan)


class Propagation(StrEnum):
    """What becomes of an object's dependants; there is no default on purpose."""

    FOREGROUND = "Foreground"
    BACKGROUND = "Background"


@dataclass(frozen=True)
class DeleteJob:
    """Delete a Job and its pods."""

    job: JobView
    propagation: Propagation


@dataclass(frozen=True)
class SetJobTtl:
    """Let the TTL controller remove a finished Job; only after its end is recorded."""

    job: JobView
    seconds: int


@dataclass(frozen=True)
class DeleteRestoration:
    """`ttlSecondsAfterFinished` has passed."""


Action = EnsureSnapshot | CreateJob | DeleteJob | SetJobTtl | DeleteRestoration


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The status that should be stored, and what to do once it is.

    If `looks` is not empty, nothing is written or done: read these and decide again.
    """

    status: VideoRestorationStatus
    actions: tuple[Action, ...] = ()
    looks: tuple[Look, ...] = ()
    wake_at: datetime | None = None
    """Decide again at this time even if nothing happens."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How an execution ended."""

    succeeded: bool
    reason: str
    """`Completed` or `CacheHit`, a class of failure, or `Suspended`."""
    message: str
    exit_code: int | None = None
    outcome: Outcome | None = None
    pod: PodView | None = None
    at: datetime | None = None
    """By the container's clock, where it is known."""
    evidence_missing: bool = False
    """Nothing is left that would tell: pod, exit code and report are gone, and only the bucket knows."""
