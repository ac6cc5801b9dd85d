"""How the operator reaches the API server: the environment's proxy counts, and is asked once and not per request."""

import asyncio
from pathlib import Path

import kopf
import pytest
import yaml
from kubernetes.aio.config import kube_config

from restoration_operator import connection
from restoration_operator.watch import NothingRemembered

PROXY = "http://proxy.example:3128"


def kubeconfig(folder: Path, **cluster: str) -> Path:
    file = folder / "kubeconfig"
    document = {
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": "https://10.0.0.1:6443", **cluster}}],
        "users": [{"name": "test", "user": {"token": "secret"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    file.write_text(yaml.safe_dump(document))
    return file


CASES: list[tuple[str, dict[str, str], dict[str, str], str | None]] = [
    ("no proxy", {}, {}, None),
    ("the environment names one", {"HTTPS_PROXY": PROXY}, {}, PROXY),
    ("for another scheme", {"HTTP_PROXY": PROXY}, {}, None),
    ("not for this host", {"HTTPS_PROXY": PROXY, "NO_PROXY": "10.0.0.1"}, {}, None),
    ("the kubeconfig names another", {"HTTPS_PROXY": PROXY}, {"proxy-url": "http://other:1"}, "http://other:1"),
    ("the kubeconfig's counts for every host", {"NO_PROXY": "*"}, {"proxy-url": "http://other:1"}, "http://other:1"),
]


@pytest.mark.parametrize(("name", "environment", "cluster", "proxy"), CASES, ids=[row[0] for row in CASES])
async def test_the_proxy_is_settled_when_connecting(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    environment: dict[str, str],
    cluster: dict[str, str],
    proxy: str | None,
) -> None:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    file = str(kubeconfig(tmp_path, **cluster))
    monkeypatch.setenv("KUBECONFIG", file)
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", file)  # the client reads the variable when loaded
    api = await connection.connect()
    try:
        assert api.rest_client.proxy == proxy
        assert api.rest_client._create_pool_manager().trust_env is False
    finally:
        await api.close()


def test_coroutines_run_in_the_fast_event_loop() -> None:
    async def which() -> str:
        return type(asyncio.get_running_loop()).__module__

    with connection.runner() as runner:
        assert runner.run(which()) == "uvloop"


def test_kopf_remembers_nothing_and_can_write_nothing() -> None:
    storage, body = NothingRemembered(), kopf.Body({"metadata": {"name": "clip"}, "spec": {"a": 1}})
    assert storage.build(body=body) == {}
    assert storage.fetch(body=body) is None
    with pytest.raises(AssertionError, match="no handlers that write"):
        storage.store(body=body, patch=kopf.Patch(), essence=kopf.BodyEssence())
