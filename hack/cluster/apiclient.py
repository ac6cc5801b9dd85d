"""The handful of API calls that starting a cluster itself needs, on the standard library alone.

Tests and programs use the real clients; this one exists so that the harness comes up before any of them is installed.
"""

from __future__ import annotations

import http.client
import json
import ssl
from pathlib import Path
from typing import Any

from hack.cluster.errors import ClusterError
from hack.cluster.pki import KeyPair


class ApiClient:
    """A JSON-over-HTTPS client for one API server with one client certificate. Opens a connection per call."""

    def __init__(self, *, host: str, port: int, authority: Path, identity: KeyPair) -> None:
        self._host, self._port = host, port
        self._context = ssl.create_default_context(cafile=str(authority))
        self._context.load_cert_chain(identity.certificate, identity.key)

    def request(self, method: str, path: str, body: Any = None, *, timeout_s: float = 10) -> tuple[int, bytes]:
        """Status and body of one request. Raises OSError while nothing listens."""
        connection = http.client.HTTPSConnection(self._host, self._port, context=self._context, timeout=timeout_s)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise OSError(f"{self._host}:{self._port} does not speak HTTP yet") from error
        finally:
            connection.close()

    def answers(self, path: str) -> bool:
        """Whether a GET is answered with 200; a server that is not there yet answers False."""
        try:
            return self.request("GET", path)[0] == 200
        except OSError:
            return False

    def create(self, path: str, body: Any) -> dict[str, Any]:
        """POST an object and return the server's. Raises ClusterError with the server's message if it is refused."""
        status, answer = self.request("POST", path, body)
        document: dict[str, Any] = json.loads(answer)
        if status not in {200, 201}:
            raise ClusterError(f"The API server refused POST {path}: {document.get('message', status)}")
        return document

    def delete(self, path: str) -> None:
        """DELETE an object; does not wait until it is gone. Raises ClusterError if that is refused."""
        status, answer = self.request("DELETE", path)
        if status not in {200, 202}:
            message = json.loads(answer).get("message", status)
            raise ClusterError(f"The API server refused DELETE {path}: {message}")
