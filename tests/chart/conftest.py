"""A control plane for the chart's tests alone: helm refuses to install over CRDs that other tests have applied."""

from collections.abc import Iterator

import pytest
from hack.cluster.controlplane import ControlPlane
from tests.builders.chart import CHART


@pytest.fixture(scope="session")
def control_plane(cluster_binaries: None) -> Iterator[ControlPlane]:
    """One for this folder. What asks for it is in one group, so that one process has it."""
    with ControlPlane() as running:
        yield running


@pytest.fixture
def no_crds(control_plane: ControlPlane) -> Iterator[None]:
    """The test begins without CRDs, and so does the next."""
    yield
    control_plane.kubectl("delete", "--ignore-not-found", "--filename", CHART / "files" / "crds")
