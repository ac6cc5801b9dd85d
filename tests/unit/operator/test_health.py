"""What the probes answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from restoration_operator import health
from restoration_operator.health import LONGEST_LAG_SECONDS, Health


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Seconds that pass when a test says so."""
    time = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(health, "time", SimpleNamespace(monotonic=lambda: time.now))
    return time


@pytest.fixture
def probes(clock: SimpleNamespace) -> Health:
    return Health(host="127.0.0.1", port=0, refresh=lambda: None)


REQUEST: Any = None
"""No answer depends on it."""


async def test_ready_is_synced(probes: Health) -> None:
    assert (await probes._readyz(REQUEST)).status == 503
    assert (await probes._healthz(REQUEST)).status == 200, "a process that waits for the API server is alive"
    probes.ready = True
    assert (await probes._readyz(REQUEST)).status == 200


async def test_a_loop_that_was_blocked_is_not_healthy(probes: Health, clock: SimpleNamespace) -> None:
    clock.now += LONGEST_LAG_SECONDS
    assert (await probes._healthz(REQUEST)).status == 200
    clock.now += 1
    answer = await probes._healthz(REQUEST)
    assert (answer.status, answer.text) == (503, "the event loop lags by 6.0 s\n"), "its beat is overdue"


async def test_the_lag_is_a_metric(probes: Health, clock: SimpleNamespace) -> None:
    clock.now += 3
    answer = await probes._metrics(REQUEST)
    assert isinstance(answer.body, bytes)
    assert b"vr_operator_loop_lag_seconds 3.0" in answer.body
