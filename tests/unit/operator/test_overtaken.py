"""What changes while a decision is made, or carried out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from tests.builders.observations import at
from tests.builders.resources import make_profile, make_vr
from tests.builders.simulation.client import Call, SimulatedCluster
from tests.builders.simulation.server import PROFILES, RESTORATIONS, Json, SimulatedServer, Watchman, text

from restoration_operator.profile_file import BuiltinProfile, ImageFiller
from restoration_operator.reconcile import Reconciler
from restoration_operator.store import Store

FILL = ImageFiller("runner:1", None)


class Scene:
    """One restoration, an operator that knows it, and somebody who acts while the snapshot is being written."""

    def __init__(self) -> None:
        self.server = SimulatedServer(lambda: at(0), Watchman())
        self.store = Store(builtin_profile=BuiltinProfile(None, FILL), complete=FILL, wake=lambda uid: None)
        self.store.put_profile({**self.server.create(PROFILES, make_profile()), "kind": "ClusterRestorationProfile"})
        self.uid = self.store.put_restoration(self.server.create(RESTORATIONS, make_vr(name="clip")))
        self.meanwhile = lambda: None
        self.reconciler = Reconciler(self.store, SimulatedCluster(self.answer), clock=lambda: at(0))

    async def answer(self, method: str, path: str, query: Mapping[str, Any], body: Json | None, content: str) -> Json:
        answer = self.server.handle(method, path, query, body, content)
        if method == "POST" and path.endswith("/configmaps"):
            self.meanwhile()
        return answer

    @property
    def stored(self) -> Json:
        return self.server.objects[RESTORATIONS]["clip"]

    def suspend(self) -> None:
        self.store.put_restoration(self.server.patch_spec(RESTORATIONS, self.stored, suspend=True))

    def delete(self) -> None:
        self.server.remove(RESTORATIONS, "clip")
        self.store.drop_restoration(self.uid)

    def touch(self) -> None:
        self.store.put_restoration(self.server.patch_metadata(RESTORATIONS, self.stored, labels={"touched": "yes"}))


@pytest.mark.parametrize(
    ("what", "jobs"),
    [("nothing", 1), ("touch", 1), ("suspend", 0), ("delete", 0)],
)
async def test_a_job_is_created_for_what_is_known_at_that_moment(what: str, jobs: int) -> None:
    scene = Scene()
    if what != "nothing":
        scene.meanwhile = getattr(scene, what)
    await scene.reconciler.reconcile(scene.uid)
    assert len(scene.server.objects["jobs"]) == jobs


class Relay:
    """Two operators without a lease. The plan is complete and its pod is gone, so each lists what the restoration owns
    before it goes on; the second one acts between the first one's listing and what the first one makes of it."""

    def __init__(self) -> None:
        self.server = SimulatedServer(lambda: at(0), Watchman())
        self.server.create(PROFILES, make_profile())
        self.uid: str = self.server.create(RESTORATIONS, make_vr(name="clip"))["metadata"]["uid"]
        self.meanwhile: Callable[[], Awaitable[object]] | None = None
        self.first, self.second = self.operator(self.answer), self.operator(self.handle)

    def operator(self, call: Call) -> tuple[Store, Reconciler]:
        store = Store(builtin_profile=BuiltinProfile(None, FILL), complete=FILL, wake=lambda uid: None)
        return store, Reconciler(store, SimulatedCluster(call), clock=lambda: at(0))

    async def handle(self, method: str, path: str, query: Mapping[str, Any], body: Json | None, content: str) -> Json:
        return self.server.handle(method, path, query, body, content)

    async def answer(self, method: str, path: str, query: Mapping[str, Any], body: Json | None, content: str) -> Json:
        answer = await self.handle(method, path, query, body, content)
        act, listed = self.meanwhile, method == "GET" and path.endswith("/pods")
        if listed and act is not None:
            self.meanwhile = None
            await act()
        return answer

    async def go_on(self, operator: tuple[Store, Reconciler]) -> None:
        """Its watches have told it everything; it decides."""
        store, reconciler = operator
        for body in self.server.objects[PROFILES].values():
            store.put_profile({**body, "kind": "ClusterRestorationProfile"})
        for body in self.server.objects["jobs"].values():
            store.put_job(body)
        store.put_restoration(self.server.objects[RESTORATIONS]["clip"])
        await reconciler.reconcile(self.uid)

    async def second_goes_on(self) -> None:
        await self.go_on(self.second)

    async def second_starts_over(self) -> None:
        """It went on, and a stranger has deleted the Job since: that is gone, whoever looks."""
        await self.second_goes_on()
        self.server.remove("jobs", next(name for name in self.server.objects["jobs"] if name.endswith("-run")))

    def complete_plan(self) -> None:
        [plan] = self.server.objects["jobs"].values()
        over = {"type": "Complete", "status": "True", "lastTransitionTime": text(at(0))}
        self.server.patch_status("jobs", plan, conditions=[over])


@pytest.mark.parametrize(
    ("second", "roles"),
    [
        (None, ["plan", "run"]),
        ("second_goes_on", ["plan", "run"]),
        ("second_starts_over", ["plan", "assemble"]),
    ],
)
async def test_a_listing_says_nothing_about_jobs_that_were_named_later(second: str | None, roles: list[str]) -> None:
    relay = Relay()
    await relay.go_on(relay.second)
    relay.complete_plan()
    relay.meanwhile = getattr(relay, second) if second else None
    await relay.go_on(relay.first)
    assert relay.meanwhile is None
    assert [name.rpartition("-")[2] for name in relay.server.objects["jobs"]] == roles
