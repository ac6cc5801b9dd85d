"""The load's side of the API server: creates, patches and watches, with as little work of its own as possible.

It shares the cores with what it measures, so watches take no more of an object than a scenario asks for: metadata
only, or only objects in one phase, selected by the server.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
from kubernetes.aio import client, config

Json = dict[str, Any]
T = TypeVar("T")
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
VRS = "/apis/videorestoration.dev/v1alpha1/namespaces/{}/videorestorations"
JOBS = "/apis/batch/v1/namespaces/{}/jobs"
PODS = "/api/v1/namespaces/{}/pods"
CONFIG_MAPS = "/api/v1/namespaces/{}/configmaps"
SUCCEEDED = "status.phase%3DSucceeded"
"""Field selector: one event for one restoration, when it has ended well."""
FAILED = "status.phase%3DFailed"
"""The same for one that has not."""
IN_FLIGHT = 16
"""Requests of the load at the same time."""


class Api:
    """An administrator's connection; an async context manager."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig

    async def __aenter__(self) -> Self:
        settings = client.Configuration()
        await config.load_kube_config(config_file=str(self._kubeconfig), client_configuration=settings)
        tls = ssl.create_default_context(cafile=settings.ssl_ca_cert)
        tls.load_cert_chain(settings.cert_file, settings.key_file)
        self._url = settings.host
        connector = aiohttp.TCPConnector(ssl=tls, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._session.close()

    async def call(
        self, method: str, path: str, body: Any = None, *, kind: str = "json", accept: str = "application/json"
    ) -> Json:
        """One request; raises RuntimeError with the server's sentence for anything but success."""
        headers = {"Content-Type": f"application/{kind}", "Accept": accept}
        data = None if body is None else json.dumps(body)
        async with self._session.request(method, f"{self._url}{path}", data=data, headers=headers) as answer:
            document: Json = json.loads(await answer.read())
            if answer.status >= 400:
                raise RuntimeError(f"{method} {path}: {answer.status} {document.get('message')}")
            return document

    async def patch(self, path: str, body: Json) -> Json:
        """A merge patch."""
        return await self.call("PATCH", path, body, kind="merge-patch+json")

    async def namespace(self, name: str) -> str:
        """A fresh namespace; returns its name."""
        await self.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        return name

    async def versions(self, namespace: str) -> dict[str, str]:
        """Resource versions by uid of everything that an operator could have written."""
        found: dict[str, str] = {}
        for path in (VRS, JOBS, PODS, CONFIG_MAPS):
            page = await self.call("GET", path.format(namespace), accept=METADATA_LIST)
            metas = (item["metadata"] for item in page["items"] or ())
            found |= {meta["uid"]: meta["resourceVersion"] for meta in metas}
        return found


class Watch:
    """Objects of one collection as they appear: when each was first seen, by name; an async context manager."""

    def __init__(self, api: Api, path: str, *, fields: str = "", whole: bool = False) -> None:
        """`whole`: hand whole objects to `on_added`; otherwise their metadata."""
        self._api = api
        self._path = path
        self._fields = fields
        self._accept = "application/json" if whole else METADATA_ONLY
        self.seen: dict[str, float] = {}
        self.uids: set[str] = set()
        self.on_added: Callable[[Json], None] = lambda body: None
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        query = f"limit=1{f'&fieldSelector={self._fields}' if self._fields else ''}"
        page = await self._api.call("GET", f"{self._path}?{query}", accept=METADATA_LIST)
        self._task = asyncio.create_task(self._run(page["metadata"]["resourceVersion"]))
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._task.cancel()

    async def count(self, wanted: int, *, seconds: float = 600) -> None:
        """Return when so many objects were seen.

        Raises:
            TimeoutError: naming how many there were.
        """
        deadline = time.monotonic() + seconds
        while len(self.seen) < wanted:
            self._changed.clear()
            if self._task.done():
                self._task.result()
                raise RuntimeError(f"the watch of {self._path} ended")
            try:
                await asyncio.wait_for(self._changed.wait(), timeout=max(0.01, deadline - time.monotonic()))
            except TimeoutError:
                raise TimeoutError(f"{self._path}: {len(self.seen)} of {wanted} after {seconds} s") from None

    async def _run(self, version: str) -> None:
        selector = f"&fieldSelector={self._fields}" if self._fields else ""
        url = f"{self._api._url}{self._path}?watch=1&resourceVersion={version}&timeoutSeconds=3600{selector}"
        async with self._api._session.get(url, headers={"Accept": self._accept}) as answer:
            rest = b""
            async for piece in answer.content.iter_any():
                *lines, rest = (rest + piece).split(b"\n")
                now = time.monotonic()
                for line in lines:
                    self._take(json.loads(line), now)
                self._changed.set()

    def _take(self, event: Json, now: float) -> None:
        meta = event["object"].get("metadata", {})
        if event["type"] == "ERROR":
            raise RuntimeError(f"watch of {self._path}: {event['object'].get('message')}")
        if event["type"] == "ADDED" and meta["uid"] not in self.uids:
            self.uids.add(meta["uid"])
            self.seen[meta["name"]] = now
            self.on_added(event["object"])


async def all_of(jobs: Iterable[Callable[[], Awaitable[T]]], *, in_flight: int = IN_FLIGHT) -> list[T]:
    """Run all, so many at once; returns the results in order."""
    limit = asyncio.Semaphore(in_flight)

    async def one(job: Callable[[], Awaitable[T]]) -> T:
        async with limit:
            return await job()

    return await asyncio.gather(*(one(job) for job in jobs))
