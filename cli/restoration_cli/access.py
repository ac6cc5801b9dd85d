"""Every request to the Kubernetes API, with the user's kubeconfig and rights.

What the API server refuses becomes one sentence with its own words; nothing is retried here, except that `changes` ends
quietly when a watch is over, and its reader lists again.
"""

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import urllib3
import yaml
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException

from restoration_api.resources import GROUP, VERSION
from restoration_cli.errors import CommandError, ConnectionLostError
from restoration_cli.view import Restoration

PLURAL: Final = "videorestorations"
CONTAINER: Final = "runner"
MANAGER: Final = "kubectl-vr"
WATCH_SECONDS: Final = 60
TIMEOUTS: Final = (10, 90)
"""Seconds to connect and between two bytes; a watch says something at least every `WATCH_SECONDS`."""

_KUBECONFIG: Any = config  # these two modules of the client carry no annotations
_WATCH: Any = watch


@dataclass(frozen=True)
class Listing:
    """All restorations at one resource version."""

    items: tuple[Restoration, ...]
    resource_version: str


@dataclass(frozen=True)
class Change:
    """One event of a watch."""

    deleted: bool
    restoration: Restoration


class Restorations:
    """The restorations of one namespace, or of all. Every method raises CommandError."""

    def __init__(self, connection: client.ApiClient, namespace: str, *, everywhere: bool = False) -> None:
        self.namespace = namespace
        self._everywhere = everywhere
        # Any: the client's signatures do not say what its calls return, nor that all of them take these fields.
        self._custom: Any = client.CustomObjectsApi(connection)
        self._core: Any = client.CoreV1Api(connection)
        self._collection = {"group": GROUP, "version": VERSION, "plural": PLURAL}

    def get(self, name: str) -> Restoration:
        with _refusals(f"VideoRestoration {self.namespace}/{name}"):
            body = self._custom.get_namespaced_custom_object(
                **self._collection, namespace=self.namespace, name=name, _request_timeout=TIMEOUTS
            )
        return Restoration.of(body)

    def list(self, *, selector: str | None = None, fields: str | None = None) -> Listing:
        with _refusals(f"VideoRestorations in {self._where()}"):
            body = self._call_list(label_selector=selector, field_selector=fields, _request_timeout=TIMEOUTS)
        return Listing(tuple(map(Restoration.of, body["items"])), body["metadata"]["resourceVersion"])

    def changes(
        self, resource_version: str, *, selector: str | None = None, fields: str | None = None
    ) -> Iterator[Change]:
        """What happens after that version; ends when the server ends the watch, or has forgotten the version."""
        stream = _WATCH.Watch().stream(
            self._call_list,
            label_selector=selector,
            field_selector=fields,
            resource_version=resource_version,
            timeout_seconds=WATCH_SECONDS,
            _request_timeout=TIMEOUTS,
        )
        try:
            with _refusals(f"VideoRestorations in {self._where()}"):
                for event in stream:
                    if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
                        yield Change(event["type"] == "DELETED", Restoration.of(event["object"]))
        except _GoneError:
            return

    def create(self, body: Mapping[str, Any], *, dry_run: bool = False) -> Restoration:
        """Create strictly: an unknown field is an error, not a typing mistake that does nothing."""
        name = body["metadata"].get("name") or body["metadata"]["generateName"] + "*"
        with _refusals(f"VideoRestoration {self.namespace}/{name}"):
            made = self._custom.create_namespaced_custom_object(
                **self._collection,
                namespace=self.namespace,
                body=dict(body),
                field_manager=MANAGER,
                field_validation="Strict",
                _request_timeout=TIMEOUTS,
                **({"dry_run": "All"} if dry_run else {}),
            )
        return Restoration.of(made)

    def set_suspend(self, it: Restoration, value: bool) -> None:
        """Change `spec.suspend` of this very object, whatever else changed meanwhile."""
        with _refusals(f"VideoRestoration {self.namespace}/{it.name}"):
            self._custom.patch_namespaced_custom_object(
                **self._collection,
                namespace=self.namespace,
                name=it.name,
                # The uid makes it a conflict if the name belongs to another object by now.
                body={"metadata": {"uid": it.metadata.uid}, "spec": {"suspend": value}},
                field_manager=MANAGER,
                _request_timeout=TIMEOUTS,
                _content_type="application/merge-patch+json",
            )

    def delete(self, it: Restoration) -> None:
        """Delete this very object, and what belongs to it after it."""
        options = client.V1DeleteOptions(
            propagation_policy="Background", preconditions=client.V1Preconditions(uid=it.metadata.uid)
        )
        with _refusals(f"VideoRestoration {self.namespace}/{it.name}"):
            self._custom.delete_namespaced_custom_object(
                **self._collection, namespace=self.namespace, name=it.name, body=options, _request_timeout=TIMEOUTS
            )

    def pods(self, job_name: str) -> tuple[str, ...]:
        """Names of a Job's pods, oldest first."""
        with _refusals(f"pods in {self.namespace}"):
            found = self._core.list_namespaced_pod(
                self.namespace, label_selector=f"batch.kubernetes.io/job-name={job_name}", _request_timeout=TIMEOUTS
            )
        ordered = sorted(found.items, key=lambda pod: pod.metadata.creation_timestamp)
        return tuple(pod.metadata.name for pod in ordered)

    def log(self, pod: str, *, follow: bool, tail: int | None) -> Iterator[bytes]:
        """The runner's log, in pieces as they come."""
        with _refusals(f"the log of pod {self.namespace}/{pod}"):
            answer = self._core.read_namespaced_pod_log(
                pod,
                self.namespace,
                container=CONTAINER,
                follow=follow,
                _preload_content=False,
                **({} if tail is None else {"tail_lines": tail}),
            )
            yield from answer.stream()

    def _call_list(self, **options: Any) -> Any:
        given = {name: value for name, value in options.items() if value is not None}
        if self._everywhere:
            return self._custom.list_cluster_custom_object(**self._collection, **given)
        return self._custom.list_namespaced_custom_object(**self._collection, namespace=self.namespace, **given)

    def _where(self) -> str:
        return "all namespaces" if self._everywhere else f"namespace {self.namespace}"


def connect(
    *, kubeconfig: str | None, context: str | None, namespace: str | None, everywhere: bool = False
) -> Restorations:
    """Connect as kubectl would: flags, else KUBECONFIG, else ~/.kube/config; the namespace is the context's.

    Raises:
        CommandError: there is no kubeconfig, no such context in it, or it cannot be used.
    """
    settings = client.Configuration()
    settings.retries = False  # a cluster that is away is said to be away; who may wait, waits in the open
    try:
        contexts, current = _KUBECONFIG.list_kube_config_contexts(config_file=kubeconfig)
        if context is not None:
            current = next((item for item in contexts if item["name"] == context), None)
            if current is None:
                raise CommandError(f"there is no context '{context}' in the kubeconfig")
        with _credentials_or_why_not():
            _KUBECONFIG.load_kube_config(
                config_file=kubeconfig, context=context, client_configuration=settings, persist_config=False
            )
        there = namespace or current["context"].get("namespace") or "default"
        connection = client.ApiClient(settings)
    except (ConfigException, yaml.YAMLError, OSError, urllib3.exceptions.HTTPError) as error:
        raise CommandError(f"no cluster to talk to: {error}; set KUBECONFIG or give --kubeconfig") from error
    except (TypeError, AttributeError, KeyError, ValueError) as error:  # the client takes its shape on trust
        message = "no cluster to talk to: the kubeconfig is not built as one; 'kubectl config view' may say where"
        raise CommandError(message) from error
    if not isinstance(there, str):
        raise CommandError(f"the kubeconfig's namespace {there!r} is no text; put it in quotes, or give --namespace")
    # Python's client would name the whole value in its complaint.
    if any(not value.isprintable() for value in settings.api_key.values()):
        raise CommandError("the kubeconfig's token has a line break or another control character in it")
    return Restorations(connection, there, everywhere=everywhere)


class _Complaints(logging.Handler):
    """What the client only writes down: that the program which was to give credentials did not."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextlib.contextmanager
def _credentials_or_why_not() -> Iterator[None]:
    """Without them the client would ask as nobody, and the API server's answer would mislead."""
    complaints = _Complaints()
    logging.getLogger().addHandler(complaints)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(complaints)
    if complaints.said:
        raise CommandError(f"the kubeconfig's credentials cannot be had: {complaints.said[-1]}")


class _GoneError(Exception):
    """A watch asked for a version that the server has forgotten, or the server ended it by closing the connection."""


@contextlib.contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Turn whatever the client raises into one sentence."""
    try:
        yield
    except ApiException as error:
        if error.status == HTTPStatus.GONE:
            raise _GoneError from error
        if error.status == HTTPStatus.TOO_MANY_REQUESTS or (error.status or 0) >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ConnectionLostError(_sentence(what, error)) from error
        raise CommandError(_sentence(what, error)) from error
    except urllib3.exceptions.ProtocolError as error:
        raise ConnectionLostError(f"{what}: the API server closed the connection") from error
    except urllib3.exceptions.HTTPError as error:
        reason = getattr(error, "reason", None) or error
        raise ConnectionLostError(f"{what}: the API server cannot be reached ({reason})") from error


def _sentence(what: str, error: ApiException) -> str:
    try:
        said = str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        said = ""
    match error.status:
        case HTTPStatus.NOT_FOUND if not said:
            return f"the cluster does not know VideoRestorations ({GROUP}/{VERSION}): install the operator and its CRDs"
        case HTTPStatus.NOT_FOUND:
            return f"{what} does not exist"
        case HTTPStatus.UNAUTHORIZED:
            return f"{what}: the cluster does not accept these credentials; log in again, or check the kubeconfig"
        case 0:  # the client's number for TLS that fails
            why = str(error.reason).splitlines()[-1]
            return f"{what}: no TLS connection to the API server ({why}); check the kubeconfig's certificates"
        case _:
            return f"{what}: {said or error.reason}"
