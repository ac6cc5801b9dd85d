"""The installed release, asked as its users ask it."""

import subprocess

from hack.demo.install import OPERATOR_NAMESPACE, RELEASE

from tests.e2e.conftest import Installation


def test_helm_test_passes(installation: Installation) -> None:
    """A real pod of the operator's image reaches the operator by its Service's name."""
    stage = installation.stage
    command = [stage.helm, "test", RELEASE, f"--namespace={OPERATOR_NAMESPACE}", "--logs", "--timeout=4m"]
    result = subprocess.run(
        [*command, f"--kubeconfig={stage.kubectl.kubeconfig}"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "/readyz answers ok" in result.stdout
