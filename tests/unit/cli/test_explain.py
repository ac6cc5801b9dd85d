"""Every way to wait, to run and to end has a sentence and, where there is one, a thing to do."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.builders.resources import make_vr
from tests.builders.statuses import failed, make_status, running, succeeded

from restoration_api.outcome import FAILURES
from restoration_api.resources.status import Attempt
from restoration_cli import reasons
from restoration_cli.explain import Explanation, attempt_line, explain
from restoration_cli.view import Restoration

NOW = datetime(2026, 3, 1, 12, 4, 30, tzinfo=UTC)
MESSAGE = "bucket media: something is the matter"
DECIDE = Path(__file__).resolve().parents[3] / "operator" / "restoration_operator" / "decide"


def say(status: Any = None, changes: Any = None, **metadata: Any) -> Explanation:
    """What is said about a restoration with this status."""
    body = make_vr(changes)
    body["metadata"] |= {"uid": "u", **metadata}
    return explain(Restoration.of(body | ({"status": status} if status else {})), NOW)


@pytest.mark.parametrize("row", FAILURES.values(), ids=lambda row: str(row.reason))
def test_every_class_of_failure_has_cause_message_and_remedy(row: Any) -> None:
    said = say(failed(row.reason, MESSAGE))
    assert said == Explanation(f"clip failed ({row.reason}): {row.meaning}.", MESSAGE, row.remedy, failed=True)


@pytest.mark.parametrize("row", FAILURES.values(), ids=lambda row: str(row.reason))
def test_a_used_up_budget_is_explained_by_the_last_failure(row: Any) -> None:
    said = say(failed("RetriesExhausted", MESSAGE, last=row.reason))
    assert said.failed
    assert f"at last with {row.reason}: {row.meaning}." in said.headline
    assert said.remedy == f"{row.remedy}; then: kubectl vr retry clip"


@pytest.mark.parametrize("reason", reasons.ACCEPTED)
def test_not_accepted(reason: str) -> None:
    status = "Unknown" if reason == "Pending" else "False"
    said = say(make_status("Pending", Accepted=f"{status}/{reason}", message=MESSAGE))
    means, remedy = reasons.ACCEPTED[reason].means, reasons.ACCEPTED[reason].remedy
    assert said == Explanation(f"clip waits ({reason}): {means}.", MESSAGE, remedy)


@pytest.mark.parametrize("reason", sorted({*reasons.SCHEDULED} - {"Running", "CacheHit", "BackingOff"}))
def test_not_running(reason: str) -> None:
    unknown = reason in ("Pending", "Planning")
    status = "Unknown" if unknown else "False"
    said = say(make_status("Starting", Scheduled=f"{status}/{reason}", message=MESSAGE))
    since = "" if unknown else ", for 4m30s"
    assert said.headline == f"clip waits ({reason}){since}: {reasons.SCHEDULED[reason].means}."
    assert (said.message, said.remedy) == (MESSAGE, reasons.SCHEDULED[reason].remedy)


@pytest.mark.parametrize(
    ("reason", "also"),
    [("BackingOff", ""), ("GPUFault", " (GPUFault: the GPU or its driver failed; tried elsewhere)")],
)
def test_between_two_executions(reason: str, also: str) -> None:
    said = say(make_status("Retrying", Scheduled=f"False/{reason}", message=MESSAGE))
    assert said.headline == f"clip waits: the last execution failed, and the next one comes after a pause{also}."
    assert said.remedy == reasons.NOTHING


OTHERS = [
    (None, {}, {}, "clip waits: no operator has looked at it yet.", "check that the operator runs"),
    (None, {"managedBy": "example.com/other"}, {}, "clip is managed by example.com/other", "ask example.com/other"),
    (make_status("Suspended"), {"suspend": True}, {}, "clip is suspended", "kubectl vr resume clip"),
    (running(41), {}, {"deletionTimestamp": "2026-03-01T12:00:00Z"}, "clip is being deleted.", "segments stay"),
    (running(41), {}, {}, "clip is at work: Restoring, 41% 41/100, 60s left.", ""),
    (succeeded(), {}, {}, "clip succeeded: the output is verified and published.", ""),
    (make_status("Starting", Scheduled="False/NewWord"), {}, {}, "the operator says NewWord", "newer kubectl-vr"),
]


@pytest.mark.parametrize(("status", "changes", "metadata", "headline", "remedy"), OTHERS)
def test_where_it_is(status: Any, changes: Any, metadata: Any, headline: str, remedy: str) -> None:
    said = say(status, changes, **metadata)
    assert headline in said.headline
    assert remedy in said.remedy
    assert not said.failed


ATTEMPTS = [
    ({"execution": 1}, "execution 1: not over"),
    (
        {
            "execution": 2,
            "nodeName": "n1",
            "exitCode": 21,
            "reason": "StorageError",
            "message": "503",
            "segmentsDone": 4,
        },
        "execution 2 on n1: StorageError (exit 21), 4 segments finished: 503",
    ),
]


@pytest.mark.parametrize(("fields", "line"), ATTEMPTS)
def test_executions_in_one_line(fields: Any, line: str) -> None:
    ended = {} if fields == {"execution": 1} else {"endTime": "2026-03-01T12:00:00Z"}
    assert attempt_line(Attempt.model_validate(fields | ended)) == line


# -- drift ------------------------------------------------------------------------------------------------------------


def _said_by_the_operator() -> Iterator[tuple[str, str]]:
    """(call, reason) of every `State(…, reason)` and `Refused(reason=…)` in the operator's policy."""
    for path in sorted(DECIDE.glob("*.py")):
        module = importlib.import_module(f"restoration_operator.decide.{path.stem}")
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            where = given.get("reason") or (node.args[1] if node.func.id == "State" and len(node.args) > 1 else None)
            if node.func.id not in ("State", "Refused", "NoProfile") or where is None:
                continue
            value = where.value if isinstance(where, ast.Constant) else None
            if isinstance(where, ast.Name):
                value = getattr(module, where.id, None)
            if isinstance(value, str):
                yield node.func.id, str(value)


def test_the_operator_says_nothing_that_has_no_words_here() -> None:
    said = set(_said_by_the_operator())
    # The table is read from the code: that it is read at all is seen from reasons that have always been there.
    assert {("Refused", "OutputClaimed"), ("State", "Unschedulable"), ("State", "Queued")} <= said
    no_words = {"Valid", "UserRequested", "NotSuspended", "NotStalled", "InProgress"}
    known = {*reasons.ACCEPTED, *reasons.SCHEDULED, *reasons.ENDINGS, *map(str, FAILURES)}
    assert {reason for _, reason in said} - no_words <= known
