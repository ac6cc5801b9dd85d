"""The simulation can fail: each of these defects, planted into the real code, breaks a promise within a few histories.

| mutant                        | what is wrong with it                                                      |
| ----------------------------- | -------------------------------------------------------------------------- |
| blind status write            | a status is stored over whatever lies there, however old the view          |
| blind delete                  | a delete that would also hit a namesake                                    |
| no budgets                    | retries for ever                                                           |
| permanent is retried          | a broken video is tried again                                              |
| a second writer               | a pod that is being deleted is taken for one that has ended                |
| trust in a stale view         | what the watch has not told does not exist                                 |
| not sticky                    | a finished restoration is decided on again                                 |
| act, then record              | a Job is created before its number is reserved                             |
| released too early            | the Job's TTL is set while it is the only place with the result            |
| forgetful                     | the attempt history keeps the last attempt only                            |
| restless                      | transition times move although nothing has changed                         |
| deaf for ever                 | a watch that is silent is never noticed                                    |
| worker lost                   | a key is never given back, so its restoration is never looked at again     |
| counted twice                 | a failure is taken from its budget twice                                   |
| budgets given back            | with a new execution, what was counted before is forgotten                 |
| time counted for ever         | the running time of an attempt is counted again with the next one's        |
| believes the runner           | frames fall where the runner says so                                       |
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import pytest
import structlog
from tests.builders.simulation.history import fails, story

from restoration_api.resources.status import Attempts
from restoration_operator.cluster import Cluster
from restoration_operator.decide import attempts, conclusion, conditions, decision, progress, retry
from restoration_operator.reconcile import Reconciler
from restoration_operator.resync import Resync
from restoration_operator.store import Store
from restoration_operator.views import PodView
from restoration_operator.workqueue import WorkQueue

HISTORIES: Final = 300
"""In which a mutant has to be caught; most are in the first three."""

Plant = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


def blind_status_write(patch: pytest.MonkeyPatch) -> None:
    real = Cluster._write

    async def write(self: Cluster, method: str, path: str, body: Any, *, verb: str, **rest: Any) -> Any:
        if verb == "apply_status":
            body = body | {"metadata": {key: body["metadata"][key] for key in ("name", "namespace")}}
        return await real(self, method, path, body, verb=verb, **rest)

    patch.setattr(Cluster, "_write", write)


def blind_delete(patch: pytest.MonkeyPatch) -> None:
    real = Cluster._write

    async def write(self: Cluster, method: str, path: str, body: Any, *, verb: str, **rest: Any) -> Any:
        if verb == "delete_job":
            body = {key: value for key, value in body.items() if key != "preconditions"}
        return await real(self, method, path, body, verb=verb, **rest)

    patch.setattr(Cluster, "_write", write)


def no_budgets(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(retry, "_most", lambda policy, budget: None)


def permanent_is_retried(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(conclusion.retry, "judge", lambda policy, status, ending, number: retry.Again(status.attempts))


def a_second_writer(patch: pytest.MonkeyPatch) -> None:
    def terminal(self: PodView) -> bool:
        return self.gone or self.phase in ("Succeeded", "Failed") or self.deletion_requested is not None

    patch.setattr(PodView, "terminal", property(terminal))


def trust_in_a_stale_view(patch: pytest.MonkeyPatch) -> None:
    real = Store.observe

    def observe(self: Store, restoration: Any, **certain: Any) -> Any:
        return replace(real(self, restoration, **certain), confirmed=True)

    patch.setattr(Store, "observe", observe)


def not_sticky(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decision, "is_finished", lambda restoration: False)


def act_then_record(patch: pytest.MonkeyPatch) -> None:
    async def keep_to_oneself(self: Reconciler, restoration: Any, status: Any, *rest: Any) -> None:
        self._store.put_restoration(restoration.model_copy(update={"status": status}).model_dump(by_alias=True))

    patch.setattr(Reconciler, "_record", keep_to_oneself)


def released_too_early(patch: pytest.MonkeyPatch) -> None:
    real = Reconciler._create_job

    async def create(self: Reconciler, restoration: Any, manifest: Any) -> None:
        await real(self, restoration, manifest)
        for job in self._store.jobs(restoration.metadata.uid):
            await self._cluster.set_job_ttl(job, 0)

    patch.setattr(Reconciler, "_create_job", create)


def forgetful(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(attempts, "HISTORY_ENTRIES", 1)


def restless(patch: pytest.MonkeyPatch) -> None:
    real = conditions._condition

    def condition(before: Any, kind: Any, state: Any, generation: int, now: Any) -> Any:
        return real(before, kind, state, generation, now).model_copy(update={"last_transition_time": now})

    patch.setattr(conditions, "_condition", condition)


def deaf_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Resync, "_behind", lambda self, listing: {})


def worker_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WorkQueue, "done", lambda self, key: None)


def counted_twice(patch: pytest.MonkeyPatch) -> None:
    real = retry.judge

    def judge(policy: Any, status: Any, ending: Any, *, number: int) -> Any:
        verdict = real(policy, status, ending, number=number)
        if not isinstance(verdict, retry.Again):
            return verdict
        once = status.model_copy(update={"attempts": verdict.counted})
        again = real(policy, once, ending, number=number)
        return again if isinstance(again, retry.Again) else verdict

    patch.setattr(retry, "judge", judge)


def budgets_given_back(patch: pytest.MonkeyPatch) -> None:
    real = decision._create

    def create(seen: Any, *rest: Any) -> Any:
        status = seen.restoration.status
        counted = Attempts(executions=status.attempts.executions, running_seconds=status.attempts.running_seconds)
        return real(conclusion.with_status(seen, status.model_copy(update={"attempts": counted})), *rest)

    patch.setattr(decision, "_create", create)


def time_counted_for_ever(patch: pytest.MonkeyPatch) -> None:
    def close(status: Any, number: int, ending: Any, **facts: Any) -> Any:
        closed = real(status, number, ending, **facts)
        earlier = sum(attempts.ran_seconds(item) for item in status.attempt_history if item.execution != number)
        return attempts.with_running_seconds(closed, earlier)

    real = attempts.close
    patch.setattr(attempts, "close", close)


def believes_the_runner(patch: pytest.MonkeyPatch) -> None:
    real = progress._status

    def status(stored: Any, said: Any, at: Any) -> Any:
        return real(stored, said, at).model_copy(update={"frames_done": said.frames_done})

    patch.setattr(progress, "_status", status)


MUTANTS: Final[dict[str, tuple[Plant, str]]] = {
    "blind status write": (blind_status_write, "from a view that may be older"),
    "blind delete": (blind_delete, "without a uid precondition"),
    "no budgets": (no_budgets, "tries of max"),
    "permanent is retried": (permanent_is_retried, "ended with|no retry can change|retries went from"),
    "a second writer": (a_second_writer, "two live Jobs|beside the live pod|while a pod of it lives"),
    "trust in a stale view": (trust_in_a_stale_view, "lives|two live Jobs|beside the live pod|complete|overlooked"),
    "not sticky": (not_sticky, "went from|is finished"),
    "act, then record": (act_then_record, "before its number was reserved"),
    "released too early": (released_too_early, "released before its end"),
    "forgetful": (forgetful, "were forgotten|does not come to rest"),
    "restless": (restless, "its transition time did"),
    "deaf for ever": (deaf_for_ever, "is not finished|is kept for ever"),
    "worker lost": (worker_lost, "is not finished"),
    "counted twice": (counted_twice, " ended"),
    "budgets given back": (budgets_given_back, " fell from "),
    "time counted for ever": (time_counted_for_ever, "for executions that ran for"),
    "believes the runner": (believes_the_runner, "framesDone fell from"),
}

BEGIN: Final = {"a second writer": 29, "trust in a stale view": 146, "deaf for ever": 29, "believes the runner": 20}
"""Where the search begins for those that few histories catch: at the first that does. It goes on from there, round to
the one before, should that no longer be so."""


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planted_defect_is_caught(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, symptom = MUTANTS[mutant]
    plant(monkeypatch)
    begin = BEGIN.get(mutant, 0)
    for seed in (*range(begin, HISTORIES), *range(begin)):
        failure = fails(seed, story(seed))
        if failure:
            print(f"{mutant}: caught by history {seed}: {failure[:200]}")
            assert any(word in failure for word in symptom.split("|")), failure
            return
    raise AssertionError(f"{mutant} lived through {HISTORIES} histories")
