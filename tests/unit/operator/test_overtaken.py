"""What changes while a decision is carried out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tests.builders.observations import at
from tests.builders.resources import make_profile, make_vr
from tests.builders.simulation.client import SimulatedCluster
from tests.builders.simulation.server import PROFILES, RESTORATIONS, Json, SimulatedServer, Watchman

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
