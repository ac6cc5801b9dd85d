"""What the operator remembers, and whom it wakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.builders.observations import T0, at
from tests.builders.resources import make_profile, make_vr

from restoration_api.resources import VideoRestoration
from restoration_operator.decide.cleanup import Finished
from restoration_operator.decide.decision import decide
from restoration_operator.decide.types import NoProfile, Profile
from restoration_operator.profile_file import BuiltinProfile, ImageFiller
from restoration_operator.store import Store
from restoration_operator.views import EXECUTION_LABEL, JOB_NAME_LABEL, UID_LABEL
from restoration_operator.watch import Feed
from restoration_operator.workqueue import WorkQueue

Body = dict[str, Any]
FILL = ImageFiller("runner:1", None)


@pytest.fixture
def woken() -> list[str]:
    return []


@pytest.fixture
def store(woken: list[str]) -> Store:
    return Store(builtin_profile=BuiltinProfile(None, FILL), complete=FILL, wake=woken.append)


def vr(name: str = "clip", *, version: int = 1, age: int = 0, status: Body | None = None, **changes: Any) -> Body:
    body = make_vr({"output.uri": f"s3://media/out/{name}.mp4"} | changes, name=name)
    body["metadata"] |= {
        "uid": f"uid-{name}",
        "resourceVersion": str(version),
        "generation": 1,
        "creationTimestamp": at(-age).isoformat(),
    }
    return body | {"status": status or {}}


def pod(version: int = 1, phase: str = "Running", uid: str = "pod") -> Body:
    labels = {UID_LABEL: "uid-clip", EXECUTION_LABEL: "1", JOB_NAME_LABEL: "job"}
    meta = {"name": uid, "namespace": "default", "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {"metadata": meta | {"creationTimestamp": T0.isoformat()}, "spec": {}, "status": {"phase": phase}}


def reserved(executions: int = 1) -> Body:
    return {"attempts": {"executions": executions}, "observedGeneration": 1}


def over(reason: str = "Completed") -> Body:
    transition = {"lastTransitionTime": T0.isoformat(), "reason": reason, "message": ""}
    return reserved() | {"conditions": [{"type": "Finished", "status": "True", **transition}]}


def refused() -> Body:
    transition = {"lastTransitionTime": T0.isoformat(), "reason": "NotPermitted", "message": ""}
    return {"conditions": [{"type": "Accepted", "status": "False", **transition}]}


def version_of(store: Store) -> int:
    return store.version("uid-clip")


def test_a_late_event_does_not_undo_what_is_known(store: Store) -> None:
    store.put_restoration(vr(version=10, status=reserved()))
    store.put_restoration(vr(version=9))
    assert version_of(store) == 10
    store.put_pod(pod(version=5, phase="Succeeded"))
    store.put_pod(pod(version=4, phase="Running"))
    assert [view.phase for view in store.pods("uid-clip")] == ["Succeeded"]


def test_a_namesake_is_another_object(store: Store) -> None:
    store.put_restoration(vr(version=10, status=reserved()))
    again = vr(version=20)
    again["metadata"]["uid"] = "uid-again"
    store.put_restoration(again)
    fresh = store.restoration("uid-again")
    assert isinstance(fresh, VideoRestoration)
    assert fresh.status.attempts.executions == 0


def test_last_words_of_a_deleted_pod_are_kept_until_the_end(store: Store) -> None:
    store.put_restoration(vr(version=1, status=reserved()))
    store.put_pod(pod(version=2))
    store.drop_pod("pod", pod(version=3, phase="Failed"))
    [last] = store.pods("uid-clip")
    assert (last.gone, last.phase, last.terminal) == (True, "Failed", True)
    store.put_pod(pod(version=2))
    assert store.pods("uid-clip")[0].gone, "a late event brings nobody back"
    store.put_restoration(vr(version=9, status=over()))
    assert store.pods("uid-clip") == ()


def test_few_gone_pods_are_kept(store: Store) -> None:
    store.put_restoration(vr(status=reserved()))
    for number in range(20):
        store.put_pod(pod(uid=f"pod-{number}"))
        store.drop_pod(f"pod-{number}")
    assert len(store.pods("uid-clip")) == 4


def test_what_is_over_is_a_few_values(store: Store) -> None:
    store.put_restoration(vr(status=over(), ttlSecondsAfterFinished=60))
    known = store.restoration("uid-clip")
    assert isinstance(known, Finished)
    assert (known.reason, known.ttl_seconds, known.job_ttl_seconds) == ("Completed", 60, 3600)


def test_what_is_over_but_changed_since_is_looked_at_again(store: Store) -> None:
    body = vr(status=over())
    body["metadata"]["generation"] = 2
    store.put_restoration(body)
    known = store.restoration("uid-clip")
    assert isinstance(known, VideoRestoration)
    assert decide(store.observe(known), T0).status.observed_generation == 2


@pytest.mark.parametrize("how", ["finished", "deleted"])
def test_who_waits_for_an_output_is_woken(store: Store, woken: list[str], how: str) -> None:
    store.put_restoration(vr("first", status=reserved(), **{"output.uri": "s3://media/out.mp4"}))
    store.put_restoration(vr("second", **{"output.uri": "s3://media/out.mp4"}))
    if how == "deleted":
        store.drop_restoration("uid-first")
    else:
        store.put_restoration(vr("first", version=2, status=over(), **{"output.uri": "s3://media/out.mp4"}))
    assert "uid-second" in woken
    second = store.restoration("uid-second")
    assert isinstance(second, VideoRestoration)
    assert store.observe(second).rivals == ()


class TestSlots:
    def slots(self, store: Store, name: str) -> tuple[int, int]:
        store.put_profile(make_profile({"limits.maxActive": 2}) | {"kind": "ClusterRestorationProfile"})
        known = store.restoration(f"uid-{name}")
        assert isinstance(known, VideoRestoration)
        seen = store.observe(known).slots
        return seen.active, seen.ahead

    def test_active_and_older_ones_count(self, store: Store) -> None:
        store.put_restoration(vr("runs", age=9, status=reserved()))
        store.put_restoration(vr("over", age=9, status=over()))
        store.put_restoration(vr("refused", age=8, status=refused()))
        store.put_restoration(vr("suspended", age=8, suspend=True))
        store.put_restoration(vr("unseen", age=7))
        store.put_restoration(vr("me", age=5))
        store.put_restoration(vr("younger", age=1))
        assert self.slots(store, "me") == (1, 1)

    def test_a_burst_does_not_overrun_the_cap(self, store: Store) -> None:
        """All decisions are made from the same view, before any of them is written."""
        for number in range(5):
            store.put_restoration(vr(f"clip-{number}", age=10 - number))
        admitted = []
        for number in range(5):
            active, ahead = self.slots(store, f"clip-{number}")
            admitted.append(active + ahead < 2)
        assert admitted == [True, True, False, False, False]

    @pytest.mark.parametrize("after", [over(), refused()], ids=["finished", "refused"])
    def test_the_next_in_line_are_woken(self, store: Store, woken: list[str], after: Body) -> None:
        store.put_restoration(vr("first", age=9, status=reserved() if "attempts" in after else {}))
        store.put_restoration(vr("second", age=5))
        woken.clear()
        store.put_restoration(vr("first", age=9, version=2, status=after))
        assert woken == ["uid-second"]


def test_a_real_default_profile_wins_over_the_built_in_one(tmp_path: Path) -> None:
    file = tmp_path / "profile.yaml"
    file.write_text(yaml.safe_dump(make_profile()["spec"]))
    store = Store(builtin_profile=BuiltinProfile(file, FILL), complete=FILL, wake=lambda uid: None)
    asked = VideoRestoration.model_validate(vr())
    builtin = store.profile_of(asked)
    assert isinstance(builtin, Profile)
    assert builtin.kind == "Builtin"
    store.put_profile(make_profile({"image": "theirs:1"}) | {"kind": "ClusterRestorationProfile"})
    real = store.profile_of(asked)
    assert isinstance(real, Profile)
    assert (real.kind, real.spec.image) == ("ClusterRestorationProfile", "theirs:1")
    store.drop_profile(("ClusterRestorationProfile", None, "default"))
    assert store.profile_of(asked) == builtin


def test_a_team_profile_is_looked_up_in_the_restorations_namespace(store: Store) -> None:
    elsewhere = make_profile(kind="RestorationProfile", name="team", namespace="studio-b")
    store.put_profile(elsewhere)
    asked = VideoRestoration.model_validate(vr(profileRef={"kind": "RestorationProfile", "name": "team"}))
    missing = store.profile_of(asked)
    assert isinstance(missing, NoProfile)
    assert missing.message == "there is no RestorationProfile 'team' in namespace default"


class TestEchoes:
    """An own write comes back as a watch event: whoever wrote has decided again since."""

    async def told(self, store: Store, body: Body, kind: str = "restoration") -> list[str]:
        """Whose turn it is after a watch event."""
        queue = WorkQueue()
        feed = Feed(store, queue, profile_changed=lambda body: None)
        await getattr(feed, kind)(event={"type": "MODIFIED", "object": body})
        return [await queue.take()] if len(queue) else []

    async def test_news_wakes(self, store: Store) -> None:
        store.put_restoration(vr(version=1))
        assert await self.told(store, vr(version=2)) == [vr()["metadata"]["uid"]]

    async def test_an_echo_does_not(self, store: Store) -> None:
        store.put_restoration(vr(version=2))
        assert await self.told(store, vr(version=2)) == []

    async def test_what_is_over_has_echoes_too(self, store: Store) -> None:
        store.put_restoration(vr(version=2, status=over()))
        assert await self.told(store, vr(version=2, status=over())) == []

    async def test_children(self, store: Store) -> None:
        store.put_pod(pod(version=3))
        assert await self.told(store, pod(version=3), "pod") == []
        assert await self.told(store, pod(version=4), "pod") != []

    async def test_a_deletion_is_never_an_echo(self, store: Store) -> None:
        store.put_restoration(vr(version=2))
        feed = Feed(store, WorkQueue(), profile_changed=lambda body: None)
        await feed.restoration(event={"type": "DELETED", "object": vr(version=2)})
        assert store.uids() == ()
