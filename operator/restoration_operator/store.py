"""What the operator knows of the cluster: slim views, kept up to date by watch events, own writes and listings.

Keys are uids: an object that is deleted and created again under its name is another object, and nothing known about
the first is ever taken for the second. A view is replaced only by a newer one (resource versions of one resource are
ordered, Kubernetes KEP-5504), so a late watch event cannot undo what the answer to an own write has told.

Pods that are deleted stay as what was seen last, until their restoration is over: `kubectl delete pod` removes the
object at once, and its exit code with it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from restoration_api.resources import ProfileSpec, VideoRestoration
from restoration_operator.decide.admission import output_endpoint
from restoration_operator.decide.classify import SUCCESS_REASONS
from restoration_operator.decide.cleanup import Finished, is_finished
from restoration_operator.decide.slots import standing
from restoration_operator.decide.types import (
    NoProfile,
    Observation,
    PolledProgress,
    Profile,
    QueueWord,
    Refusal,
    Rival,
    Slots,
    StoredSnapshot,
)
from restoration_operator.line import Lines
from restoration_operator.views import JobView, Listing, PodView, Running, WarningEvent

REMEMBERED_PODS: Final = 4
"""Gone pods kept per restoration; only the newest one's last words can matter."""

ProfileKey = tuple[str, str | None, str]
"""Kind, namespace (None for the cluster kind), name."""


@dataclass
class Memory:
    """What was found out about one restoration besides its objects. Lost at a restart, and found out again."""

    refusal: Refusal | None = None
    snapshot: StoredSnapshot | None = None
    polled: PolledProgress | None = None
    place_told_at: datetime | None = None
    caused_at: datetime | None = None
    worded_at: datetime | None = None
    queue: QueueWord | None = None
    warnings: dict[str, WarningEvent] = field(default_factory=dict)
    refusals: int = 0
    in_doubt: bool = False
    """A create got no answer: the Job may exist, and somebody may have deleted it again."""


@dataclass
class _Versioned:
    view: Any
    version: int


class Store:
    """All methods are synchronous and belong to one event loop."""

    def __init__(
        self,
        *,
        builtin_profile: Callable[[], Profile | NoProfile],
        complete: Callable[[ProfileSpec], ProfileSpec],
        wake: Callable[[str], None],
    ) -> None:
        """`builtin_profile` serves where no default profile exists, `complete` fills in what a profile leaves out, and
        `wake` is called with the uids of restorations that waited for something another one has just given up."""
        self._builtin_profile = builtin_profile
        self._complete = complete
        self._wake = wake
        self._restorations: dict[str, VideoRestoration | Finished] = {}
        self._jobs: dict[str, _Versioned] = {}
        self._pods: dict[str, _Versioned] = {}
        self._profiles: dict[ProfileKey, Profile] = {}
        self._profile_uids: dict[ProfileKey, str] = {}
        self._read: dict[str, int] = {}
        """Resource versions of profiles, and of objects that could not be read, by uid: they were delivered."""
        self._children: dict[str, set[str]] = {}
        """Uids of Jobs and pods by the uid of their restoration."""
        self._outputs: dict[str, dict[str, None]] = {}
        """Uids of unfinished restorations by output URI; in order, so that the same events always wake the same."""
        self._memories: dict[str, Memory] = {}
        self._lines = Lines()

    # What happened.

    def put_restoration(self, body: Mapping[str, Any]) -> str:
        """Take in an object of the API server; returns its uid.

        Raises:
            pydantic.ValidationError: the installed CRD lets through what this program cannot read.
        """
        uid: str = body["metadata"]["uid"]
        try:
            restoration = VideoRestoration.model_validate(body)
        except ValidationError:
            self._read[uid] = int(body["metadata"]["resourceVersion"])
            raise
        self._read.pop(uid, None)
        if self._outdated(self._restorations.get(uid), restoration):
            return uid
        before = self._restorations.get(uid)
        acknowledged = restoration.status.observed_generation == restoration.metadata.generation
        if is_finished(restoration) and acknowledged:
            self._restorations[uid] = Finished.of(restoration)
            self._unclaim(restoration)
            self._memories.pop(uid, None)
            self._forget_gone_pods(uid)
        else:
            self._restorations[uid] = restoration
            if is_finished(restoration):
                self._unclaim(restoration)
            else:
                self._outputs.setdefault(restoration.spec.output.uri, {})[uid] = None
        self._wake_waiting(before, restoration)
        return uid

    def drop_restoration(self, uid: str) -> None:
        """The object does not exist any more."""
        self._read.pop(uid, None)
        known = self._restorations.pop(uid, None)
        if isinstance(known, VideoRestoration):
            self._unclaim(known)
            self._wake_waiting(known, None)
        self._memories.pop(uid, None)
        self._forget_gone_pods(uid)

    def drop_namespace(self, name: str) -> None:
        """Nothing in it concerns this operator any more."""
        for uid, known in list(self._restorations.items()):
            namespace = known.namespace if isinstance(known, Finished) else known.metadata.namespace
            if namespace == name:
                for job in self.jobs(uid):
                    self.drop_job(job.uid)
                for pod in self.pods(uid):
                    self._drop(self._pods, pod.uid, lambda last: last.restoration_uid)
                self.drop_restoration(uid)
        self._profiles = {key: profile for key, profile in self._profiles.items() if key[1] != name}

    def put_job(self, body: Mapping[str, Any]) -> str:
        """Take in a Job; returns the uid of its controlling owner, empty if it has none."""
        view = JobView.of(body)
        self._put(self._jobs, view.uid, view.owner_uid, view, body)
        return view.owner_uid

    def drop_job(self, uid: str) -> None:
        """The Job does not exist any more."""
        self._drop(self._jobs, uid, lambda view: view.owner_uid)

    def put_pod(self, body: Mapping[str, Any]) -> str:
        """Take in a pod; returns the uid of its restoration, empty if it has none."""
        view = PodView.of(body)
        self._put(self._pods, view.uid, view.restoration_uid, view, body)
        return view.restoration_uid

    def drop_pod(self, uid: str, body: Mapping[str, Any] | None = None) -> None:
        """The pod does not exist any more; `body` is its last state, if that is known."""
        known = self._pods.get(uid)
        if body is not None:
            view = PodView.of(body, gone=True)
        elif known is not None:
            view = replace(known.view, gone=True)
        else:
            return
        if isinstance(self._restorations.get(view.restoration_uid), Finished):
            self._drop(self._pods, uid, lambda last: last.restoration_uid)
            return
        # A deleted pod never comes back under its uid: nothing is newer than that.
        self._pods[uid] = _Versioned(view=view, version=_LATEST)
        self._children.setdefault(view.restoration_uid, set()).add(uid)
        gone = sorted((pod for pod in self.pods(view.restoration_uid) if pod.gone), key=lambda pod: pod.made)
        for pod in gone[:-REMEMBERED_PODS]:
            self._drop(self._pods, pod.uid, lambda last: last.restoration_uid)

    def put_profile(self, body: Mapping[str, Any]) -> ProfileKey:
        """Take in a profile of either kind.

        Raises:
            pydantic.ValidationError: as `put_restoration`.
        """
        kind, meta = body["kind"], body["metadata"]
        key = (kind, meta.get("namespace"), meta["name"])
        self._profile_uids[key] = meta.get("uid", "")
        self._read[self._profile_uids[key]] = int(meta.get("resourceVersion", 0))
        self._profiles[key] = Profile(
            kind=kind,
            name=meta["name"],
            generation=meta.get("generation"),
            spec=self._complete(ProfileSpec.model_validate(body["spec"])),
        )
        return key

    def drop_profile(self, key: ProfileKey) -> None:
        """The profile does not exist any more."""
        self._profiles.pop(key, None)
        self._read.pop(self._profile_uids.pop(key, ""), None)

    # What is known.

    def replace_children(self, uid: str, *, jobs: Listing, pods: Listing) -> None:
        """Take in a listing of everything that one restoration owns: what is not in it does not exist."""
        for body in jobs.items:
            self.put_job(body)
        for body in pods.items:
            self.put_pod(body)
        self.prune_jobs(self.jobs(uid), jobs)
        self.prune_pods(self.pods(uid), pods)

    def prune_jobs(self, known: Iterable[JobView], listing: Listing) -> list[str]:
        """Drop those that a listing lacks and that are not newer than it; returns uids of their restorations."""
        listed = {body["metadata"]["uid"] for body in listing.items}
        lost = [job for job in known if job.uid not in listed and self._jobs[job.uid].version <= listing.version]
        for job in lost:
            self.drop_job(job.uid)
        return [job.owner_uid for job in lost]

    def prune_pods(self, known: Iterable[PodView], listing: Listing) -> list[str]:
        """As `prune_jobs`; what was seen of them last is kept."""
        listed = {body["metadata"]["uid"] for body in listing.items}
        missing = (pod for pod in known if not pod.gone and pod.uid not in listed)
        lost = [pod for pod in missing if self._pods[pod.uid].version <= listing.version]
        for pod in lost:
            self.drop_pod(pod.uid)
        return [pod.restoration_uid for pod in lost]

    def version(self, uid: str) -> int:
        """Resource version at which an object is known; 0 if it is not."""
        for views in (self._jobs, self._pods):
            if uid in views:
                return views[uid].version
        if uid in self._read:
            return self._read[uid]
        known = self._restorations.get(uid)
        if known is None:
            return 0
        return int(known.resource_version if isinstance(known, Finished) else known.metadata.resource_version)

    def memory(self, uid: str) -> Memory:
        """What was found out about a restoration; a fresh one if nothing was."""
        return self._memories.setdefault(uid, Memory())

    def restoration(self, uid: str) -> VideoRestoration | Finished | None:
        """A restoration, reduced to a few values if it is over."""
        return self._restorations.get(uid)

    def uids(self) -> tuple[str, ...]:
        """All restorations, finished ones included."""
        return tuple(self._restorations)

    def unfinished(self) -> Iterable[VideoRestoration]:
        """Restorations that are not over."""
        return (item for item in self._restorations.values() if isinstance(item, VideoRestoration))

    def phases(self) -> Iterable[str]:
        """One word for each restoration, finished ones included; `New` has not been looked at."""
        for item in self._restorations.values():
            if isinstance(item, Finished):
                yield "Succeeded" if item.reason in SUCCESS_REASONS else "Failed"
            else:
                yield str(item.status.phase or "New")

    def jobs(self, uid: str) -> tuple[JobView, ...]:
        """Jobs of a restoration."""
        views = (self._jobs[child].view for child in self._children.get(uid, ()) if child in self._jobs)
        return tuple(sorted(views, key=lambda job: (job.execution, job.uid)))

    def pods(self, uid: str) -> tuple[PodView, ...]:
        """Pods of a restoration, remembered ones included."""
        views = (self._pods[child].view for child in self._children.get(uid, ()) if child in self._pods)
        return tuple(sorted(views, key=lambda pod: (pod.made, pod.uid)))

    def all_jobs(self) -> tuple[JobView, ...]:
        """Every Job of ours."""
        return tuple(item.view for item in self._jobs.values())

    def all_pods(self) -> tuple[PodView, ...]:
        """Every pod that exists."""
        return tuple(item.view for item in self._pods.values() if not item.view.gone)

    def profiles(self) -> tuple[ProfileKey, ...]:
        """Every profile that exists."""
        return tuple(self._profiles)

    def running_pods(self) -> list[PodView]:
        """Pods whose runner can be asked for its progress."""
        return [
            pod
            for pod in self.all_pods()
            if pod.ip and isinstance(pod.container, Running) and not pod.terminal
            if self._is_current(pod)
        ]

    def _is_current(self, pod: PodView) -> bool:
        """Whether it is a pod of the Job that its restoration has now; labels alone can be anybody's."""
        found = self._restorations.get(pod.restoration_uid)
        if not isinstance(found, VideoRestoration):
            return False
        return (pod.namespace, pod.job_name) == (found.metadata.namespace, found.status.job_name)

    def observe(self, restoration: VideoRestoration, **certain: Any) -> Observation:
        """Everything known that a decision about one restoration may depend on; `certain` was read just now."""
        uid = restoration.metadata.uid
        memory, profile = self.memory(uid), self.profile_of(restoration)
        return Observation(
            restoration=restoration,
            jobs=self.jobs(uid),
            pods=self.pods(uid),
            profile=profile,
            rivals=tuple(self._rivals(restoration)),
            slots=self._slots(restoration),
            place_told_at=memory.place_told_at,
            queue=memory.queue,
            polled=memory.polled,
            caused_at=memory.caused_at,
            worded_at=memory.worded_at,
            snapshot=memory.snapshot,
            refusal=memory.refusal,
            warnings=dict(memory.warnings),
            **certain,
        )

    def profile_of(self, restoration: VideoRestoration) -> Profile | NoProfile:
        """The profile that a restoration refers to, as it is now."""
        ref = restoration.spec.profile_ref
        namespace = None if ref.kind == "ClusterRestorationProfile" else restoration.metadata.namespace
        found = self._profiles.get((ref.kind, namespace, ref.name))
        if found is not None:
            return found
        if ref.kind == "ClusterRestorationProfile" and ref.name == "default":
            return self._builtin_profile()
        place = f" in namespace {namespace}" if namespace else ""
        return NoProfile(reason="ProfileNotFound", message=f"there is no {ref.kind} {ref.name!r}{place}")

    def default_ttl_seconds(self, over: Finished) -> int | None:
        """`ttlSecondsAfterFinished` of the live profile of a finished restoration."""
        kind, name = over.profile
        namespace = None if kind == "ClusterRestorationProfile" else over.namespace
        profile: Profile | NoProfile | None = self._profiles.get((kind, namespace, name))
        if profile is None and (kind, name) == ("ClusterRestorationProfile", "default"):
            profile = self._builtin_profile()
        defaults = profile.spec.defaults if isinstance(profile, Profile) else None
        return defaults.ttl_seconds_after_finished if defaults else None

    def dependants(self, key: ProfileKey | None = None) -> list[str]:
        """Unfinished restorations that refer to a profile, or to any."""
        return [item.metadata.uid for item in self.unfinished() if key is None or self._reference(item) == key]

    def sharing_output(self, restoration: VideoRestoration) -> list[str]:
        """Other unfinished restorations with the same output URI."""
        return [uid for uid in self._outputs.get(restoration.spec.output.uri, ()) if uid != restoration.metadata.uid]

    # How.

    def _rivals(self, me: VideoRestoration) -> Iterable[Rival]:
        for uid in self.sharing_output(me):
            other = self._restorations.get(uid)
            if not isinstance(other, VideoRestoration):
                continue
            profile = self.profile_of(other)
            yield Rival(
                uid=uid,
                namespace=other.metadata.namespace or "",
                name=other.metadata.name,
                created=other.metadata.creation_timestamp,
                reserved=other.status.attempts.executions > 0,
                endpoint=output_endpoint(other, profile.spec) if isinstance(profile, Profile) else None,
            )

    def _slots(self, me: VideoRestoration) -> Slots:
        created, uid = _seniority(me)
        return self._lines.seen_by(uid, key=self._reference(me), created=created)

    def _wake_waiting(self, before: VideoRestoration | Finished | None, after: VideoRestoration | None) -> None:
        """A restoration that has ended gives up its output; one without an execution gives up its slot."""
        known = after or before
        if after is not None:
            created, uid = _seniority(after)
            freed = self._lines.put(uid, key=self._reference(after), created=created, standing=standing(after))
        else:
            freed = self._lines.drop(known.metadata.uid) if isinstance(known, VideoRestoration) else []
        for uid in freed:
            self._wake(uid)
        if isinstance(before, VideoRestoration) and (after is None or is_finished(after)):
            for uid in self.sharing_output(before):
                self._wake(uid)

    def _reference(self, restoration: VideoRestoration) -> ProfileKey:
        ref = restoration.spec.profile_ref
        return (ref.kind, None if ref.kind == "ClusterRestorationProfile" else restoration.metadata.namespace, ref.name)

    def _put(self, views: dict[str, _Versioned], uid: str, parent: str, view: Any, body: Mapping[str, Any]) -> None:
        version = int(body["metadata"]["resourceVersion"])
        known = views.get(uid)
        if known is None or known.version <= version:
            views[uid] = _Versioned(view=view, version=version)
            self._children.setdefault(parent, set()).add(uid)

    def _drop(self, views: dict[str, _Versioned], uid: str, parent: Callable[[Any], str]) -> None:
        known = views.pop(uid, None)
        if known is None:
            return
        siblings = self._children.get(parent(known.view), set())
        siblings.discard(uid)
        if not siblings:
            self._children.pop(parent(known.view), None)

    def _outdated(self, known: VideoRestoration | Finished | None, fresh: VideoRestoration) -> bool:
        if known is None:
            return False
        version = known.resource_version if isinstance(known, Finished) else known.metadata.resource_version
        return int(fresh.metadata.resource_version) < int(version)

    def _unclaim(self, restoration: VideoRestoration) -> None:
        uri = restoration.spec.output.uri
        claims = self._outputs.get(uri, {})
        claims.pop(restoration.metadata.uid, None)
        if not claims:
            self._outputs.pop(uri, None)

    def _forget_gone_pods(self, uid: str) -> None:
        for pod in self.pods(uid):
            if pod.gone:
                self._drop(self._pods, pod.uid, lambda last: last.restoration_uid)


_LATEST: Final = 2**63


def _seniority(restoration: VideoRestoration) -> tuple[float, str]:
    created = restoration.metadata.creation_timestamp
    return (created.timestamp() if created else 0.0, restoration.metadata.uid)
