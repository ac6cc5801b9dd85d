"""The example of this repository under a real Argo CD, with restorations that really run.

One life, in order: the tree grows by waves, nothing drifts, nothing runs twice, actions, pruning (its end is in
test_uninstall.py).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import yaml

from tests.gitops.scene import EXAMPLE, FINISHED, OPERATOR, STUDIO, TREE, Scene

pytestmark = pytest.mark.timeout(600)
DESK = "desk"
SERVER_SIDE = "argocd.argoproj.io/compare-options"


def moment(body: Any, *path: str) -> datetime:
    """A time in an object."""
    for key in path:
        body = body[key]
    return datetime.fromisoformat(body)


def condition(body: Any, kind: str) -> Any:
    return next(item for item in body["status"]["conditions"] if item["type"] == kind)


def test_waves_wait_for_the_operator_the_profile_and_each_other(tree: Scene) -> None:
    namespace = tree.lab.kubectl.in_namespace("video-restoration")
    operator = namespace.get("deployment", "video-restoration-video-restoration-operator")
    studio = tree.argo.application(STUDIO)
    assert moment(condition(operator, "Available"), "lastTransitionTime") <= moment(
        studio, "metadata", "creationTimestamp"
    )
    profile = tree.lab.kubectl.get("rprof", "nano")
    episode, second = tree.restoration("episode"), tree.restoration("second-pass")
    assert moment(condition(profile, "Ready"), "lastTransitionTime") <= moment(episode, "metadata", "creationTimestamp")
    assert moment(episode, "status", "completionTime") <= moment(second, "metadata", "creationTimestamp")
    videos = {key for key in tree.videos() if key.endswith(".mp4")}
    assert videos == {f"{tree.lab.prefix}restored/{name}.mp4" for name in FINISHED}
    assert len(tree.videos()) == 2 * len(videos), "each has its manifest"


def test_health_is_progressing_until_it_is_healthy(tree: Scene) -> None:
    """Without our health check, Argo CD calls a restoration Healthy the moment it exists."""
    for name in FINISHED:
        said = [health for resource, health in tree.history if resource == name]
        assert said[-1] == "Healthy" and set(said[:-1]) <= {"Missing", "Progressing"}, tree.history
        assert tree.health(STUDIO, name)[1].startswith("Completed")
    assert "Progressing" in {health for _, health in tree.history}


def test_nothing_drifts_after_the_work_is_done(tree: Scene) -> None:
    """Defaulted fields, status and field managers are no difference."""
    episode = tree.restoration("episode")
    [in_git] = yaml.safe_load_all((tree.repository.folder / EXAMPLE / "studio" / "episode.yaml").read_text())
    assert set(episode["spec"]) > set(in_git["spec"]), "the API server filled in defaults"
    for application in (TREE, OPERATOR, STUDIO):
        assert tree.refresh(application, hard=True)["sync"]["status"] == "Synced"
        difference = tree.argo.attempt("app", "diff", application, "--exit-code")
        assert (difference.returncode, difference.stdout) == (0, ""), difference.stdout + difference.stderr
    # By the API server's own dry run, too.
    annotate = ["annotate", "applications.argoproj.io", STUDIO]
    tree.argo.kubectl.run(*annotate, f"{SERVER_SIDE}=ServerSideDiff=true")
    assert tree.refresh(STUDIO, hard=True)["sync"]["status"] == "Synced"
    tree.argo.kubectl.run(*annotate, f"{SERVER_SIDE}-")


def record(scene: Scene, name: str) -> Any:
    """What changes when a restoration is run again."""
    body = scene.restoration(name)
    status = body["status"]
    return body["metadata"]["uid"], body["metadata"]["generation"], status["attempts"], status["completionTime"]


@pytest.mark.parametrize("how", ["plain", "--force", "--replace"])
def test_a_sync_runs_nothing_again(tree: Scene, how: str) -> None:
    before = [record(tree, name) for name in FINISHED], tree.videos(), jobs(tree)
    tree.argo.run("app", "sync", STUDIO, *([how] if how.startswith("-") else []))
    assert tree.refresh(STUDIO)["sync"]["status"] == "Synced"
    assert ([record(tree, name) for name in FINISHED], tree.videos(), jobs(tree)) == before


def jobs(scene: Scene) -> set[str]:
    return {job["metadata"]["uid"] for job in scene.lab.kubectl.list("jobs")}


@pytest.fixture(scope="module")
def desk(tree: Scene) -> Iterator[Scene]:
    """A second Application beside the tree: a restoration that fails, one that is suspended in git, one that waits."""
    spec = {
        "missing": {"input": {"uri": tree.lab.uri("raw/late.mp4")}, "cache": "Use"},
        "paused": {"suspend": True},
        "waiting": {"profileRef": {"kind": "RestorationProfile", "name": "late"}},
    }
    for name, changes in spec.items():
        write_restoration(tree, name, changes)
    tree.repository.commit("a desk")
    application = yaml.safe_load((tree.repository.folder / EXAMPLE / "apps" / "studio.yaml").read_text())
    application["metadata"]["name"] = DESK
    application["spec"]["source"]["path"] = DESK
    tree.argo.kubectl.run("apply", "--filename=-", stdin=json.dumps(application))
    yield tree


def write_restoration(scene: Scene, name: str, changes: dict[str, Any]) -> None:
    """Put a restoration of the episode into the desk's folder of the repository."""
    spec = {
        "profileRef": {"kind": "RestorationProfile", "name": "nano"},
        "input": {"uri": scene.lab.uri("raw/episode.mp4")},
        "output": {"uri": scene.lab.uri(f"desk/{name}.mp4")},
        "cache": "Bypass",
    }
    body = {"apiVersion": "videorestoration.dev/v1alpha1", "kind": "VideoRestoration", "metadata": {"name": name}}
    scene.repository.write({f"{DESK}/{name}.yaml": yaml.safe_dump(body | {"spec": spec | changes})})


def act(scene: Scene, action: str, name: str) -> subprocess.CompletedProcess[str]:
    """What the button in the UI does; returns what Argo CD answered."""
    chosen = ["--kind=VideoRestoration", f"--resource-name={name}"]
    return scene.argo.attempt("app", "actions", "run", DESK, action, *chosen)


def offered(scene: Scene, name: str) -> dict[str, bool]:
    """Actions by name, and whether they can be chosen now."""
    chosen = ["--kind=VideoRestoration", f"--resource-name={name}", "--out=json"]
    found = json.loads(scene.argo.run("app", "actions", "list", DESK, *chosen))
    return {item["Action"]: not item["Disabled"] for item in found}


def test_an_action_on_what_git_leaves_open_lasts(desk: Scene) -> None:
    """`suspend` is in no manifest: the action decides, and repairing drift does not undo it."""
    desk.until_health(DESK, "waiting", "Progressing", saying="ProfileNotFound")
    assert offered(desk, "waiting") == {"suspend": True, "resume": False, "retry": False}
    assert act(desk, "suspend", "waiting").returncode == 0
    desk.until_health(DESK, "waiting", "Suspended")
    assert desk.refresh(DESK)["sync"]["status"] == "Synced"
    assert desk.restoration("waiting")["spec"]["suspend"] is True
    assert offered(desk, "waiting") == {"suspend": False, "resume": True, "retry": False}
    assert act(desk, "resume", "waiting").returncode == 0
    profile = yaml.safe_load((desk.repository.folder / EXAMPLE / "studio" / "profile.yaml").read_text())
    profile["metadata"] = {"name": "late"}
    desk.repository.write({f"{DESK}/late.yaml": yaml.safe_dump(profile)})
    desk.repository.commit("the profile that was waited for")
    desk.refresh(DESK)
    assert desk.until_health(DESK, "waiting", "Healthy").startswith("Completed")


def test_git_has_the_last_word_on_what_it_says(desk: Scene) -> None:
    """`suspend: true` is in git: the action resumes it, and Argo CD puts it back."""
    desk.until_health(DESK, "paused", "Suspended")
    first = desk.restoration("paused")["metadata"]["generation"]
    assert act(desk, "resume", "paused").returncode == 0

    def put_back() -> bool:
        body = desk.restoration("paused")
        return body["metadata"]["generation"] == first + 2 and body["spec"]["suspend"] is True

    desk.until(put_back, what="self-healing of `suspend`")
    desk.until_health(DESK, "paused", "Suspended")


def test_a_failure_is_degraded_in_plain_words(desk: Scene) -> None:
    assert desk.until_health(DESK, "missing", "Degraded").startswith("InputNotFound: ")
    assert offered(desk, "missing") == {"suspend": False, "resume": False, "retry": True}
    status = desk.refresh(DESK)
    assert (status["sync"]["status"], status["health"]["status"]) == ("Synced", "Degraded")


def test_what_has_failed_is_tried_again_beside_it(desk: Scene) -> None:
    """The copy is not in git: Argo CD neither calls it a difference nor prunes it."""
    desk.until_health(DESK, "missing", "Degraded")
    before = record(desk, "missing")
    desk.lab.bucket.upload(desk.lab.folder / "episode.mp4", f"{desk.lab.prefix}raw/late.mp4")
    assert act(desk, "retry", "missing").returncode == 0
    desk.lab.succeed("missing-r2")
    again = act(desk, "retry", "missing")
    assert again.returncode != 0 and "AlreadyExists" in again.stderr, "a second click starts nothing"
    desk.argo.run("app", "sync", DESK, "--prune")
    assert desk.refresh(DESK, hard=True)["sync"]["status"] == "Synced"
    assert desk.restoration("missing-r2")["metadata"]["annotations"] == {"videorestoration.dev/retry-of": "missing"}
    assert record(desk, "missing") == before


def test_pruning_deletes_no_video_and_what_comes_back_is_not_computed_again(tree: Scene) -> None:
    before, videos = record(tree, "second-pass"), tree.videos()
    tree.repository.remove(f"{EXAMPLE}/studio/second-pass.yaml")
    tree.repository.commit("no second pass")
    tree.refresh(STUDIO)
    tree.until(lambda: tree.lab.kubectl.get("vr", "second-pass") is None, what="pruning")
    assert tree.videos() == videos
    tree.repository.revert()
    tree.refresh(STUDIO)
    tree.until(lambda: tree.lab.kubectl.get("vr", "second-pass") is not None, what="its return")
    tree.until_health(STUDIO, "second-pass", "Healthy")
    assert record(tree, "second-pass")[0] != before[0], "another object"
    assert tree.restoration("second-pass")["status"]["cacheHit"] is True
    assert tree.videos() == videos
