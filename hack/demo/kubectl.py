"""The real kubectl, one call a method. What the demo does to a cluster a user can type."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]


class DemoError(Exception):
    """One sentence for a person at a terminal: what failed, on what, and what to do."""


@dataclass(frozen=True)
class Kubectl:
    """A cluster (by kubeconfig) and a namespace. Methods raise DemoError with kubectl's own words."""

    program: Path
    kubeconfig: Path
    namespace: str = "default"

    def in_namespace(self, namespace: str) -> Kubectl:
        """The same cluster, another namespace."""
        return Kubectl(self.program, self.kubeconfig, namespace)

    def run(self, *arguments: str, stdin: str | None = None, timeout_s: float = 120) -> str:
        """Run kubectl and return its standard output."""
        result = self.attempt(*arguments, stdin=stdin, timeout_s=timeout_s)
        if result.returncode:
            raise DemoError(f"kubectl {' '.join(arguments[:3])}: {result.stderr.strip() or result.stdout.strip()}")
        return result.stdout

    def attempt(
        self, *arguments: str, stdin: str | None = None, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl and return whatever it answered, refusals included."""
        access: list[str | Path] = ["--kubeconfig", self.kubeconfig, "--namespace", self.namespace]
        command = [self.program, *access, *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)

    def apply(self, *manifests: Manifest) -> None:
        """`kubectl apply`, validated strictly: an unknown field is an error, not a typo that does nothing."""
        self.run("apply", "--validate=strict", "-f", "-", stdin=yaml.safe_dump_all(manifests))

    def get(self, kind: str, name: str) -> Manifest | None:
        """One object, or None if it does not exist."""
        text = self.run("get", kind, name, "--ignore-not-found", "--output=json")
        found: Manifest | None = json.loads(text) if text.strip() else None
        return found

    def list(self, kind: str, *, selector: str = "") -> Sequence[Manifest]:
        """All objects of a kind in the namespace, by label."""
        items: Sequence[Manifest] = json.loads(
            self.run("get", kind, f"--selector={selector}", "--output=json"),
        )["items"]
        return items
