"""The tutorial, typed as a new user types it (`hack.docs`: docs/tutorial.md, docs/operations.md, docs/monitoring.md).

Cluster and images are those of the other tests. What it installs replaces their release, so it runs after them, and
before the demo, which installs its own again.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hack.cluster.paths import CHECKOUT
from hack.docs.blocks import Block
from hack.docs.play import marked, play, times
from PIL import Image

from tests.builders import ffprobe
from tests.e2e.conftest import Installation

ME = "tests/e2e/test_tutorial.py"
PAGES = ("docs/operations.md", "docs/monitoring.md", "docs/kubectl-vr.md")
"""Pages with commands that look at what the tutorial has made."""


@pytest.fixture
def clean(installation: Installation) -> Iterator[Installation]:
    """Neither namespace nor results of an earlier run."""
    assert installation.stage.nodes_are_local, "the tutorial starts the development cluster"
    _remove(installation)
    yield installation
    _remove(installation)


def _remove(installation: Installation) -> None:
    kubectl = installation.stage.kubectl
    kubectl.run("config", "set-context", "--current", "--namespace", "default")
    kubectl.run("delete", "namespace", "studio", "--ignore-not-found", "--timeout=120s", timeout_s=150)
    bucket = installation.bucket
    for key in bucket.keys("tutorial/"):
        bucket.endpoint.client().remove_object(bucket.name, key)


def _blocks() -> list[Block]:
    """The tutorial up to its last chapter, what other pages do with its objects, and then the end."""
    *tutorial, clean_up = marked("docs/tutorial.md", by=ME)
    return [*tutorial, *(block for page in PAGES for block in marked(page, by=ME)), clean_up]


@pytest.mark.timeout(900)
def test_a_new_user_gets_from_a_checkout_to_a_restored_video(clean: Installation) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("KUBECONFIG", "VIRTUAL_ENV")}
    steps = play(_blocks(), cwd=CHECKOUT, environment=environment, timeout_s=840)
    print(times(steps))
    said = {step.title: step.output for step in steps}
    assert "first succeeded" in said["kubectl vr explain first"]
    assert json.loads(said["kubectl get vr first"].splitlines()[-1])["inferenceMilliseconds"] > 0
    [again] = [output for title, output in said.items() if "--name again" in title]
    assert "is there already" in again
    assert "again succeeded: the same result had been computed before" in again
    clean.bucket.download("tutorial/restored.mp4", CHECKOUT / "out" / "first" / "restored.mp4")
    video = ffprobe.video(CHECKOUT / "out" / "first" / "restored.mp4")
    assert (video["width"], video["height"]) == (320, 136)
    _assert_before_after(CHECKOUT / "out" / "first")


def _assert_before_after(folder: Path) -> None:
    """What `kubectl vr open` has written: a picture, and excerpts with the same frames at the same times."""
    with Image.open(folder / "before-after.png") as picture:
        assert picture.width > 2 * 320
    times_of = [ffprobe.times(folder / name) for name in ("before.mp4", "after.mp4")]
    assert times_of[0] == times_of[1]
    assert len(times_of[0]) == 25  # one second, as docs/kubectl-vr.md asks for
