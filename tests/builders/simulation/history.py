"""Histories: what happens to three restorations, chosen by a seed, and the rest that must follow.

A step is something that people, the cluster or the network do, and how much time passes after it. Between the steps
everything lives its own life. When the last step is over the faults stop, and every restoration must come to its end.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from restoration_operator.build.names import job_name
from restoration_operator.views import JOB_NAME_LABEL
from tests.builders.resources import make_profile, make_vr
from tests.builders.simulation.controllers import QUEUE_LABEL, Controllers, delete_pod, job_end
from tests.builders.simulation.kubelet import NODES, Kubelet
from tests.builders.simulation.loop import SimulatedLoop, noise
from tests.builders.simulation.process import OperatorProcess, Weather, track_tasks
from tests.builders.simulation.promises import Promises, finished
from tests.builders.simulation.server import PROFILES, RESTORATIONS, Change, Json, SimulatedServer

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
STEPS: Final = 16
PATIENCE_SECONDS: Final = 6 * 3600
"""How long a calm cluster may take to bring everything to its end. Backoffs, deadlines and resyncs take minutes."""
CHECK_SECONDS: Final = 60
LEASED_EVERY: Final = 4
"""In every fourth history two replicas share a lease; in the others two may be at work at once, as by mistake."""
TTL_SECONDS: Final = 3600


class BrokenPromiseError(AssertionError):
    """What the operator promises does not hold."""


@dataclass(frozen=True)
class Step:
    """What happens, a number that chooses an object or a way, and the seconds that pass afterwards."""

    name: str
    number: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.name}({self.number}), then {self.seconds:g} s"


SPECS: Final[dict[str, Json]] = {
    "a": {"output.uri": "s3://media/out/a.mp4", "retryPolicy": {"maxRetries": 2, "backoffSeconds": 5}},
    "b": {"output.uri": "s3://media/out/b.mp4", "retryPolicy": {"maxRetries": 1, "maxDisruptions": 2}},
    # The same output as `a`: one after the other.
    "c": {"output.uri": "s3://media/out/a.mp4", "activeDeadlineSeconds": 3600, "startDeadlineSeconds": 900},
}
LABELS: Final = {"b": {QUEUE_LABEL: "studio"}}


class World:
    """One cluster, the people in it, and one or two operators."""

    def __init__(self, seed: int, *, say: Callable[[str], None] | None = None) -> None:
        """`say` is given a line for everything that happens."""
        self.seed = seed
        self.loop = SimulatedLoop()
        track_tasks(self.loop)
        self.loop.set_exception_handler(self._unhandled)
        self.broken: list[str] = []
        self._say = say
        self.promises = Promises(self.fail)
        self.server = SimulatedServer(self.clock, self.promises)
        self.promises.server = self.server
        self.controllers = Controllers(self.server, self.loop, seed)
        self.kubelet = Kubelet(self.server, self.loop, seed)
        self.processes = [self._process("operator-1"), self._process("operator-2")]
        if say is not None:
            self.server.listeners.append(self._tell)
        self.server.create(PROFILES, make_profile())
        for name in SPECS:
            self._create(name)
        leased = seed % LEASED_EVERY == 0
        for process in self.processes:
            process.leased = leased
        for process in self.processes[: 2 if leased else 1]:
            process.start()

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # A process that is killed leaves tasks behind in the middle of their last `await`; nobody misses those.
        if not str(context.get("message", "")).startswith("Task was destroyed"):
            self.fail(str(context))

    def close(self) -> None:
        """End everything that still waits."""
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.set_exception_handler(lambda loop, context: None)
        if tasks:
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.close()

    def clock(self) -> datetime:
        """The API server's clock."""
        return START + timedelta(seconds=int(self.loop.time()))

    def fail(self, sentence: str) -> None:
        """A promise is broken."""
        self.say(f"BROKEN: {sentence}")
        self.broken.append(sentence)

    def say(self, line: str) -> None:
        """Something happened."""
        if self._say is not None:
            self._say(f"{self._time()} {line}")

    def step(self, step: Step) -> None:
        """One step; raises BrokenPromiseError if it led to that."""
        self.say(f"-- {step}")
        getattr(self, step.name)(step.number)
        self.pass_time(step.seconds)

    def pass_time(self, seconds: float) -> None:
        """Let everybody live for so long."""
        self.loop.run_for(seconds)
        if self.broken:
            raise BrokenPromiseError(self.broken[0])

    # People.

    def nothing(self, number: int) -> None:
        """Time passes."""

    def suspend(self, number: int) -> None:
        self._on_one(RESTORATIONS, number, lambda body: self._suspend(body, not body["spec"].get("suspend", False)))

    def flap(self, number: int) -> None:
        """Suspend and resume within seconds."""
        for after in range(4):
            self.loop.call_later(after * 0.7, self.suspend, number)

    def delete(self, number: int) -> None:
        """A restoration is deleted; another one may follow under its name."""

        def remove(body: Json) -> None:
            name = body["metadata"]["name"]
            self.server.remove(RESTORATIONS, name)
            if number % 4:
                self.loop.call_later((0, 0.3, 5, 60)[number % 4], self._create, name)

        self._on_one(RESTORATIONS, number // 4, remove)

    def touch(self, number: int) -> None:
        """Somebody changes labels all the time: status writes conflict."""
        for moment in range(10):
            self.loop.call_later(moment * 0.3, self._touch, number)

    def edit_profile(self, number: int) -> None:
        self._on_one(
            PROFILES,
            0,
            lambda body: self.server.patch_spec(PROFILES, body, defaults={"chunkFrames": (21, 29, 37)[number % 3]}),
        )

    def limit_profile(self, number: int) -> None:
        limits = {"maxActive": number % 2 + 1} if number % 3 else {}
        self._on_one(PROFILES, 0, lambda body: self.server.patch_spec(PROFILES, body, limits=limits))

    def delete_profile(self, number: int) -> None:
        self._on_one(PROFILES, 0, lambda body: self.server.remove(PROFILES, body["metadata"]["name"]))
        self.loop.call_later((1, 30, 300)[number % 3], self._restore_profile, number)

    def spoil_snapshot(self, number: int) -> None:
        """A snapshot is deleted, or swapped for another."""

        def spoil(body: Json) -> None:
            self.server.remove("configmaps", body["metadata"]["name"])
            if number % 2:
                self.server.create("configmaps", body | {"data": {"request.json": "{}", "profile.json": "{}"}})

        self._on_one("configmaps", number // 2, spoil)

    def delete_job(self, number: int) -> None:
        """A stranger deletes a Job, with or without its pod."""
        way = ("Background", "Foreground", "Orphan")[number % 3]
        self._on_one("jobs", number // 3, lambda job: self.server.delete_job(job, way))

    def take_job_name(self, number: int) -> None:
        """A stranger's Job lies where the next one is going to be."""

        def occupy(body: Json) -> None:
            meta = body["metadata"]
            following = body.get("status", {}).get("attempts", {}).get("executions", 0) + 1
            name = job_name(meta["name"], meta["uid"], execution=following)
            if name not in self.server.objects["jobs"]:
                strange = {"metadata": {"name": name, "namespace": "default"}, "spec": {"suspend": True}, "status": {}}
                self.server.create("jobs", strange)

        self._on_one(RESTORATIONS, number, occupy)

    def delete_pod(self, number: int) -> None:
        self._on_one("pods", number, lambda pod: delete_pod(self.server, pod))

    # The cluster.

    def evict(self, number: int) -> None:
        why = ("EvictionByEvictionAPI", "PreemptionByScheduler", "DeletionByTaintManager")[number % 3]
        self._on_one("pods", number // 3, lambda pod: self.kubelet.disrupt(pod, why))

    def silence_node(self, number: int) -> None:
        """A node stops answering; its pods are told to go, as the taint manager does."""
        node = NODES[number % len(NODES)]
        self.kubelet.silence(node)

        def tell() -> None:
            for pod in list(self.server.objects["pods"].values()):
                if pod["spec"].get("nodeName") == node:
                    delete_pod(self.server, pod)

        self.loop.call_later((1, 40)[number % 2], tell)

    def wake_nodes(self, number: int) -> None:
        self.kubelet.wake()

    def collect_pod(self, number: int) -> None:
        """A lost node's pods are removed, last words and all."""

        def remove(pod: Json) -> None:
            if "deletionTimestamp" in pod["metadata"]:
                self.server.remove("pods", pod["metadata"]["name"])

        self._on_one("pods", number, remove)

    def expire_jobs(self, number: int) -> None:
        """Finished Jobs are removed before anybody read them."""
        for job in list(self.server.objects["jobs"].values()):
            if job_end(job) and number % 2:
                self.server.delete_job(job, "Background")
        self.controllers.expire(self.clock())

    def quota(self, number: int) -> None:
        self.controllers.refuse_jobs = number % 3 == 0
        self.controllers.refuse_pods = number % 3 == 1

    def hold_queue(self, number: int) -> None:
        self.controllers.hold = number % 2 == 0
        self.controllers.run()

    def slow_controllers(self, number: int) -> None:
        self.controllers.slow = number % 2 == 0

    # The operator, its network and its watches.

    def kill(self, number: int) -> None:
        self._process_of(number).kill()
        self.loop.call_later((0.1, 2, 100)[number % 3], self.processes[0].start)

    def stop(self, number: int) -> None:
        """SIGTERM; the pod is replaced."""
        self._process_of(number).stop()

    def freeze(self, number: int) -> None:
        """SIGSTOP, and much later SIGCONT."""
        process = self._process_of(number)
        process.thawed.clear()
        self.loop.call_later((4, 45, 120)[number % 3], process.thawed.set)

    def crash_at_write(self, number: int) -> None:
        weather = self._process_of(number).weather
        weather.crash_in, weather.crash_after_write = number % 5 + 1, number % 2 == 0

    def second_operator(self, number: int) -> None:
        """Two operators at once, or one again."""
        self.processes[1].kill() if self.processes[1].alive else self.processes[1].start()

    def trouble(self, number: int) -> None:
        """Calls fail, before or after they were carried out."""
        self._process_of(number).weather.trouble = (0.0, 0.1, 0.4)[number % 3]

    def slow_network(self, number: int) -> None:
        self._process_of(number).weather.slow = (0.0, 0.3, 0.9)[number % 3]

    def outage(self, number: int) -> None:
        """30 s and more without an answer."""
        weather = self._process_of(number).weather
        weather.outage = True
        self.loop.call_later((30, 70)[number % 2], setattr, weather, "outage", False)

    def lag(self, number: int) -> None:
        self._process_of(number).weather.watch_lag_seconds = (0.2, 10, 100)[number % 3]

    def jumble(self, number: int) -> None:
        weather = self._process_of(number).weather
        weather.jumbled = not weather.jumbled

    def deafen(self, number: int) -> None:
        """A watch tells nothing any more, and does not end either."""
        self._process_of(number).weather.deaf.add(("pods", "jobs", RESTORATIONS)[number % 3])

    def turn_clock(self, number: int) -> None:
        self._process_of(number).clock_offset = timedelta(hours=(1, -1, 0)[number % 3])

    # The end.

    def finish(self) -> None:
        """The faults stop. Everything must come to rest, and rest must be the end of every restoration."""
        self.say("-- the faults stop")
        self.pass_time(3)  # somebody may be about to suspend or resume
        self._calm()
        deadline = self.loop.time() + PATIENCE_SECONDS
        while self._unfinished():
            if self.loop.time() > deadline:
                raise BrokenPromiseError(f"after {PATIENCE_SECONDS} s of calm: {'; '.join(self._unfinished())}")
            self.pass_time(CHECK_SECONDS)

    def ends(self) -> list[str]:
        """Reasons of all ends of restorations and of executions."""
        conditions = (item for body in self._restorations() for item in body["status"]["conditions"])
        finished = [item["reason"] for item in conditions if item["type"] == "Finished"]
        return finished + [reason for life in self.promises.lives.values() for reason in life.closed.values()]

    def _calm(self) -> None:
        for process in self.processes:
            deaf = process.weather.deaf  # that the operator has to find out by itself
            process.weather = Weather(deaf=deaf)
            process.thawed.set()
        self.processes[1].kill()
        self.processes[0].start()
        controllers = self.controllers
        controllers.slow = controllers.refuse_jobs = controllers.refuse_pods = controllers.hold = False
        self.kubelet.quiet = True
        self.kubelet.wake()
        self._restore_profile(0)
        for body in self._restorations():
            self._suspend(body, False)
        for job in list(self.server.objects["jobs"].values()):
            if not job["metadata"].get("ownerReferences"):
                self.server.remove("jobs", job["metadata"]["name"])
        self.controllers.run()

    def _unfinished(self) -> list[str]:
        """What is not at rest yet, in sentences."""
        found = [
            f"{body['metadata']['name']} is not finished: {body.get('status', {}).get('conditions')}"
            for body in self._restorations()
            if not finished(body)
        ]
        for job in self.server.objects["jobs"].values():
            if not job_end(job):
                found.append(f"{job['metadata']['name']} is unfinished")
            elif job["spec"].get("ttlSecondsAfterFinished") is None:
                found.append(f"{job['metadata']['name']} is kept for ever")
        found += [
            f"pod {pod['metadata']['name']} of {pod['metadata']['labels'][JOB_NAME_LABEL]} runs"
            for pod in self.server.objects["pods"].values()
            if pod["status"]["phase"] not in ("Succeeded", "Failed")
        ]
        return found

    # How.

    def _process(self, name: str) -> OperatorProcess:
        return OperatorProcess(name, self.server, self.loop, self.seed, failed=self.fail, say=self.say)

    def _process_of(self, number: int) -> OperatorProcess:
        second = self.processes[1]
        return second if second.alive and number % 2 else self.processes[0]

    def _restorations(self) -> list[Json]:
        return list(self.server.objects[RESTORATIONS].values())

    def _suspend(self, body: Json, wish: bool) -> None:
        if body["spec"].get("suspend", False) is not wish:
            self.server.patch_spec(RESTORATIONS, body, suspend=wish)

    def _touch(self, number: int) -> None:
        labels = {"touched": str(self.server.version)}
        self._on_one(
            RESTORATIONS,
            number,
            lambda body: self.server.patch_metadata(
                RESTORATIONS, body, labels={**(body["metadata"].get("labels") or {}), **labels}
            ),
        )

    def _restore_profile(self, number: int) -> None:
        if "default" not in self.server.objects[PROFILES]:
            changed = {"defaults.chunkFrames": 45} if number % 2 else None
            self.server.create(PROFILES, make_profile(changed))

    def _on_one(self, resource: str, number: int, act: Callable[[Json], Any]) -> None:
        bodies = list(self.server.objects[resource].values())
        if bodies:
            act(bodies[number % len(bodies)])

    def _create(self, name: str) -> None:
        if name not in self.server.objects[RESTORATIONS]:
            self.server.create(RESTORATIONS, make_vr(SPECS[name], name=name, labels=LABELS.get(name)))

    def _tell(self, change: Change) -> None:
        if change.resource not in ("events", "leases"):
            self.say(f"  {change.type} {change.resource} {change.body['metadata']['name']}")

    def _time(self) -> str:
        return f"{self.loop.time():9.2f}"


# How often each step occurs. Most of a history is ordinary work, or nothing would get far enough to go wrong.
WEIGHTS: Final = {
    "nothing": 12,
    "suspend": 4,
    "flap": 1,
    "delete": 2,
    "touch": 1,
    "edit_profile": 2,
    "limit_profile": 1,
    "delete_profile": 1,
    "spoil_snapshot": 1,
    "delete_job": 3,
    "take_job_name": 1,
    "delete_pod": 3,
    "evict": 2,
    "silence_node": 2,
    "wake_nodes": 2,
    "collect_pod": 1,
    "expire_jobs": 1,
    "quota": 1,
    "hold_queue": 2,
    "slow_controllers": 1,
    "kill": 2,
    "stop": 1,
    "freeze": 2,
    "crash_at_write": 5,
    "second_operator": 2,
    "trouble": 3,
    "slow_network": 1,
    "outage": 1,
    "lag": 2,
    "jumble": 2,
    "deafen": 1,
    "turn_clock": 1,
}
PAUSES: Final = (0, 0.2, 1, 3, 10, 40, 150)


def story(seed: int) -> list[Step]:
    """The history of a seed. Plain random choice: Hypothesis prefers short and repetitive examples, and a history must
    be long and varied before anything interesting can go wrong in it."""
    dice = random.Random(seed)
    names = dice.choices(list(WEIGHTS), weights=list(WEIGHTS.values()), k=STEPS)
    return [Step(name, dice.randrange(60), dice.choice(PAUSES)) for name in names]


@contextmanager
def world(seed: int, say: Callable[[str], None] | None = None) -> Iterator[World]:
    """A world with its chance under control, ended afterwards."""
    state = random.getstate()
    random.seed(int(noise(seed, "jitter") * 2**32))  # the operator's jitter comes from there
    made = World(seed, say=say)
    try:
        yield made
    finally:
        made.close()
        random.setstate(state)


@dataclass(frozen=True)
class Result:
    """What a whole history came to."""

    ends: tuple[str, ...]
    jobs: int
    status_writes: int
    fates: tuple[str, ...]
    simulated_seconds: float


def play(seed: int, steps: list[Step], say: Callable[[str], None] | None = None) -> Result:
    """A whole history and its end.

    Raises:
        BrokenPromiseError: the operator did not keep a promise.
    """
    with world(seed, say) as made:
        made.pass_time(1)
        for step in steps:
            made.step(step)
        made.finish()
        return Result(
            ends=tuple(made.ends()),
            jobs=len(made.promises.created),
            status_writes=made.promises.status_writes,
            fates=tuple(kind for kind, _ in made.kubelet.ended),
            simulated_seconds=made.loop.time(),
        )


def fails(seed: int, steps: list[Step]) -> str:
    """What a history breaks; empty if nothing."""
    try:
        play(seed, steps)
    except BrokenPromiseError as error:
        return str(error)
    return ""


def kind_of(failure: str) -> str:
    """A failure without what differs from one history to the next."""
    return re.sub(r"\d+|\b[abc]\b", "", failure)[:60]


def shortest(seed: int, steps: list[Step]) -> list[Step]:
    """Leave out whatever a failure does not need (in halves, quarters, … single steps)."""
    wanted = kind_of(fails(seed, steps))
    size = len(steps) // 2
    while size:
        for start in range(len(steps) - size, -1, -size):
            rest = steps[:start] + steps[start + size :]
            if kind_of(fails(seed, rest)) == wanted:
                steps = rest
        size //= 2
    return steps
