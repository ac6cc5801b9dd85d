"""How the API server is reached: the official client, set up once, with the event loop that it runs in.

The client stays the official one, for kubeconfigs, rotated tokens and client certificates are its field. What made it
slow was not its own code (a twentieth of the operator's CPU time) but two defaults around it: aiohttp asks the
environment for proxies and reads `.netrc` anew for every request, in a thread, and asyncio's own TLS and sockets are
written in Python. Both changed, the operator needs 40 % less CPU time for a restoration (decision 0017).
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import uvloop
from kubernetes.aio import client, config

IN_A_POD: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token").exists()


def runner() -> asyncio.Runner:
    """What runs the operator's coroutines."""
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def connect(*, fence: Callable[[], None] | None = None) -> client.ApiClient:
    """A client for the cluster that KUBECONFIG names, else for the one the process runs in.

    `fence` is called in the moment before the body of a request goes out.

    Raises:
        kubernetes.aio.config.ConfigException: there is neither.
    """
    configuration = client.Configuration()
    if os.environ.get("KUBECONFIG") or not IN_A_POD:
        await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    configuration.proxy = configuration.proxy or _proxy_for(configuration.host)
    configuration.client_session_kwargs = {"trust_env": False}
    if fence is not None:
        configuration.trace_configs = [_tracing(fence)]
    return client.ApiClient(configuration)


def _proxy_for(host: str) -> str | None:
    """The proxy that the environment names for the API server, if it names one."""
    address = urlsplit(host)
    if address.hostname is None or proxy_bypass(address.hostname):
        return None
    return getproxies().get(address.scheme)


def _tracing(fence: Callable[[], None]) -> aiohttp.TraceConfig:
    async def about_to_send(*_: Any) -> None:
        fence()

    tracing = aiohttp.TraceConfig()
    tracing.on_request_chunk_sent.append(about_to_send)  # despite its name called before (aiohttp StreamWriter.write)
    return tracing
