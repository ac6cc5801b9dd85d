"""The operator's brain against a simulated cluster in which everything goes wrong that can.

Real: store, resync, reconciler, every decision. Simulated: API server, controllers, kubelet, watches and time. Hypothesis
chooses the history; the simulated API server checks every write against the promises (never two live Jobs of one
restoration, numbers never fall, finished stays finished, no attempt is forgotten, nothing is released before it is
recorded), and at the end, once the faults stop, everything must come to rest.
"""

from __future__ import annotations

import os
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, cast

import hypothesis
import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tests.builders import outcomes
from tests.builders.resources import make_profile, make_vr
from tests.builders.simulated_cluster import CrashError, SimulatedCluster

from restoration_api.outcome import FailureReason
from restoration_operator.cluster import ApiError, Cluster, UnreachableError
from restoration_operator.decide.cleanup import Finished
from restoration_operator.profile_file import BuiltinProfile, ImageFiller
from restoration_operator.reconcile import Reconciler
from restoration_operator.resync import Resync
from restoration_operator.settings import Settings
from restoration_operator.store import Store
from restoration_operator.workqueue import WorkQueue

HISTORIES: Final = int(os.environ.get("VR_TEST_HISTORIES", "400"))
"""400 take about 20 s; a nightly job may ask for more."""
FAULTS: Final = ("ok", "lost request", "lost answer", "crash before", "crash after", "busy")
ENDS: Final = (
    (0, outcomes.succeeded()),
    (0, ""),
    (10, outcomes.failed(FailureReason.INVALID_INPUT, "not a video")),
    (21, outcomes.failed(FailureReason.STORAGE_ERROR, "503")),
    (143, ""),
    (1, "Traceback: something"),
)


def drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never really waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise AssertionError("the simulation waited for something")


class Histories(RuleBasedStateMachine):
    """One history: three restorations, two of which want the same output."""

    @initialize()
    def begin(self) -> None:
        self.cluster = SimulatedCluster()
        self.cluster.apply("profiles", make_profile())
        self.names = {"a": "s3://media/out/a.mp4", "b": "s3://media/out/b.mp4", "c": "s3://media/out/a.mp4"}
        for name in self.names:
            self._create(name)
        self.restart()

    # The operator.

    def restart(self) -> None:
        """A new process: nothing is remembered, everything is listed."""
        fill = ImageFiller("runner:1", None)
        self.queue = WorkQueue()
        self.store = Store(builtin_profile=BuiltinProfile(None, fill), complete=fill, wake=lambda uid: None)
        cluster = cast(Cluster, self.cluster)
        settings = Settings(runner_image="runner:1", default_profile_file=Path("/nonexistent"))
        self.resync = Resync(self.store, cluster, self.queue, settings)
        self.reconciler = Reconciler(self.store, cluster, clock=lambda: self.cluster.now)
        planned, self.cluster.faults.plan = self.cluster.faults.plan, []
        drive(self.resync.prime())
        self.cluster.faults.plan = planned
        self.cluster.changes.clear()

    @rule(which=st.integers(0, 5), faults=st.lists(st.sampled_from(FAULTS), max_size=6))
    def reconcile(self, which: int, faults: list[str]) -> None:
        """One turn of a worker, with faults at its calls."""
        uids = self.store.uids()
        if uids:
            self.cluster.faults.plan = list(faults)
            self._turn(uids[which % len(uids)])
            self.cluster.faults.plan = []

    @rule()
    def crash(self) -> None:
        self.restart()

    @rule()
    def compare(self) -> None:
        """The periodic listing. What it finds undelivered would end the process a minute later."""
        if drive(self.resync.compare()) and not self.cluster.changes:
            self.restart()

    # The watches.

    @rule(count=st.integers(1, 20))
    def deliver(self, count: int) -> None:
        for _ in range(min(count, len(self.cluster.changes))):
            self._feed(0)

    @precondition(lambda self: self.cluster.changes)
    @rule(which=st.integers(0, 30), how=st.sampled_from(["lost", "early", "twice"]))
    def mishandle(self, which: int, how: str) -> None:
        place = which % len(self.cluster.changes)
        if how == "lost":
            del self.cluster.changes[place]
        elif how == "early":
            self._feed(place)
        else:
            self.cluster.changes.insert(place, self.cluster.changes[place])

    # The cluster.

    @rule()
    def controllers(self) -> None:
        self.cluster.step_controllers()

    @rule(which=st.integers(0, 5), end=st.sampled_from(ENDS))
    def kubelet(self, which: int, end: tuple[int, str]) -> None:
        pods = list(self.cluster.objects["pods"])
        if pods:
            self.cluster.step_kubelet(pods[which % len(pods)], *end)

    @rule(which=st.integers(0, 5))
    def evict(self, which: int) -> None:
        pods = list(self.cluster.objects["pods"])
        if pods:
            self.cluster.disrupt(pods[which % len(pods)])

    @rule(ready=st.booleans())
    def node(self, ready: bool) -> None:
        self.cluster.node_ready = ready

    @rule(refuse=st.booleans())
    def quota(self, refuse: bool) -> None:
        self.cluster.refuse_jobs = refuse

    @rule(seconds=st.sampled_from([1, 31, 400]))
    def wait(self, seconds: int) -> None:
        self.cluster.now += timedelta(seconds=seconds)

    # People.

    @rule(which=st.integers(0, 5), suspend=st.booleans())
    def suspend(self, which: int, suspend: bool) -> None:
        uid = self._restoration(which)
        if uid:
            self.cluster.change_spec("restorations", uid, suspend=suspend)

    @rule(which=st.integers(0, 5))
    def delete_and_recreate(self, which: int) -> None:
        uid = self._restoration(which)
        if uid:
            name = self.cluster.objects["restorations"][uid]["metadata"]["name"]
            self.cluster.remove("restorations", uid)
            self._create(name)

    @rule(which=st.integers(0, 5), propagation=st.sampled_from(["Background", "Foreground", "Orphan"]))
    def delete_job(self, which: int, propagation: str) -> None:
        jobs = list(self.cluster.objects["jobs"])
        if jobs:
            self.cluster.delete_job_as_stranger(jobs[which % len(jobs)], propagation)

    @rule(which=st.integers(0, 5))
    def delete_pod(self, which: int) -> None:
        pods = list(self.cluster.objects["pods"])
        if pods:
            self.cluster.delete_pod(pods[which % len(pods)])

    @rule(which=st.integers(0, 5), swap=st.booleans())
    def spoil_snapshot(self, which: int, swap: bool) -> None:
        maps = list(self.cluster.objects["config_maps"])
        if maps:
            body = self.cluster.objects["config_maps"][maps[which % len(maps)]]
            self.cluster.remove("config_maps", body["metadata"]["uid"])
            if swap:
                self.cluster.apply("config_maps", body | {"data": {"request.json": "{}", "profile.json": "{}"}})

    @rule(frames=st.sampled_from([21, 29, 37]))
    def edit_profile(self, frames: int) -> None:
        [uid] = self.cluster.objects["profiles"]
        self.cluster.change_spec("profiles", uid, defaults={"chunkFrames": frames})

    # The end.

    def teardown(self) -> None:
        """The faults stop. Everything must come to rest, and rest must be the end of every restoration."""
        if not hasattr(self, "cluster"):
            return
        self.cluster.faults.plan, self.cluster.node_ready, self.cluster.refuse_jobs = [], True, False
        for uid in list(self.cluster.objects["restorations"]):
            self.cluster.change_spec("restorations", uid, suspend=False)
        for _ in range(60):
            self._settle()
            if self._at_rest():
                break
        for body in self.cluster.objects["restorations"].values():
            status = body.get("status") or {}
            conditions = {item["type"]: item for item in status.get("conditions", ())}
            assert conditions, f"{body['metadata']['name']} was never looked at"
            assert conditions["Finished"]["status"] == "True", (body["metadata"]["name"], status)
        for job in self.cluster.objects["jobs"].values():
            assert job["status"].get("conditions"), f"{job['metadata']['name']} is still unfinished"
            assert job["spec"].get("ttlSecondsAfterFinished") is not None, f"{job['metadata']['name']} is kept for ever"

    def _settle(self) -> None:
        """One round of a healthy cluster."""
        self.cluster.now += timedelta(seconds=61)
        while self.cluster.step_controllers():
            pass
        for uid in list(self.cluster.objects["pods"]):
            self.cluster.step_kubelet(uid, 0, outcomes.succeeded())
        while self.cluster.changes:
            self._feed(0)
        if drive(self.resync.compare()):
            self.restart()
        for uid in self.store.uids():
            self._turn(uid)

    def _at_rest(self) -> bool:
        over = all(isinstance(self.store.restoration(uid), Finished) for uid in self.store.uids())
        return over and not self.cluster.changes and not self.cluster.step_controllers()

    def _turn(self, uid: str) -> None:
        try:
            drive(self.reconciler.reconcile(uid))
        except CrashError:
            self.restart()
        except (UnreachableError, ApiError):
            pass  # the queue would bring it again

    def _feed(self, place: int) -> None:
        change = self.cluster.changes.pop(place)
        gone, body = change.type == "DELETED", change.body
        uid = body["metadata"]["uid"]
        match change.kind:
            case "restorations":
                self.store.drop_restoration(uid) if gone else self.store.put_restoration(body)
            case "jobs":
                self.store.put_job(body)
                if gone:
                    self.store.drop_job(uid)
            case "pods":
                self.store.put_pod(body)
                if gone:
                    self.store.drop_pod(uid, body)
            case "profiles":
                self.store.put_profile(body)

    def _restoration(self, which: int) -> str | None:
        uids = list(self.cluster.objects["restorations"])
        return uids[which % len(uids)] if uids else None

    def _create(self, name: str) -> None:
        self.cluster.apply("restorations", make_vr({"output.uri": self.names[name]}, name=name))


Histories.TestCase.settings = hypothesis.settings(
    max_examples=HISTORIES,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
TestHistories = Histories.TestCase
