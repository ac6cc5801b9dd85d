"""The last file: what is left when the example is taken down."""

from __future__ import annotations

import pytest

from tests.e2e.lab import eventually
from tests.gitops.scene import ARGOCD_NAMESPACE, OPERATOR, TREE, Scene

pytestmark = pytest.mark.timeout(600)


def test_in_the_end_kinds_settings_and_videos_stay(tree: Scene) -> None:
    """Deleting the root takes down what it installed: the operator and the restorations."""
    videos = tree.videos()
    tree.argo.kubectl.run("delete", "applications.argoproj.io", TREE, timeout_s=300)
    eventually(lambda: not tree.argo.application(OPERATOR), what="the end of all Applications")
    left = tree.lab.kubectl.run("get", "crd,deployments", f"--namespace={OPERATOR}", "--output=name").split()
    ours = {name.partition("/")[2] for name in left if "video-restoration" in name or "videorestoration" in name}
    assert ours == {
        f"{kind}.videorestoration.dev"
        for kind in ("videorestorations", "restorationprofiles", "clusterrestorationprofiles")
    }
    assert tree.videos() == videos
    settings = tree.argo.kubectl.get("configmap", "argocd-cm")
    assert settings is not None and settings["metadata"]["namespace"] == ARGOCD_NAMESPACE
