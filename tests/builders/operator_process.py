"""The real operator as a process: started as users start it, ended by SIGKILL or SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
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
    """One operator; a context manager that leaves no process behind."""

    def __init__(self, folder: Path, *, kubeconfig: Path, **settings: str) -> None:
        """`settings` are environment variables without their prefix: `poll_seconds="0.2"`."""
        self._log = folder / "operator.log"
        profile = folder / "profile.yaml"
        profile.write_text(yaml.safe_dump(BUILTIN_PROFILE))
        defaults = {
            "runner_image": "runner:1",
            "default_profile_file": str(profile),
            "http_host": "127.0.0.1",
            "http_port": "0",
            "poll_seconds": "0.3",
            # One Job a restoration; what plans have to do with it is tested where they are switched on.
            "plan_jobs": "Never",
        }
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("VR_")},
            "KUBECONFIG": str(kubeconfig),
            **{f"VR_{key.upper()}": value for key, value in (defaults | settings).items()},
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it; returns at once."""
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "restoration_operator"]
            self._process = subprocess.Popen(command, env=self._environment, stderr=log, stdout=log)

    async def synced(self) -> None:
        """Wait until it knows the cluster."""

        async def said() -> bool:
            assert self._process is not None and self._process.poll() is None, self.log
            return '"synced"' in self.log

        await eventually(said, what="the operator has synced")

    def kill(self) -> None:
        """SIGKILL: no chance to finish anything."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def terminate(self) -> int:
        """SIGTERM; returns the exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout=60)

    def freeze(self) -> None:
        """SIGSTOP: it knows nothing of the time that passes now."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def let_go_on(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ended(self) -> int:
        """Wait for it to end by itself; returns the exit status."""
        assert self._process is not None
        return self._process.wait(timeout=60)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status; None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def log(self) -> str:
        """What it has written so far, over all starts."""
        return self._log.read_text() if self._log.exists() else ""


def plain_kubeconfig(folder: Path, server: str) -> Path:
    """For a server that asks for no credentials: the proxy."""
    file = folder / "proxy.kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    file.write_text(yaml.safe_dump(document))
    return file
