"""What is in the images, and what is not: asked inside the pods that run them."""

import re

import pytest
from hack.demo.install import OPERATOR_NAMESPACE
from hack.demo.kubectl import Kubectl

from tests.e2e.conftest import Installation
from tests.e2e.lab import Lab

PYTHON = "/opt/venv/bin/python"
IMPORT_TORCH = f"{PYTHON} -c 'import torch'"
# The fifth byte says whether the source's date follows or its hash (PEP 552). A date is another one in each build.
DATED_BYTECODE = """
from pathlib import Path
found = [file for folder in ("/opt/venv", "/app") for file in Path(folder).rglob("*.pyc")]
dated = [str(file) for file in found if not file.open("rb").read(5)[4]]
print(len(found), "bytecode files, dated:", dated)
"""


def inside_operator(kubectl: Kubectl, command: str) -> tuple[int, str]:
    """Run a shell command in the operator's container; exit code and everything it said."""
    pods = kubectl.list("pods", selector="app.kubernetes.io/component=operator")
    [name] = [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    done = kubectl.attempt("exec", name, "--", "sh", "-c", command)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def operator(installation: Installation) -> Kubectl:
    return installation.stage.kubectl.in_namespace(OPERATOR_NAMESPACE)


def test_operator_is_nobody_on_a_read_only_file_system(operator: Kubectl) -> None:
    assert inside_operator(operator, "id -u") == (0, "65532\n")
    assert inside_operator(operator, "touch /tmp/probe && rm /tmp/probe")[0] == 0
    code, said = inside_operator(operator, "touch /app/probe")
    assert code != 0
    assert "Read-only file system" in said


def test_operator_image_has_python_311_and_no_torch(operator: Kubectl) -> None:
    assert inside_operator(operator, f"{PYTHON} --version")[1].startswith("Python 3.11.")
    code, said = inside_operator(operator, IMPORT_TORCH)
    assert code != 0
    assert "No module named 'torch'" in said
    assert inside_operator(operator, "ls /app")[1].split() == ["crds", "operator"]


def test_operator_answers_to_its_name(operator: Kubectl) -> None:
    assert inside_operator(operator, "test -x /usr/local/bin/video-restoration-operator")[0] == 0


@pytest.mark.timeout(420)
def test_runner_image_has_the_model_and_the_command(lab: Lab, installation: Installation) -> None:
    """A Job of its own, with the guards that the operator gives a runner; the namespace enforces `restricted`."""
    script = (
        "id -u; ls /models/seedvr2-nano; video-restoration --help; ffprobe -version | head -n 1; "
        f"{PYTHON} -c '{DATED_BYTECODE}'; touch /app/x"
    )
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "containers": [
            {
                "name": "runner",
                "image": installation.images.runner,
                "command": ["sh", "-c", script],
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    }
    metadata = {"name": "look", "namespace": lab.kubectl.namespace}
    lab.kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod})
    # The last command fails, as it should: the root file system is read-only.
    lab.kubectl.run("wait", "--for=jsonpath={.status.phase}=Failed", "--timeout=300s", "pod/look", timeout_s=330)
    said = lab.kubectl.run("logs", "look")
    assert said.startswith("65532\n")
    for expected in ("dit.safetensors", "vae.safetensors", "model.json", "Restore a local file", "ffprobe version"):
        assert expected in said
    assert re.search(r"^\d{4,} bytecode files, dated: \[\]$", said, re.MULTILINE)
    assert "Read-only file system" in said
