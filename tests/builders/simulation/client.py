"""The operator's real API client, down to where a request would leave the process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from kubernetes.aio import client

from restoration_operator.cluster import Cluster
from tests.builders.simulation.server import Json, SimulatedServer

Call = Callable[[str, str, Mapping[str, Any], Json | None, str], Awaitable[Json]]
"""Method, path, query, body and content type of a request; its answer."""


class SimulatedCluster(Cluster):
    """Every request goes to a function."""

    def __init__(self, call: Call, **settings: Any) -> None:
        super().__init__(cast(client.ApiClient, None), **settings)
        self._answer_to = call

    @classmethod
    def of(cls, server: SimulatedServer) -> SimulatedCluster:
        """With nothing between it and the server."""

        async def call(method: str, path: str, query: Mapping[str, Any], body: Json | None, content: str) -> Json:
            return server.handle(method, path, query, body, content)

        return cls(call)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> Json:
        return await self._answer_to(method, path, query or {}, body, content_type)
