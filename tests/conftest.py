"""What all tests share: programs that have to be built first, stores, a namespace, and which tests begin first."""

from __future__ import annotations

import gc
import logging
import os
import uuid
from collections.abc import Iterator

import hypothesis
import pytest
import structlog
from hack.cluster.binaries import ACTIONLINT, CONTROL_PLANE, KUEUE, MINIO, PROMETHEUS, PROMTOOL, Binary
from hack.cluster.build import ensure_built
from hack.cluster.console import Console
from hack.cluster.controlplane import ControlPlane
from hack.cluster.errors import ClusterError

from tests.builders.servers import S3Server, minio_server, moto_server, seaweed_server

# The same examples everywhere, and none that is wrong because the machine was busy.
hypothesis.settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("steady")

LONGEST_FIRST = (
    "@operator-alone",
    "@operator",
    "tests/simulation/test_histories.py",
    "tests/simulation/test_mutants.py",
    "tests/model/",
    "@control-plane",
    "@kueue",
    "@chart",
    "tests/media/",
    "tests/storage/",
)
"""Groups and folders in the order in which they begin: what waits most beside what computes most, the short ones last.

Of four processes never all wait: the clusters that come third would leave the processors idle beside the first two.
Whatever begins late and takes minutes is what everybody waits for in the end."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order for several processes (`--dist loadgroup --no-loadscope-reorder`); in one it does no harm."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    mark = item.get_closest_marker("xdist_group")
    if mark:
        group = f"@{mark.args[0]}"
        return LONGEST_FIRST.index(group) if group in LONGEST_FIRST else len(LONGEST_FIRST)
    turns = (turn for turn, start in enumerate(LONGEST_FIRST) if item.nodeid.startswith(start))
    return next(turns, len(LONGEST_FIRST))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the programs that tests need, where they are not cached, before any test's timeout starts to run."""
    if session.config.option.collectonly:
        return
    gc.freeze()  # modules and tests stay until the end: collecting garbage need not look at them again and again
    if any("control_plane" in getattr(item, "fixturenames", ()) for item in session.items):
        _build(session.config, CONTROL_PLANE)
    if any("minio" in _parameters(item) or "minio_program" in _names(item) for item in session.items):
        _build(session.config, (MINIO,))
    if any("prometheus_programs" in getattr(item, "fixturenames", ()) for item in session.items):
        _build(session.config, (PROMTOOL, PROMETHEUS))
    if any("actionlint_program" in _names(item) for item in session.items):
        _build(session.config, (ACTIONLINT,))
    if any(item.nodeid.startswith("tests/kueue/") for item in session.items) and "VR_TEST_KUEUE" not in os.environ:
        _build(session.config, CONTROL_PLANE)
        _build(session.config, (KUEUE,))


def _build(config: pytest.Config, binaries: tuple[Binary, ...]) -> None:
    try:
        ensure_built(binaries, Console())
    except ClusterError as error:
        config.stash[_BUILD_ERRORS] = config.stash.get(_BUILD_ERRORS, {}) | {binaries[0].name: str(error)}


def _names(item: pytest.Item) -> list[str]:
    return list(getattr(item, "fixturenames", ()))


def _parameters(item: pytest.Item) -> list[object]:
    callspec = getattr(item, "callspec", None)
    return [*callspec.params.values()] if callspec else []


_BUILD_ERRORS = pytest.StashKey[dict[str, str]]()


@pytest.fixture(scope="session")
def cluster_binaries(request: pytest.FixtureRequest) -> None:
    """Skips, and in CI fails, where the programs of the control plane can neither be found nor built."""
    _require(request.config, CONTROL_PLANE[0])


@pytest.fixture(scope="session")
def prometheus_programs(request: pytest.FixtureRequest) -> None:
    """promtool and Prometheus, as `cluster_binaries`."""
    _require(request.config, PROMTOOL)


@pytest.fixture(scope="session")
def actionlint_program(request: pytest.FixtureRequest) -> None:
    """actionlint, as `cluster_binaries`."""
    _require(request.config, ACTIONLINT)


@pytest.fixture(scope="session")
def kueue_programs(cluster_binaries: None, request: pytest.FixtureRequest) -> None:
    """Kueue, as `cluster_binaries`."""
    _require(request.config, KUEUE)


@pytest.fixture(scope="session")
def minio_program(request: pytest.FixtureRequest) -> None:
    """MinIO's server, as `cluster_binaries`."""
    _require(request.config, MINIO)


def _require(config: pytest.Config, binary: Binary) -> None:
    error = config.stash.get(_BUILD_ERRORS, {}).get(binary.name)
    if error is None:
        return
    if os.environ.get("CI"):
        pytest.fail(error)
    pytest.skip(error)


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A fresh namespace, ready for pods. Deleted afterwards, without waiting."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    control_plane.create_namespace(name)
    yield name
    control_plane.api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture(autouse=True)
def _logging_of_its_own() -> Iterator[None]:
    """Programs under test set up logging to the standard error of that test, which is closed afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """moto's S3 server, shared by the session: use a bucket or prefix of your own."""
    with moto_server(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS's S3 server, shared by the session: use a bucket or prefix of your own."""
    with seaweed_server(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="session")
def minio(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """MinIO, shared by the session: use a bucket or prefix of your own."""
    _require(request.config, MINIO)
    with minio_server(tmp_path_factory.mktemp("minio")) as server:
        yield server
