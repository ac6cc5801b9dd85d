"""An administrator's view of a real API server, for tests: JSON over HTTPS, and waiting for what should come true."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
from kubernetes.aio import client, config

from tests.builders.resources import make_vr

Json = dict[str, Any]
T = TypeVar("T")
GROUP_PATH = "/apis/videorestoration.dev/v1alpha1"


class RefusedError(Exception):
    """The API server answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class ApiServer:
    """Requests with the identity of a kubeconfig; an async context manager."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self.url = ""
        self.tls: ssl.SSLContext | None = None

    async def __aenter__(self) -> Self:
        settings = client.Configuration()
        await config.load_kube_config(config_file=str(self._kubeconfig), client_configuration=settings)
        self.url = settings.host
        self.tls = ssl.create_default_context(cafile=settings.ssl_ca_cert)
        if settings.cert_file:
            self.tls.load_cert_chain(settings.cert_file, settings.key_file)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.tls))
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._session.close()

    async def call(self, method: str, path: str, body: Any = None, *, content_type: str = "application/json") -> Json:
        """One request; raises RefusedError for anything but success."""
        data = None if body is None else json.dumps(body)
        async with self._session.request(
            method, f"{self.url}{path}", data=data, headers={"Content-Type": content_type}
        ) as answer:
            document: Json = json.loads(await answer.text())
            if answer.status >= 400:
                raise RefusedError(answer.status, str(document.get("message", document)))
            return document

    async def find(self, path: str) -> Json | None:
        """An object, or None if it does not exist."""
        try:
            return await self.call("GET", path)
        except RefusedError as error:
            if error.status == 404:
                return None
            raise

    async def items(self, path: str) -> list[Json]:
        """The objects of a collection."""
        found: list[Json] = (await self.call("GET", path))["items"]
        return found

    async def merge(self, path: str, patch: Json) -> Json:
        """A merge patch."""
        return await self.call("PATCH", path, patch, content_type="application/merge-patch+json")

    async def restoration(self, namespace: str, name: str = "clip") -> Json:
        """A VideoRestoration, with an empty status if nobody has written one yet."""
        found = await self.call("GET", f"{GROUP_PATH}/namespaces/{namespace}/videorestorations/{name}")
        return {"status": {}, **found}

    async def jobs(self, namespace: str) -> list[Json]:
        """All Jobs of a namespace."""
        return await self.items(f"/apis/batch/v1/namespaces/{namespace}/jobs")

    async def pods(self, namespace: str) -> list[Json]:
        """All pods of a namespace."""
        return await self.items(f"/api/v1/namespaces/{namespace}/pods")

    async def apply(self, namespace: str, changes: Mapping[str, Any] | None = None, *, name: str = "clip") -> Json:
        """Create a VideoRestoration (see `make_vr`)."""
        body = make_vr(changes, name=name, namespace=namespace)
        return await self.call("POST", f"{GROUP_PATH}/namespaces/{namespace}/videorestorations", body)

    async def finished(self, namespace: str, name: str = "clip") -> Json:
        """A VideoRestoration once it is over."""
        return await self._once(namespace, name, lambda body: condition(body, "Finished")[0] == "True", "it is over")

    async def until(self, namespace: str, kind: str, reason: str, *, name: str = "clip") -> Json:
        """A VideoRestoration once a condition has a reason."""
        wanted = f"{kind} has reason {reason}"
        return await self._once(namespace, name, lambda body: condition(body, kind)[1] == reason, wanted)

    async def job_ttl(self, namespace: str, seconds: int) -> None:
        """Return when every Job has this TTL."""

        async def patched() -> bool:
            jobs = await self.jobs(namespace)
            return bool(jobs) and all(job["spec"].get("ttlSecondsAfterFinished") == seconds for job in jobs)

        await eventually(patched, what="the Job has its TTL")

    async def _once(self, namespace: str, name: str, holds: Callable[[Json], bool], what: str) -> Json:
        async def ask() -> Json | None:
            body = await self.restoration(namespace, name)
            return body if holds(body) else None

        found = await eventually(ask, what=f"{namespace}/{name}: {what}")
        assert found is not None
        return found


async def eventually(ask: Callable[[], Awaitable[T]], *, what: str, seconds: float = 120) -> T:
    """Ask until the answer is true. The limit is generous on purpose: it ends hopeless tests, it measures nothing."""
    answer: T | None = None
    deadline = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < deadline:
        answer = await ask()
        if answer:
            return answer
        await asyncio.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds} s, last answer {answer!r}")


def condition(body: Json, kind: str) -> tuple[str, str]:
    """Status and reason of a condition; both empty if the object has none of that type."""
    for item in body.get("status", {}).get("conditions", ()):
        if item["type"] == kind:
            return item["status"], item["reason"]
    return "", ""
