"""A real Argo CD. `make e2e-gitops` builds it before the first test, whose timeout a build would use up."""

import os
from collections.abc import Iterator

import pytest
from hack.cluster.console import Console
from hack.cluster.errors import ClusterError
from hack.demo.kubectl import DemoError
from hack.gitops.argocd import ArgoCD

from tests.builders import clips
from tests.builders.clips import Clip
from tests.gitops.scene import FINISHED, OPERATOR, STUDIO, TREE, Scene, open_scene


@pytest.fixture(scope="session")
def argocd_program() -> None:
    """The program is there. Skips, and in CI fails, where it can neither be found nor built."""
    try:
        ArgoCD.prepare(Console())
    except ClusterError as error:
        _give_up(error)


@pytest.fixture(scope="session")
def scene(argocd_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The example in git and Argo CD beside it; nothing of it is applied yet. Skips, and in CI fails, as above."""
    opened = open_scene(tmp_path_factory.mktemp("gitops"), Console())
    try:
        found = opened.__enter__()
    except (ClusterError, DemoError) as error:
        _give_up(error)
    try:
        yield found
    finally:
        opened.__exit__(None, None, None)


SHORT = Clip(frames=9, width=48, height=32)


@pytest.fixture(scope="session")
def tree(scene: Scene) -> Scene:
    """The example, applied as its README says: one object by hand. Returns when all that follows is Healthy."""
    clip = clips.write(scene.lab.folder / "episode.mp4", SHORT)
    scene.lab.bucket.upload(clip, f"{scene.lab.prefix}raw/episode.mp4")
    scene.argo.kubectl.run("apply", "--filename=-", stdin=scene.edited("root.yaml"))

    def grown() -> bool:
        for name in FINISHED:
            health, message = scene.health(STUDIO, name)
            assert health != "Degraded", f"{name}: {message}"
        return all(scene.is_settled(application) for application in (TREE, OPERATOR, STUDIO))

    scene.until(grown, what="the whole tree Synced and Healthy")
    return scene


def _give_up(error: Exception) -> None:
    if os.environ.get("CI"):
        pytest.fail(str(error))
    pytest.skip(str(error))
