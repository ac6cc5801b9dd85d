"""The real operator as a process: started from the installed command, ended by SIGKILL or SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any, Self

import yaml

from tests.builders.live_api import eventually

BUILTIN_PROFILE: dict[str, Any] = {
    "model": {"name": "seedvr2-nano", "source": {"builtin": {}}},
    "gpu": {"count": 0},
    "storage": [{"name": "media", "endpoint": "http://s3.storage.svc:8333", "secretName": "media-s3"}],
}


class OperatorProcess:
    """One operator for one namespace; an async context manager that leaves no process behind."""

    def __init__(self, folder: Path, *, server: str, namespace: str, token: str | None = None, **settings: str) -> None:
        """`settings` are environment variables without their prefix: `poll_seconds="0.2"`."""
        self._log = folder / "operator.log"
        kubeconfig = folder / "operator.kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(_kubeconfig(server, token)))
        profile = folder / "profile.yaml"
        if not profile.exists():
            profile.write_text(yaml.safe_dump(BUILTIN_PROFILE))
        defaults = {
            "runner_image": "runner:1",
            "default_profile_file": str(profile),
            "watch_namespaces": namespace,
            "http_host": "127.0.0.1",
            "http_port": "0",
            "poll_seconds": "0.3",
        }
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("VR_")},
            "KUBECONFIG": str(kubeconfig),
            **{f"VR_{key.upper()}": value for key, value in (defaults | settings).items()},
        }
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.kill()

    async def start(self) -> None:
        """Start it; returns at once."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "restoration_operator", env=self._environment, stderr=log, stdout=log
            )

    async def synced(self) -> None:
        """Wait until it knows the cluster."""

        async def said() -> bool:
            assert self._process is not None and self._process.returncode is None, self.log
            return '"synced"' in self.log

        await eventually(said, what="the operator has synced")

    async def kill(self) -> None:
        """SIGKILL: no chance to finish anything."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    async def terminate(self) -> int:
        """SIGTERM; returns the exit status."""
        assert self._process is not None
        self._process.terminate()
        return await self._process.wait()

    @property
    def log(self) -> str:
        """What it has written so far, over all starts."""
        return self._log.read_text() if self._log.exists() else ""


def _kubeconfig(server: str, token: str | None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "users": [{"name": "test", "user": {"token": token} if token else {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
