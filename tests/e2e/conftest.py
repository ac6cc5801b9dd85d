"""The real node, the built images, the installed chart: made once for all end-to-end tests.

With KUBECONFIG it is that cluster (see hack/demo/stage.py), else the development cluster. The first time, Kubernetes is
compiled and torch installed into an image: that happens before the first test, whose timeout it must not use up.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hack.cluster.console import Console
from hack.cluster.errors import ClusterError
from hack.demo import store_pod
from hack.demo.bucket import Bucket
from hack.demo.install import Images, build_images, install_chart, prepare_namespace
from hack.demo.kubectl import DemoError
from hack.demo.stage import Stage, open_stage

from tests.e2e.lab import Lab


@dataclass(frozen=True)
class Installation:
    stage: Stage
    images: Images
    bucket: Bucket


SETTINGS = {"VR_LOST_NODE_SECONDS": "3"}
"""What production waits for minutes for, tests wait for seconds."""

_LAST = {"test_tutorial.py": 1, "test_demo.py": 2}
_INSTALLATION = pytest.StashKey[Installation | str]()
_CLOSING = pytest.StashKey[ExitStack]()
HERE = Path(__file__).parent
BREAKS_CLUSTERS = HERE / "cluster"
"""Tests of the development cluster itself; they start and kill it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What breaks clusters first; last the tutorial, which installs a release of its own, and the demo, which installs
    its own again and leaves its results where a person looks for them."""
    items.sort(key=lambda item: (BREAKS_CLUSTERS not in item.path.parents, _LAST.get(item.path.name, 0)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install before the first test, whose timeout a first build would use up; but never before clusters are broken."""
    if session.config.option.collectonly:
        return
    ours = [item for item in session.items if HERE in item.path.parents]
    if ours and not any(BREAKS_CLUSTERS in item.path.parents for item in ours):
        _prepare(session.config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close what the preparation opened; the cluster goes on, for the next run."""
    config.stash.get(_CLOSING, ExitStack()).close()


def _prepare(config: pytest.Config) -> Installation | str:
    """Install, visibly, since it may take long. What keeps it from working is returned as a sentence."""
    if _INSTALLATION not in config.stash:
        capture = config.pluginmanager.getplugin("capturemanager")
        closing = config.stash.setdefault(_CLOSING, ExitStack())
        with capture.global_and_fixture_disabled():
            try:
                config.stash[_INSTALLATION] = _install(closing)
            except (ClusterError, DemoError) as error:
                config.stash[_INSTALLATION] = str(error)
    return config.stash[_INSTALLATION]


def _install(closing: ExitStack) -> Installation:
    console = Console()
    stage = open_stage(console)
    images = build_images(stage, console)
    bucket = closing.enter_context(store_pod.bucket_of(stage, console))
    bucket.ensure()
    with console.step("installing the chart"):
        install_chart(stage, images, bucket, settings=SETTINGS)
    return Installation(stage, images, bucket)


@pytest.fixture(scope="session")
def installation(request: pytest.FixtureRequest) -> Installation:
    """The installed operator. Skips, and in CI fails, where there can be none."""
    found = _prepare(request.config)
    if isinstance(found, Installation):
        return found
    if os.environ.get("CI"):
        pytest.fail(found)
    pytest.skip(found)


@contextmanager
def opened_lab(installation: Installation, folder: Path) -> Iterator[Lab]:
    """A fresh namespace and a fresh folder in the bucket."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    kubectl = prepare_namespace(installation.stage.kubectl.in_namespace(name), installation.bucket)
    yield Lab(installation.stage, kubectl, installation.bucket, f"{name}/", folder)
    kubectl.run("delete", "namespace", name, "--wait=false")


@pytest.fixture
def lab(installation: Installation, tmp_path: Path) -> Iterator[Lab]:
    """One of its own for each test."""
    with opened_lab(installation, tmp_path) as found:
        yield found
