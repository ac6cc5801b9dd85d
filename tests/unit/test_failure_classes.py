"""The failure table is part of the API: scripts match its reasons, Jobs its codes. Here it stands a second time."""

import pytest

from restoration_api.outcome import EXIT_CODES, FAILURES, PERMANENT_EXIT_CODES, Budget, FailureReason

NONE, RETRIES, INFRASTRUCTURE, DISRUPTIONS = "None", "maxRetries", "maxInfrastructureRetries", "maxDisruptions"

# reason, exit code, budget, cap of its own, whether the Job ends at once
AGREED = [
    ("InvalidInput", 10, NONE, None, True),
    ("InvalidParameters", 11, NONE, None, True),
    ("InputNotFound", 12, NONE, None, True),
    ("AccessDenied", 13, NONE, None, True),
    ("OutputConflict", 14, NONE, None, True),
    ("InsufficientGPUMemory", 15, NONE, None, True),
    ("InputChanged", 16, NONE, None, True),
    ("ModelInvalid", 17, NONE, None, True),
    ("GPUFault", 20, RETRIES, None, False),
    ("StorageError", 21, RETRIES, None, False),
    ("ModelUnavailable", 22, RETRIES, None, False),
    ("VerificationFailed", 23, RETRIES, 1, False),
    ("HostOutOfMemory", None, RETRIES, 1, False),
    ("Preempted", None, DISRUPTIONS, None, False),
    ("Evicted", None, DISRUPTIONS, None, False),
    ("NodeShutdown", None, DISRUPTIONS, None, False),
    ("NodeLost", None, DISRUPTIONS, None, False),
    ("PodDeleted", None, DISRUPTIONS, None, False),
    ("StartupFailure", None, INFRASTRUCTURE, None, False),
    ("DeadlineExceeded", None, NONE, None, False),
    ("SnapshotTampered", None, NONE, None, False),
    ("Unknown", None, RETRIES, None, False),
]


@pytest.mark.parametrize(("reason", "exit_code", "budget", "cap", "fails_job"), AGREED, ids=lambda value: str(value))
def test_failure_class(reason: str, exit_code: int | None, budget: str, cap: int | None, fails_job: bool) -> None:
    row = FAILURES[FailureReason(reason)]
    assert (row.exit_code, str(row.budget), row.most_retries) == (exit_code, budget, cap)
    assert (row.exit_code in PERMANENT_EXIT_CODES) is fails_job
    assert exit_code is None or EXIT_CODES[exit_code] == reason


def test_the_table_is_complete() -> None:
    assert [row[0] for row in AGREED] == list(map(str, FAILURES))
    assert set(FAILURES) == set(FailureReason)


def test_codes_leave_room_for_the_systems() -> None:
    """64 and above belong to sysexits, shells and signals: 126, 127, 137, 143 mean nothing of ours."""
    assert all(10 <= code < 64 for code in EXIT_CODES)


def test_budgets_are_fields_of_the_retry_policy() -> None:
    from restoration_api.resources.restoration import RetryPolicy

    names = {field.alias for field in RetryPolicy.model_fields.values()}
    assert {str(budget) for budget in Budget} - {NONE} <= names
