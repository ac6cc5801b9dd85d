"""Installing somebody's CustomResourceDefinitions, and returning when the API server serves them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hack.demo.kubectl import DemoError, Kubectl

_PATIENCE_S: Final = 120


def install_kinds(kubectl: Kubectl, files: Sequence[Path]) -> None:
    """Apply CRDs and wait for them. Raises DemoError with kubectl's own words."""
    named = [f"--filename={file}" for file in files]
    # They are too large for the annotation of client-side apply.
    kubectl.run("apply", "--server-side", "--force-conflicts", *named)
    deadline = time.monotonic() + _PATIENCE_S
    # `kubectl wait` does not wait but fails where a definition is so new that it has no status yet.
    while (waited := kubectl.attempt("wait", "--for=condition=Established", *named)).returncode:
        if time.monotonic() > deadline:
            raise DemoError(f"The kinds of {', '.join(file.name for file in files)} do not come: {waited.stderr}")
        time.sleep(0.2)
