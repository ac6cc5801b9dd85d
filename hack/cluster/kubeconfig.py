"""Kubeconfig files that carry everything inside, so that one file can be copied, mounted or handed to a subprocess."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hack.cluster.pki import KeyPair

CONTEXT = "video-restoration-dev"


@dataclass(frozen=True)
class Token:
    """A bearer token, for example of a service account."""

    value: str


def write_kubeconfig(
    path: Path, *, server: str, authority: Path, identity: KeyPair | Token, namespace: str = "default"
) -> Path:
    """Write a kubeconfig with one cluster, one user and one context; only its owner can read it."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": CONTEXT, "cluster": {"server": server, "certificate-authority-data": _inline(authority)}}
        ],
        "users": [{"name": CONTEXT, "user": _credentials(identity)}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT, "namespace": namespace}}],
        "current-context": CONTEXT,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        yaml.safe_dump(document, file, sort_keys=False)
    return path


def _credentials(identity: KeyPair | Token) -> dict[str, Any]:
    if isinstance(identity, Token):
        return {"token": identity.value}
    return {
        "client-certificate-data": _inline(identity.certificate),
        "client-key-data": _inline(identity.key),
    }


def _inline(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
