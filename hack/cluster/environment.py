"""`python -m hack.cluster env`: what a shell needs to use the running cluster as its users do."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from hack.cluster.binaries import ALL
from hack.cluster.console import Console
from hack.cluster.errors import ClusterError
from hack.cluster.paths import DEV_FOLDER
from hack.cluster.toolchain import ensure_helm


def exports(console: Console) -> str:
    """Lines for `eval`: the cluster, its registry, its object store, and a PATH with kubectl, helm and our programs.

    Raises:
        ClusterError: no cluster of this checkout runs.
    """
    kubeconfig = DEV_FOLDER / "kubeconfig"
    if not kubeconfig.is_file():
        raise ClusterError("no cluster of this checkout is running; start it with `make cluster-up`")
    store = json.loads((DEV_FOLDER / "s3.json").read_text())
    programs = [Path(sys.executable).parent, ALL["kubectl"].path.parent, ensure_helm(console).parent]
    variables = {
        "KUBECONFIG": kubeconfig,
        "REGISTRY": (DEV_FOLDER / "registry").read_text().strip(),
        "AWS_ENDPOINT_URL": store["endpoint"],
        "AWS_ACCESS_KEY_ID": store["accessKey"],
        "AWS_SECRET_ACCESS_KEY": store["secretKey"],
        "AWS_REGION": store["region"],
    }
    lines = [f"export {name}={shlex.quote(str(value))}" for name, value in variables.items()]
    return "\n".join([*lines, f"export PATH={shlex.quote(':'.join(map(str, programs)))}:$PATH"])
