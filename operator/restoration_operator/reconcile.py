"""Observe, decide, apply: one restoration, until there is nothing left to do now.

The order is the safety: the status is stored first, on condition that nobody changed the object meanwhile, and actions
are carried out only when the stored status already says what they are about. Whatever a crash leaves half done follows
again from what is stored.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal, assert_never

import structlog

from restoration_api.resources import ConditionType, VideoRestoration, VideoRestorationStatus
from restoration_operator import metrics
from restoration_operator.build.light import LightResources
from restoration_operator.build.snapshot import PROFILE_KEY, REQUEST_KEY, Snapshot, config_map
from restoration_operator.clock import utc_now
from restoration_operator.cluster import ApiError, Cluster, Stored
from restoration_operator.decide.cleanup import Finished, after_the_end
from restoration_operator.decide.conditions import NOT_SCHEDULED, current
from restoration_operator.decide.decision import decide
from restoration_operator.decide.types import (
    Action,
    CreateJob,
    DeleteJob,
    DeleteRestoration,
    EnsureSnapshot,
    Look,
    LookAtChildren,
    LookAtEvents,
    LookAtNode,
    LookAtQueue,
    LookAtSnapshot,
    PlanJobs,
    QueueWord,
    Refusal,
    SetJobTtl,
    StoredSnapshot,
)
from restoration_operator.explainer import Explainer
from restoration_operator.store import Memory, Store
from restoration_operator.views import JobView

MOST_PASSES: Final = 20
"""A restoration takes at most a handful in a row; more means that two rules disagree."""
FIRST_REFUSAL_PAUSE_SECONDS: Final = 5
LONGEST_REFUSAL_PAUSE_SECONDS: Final = 300

log = structlog.get_logger()


class UnsettledError(Exception):
    """The decisions of one restoration do not come to rest: a defect of the operator."""


@dataclass
class Certain:
    """What was read from the API server during this reconciliation."""

    listed_for: str | None = None
    """Version of the restoration that was known when its Jobs and pods were listed, or what this reconciliation has
    made of that version. Of a Job that somebody else's version names the listing says nothing: another replica may have
    created it since."""
    nodes_ready: dict[str, bool] = field(default_factory=dict)


class Reconciler:
    """Brings restorations to where they should be."""

    def __init__(
        self,
        store: Store,
        cluster: Cluster,
        *,
        lost_node_seconds: int = 300,
        stale_progress_seconds: int = 600,
        kueue_workloads: bool = False,
        plan_jobs: PlanJobs = "Always",
        light: LightResources | None = None,
        clock: Callable[[], datetime] = utc_now,
        explainer: Explainer | None = None,
        announce: Callable[[VideoRestoration, VideoRestorationStatus], None] = lambda before, after: None,
        equip: Callable[[VideoRestoration, dict[str, Any]], dict[str, Any]] = lambda restoration, manifest: manifest,
    ) -> None:
        """`announce` is told of every status that was stored, with the restoration as it was before; `equip` adds to a
        Job's manifest what no decision depends on.
        """
        self._store = store
        self._cluster = cluster
        self._lost_node_seconds = lost_node_seconds
        self._stale_progress = timedelta(seconds=stale_progress_seconds)
        self._kueue_workloads = kueue_workloads
        self._plan_jobs = plan_jobs
        self._light = light or LightResources()
        self._clock = clock
        self._announce = announce
        self._equip = equip
        self._explainer = explainer or Explainer(cluster)

    async def reconcile(self, uid: str) -> datetime | None:
        """Do what is to do for one restoration; returns when to come again even if nothing happens.

        Raises:
            ApiError, UnreachableError: the API server did not do its part; to be tried again.
        """
        certain = Certain()
        for _ in range(MOST_PASSES):
            known = self._store.restoration(uid)
            if isinstance(known, VideoRestoration) and self._store.memory(uid).in_doubt:
                await self._look(known, LookAtChildren(), certain)
                self._store.memory(uid).in_doubt = False
            if known is None:
                return None
            if isinstance(known, Finished):
                return await self._tidy(known)
            memory = self._store.memory(uid)
            memory.place_told_at = memory.place_told_at or self._clock()
            seen = self._store.observe(
                known,
                confirmed=certain.listed_for == known.metadata.resource_version,
                nodes_ready=certain.nodes_ready,
                lost_node_seconds=self._lost_node_seconds,
                stale_progress=self._stale_progress,
                queue_readable=self._kueue_workloads,
                plan_jobs=self._plan_jobs,
                light=self._light,
            )
            decision = decide(seen, self._clock())
            if decision.looks:
                for look in decision.looks:
                    await self._look(known, look, certain)
            elif decision.status != known.status and (document := decision.status.to_json()) != known.status.to_json():
                await self._record(known, decision.status, document, certain)
            elif not await self._act(known, decision.actions):
                return decision.wake_at
        raise UnsettledError(f"restoration {uid} does not come to rest")

    async def _look(self, restoration: VideoRestoration, look: Look, certain: Certain) -> None:
        meta = restoration.metadata
        namespace, memory = meta.namespace or "", self._store.memory(meta.uid)
        match look:
            case LookAtChildren():
                jobs, pods = await self._cluster.children(namespace, meta.uid)
                self._store.replace_children(meta.uid, jobs=jobs, pods=pods)
                await self._look_by_name(restoration)
                certain.listed_for = meta.resource_version
            case LookAtSnapshot(name):
                content = _snapshot(await self._cluster.config_map(namespace, name))
                memory.snapshot = StoredSnapshot(name=name, content=content)
            case LookAtEvents(uid):
                known = memory.warnings.get(uid)
                memory.warnings[uid] = await self._explainer.explain(namespace, uid, known, self._clock())
            case LookAtNode(name):
                # Where nodes may not be read, time alone decides.
                certain.nodes_ready[name] = bool(await self._cluster.node_is_ready(name))
            case LookAtQueue(job_uid):
                message = await self._cluster.queue_message(namespace, job_uid)
                memory.queue = QueueWord(job_uid=job_uid, message=message, read_at=self._clock())
            case _:
                assert_never(look)

    async def _look_by_name(self, restoration: VideoRestoration) -> None:
        """The listing goes by labels, which anybody may change; a Job is gone only when its name says so, too."""
        meta, name = restoration.metadata, restoration.status.job_name
        if name is None or any(job.name == name for job in self._store.jobs(meta.uid)):
            return
        body = await self._cluster.job(meta.namespace or "", name)
        if body is not None and JobView.of(body).owner_uid == meta.uid:
            self._store.put_job(body)

    async def _record(
        self,
        restoration: VideoRestoration,
        status: VideoRestorationStatus,
        document: dict[str, Any],
        certain: Certain,
    ) -> None:
        """Store a status; `document` is the same as JSON."""
        meta = restoration.metadata
        stored = await self._cluster.apply_status(restoration, document)
        if stored is Stored.CONFLICT:
            # Drop the decision. A GET rather than waiting for the watch: it may be long behind.
            fresh = await self._cluster.restoration(meta.namespace or "", meta.name)
            if fresh is not None and fresh["metadata"]["uid"] == meta.uid:
                self._store.put_restoration(fresh)
                return
            stored = Stored.GONE
        if isinstance(stored, Stored):
            self._store.drop_restoration(meta.uid)
            return
        if stored["metadata"]["uid"] != meta.uid:
            raise AssertionError("the resourceVersion precondition let a namesake through")
        if certain.listed_for == meta.resource_version:
            certain.listed_for = stored["metadata"]["resourceVersion"]
        job = next((job for job in self._store.jobs(meta.uid) if job.name == status.job_name), None)
        self._store.memory(meta.uid).place_told_at = self._clock()
        self._remember_wait(restoration, status)
        self._store.put_restoration(stored)
        metrics.recorded(restoration.status, status, job_ended=job.end.at if job and job.end else None)
        _log_transition(restoration, status)
        self._announce(restoration, status)

    def _remember_wait(self, restoration: VideoRestoration, status: VideoRestorationStatus) -> None:
        """Since when the stored wait has its reason, and its words: conditions tell neither."""
        before = current(restoration.status, ConditionType.SCHEDULED, NOT_SCHEDULED)
        after = current(status, ConditionType.SCHEDULED, NOT_SCHEDULED)
        memory = self._store.memory(restoration.metadata.uid)
        memory.caused_at = memory.caused_at if before.reason == after.reason else self._clock()
        memory.worded_at = memory.worded_at if before.message == after.message else self._clock()

    async def _act(self, restoration: VideoRestoration, actions: tuple[Action, ...]) -> bool:
        """Carry out actions in order; returns whether they changed what a decision depends on."""
        changed = False
        for action in actions:
            match action:
                case EnsureSnapshot():
                    if not await self._ensure_snapshot(restoration, action):
                        return True
                case CreateJob():
                    if self._overtaken(restoration):
                        return True
                    await self._create_job(restoration, action.manifest)
                    changed = True
                case DeleteJob():
                    changed = await self._delete_job(action) or changed
                case SetJobTtl():
                    await self._set_job_ttl(action)
                case DeleteRestoration():
                    raise AssertionError("an action for a finished restoration only")
                case _:
                    assert_never(action)
        return changed

    def _overtaken(self, restoration: VideoRestoration) -> bool:
        """Whether the object has changed since it was decided on: while the snapshot was written, it may have ended."""
        known = self._store.restoration(restoration.metadata.uid)
        return (
            not isinstance(known, VideoRestoration)
            or known.metadata.resource_version != restoration.metadata.resource_version
        )

    async def _ensure_snapshot(self, restoration: VideoRestoration, wanted: EnsureSnapshot) -> bool:
        """Whether the ConfigMap now holds exactly what the Job will be told."""
        memory = self._store.memory(restoration.metadata.uid)
        if memory.snapshot == StoredSnapshot(name=wanted.name, content=wanted.snapshot):
            return True
        try:
            created = await self._cluster.create_config_map(config_map(restoration, wanted.snapshot, wanted.name))
        except ApiError as error:
            self._refused(memory, error)
            return False
        memory.snapshot = StoredSnapshot(name=wanted.name, content=_snapshot(created.body))
        return memory.snapshot.content == wanted.snapshot

    async def _create_job(self, restoration: VideoRestoration, manifest: dict[str, Any]) -> None:
        uid = restoration.metadata.uid
        memory = self._store.memory(uid)
        memory.in_doubt = True
        try:
            created = await self._cluster.create_job(self._equip(restoration, manifest))
        except ApiError as error:
            memory.in_doubt = False
            self._refused(memory, error)
            return
        memory.in_doubt = False
        view = JobView.of(created.body)
        if view.owner_uid != uid:
            message = f"a Job named {view.name} exists already and is not this restoration's; delete it"
            self._refuse(memory, "NameConflict", message)
            return
        self._store.put_job(created.body)
        if view.execution == 1 and not created.existed:
            metrics.job_created(restoration)
        memory.refusal, memory.refusals, memory.snapshot = None, 0, None
        log.info("job adopted" if created.existed else "job created", job=view.name, **_names(restoration))

    async def _delete_job(self, action: DeleteJob) -> bool:
        """Whether more is known of the Job than before: that it is going, or gone."""
        left = await self._cluster.delete_job(action.job, action.propagation)
        if left is None:
            self._store.drop_job(action.job.uid)
        else:
            self._store.put_job(left)
        log.info("job deleted", namespace=action.job.namespace, job=action.job.name, propagation=action.propagation)
        return left is None or not action.job.deleting

    async def _set_job_ttl(self, action: SetJobTtl) -> None:
        job = await self._cluster.set_job_ttl(action.job, action.seconds)
        if job is not None:
            self._store.put_job(job)

    async def _tidy(self, over: Finished) -> datetime | None:
        """Release what a finished restoration still holds."""
        default = self._store.default_ttl_seconds(over)
        jobs = self._store.jobs(over.uid)
        actions, due = after_the_end(over, jobs, default_ttl_seconds=default, now=self._clock())
        for action in actions:
            match action:
                case SetJobTtl():
                    await self._set_job_ttl(action)
                case DeleteJob():
                    await self._delete_job(action)
                case DeleteRestoration():
                    await self._cluster.delete_restoration(over.namespace, over.name, over.uid)
                    log.info("restoration deleted", namespace=over.namespace, name=over.name, why="ttl")
                case EnsureSnapshot() | CreateJob():
                    raise AssertionError("nothing is started for a finished restoration")
                case _:
                    assert_never(action)
        return due

    def _refused(self, memory: Memory, error: ApiError) -> None:
        if not error.rejected:
            raise error
        self._refuse(memory, "ChildRejected", error.message)

    def _refuse(self, memory: Memory, reason: Literal["ChildRejected", "NameConflict"], message: str) -> None:
        pause = min(FIRST_REFUSAL_PAUSE_SECONDS * 2**memory.refusals, LONGEST_REFUSAL_PAUSE_SECONDS)
        memory.refusals = min(memory.refusals + 1, 10)
        retry_at = self._clock() + timedelta(seconds=pause)
        memory.refusal = Refusal(reason=reason, message=message, retry_at=retry_at)


def _snapshot(body: dict[str, Any] | None) -> Snapshot | None:
    """Content of a ConfigMap; None if it is not there, on its way out, mutable, or lacks a file."""
    if body is None or body["metadata"].get("deletionTimestamp") or not body.get("immutable"):
        return None
    data = body.get("data") or {}
    if REQUEST_KEY not in data or PROFILE_KEY not in data:
        return None
    return Snapshot(profile_json=data[PROFILE_KEY], request_json=data[REQUEST_KEY])


def _log_transition(restoration: VideoRestoration, status: VideoRestorationStatus) -> None:
    before = restoration.status
    if status.phase != before.phase:
        log.info("phase", phase=status.phase, before=before.phase, **_names(restoration))
    finished = next((item for item in status.conditions if item.type == ConditionType.FINISHED), None)
    if finished is None or finished.status != "True" or before.condition(ConditionType.FINISHED) == "True":
        return
    log.info("finished", reason=finished.reason, message=finished.message, **_names(restoration))


def _names(restoration: VideoRestoration) -> dict[str, Any]:
    meta = restoration.metadata
    return {"namespace": meta.namespace, "name": meta.name, "uid": meta.uid}
