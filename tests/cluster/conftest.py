"""A real control plane for the tests that ask for one: on loopback and free ports, without root.

    def test_something(control_plane: ControlPlane, namespace: str) -> None:
        control_plane.kubectl("--namespace", namespace, "apply", "--filename", "examples/...")

`control_plane.kubeconfig` is the administrator's; `service_account_kubeconfig` and `user_kubeconfig` give weaker ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hack.cluster.controlplane import ControlPlane


@pytest.fixture(scope="package")
def control_plane(cluster_binaries: None) -> Iterator[ControlPlane]:
    """A running control plane, shared by this folder: use `namespace`, and delete what is cluster-scoped.

    It ends with the folder's last test and not with the process's: four idle servers cost a tenth of a core.
    """
    with ControlPlane() as running:
        yield running
