"""A watch that is alive in appearance only is found, and nothing else is taken for one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.builders.resources import make_profile, make_vr
from tests.builders.simulation.client import SimulatedCluster
from tests.builders.simulation.server import PROFILES, RESTORATIONS, SimulatedServer, Watchman

from restoration_operator.decide.cleanup import Finished
from restoration_operator.decide.types import NoProfile
from restoration_operator.resync import Resync, StaleWatchError
from restoration_operator.settings import Settings
from restoration_operator.store import Store
from restoration_operator.views import MANAGED_BY_LABEL, MANAGER
from restoration_operator.workqueue import WorkQueue

SETTINGS = Settings(runner_image="runner:1", resync_seconds=0.01, stale_watch_seconds=0.01)
NONE = NoProfile(reason="ProfileNotFound", message="")


class Lab:
    """A cluster, and a store that hears of it only what a test delivers."""

    def __init__(self) -> None:
        self.server = SimulatedServer(lambda: datetime(2026, 1, 1, tzinfo=UTC), Watchman())
        self.store = Store(builtin_profile=lambda: NONE, complete=lambda spec: spec, wake=lambda uid: None)
        self.queue = WorkQueue()
        self.resync = Resync(self.store, SimulatedCluster.of(self.server), self.queue, SETTINGS)

    async def stale(self) -> bool:
        """Whether one comparison ends in the verdict."""
        try:
            await self.resync._insist_on(await self.resync.compare())
        except StaleWatchError:
            return True
        return False


def job(owner: str) -> dict[str, Any]:
    reference = {"apiVersion": "v1", "kind": "VideoRestoration", "name": "clip", "uid": owner, "controller": True}
    labels = {MANAGED_BY_LABEL: MANAGER}
    metadata = {"name": "vr-clip", "namespace": "default", "labels": labels, "ownerReferences": [reference]}
    return {"metadata": metadata, "spec": {}, "status": {}}


async def test_a_quiet_cluster() -> None:
    lab = Lab()
    lab.store.put_restoration(lab.server.create(RESTORATIONS, make_vr()))
    assert not await lab.stale()


@pytest.mark.parametrize("kind", [RESTORATIONS, "jobs", PROFILES])
async def test_an_object_that_no_watch_has_ever_told(kind: str) -> None:
    lab = Lab()
    lab.server.create(kind, {RESTORATIONS: make_vr(), "jobs": job("1"), PROFILES: make_profile()}[kind])
    assert await lab.stale()


async def test_a_change_that_no_watch_has_told() -> None:
    lab = Lab()
    body = lab.server.create(RESTORATIONS, make_vr())
    lab.store.put_restoration(body)
    lab.server.patch_spec(RESTORATIONS, body, suspend=True)
    assert await lab.stale()


async def test_a_change_that_comes_a_moment_late(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab()
    body = lab.server.create(RESTORATIONS, make_vr())

    async def deliver(seconds: float) -> None:
        assert seconds == SETTINGS.stale_watch_seconds
        lab.store.put_restoration(body)

    monkeypatch.setattr("restoration_operator.resync.asyncio.sleep", deliver)
    assert not await lab.stale()


async def test_an_object_that_is_gone_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab()
    body = lab.server.create(RESTORATIONS, make_vr())

    async def remove(seconds: float) -> None:
        lab.server.remove(RESTORATIONS, body["metadata"]["name"])

    monkeypatch.setattr("restoration_operator.resync.asyncio.sleep", remove)
    assert not await lab.stale()


async def test_an_object_that_cannot_be_read_was_delivered_all_the_same() -> None:
    """Else one object of a newer operator would end this one every ten minutes."""
    lab = Lab()
    body = make_vr()
    body["spec"]["input"] = {"uri": 7}
    stored = lab.server.create(RESTORATIONS, body)
    with pytest.raises(ValueError, match="uri"):
        lab.store.put_restoration(stored)
    assert not await lab.stale()


async def test_an_end_that_no_watch_has_told_is_looked_after() -> None:
    """Another operator has ended it, and its Job is still to be released."""
    lab = Lab()
    body = lab.server.create(RESTORATIONS, make_vr())
    lab.store.put_restoration(body)
    condition = {"type": "Finished", "status": "True", "reason": "Completed", "message": "", "observedGeneration": 1}
    over = [condition | {"lastTransitionTime": "2026-01-01T00:00:00Z"}]
    lab.server.patch_status(RESTORATIONS, body, phase="Succeeded", conditions=over, observedGeneration=1)
    await lab.resync.compare()
    assert isinstance(lab.store.restoration(body["metadata"]["uid"]), Finished)
    assert await lab.queue.take() == body["metadata"]["uid"]
