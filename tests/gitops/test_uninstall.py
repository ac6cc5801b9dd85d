"""The last file: what is left when the example is taken down."""

from __future__ import annotations

import pytest

from tests.gitops.scene import OPERATOR, TREE, Scene

pytestmark = pytest.mark.timeout(600)


def test_in_the_end_kinds_and_videos_stay(tree: Scene) -> None:
    """Deleting the root takes down what it installed: the operator and the restorations."""
    videos = tree.videos()
    tree.argo.kubectl.run("delete", "applications.argoproj.io", TREE, timeout_s=300)
    tree.until(lambda: not tree.argo.application(OPERATOR), what="the end of all Applications")
    left = tree.lab.kubectl.run("get", "crd,deployments", f"--namespace={OPERATOR}", "--output=name").split()
    ours = {name.partition("/")[2] for name in left if "video-restoration" in name or "videorestoration" in name}
    assert ours == {
        f"{kind}.videorestoration.dev"
        for kind in ("videorestorations", "restorationprofiles", "clusterrestorationprofiles")
    }
    assert tree.videos() == videos
