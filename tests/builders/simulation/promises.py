"""What the operator promises, checked against every write that the API server accepts from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from restoration_api.outcome import EXIT_CODES, FAILURES, PERMANENT_EXIT_CODES, Budget, FailureReason
from restoration_operator.decide import classify
from restoration_operator.decide.attempts import HISTORY_ENTRIES
from restoration_operator.views import EXECUTION_LABEL, ROLE_LABEL, UID_LABEL
from tests.builders.simulation import counters
from tests.builders.simulation.controllers import job_end
from tests.builders.simulation.server import RESTORATIONS, Json, SimulatedServer, Watchman, owner

CONDITIONS: Final = ("Accepted", "Scheduled", "Suspended", "Succeeded", "Finished", "Reconciling", "Stalled")
T, F, U = "True", "False", "Unknown"

TRANSITIONS: Final[dict[str, frozenset[tuple[str, str]]]] = {
    "Accepted": frozenset({(T, F), (F, T)}),
    "Scheduled": frozenset({(U, T), (U, F), (T, U), (T, F), (F, U), (F, T)}),
    "Suspended": frozenset({(T, F), (F, T)}),
    "Succeeded": frozenset({(U, T), (U, F)}),
    "Finished": frozenset({(F, T)}),
    "Reconciling": frozenset({(T, F), (F, T)}),
    "Stalled": frozenset({(T, F), (F, T)}),
}
"""Changes of a condition's status; whatever is not here never happens."""

FIRST: Final = {
    "Accepted": {T, F, U}, "Scheduled": {U, F}, "Suspended": {T, F}, "Succeeded": {U, F}, "Finished": {F, T},
    "Reconciling": {T, F}, "Stalled": {T, F},
}  # fmt: skip
"""What the first visit may say. Finished at once: a restoration that contradicts itself."""

CLASSES: Final = frozenset(str(reason) for reason in FailureReason)
ENDS: Final = CLASSES | {"StartDeadlineExceeded", "RetriesExhausted"}
REASONS: Final[dict[tuple[str, str], frozenset[str]]] = {
    ("Accepted", T): frozenset({"Valid"}),
    ("Accepted", F): frozenset(
        {
            "ProfileNotFound",
            "ProfileNotReady",
            "LimitExceeded",
            "NotPermitted",
            "OutputClaimed",
            "NameConflict",
            "ChildRejected",
            "InvalidParameters",
        }
    ),
    ("Accepted", U): frozenset({"Pending"}),
    ("Scheduled", T): frozenset({"Running", "CacheHit"}),
    ("Scheduled", F): frozenset(
        {
            "Queued",
            "Unschedulable",
            "PodRejected",
            "MountFailed",
            "ImagePullError",
            "NodeLost",
            "StartDeadlineExceeded",
            "BackingOff",
        }
    ),
    ("Scheduled", U): frozenset({"Pending", "Planning"}),
    ("Suspended", T): frozenset({"UserRequested"}),
    ("Suspended", F): frozenset({"NotSuspended"}),
    ("Succeeded", U): frozenset({"InProgress"}),
    ("Succeeded", T): frozenset({"Completed", "CacheHit"}),
    ("Succeeded", F): ENDS,
    ("Finished", F): frozenset({"InProgress"}),
    ("Finished", T): ENDS | {"Completed", "CacheHit"},
    ("Reconciling", T): frozenset({"InProgress"}),
    ("Reconciling", F): frozenset({"Finished", "Suspended", "Stalled"}),
    ("Stalled", F): frozenset({"NotStalled"}),
}
"""Reasons of a condition by its status; `Stalled=True` repeats the reason of what it is about."""

DECIDED: Final = frozenset({"StartDeadlineExceeded", "DeadlineExceeded"})
DECIDED_BY_CLASS: Final = frozenset(
    {"StartupFailure", *(str(row.reason) for row in FAILURES.values() if row.budget is Budget.DISRUPTIONS)}
)
"""Ends that the operator itself decides on, over a Job that lives: it deletes the Job then."""

FINAL: Final = frozenset({"Completed", "CacheHit"}) | {str(EXIT_CODES[code]) for code in PERMANENT_EXIT_CODES}
"""Ends that a runner tells."""

PERMANENT: Final = frozenset(str(row.reason) for row in FAILURES.values() if row.permanent)


@dataclass
class Life:
    """What is known of one restoration, whatever its status still says."""

    closed: dict[int, str] = field(default_factory=dict)
    """Reason by execution, of attempts with an end time."""
    started: set[int] = field(default_factory=set)
    """Executions of which a Job was created."""
    written_at: int = 0
    written_by: str = ""
    """Version and author of the last status."""

    def gave_up(self, child: Json) -> bool:
        """Whether the execution of a Job or pod was declared lost: it may live on where nobody sees it."""
        return self.closed.get(int(child["metadata"]["labels"][EXECUTION_LABEL])) == FailureReason.NODE_LOST


class Promises(Watchman):
    """Collects what is broken; `failed` is told each one."""

    def __init__(self, failed: Callable[[str], None]) -> None:
        self.server: SimulatedServer | None = None
        self.lives: dict[str, Life] = {}
        self.created: list[tuple[str, int, str]] = []
        """Uid, execution and name of every Job that was ever created."""
        self.status_writes = 0
        self._failed = failed

    def _check(self, holds: object, sentence: str) -> None:
        if not holds:
            self._failed(sentence)

    def asked_to_write(self) -> None:
        """Where replicas share a lease, nobody but its holder writes."""
        assert self.server is not None
        for lease in self.server.objects["leases"].values():
            holder = lease["spec"]["holderIdentity"]
            writer = self.server.asked_by
            self._check(holder == writer, f"{writer} writes, and the lease is held by {holder or 'nobody'}")

    # Status.

    def wrote_status(self, before: Json, after: Json, sent: Json) -> None:
        assert self.server is not None
        self.status_writes += 1
        life = self.lives.setdefault(before["metadata"]["uid"], Life())
        life.written_at, life.written_by = self.server.version + 1, self.server.asked_by
        meta, old, new = before["metadata"], before.get("status") or {}, after["status"]
        name = meta["name"]
        seen = sent.get("metadata", {}).get("resourceVersion")
        self._check(seen == meta["resourceVersion"], f"{name}: written from a view that may be older than the object")
        self._check_conditions(name, old.get("conditions", ()), new.get("conditions", ()))
        self._check_sticky(name, old, new)
        self._check_attempts(meta["uid"], name, old, new)
        for sentence in counters.broken(old, new, over=finished(after)):
            self._failed(f"{name}: {sentence}")
        self._check(
            new.get("observedGeneration", 0) <= meta["generation"], f"{name}: observed a generation that does not exist"
        )
        if old.get("attemptHistory"):
            same = old["profile"]["hash"] == new["profile"]["hash"]
            self._check(same, f"{name} has run and was given another profile")
        if finished(after) and not finished(before):
            self._check_verdict(after)

    def _overtaken(self, life: Life) -> bool:
        """Whether another operator decided while the request that is being handled was on its way.

        A create cannot carry a precondition about another object. Where two operators share no lease, a slow one may
        arrive after its restoration is over; its sender then finds that out and removes the Job.
        """
        assert self.server is not None
        return life.written_at > self.server.asked_at and life.written_by != self.server.asked_by

    def _check_conditions(self, name: str, old: Iterable[Json], new: Iterable[Json]) -> None:
        was = {item["type"]: item for item in old}
        now = {item["type"]: item for item in new}
        self._check(tuple(now) == CONDITIONS, f"{name}: conditions are {tuple(now)}")
        for kind, item in now.items():
            status, reason = item["status"], item["reason"]
            allowed = REASONS.get((kind, status))
            self._check(allowed is None or reason in allowed, f"{name}: {kind}={status} for the reason {reason}")
            if kind not in was:
                self._check(status in FIRST[kind], f"{name}: {kind} is {status} at the first visit")
                continue
            before = was[kind]
            moved = before["status"] != status
            self._check(
                not moved or (before["status"], status) in TRANSITIONS[kind],
                f"{name}: {kind} went from {before['status']} to {status}",
            )
            same_time = before["lastTransitionTime"] == item["lastTransitionTime"]
            self._check(moved or same_time, f"{name}: {kind} did not change, its transition time did")
        over, succeeded = now["Finished"]["status"] == T, now["Succeeded"]["status"]
        self._check(over == (succeeded != U), f"{name}: Finished={over} with Succeeded={succeeded}")
        self._check(not over or now["Reconciling"]["status"] == F, f"{name} is finished and still reconciling")

    def _check_sticky(self, name: str, old: Json, new: Json) -> None:
        if not finished({"status": old}):
            return
        for key in {*old, *new} - {"observedGeneration"}:
            self._check(old.get(key) == new.get(key), f"{name} is finished, and its {key} was changed")

    def _check_attempts(self, uid: str, name: str, old: Json, new: Json) -> None:
        life = self.lives.setdefault(uid, Life())
        before, after = old.get("attempts", {}).get("executions", 0), new["attempts"]["executions"]
        self._check(before <= after <= before + 1, f"{name}: executions went from {before} to {after}")
        had = {item["execution"]: item for item in old.get("attemptHistory", ())}
        has = {item["execution"]: item for item in new.get("attemptHistory", ())}
        self._check(list(has) == sorted(has), f"{name}: attempts are not in order: {list(has)}")
        dropped = sorted(set(had) - set(has))
        if dropped:
            full = len(has) == HISTORY_ENTRIES and max(dropped) < min(has)
            self._check(full, f"{name}: attempts {dropped} were forgotten")
        for number, entry in has.items():
            self._check(number <= after, f"{name}: attempt {number} has no reserved number")
            if entry.get("endTime") is None:
                self._check(number not in life.closed, f"{name}: attempt {number} was opened again")
                continue
            reason = life.closed.setdefault(number, entry["reason"])
            self._check(reason == entry["reason"], f"{name}: attempt {number} was {reason}, now {entry['reason']}")
        if after > before:
            self._check_may_go_on(name, life, after)

    def _check_may_go_on(self, name: str, life: Life, number: int) -> None:
        for earlier, reason in life.closed.items():
            self._check(reason not in PERMANENT, f"{name}: execution {number} after {earlier} ended with {reason}")
            done = reason in ("Completed", "CacheHit")
            self._check(not done, f"{name}: execution {number} after {earlier} succeeded")
        missing = [one for one in life.started if one < number and one not in life.closed]
        self._check(not missing, f"{name}: execution {number} was reserved before {missing} were closed")

    def _check_verdict(self, body: Json) -> None:
        """An end that the facts contradict is worse than none."""
        status, uid, name = body["status"], body["metadata"]["uid"], body["metadata"]["name"]
        reason = next(item["reason"] for item in status["conditions"] if item["type"] == "Finished")
        life = self.lives.setdefault(uid, Life())
        jobs = [job for job in self._jobs(uid) if job["metadata"]["name"] == status.get("jobName")]
        last = (status.get("attemptHistory") or [{}])[-1].get("reason", reason)
        early = reason in DECIDED or (reason == "RetriesExhausted" and last in DECIDED_BY_CLASS)
        # What the runner has reported as the end is the end, also before its pod and its Job are over.
        told = [pod for pod in self._pods(uid) if reason in FINAL and _told(pod) == reason]
        living = [job for job in jobs if _lives(job) and not life.gave_up(job)]
        self._check(early or told or not living, f"{name}: {reason} while its Job lives")
        writing = [pod for pod in self._pods(uid) if _writes(pod) and not life.gave_up(pod) and pod not in told]
        self._check(early or not writing, f"{name}: {reason} while a pod of it lives")
        # A plan that is made is not the end: what its execution goes on with may still turn out to be impossible.
        complete = any(end["type"] == "Complete" for job in jobs if not _plans(job) and (end := job_end(job)))
        self._check(
            not complete or reason in ("Completed", "CacheHit"), f"{name}: {reason} although its Job is complete"
        )
        if complete:
            pods = [pod for pod in self._pods(uid) if not _plans(pod)]
            reports = [_report(pod) for pod in pods if pod["status"]["phase"] == "Succeeded"]
            self._check(not any(reports) or "output" in status, f"{name}: the runner's report was overlooked")

    # Jobs.

    def creates_job(self, job: Json) -> None:
        meta = job["metadata"]
        uid, number = owner(job), int(meta["labels"][EXECUTION_LABEL])
        life = self.lives.setdefault(uid, Life())
        body = self._restoration(uid)
        if body is not None:
            name, late = body["metadata"]["name"], self._overtaken(life)
            self._check(late or not finished(body), f"{name} is finished, and {meta['name']} was started for it")
            reserved = body.get("status", {}).get("attempts", {}).get("executions", 0)
            self._check(number <= reserved, f"{name}: {meta['name']} was created before its number was reserved")
            after = f"{name}: {meta['name']} was created after execution {reserved} began"
            self._check(late or number == reserved, after)
            self._check_budgets(body, life, number)
        closed = f"{meta['name']}: its execution was closed before"
        self._check(self._overtaken(life) or number not in life.closed, closed)
        for other in self._jobs(uid):
            two = f"two live Jobs: {other['metadata']['name']} and {meta['name']}"
            self._check(life.gave_up(other) or not _lives(other), two)
            end = job_end(other)
            hopeless = end is not None and end["reason"] == "PodFailurePolicy"
            self._check(not hopeless, f"{meta['name']} follows {other['metadata']['name']}, which no retry can change")
        for pod in self._pods(uid):
            beside = f"{meta['name']} was created beside the live pod {pod['metadata']['name']}"
            self._check(life.gave_up(pod) or number == 1 or not _writes(pod), beside)
        life.started.add(number)
        self.created.append((uid, number, meta["name"]))

    def _check_budgets(self, body: Json, life: Life, number: int) -> None:
        policy, name = body["spec"].get("retryPolicy") or {}, body["metadata"]["name"]
        spent: Counter[Budget] = Counter()
        by_class: Counter[str] = Counter(reason for one, reason in life.closed.items() if one < number)
        for reason, times in by_class.items():
            if reason not in CLASSES:
                continue
            row = FAILURES[FailureReason(reason)]
            spent[row.budget] += times
            most = row.most_retries
            self._check(most is None or times <= most, f"{name}: retried after {times} × {reason}")
        for budget, default in ((Budget.RETRIES, 3), (Budget.INFRASTRUCTURE, 5), (Budget.DISRUPTIONS, None)):
            most = policy.get(str(budget), default)
            self._check(most is None or spent[budget] <= most, f"{name}: {spent[budget]} tries of {budget}={most}")

    def patches_job(self, job: Json) -> None:
        over = self._restoration(owner(job))
        recorded = over is None or finished(over)
        entry = next(
            (
                item
                for item in (over or {}).get("status", {}).get("attemptHistory", ())
                if str(item["execution"]) == job["metadata"]["labels"][EXECUTION_LABEL]
            ),
            {},
        )
        gone_on = entry.get("reason") in ("Planned", "ReportLost") or (
            over is not None and over["status"].get("jobName") != job["metadata"]["name"]
        )
        recorded = recorded or gone_on or entry.get("endTime") is not None
        self._check(recorded, f"{job['metadata']['name']} was released before its end was stored")

    def deletes(self, resource: str, body: Json, options: Json) -> None:
        name = body["metadata"]["name"]
        self._check("propagationPolicy" in options, f"{name} was deleted without a propagation policy")
        self._check(options.get("preconditions", {}).get("uid"), f"{name} was deleted without a uid precondition")
        if resource == RESTORATIONS:
            self._check(finished(body), f"{name} was deleted before its end")

    # How.

    def _restoration(self, uid: str) -> Json | None:
        assert self.server is not None
        found = (body for body in self.server.objects[RESTORATIONS].values() if body["metadata"]["uid"] == uid)
        return next(found, None)

    def _jobs(self, uid: str) -> list[Json]:
        assert self.server is not None
        return self.server.owned("jobs", uid)

    def _pods(self, uid: str) -> list[Json]:
        assert self.server is not None
        pods = self.server.objects["pods"].values()
        return [pod for pod in pods if pod["metadata"]["labels"].get(UID_LABEL) == uid]


def finished(body: Json) -> bool:
    """Whether a restoration is over."""
    conditions = (body.get("status") or {}).get("conditions", ())
    return any(item["type"] == "Finished" and item["status"] == T for item in conditions)


def _lives(job: Json) -> bool:
    return job_end(job) is None and "deletionTimestamp" not in job["metadata"]


def _plans(child: Json) -> bool:
    return bool(child["metadata"]["labels"][ROLE_LABEL] == "plan")


def _writes(pod: Json) -> bool:
    return pod["status"]["phase"] not in ("Succeeded", "Failed")


def _told(pod: Json) -> str | None:
    """The reason that the runner of a pod has ended with, by its own report."""
    state = pod["status"].get("containerStatuses", ({},))[0].get("state", {})
    outcome = classify.read_outcome(state.get("terminated", {}).get("message", ""))
    return None if outcome is None else outcome.reason


def _report(pod: Json) -> str:
    return str(pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"])
