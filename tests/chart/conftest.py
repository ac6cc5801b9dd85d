"""A control plane for the chart's tests alone.

Its CRDs stay from the first test to the last: deleting one that has just been made may take the API server minutes, for
its finalizer is tried again with backoff. Releases take them over (`helm install --take-ownership`).
"""

from collections.abc import Iterator

import pytest
from hack.cluster.controlplane import ControlPlane


@pytest.fixture(scope="session")
def control_plane(cluster_binaries: None) -> Iterator[ControlPlane]:
    """One for this folder. What asks for it is in one group, so that one process has it."""
    with ControlPlane() as running:
        yield running
