"""The operator's brain against a simulated cluster in which everything goes wrong that can.

Real: store, resync, reconciler, every decision. Simulated: API server, controllers, kubelet, watches and time.
A seed chooses the history; the simulated API server checks every write against the promises (never two live Jobs of
one restoration, numbers never fall, finished stays finished, no attempt is forgotten, nothing is released before it is
recorded), and at the end, once the faults stop, everything must come to rest.
"""

from __future__ import annotations

import logging
import os
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, cast

import pytest
import structlog
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

HISTORIES: Final = int(os.environ.get("VR_TEST_HISTORIES", "300"))
"""300 take some 15 s of CPU; a nightly job may ask for more."""
FIRST_SEED: Final = int(os.environ.get("VR_TEST_FIRST_SEED", "0"))
STEPS: Final = 60
ENDS: Final = (
    (0, outcomes.succeeded()),
    (0, ""),
    (10, outcomes.failed(FailureReason.INVALID_INPUT, "not a video")),
    (20, outcomes.failed(FailureReason.GPU_FAULT, "Xid 79")),
    (21, outcomes.failed(FailureReason.STORAGE_ERROR, "503")),
    (23, outcomes.failed(FailureReason.VERIFICATION_FAILED, "59 of 60 frames")),
    (143, ""),
    (1, "Traceback: something"),
)
TROUBLE: Final = ("lost request", "lost answer", "crash before", "crash after", "busy")
"""What can happen to one call of the operator; the calls before it work."""

# How often each step occurs. Most of a history is ordinary work, or nothing would get far enough to go wrong.
WEIGHTS: Final = {
    "turn": 8,
    "deliver": 6,
    "controllers": 5,
    "kubelet": 5,
    "suspend": 3,
    "wait": 2,
    "crash": 1,
    "compare": 1,
    "deaf": 2,
    "lose_event": 2,
    "hurry_event": 2,
    "repeat_event": 1,
    "evict": 1,
    "node": 2,
    "lose_node": 2,
    "quota": 1,
    "recreate": 1,
    "delete_job": 2,
    "delete_pod": 2,
    "spoil_snapshot": 1,
    "edit_profile": 1,
}

Step = tuple[str, int, tuple[str, ...]]
"""What happens, a number that chooses an object or a way, and what becomes of the operator's calls."""


def story(seed: int) -> list[Step]:
    """The history of a seed. Plain random choice: Hypothesis prefers short and repetitive examples, and a history must
    be long and varied before anything interesting can go wrong in it."""
    dice = random.Random(seed)
    names = dice.choices(list(WEIGHTS), weights=list(WEIGHTS.values()), k=STEPS)
    return [(name, dice.randrange(12), _plan(dice)) for name in names]


def _plan(dice: random.Random) -> tuple[str, ...]:
    return () if dice.random() < 0.6 else ("ok",) * dice.randrange(5) + (dice.choice(TROUBLE),)


def shortest(steps: list[Step], fails: Callable[[list[Step]], bool]) -> list[Step]:
    """Leave out whatever a failure does not need (in halves, quarters, … single steps)."""
    size = len(steps) // 2
    while size:
        for start in range(len(steps) - size, -1, -size):
            rest = steps[:start] + steps[start + size :]
            if fails(rest):
                steps = rest
        size //= 2
    return steps


def drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never really waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise AssertionError("the simulation waited for something")


class History:
    """Three restorations, two of which want the same output, and everything that can be done to them."""

    def __init__(self) -> None:
        self.cluster = SimulatedCluster()
        self.deaf_to = ""
        self.cluster.apply("profiles", make_profile())
        self.outputs = {"a": "s3://media/out/a.mp4", "b": "s3://media/out/b.mp4", "c": "s3://media/out/a.mp4"}
        for name in self.outputs:
            self._create(name)
        self.crash()

    def step(self, name: str, number: int, plan: tuple[str, ...]) -> None:
        """One step of the history; `number` chooses an object or a way, `plan` is what happens to the calls."""
        getattr(self, name)(number, plan)

    # The operator.

    def turn(self, number: int, plan: tuple[str, ...]) -> None:
        """One turn of a worker, with trouble at one of its calls."""
        uids = self.store.uids()
        if uids:
            self.cluster.faults.plan = list(plan)
            self.reconcile(uids[number % len(uids)])
            self.cluster.faults.plan = []

    def crash(self, *_: object) -> None:
        """A new process: nothing is remembered, everything is listed."""
        fill = ImageFiller("runner:1", None)
        self.store = Store(builtin_profile=BuiltinProfile(None, fill), complete=fill, wake=lambda uid: None)
        cluster = cast(Cluster, self.cluster)
        settings = Settings(runner_image="runner:1", default_profile_file=Path("/nonexistent"))
        self.resync = Resync(self.store, cluster, WorkQueue(), settings)
        self.reconciler = Reconciler(self.store, cluster, clock=lambda: self.cluster.now)
        self.cluster.faults.plan = []
        drive(self.resync.prime())
        self.cluster.changes.clear()

    def compare(self, *_: object) -> None:
        """The periodic listing. What it finds undelivered would end the process a minute later."""
        if drive(self.resync.compare()) and not self.cluster.changes:
            self.crash()

    # The watches.

    def deliver(self, number: int, _: object) -> None:
        heard = [place for place, change in enumerate(self.cluster.changes) if change.kind != self.deaf_to]
        for fed, place in enumerate(heard[: number + 1]):
            self._feed(place - fed)

    def deaf(self, number: int, _: object) -> None:
        """Each kind has a watch of its own, and one may be far behind the others."""
        self.deaf_to = ("pods", "jobs", "restorations", "")[number % 4]

    def lose_event(self, number: int, _: object) -> None:
        if self.cluster.changes:
            del self.cluster.changes[number % len(self.cluster.changes)]

    def hurry_event(self, number: int, _: object) -> None:
        if self.cluster.changes:
            self._feed(number % len(self.cluster.changes))

    def repeat_event(self, number: int, _: object) -> None:
        if self.cluster.changes:
            place = number % len(self.cluster.changes)
            self.cluster.changes.append(self.cluster.changes[place])

    # The cluster.

    def controllers(self, *_: object) -> None:
        self.cluster.step_controllers()

    def kubelet(self, number: int, _: object) -> None:
        for uid in list(self.cluster.objects["pods"]):
            self.cluster.step_kubelet(uid, *ENDS[number % len(ENDS)])

    def evict(self, number: int, _: object) -> None:
        self._on_one("pods", number, self.cluster.disrupt)

    def node(self, number: int, _: object) -> None:
        self.cluster.node_ready = number > 2

    def lose_node(self, number: int, _: object) -> None:
        """It goes silent, its pods are told to go, and much later they still have not."""
        self.cluster.node_ready = False
        for uid in list(self.cluster.objects["pods"]):
            self.cluster.delete_pod(uid)
        self.cluster.now += timedelta(seconds=400)
        if number % 2:
            self.deliver(100, _)
            self.turn(number, ())

    def quota(self, number: int, _: object) -> None:
        self.cluster.refuse_jobs = number < 3

    def wait(self, number: int, _: object) -> None:
        self.cluster.now += timedelta(seconds=(1, 31, 400)[number % 3])

    # People.

    def suspend(self, number: int, _: object) -> None:
        def toggle(uid: str) -> None:
            self.cluster.change_spec("restorations", uid, suspend=number % 2 == 0)

        self._on_one("restorations", number // 2, toggle)

    def recreate(self, number: int, _: object) -> None:
        def again(uid: str) -> None:
            name = self.cluster.objects["restorations"][uid]["metadata"]["name"]
            self.cluster.remove("restorations", uid)
            self._create(name)

        self._on_one("restorations", number, again)

    def delete_job(self, number: int, _: object) -> None:
        way = ("Background", "Foreground", "Orphan")[number % 3]
        self._on_one("jobs", number // 3, lambda uid: self.cluster.delete_job_as_stranger(uid, way))

    def delete_pod(self, number: int, _: object) -> None:
        self._on_one("pods", number, self.cluster.delete_pod)

    def spoil_snapshot(self, number: int, _: object) -> None:
        def spoil(uid: str) -> None:
            body = self.cluster.objects["config_maps"][uid]
            self.cluster.remove("config_maps", uid)
            if number % 2:
                self.cluster.apply("config_maps", body | {"data": {"request.json": "{}", "profile.json": "{}"}})

        self._on_one("config_maps", number // 2, spoil)

    def edit_profile(self, number: int, _: object) -> None:
        [uid] = self.cluster.objects["profiles"]
        self.cluster.change_spec("profiles", uid, defaults={"chunkFrames": (21, 29, 37)[number % 3]})

    # The end.

    def finish(self) -> None:
        """The faults stop. Everything must come to rest, and rest must be the end of every restoration."""
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

    def ends(self) -> list[str]:
        """Reasons of all ends of restorations, and of executions as far as they are remembered."""
        found = []
        for body in self.cluster.objects["restorations"].values():
            found += [item["reason"] for item in body["status"]["conditions"] if item["type"] == "Succeeded"]
            found += [item["reason"] for item in body["status"].get("attemptHistory", ())]
        return found

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
            self.crash()
        for uid in self.store.uids():
            self.reconcile(uid)

    def _at_rest(self) -> bool:
        over = all(isinstance(self.store.restoration(uid), Finished) for uid in self.store.uids())
        return over and not self.cluster.changes and not self.cluster.step_controllers()

    def reconcile(self, uid: str) -> None:
        try:
            drive(self.reconciler.reconcile(uid))
        except CrashError:
            self.crash()
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

    def _on_one(self, kind: str, number: int, act: Callable[[str], None]) -> None:
        uids = list(self.cluster.objects[kind])
        if uids:
            act(uids[number % len(uids)])

    def _create(self, name: str) -> None:
        # The second has little patience; else a history would rarely see the end of a budget.
        policy = {"maxRetries": 1, "maxDisruptions": 1} if name == "b" else {}
        self.cluster.apply(
            "restorations", make_vr({"output.uri": self.outputs[name], "retryPolicy": policy}, name=name)
        )


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """A line per write, times all histories, is more than anybody reads."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


def play(steps: list[Step]) -> History:
    """A whole history and its end."""
    history = History()
    for step in steps:
        history.step(*step)
    history.finish()
    return history


def test_histories() -> None:
    ends: Counter[str] = Counter()
    executions = 0
    for seed in range(FIRST_SEED, FIRST_SEED + HISTORIES):
        steps = story(seed)
        try:
            history = play(steps)
        except Exception as error:
            kind = type(error)
            steps = shortest(steps, lambda some, kind=kind: _fails(some, kind))  # type: ignore[misc]
            print(f"seed {seed} fails; {len(steps)} steps are enough:", *steps, sep="\n  ")
            play(steps)
            raise
        ends.update(history.ends())
        executions += len(history.cluster.created_jobs)
    print(f"{HISTORIES} histories, {executions} Jobs, ends: {dict(ends)}")
    # Histories in which nothing happens would prove nothing.
    assert executions > HISTORIES * 3
    seen = {"Completed", "InvalidInput", "StorageError", "PodDeleted", "Unknown", "NodeLost", "GPUFault"}
    rare = {"SnapshotTampered", "VerificationFailed", "RetriesExhausted"}
    assert HISTORIES < 300 or seen | rare <= set(ends)


def _fails(steps: list[Step], kind: type[Exception]) -> bool:
    try:
        play(steps)
    except Exception as error:
        return isinstance(error, kind)
    return False


def test_a_create_without_an_answer_is_looked_after_before_it_is_repeated() -> None:
    """Its Job existed, somebody has deleted it, and its pod still writes; no watch has told any of that."""
    history = History()
    history.turn(1, ("ok", "ok", "lost answer"))
    assert len(history.cluster.created_jobs) == 1
    history.controllers()
    [pod] = history.cluster.objects["pods"]
    history.cluster.step_kubelet(pod)
    history.delete_job(0, ())
    assert not history.cluster.objects["jobs"]
    history.turn(1, ())
    assert len(history.cluster.created_jobs) == 1, "a second writer was started beside the first"
    history.finish()
