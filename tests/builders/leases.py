"""A Lease in memory, with the API server's rules of concurrency, behind a network as bad as a test makes it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from restoration_operator.cluster import ApiError, UnreachableError

Json = dict[str, Any]


class LeaseServer:
    """What is stored."""

    def __init__(self) -> None:
        self.body: Json | None = None
        self._versions = 0

    @property
    def holder(self) -> str:
        return str(self.body["spec"]["holderIdentity"]) if self.body else ""

    def create(self, body: Json) -> Json:
        if self.body is not None:
            raise ApiError(409, "AlreadyExists", "it exists")
        return self._store(body)

    def replace(self, body: Json) -> Json:
        if self.body is None:
            raise ApiError(404, "NotFound", "it does not exist")
        if body["metadata"]["resourceVersion"] != self.body["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "it has changed")
        return self._store(body)

    def _store(self, body: Json) -> Json:
        self._versions += 1
        metadata = {**body["metadata"], "resourceVersion": str(self._versions)}
        self.body = {**body, "metadata": metadata}
        return self.body


class Line:
    """One replica's connection: slow, losing requests before or answers after, or dead for a while."""

    def __init__(self, server: LeaseServer, seed: int, *, loss: float = 0.0, longest_seconds: float = 0.05) -> None:
        self._server = server
        self._random = random.Random(seed)
        self._loss = loss
        self._longest_seconds = longest_seconds
        self.dead = False
        self.writes = 0

    async def lease(self, namespace: str, name: str) -> Json | None:
        del namespace, name
        return await self._through(lambda: self._server.body)

    async def create_lease(self, body: Json) -> Json:
        self.writes += 1
        return await self._through(lambda: self._server.create(body))

    async def replace_lease(self, body: Json) -> Json:
        self.writes += 1
        return await self._through(lambda: self._server.replace(body))

    async def _through(self, act: Any) -> Any:
        await self._travel()
        answer = act()
        await self._travel()
        return answer

    async def _travel(self) -> None:
        await asyncio.sleep(self._random.uniform(0, self._longest_seconds))
        if self.dead:
            await asyncio.sleep(30)
        if self.dead or self._random.random() < self._loss:
            raise UnreachableError("lost")
