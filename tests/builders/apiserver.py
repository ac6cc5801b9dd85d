"""The API server as a test sees it: raw answers with their status, over one connection pool.

Tests of what the server accepts need the answer itself; a client library would be one more thing under test.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import urllib3
from hack.cluster.controlplane import ControlPlane
from kubernetes import client, config

from restoration_api.resources import API_VERSION
from restoration_api.resources.definitions import DEFINITIONS

ROOT = Path(__file__).resolve().parents[2]
# Only ends a broken run; it is no statement about speed.
PATIENCE_S = 120
STRICT = {"fieldValidation": "Strict"}
DRY_RUN = STRICT | {"dryRun": "All"}
_DEFINITIONS = {definition.kind: definition for definition in DEFINITIONS}


@contextmanager
def with_our_kinds(control_plane: ControlPlane) -> Iterator["ApiServer"]:
    """A control plane with our CRDs, installed in the plainest way there is."""
    control_plane.kubectl("apply", "--filename", ROOT / "crds")
    with ApiServer(control_plane.kubeconfig) as server:
        server.wait_for_our_kinds()
        yield server


@dataclass(frozen=True)
class Answer:
    """One answer. `message` is the server's sentence if the request was refused."""

    status: int
    body: dict[str, Any]

    @property
    def accepted(self) -> bool:
        return self.status in (200, 201)

    @property
    def message(self) -> str:
        return "" if self.accepted else str(self.body.get("message", self.body))


class ApiServer:
    """Requests with a kubeconfig's identity."""

    def __init__(self, kubeconfig: Path | str) -> None:
        settings = client.Configuration()
        config.load_kube_config(config_file=str(kubeconfig), client_configuration=settings)
        self._host = settings.host
        self._pool = urllib3.PoolManager(
            ca_certs=settings.ssl_ca_cert, cert_file=settings.cert_file, key_file=settings.key_file, maxsize=2
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.clear()

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: dict[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Answer:
        """One request; the body is sent as JSON."""
        answer = self._pool.request_encode_url(
            method,
            self._host + path,
            fields=query or None,
            body=None if body is None else json.dumps(body),
            headers={"Content-Type": content_type, "Accept": accept},
        )
        try:
            return Answer(answer.status, json.loads(answer.data))
        except json.JSONDecodeError:  # "404 page not found": this API group is not served yet
            return Answer(answer.status, {"message": answer.data.decode()})

    def wait_for_our_kinds(self) -> None:
        """Return when all three are served: that is moments after their definitions were accepted.

        `kubectl wait --for=condition=Established` fails on a definition so new that it has no conditions at all.
        """
        paths = [f"/apis/{API_VERSION}/{definition.plural}" for definition in DEFINITIONS]
        deadline = time.monotonic() + PATIENCE_S
        while not all(self.request("GET", path).accepted for path in paths):
            assert time.monotonic() < deadline, f"the API server does not serve our kinds after {PATIENCE_S} s"
            time.sleep(0.1)

    def create(self, body: dict[str, Any], query: dict[str, str] = STRICT) -> Answer:
        """POST one of our objects."""
        return self.request("POST", resource_path(body).rpartition("/")[0], body, query=query)

    def replace(self, body: dict[str, Any], query: dict[str, str] = STRICT, *, subresource: str = "") -> Answer:
        """PUT one of our objects, or its status."""
        return self.request("PUT", resource_path(body) + subresource, body, query=query)

    def apply_status(self, body: dict[str, Any], *, manager: str = "vr-operator") -> Answer:
        """Server-side apply of the status, as the operator does it."""
        return self.request(
            "PATCH",
            f"{resource_path(body)}/status",
            body,
            query={"fieldManager": manager, "force": "true", **STRICT},
            content_type="application/apply-patch+yaml",
        )


def resource_path(body: dict[str, Any]) -> str:
    """The URL path of one of our objects."""
    definition = _DEFINITIONS[body["kind"]]
    namespace = f"/namespaces/{body['metadata']['namespace']}" if definition.scope == "Namespaced" else ""
    return f"/apis/{API_VERSION}{namespace}/{definition.plural}/{body['metadata']['name']}"
