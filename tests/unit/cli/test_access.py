"""A kubeconfig that cannot be used ends in one sentence, whatever is wrong with it, and never in its secrets."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from restoration_cli import access
from restoration_cli.errors import CommandError

EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}
NO_PEM = base64.b64encode(b"this is no certificate").decode()


@pytest.fixture
def server() -> Iterator[str]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"


def text(server: str = "https://127.0.0.1:1", *, cluster: Any = None, user: Any = None, context: Any = None) -> str:
    """A kubeconfig with these parts instead of sound ones."""
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", **(context or {})}}],
            "clusters": [{"name": "c", "cluster": {"server": server, **(cluster or {})}}],
            "users": [{"name": "u", "user": user or {"token": "t"}}],
        }
    )


BROKEN = {
    "nothing": ("", "no cluster to talk to"),
    "a word": ("kubeconfig", "not built as one"),
    "a number": ("42", "not built as one"),
    "a list": ("- apiVersion: v1", "not built as one"),
    "no YAML": ("a:\n\t- b", "no cluster to talk to"),
    "a server that is a number": (text(cluster={"server": 42}), "not built as one"),
    "a namespace that is a number": (text(context={"namespace": 7}), "namespace 7 is no text"),
    "no such user of a cloud": (text(user={"auth-provider": {"name": "gcp"}}), "not built as one"),
    "a proxy without a scheme": (text(cluster={"proxy-url": "proxy"}), "Proxy URL"),
    "a token with a line break": (text(user={"token": "se\ncret"}), "token has a line break"),
    "a program that is not there": (text(user={"exec": {**EXEC, "command": "no-such-program"}}), "no-such-program"),
    "a program that fails": (text(user={"exec": {**EXEC, "command": "false"}}), "credentials cannot be had"),
    "a program that says nonsense": (text(user={"exec": {**EXEC, "command": "true"}}), "credentials cannot be had"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_with_it_is_one_sentence(
    case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    content, said = BROKEN[case]
    file = tmp_path / "kubeconfig"
    file.write_text(content)
    with pytest.raises(CommandError, match=said) as refused:
        access.connect(kubeconfig=str(file), context=None, namespace=None)
    assert "cret" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "parts",
    [
        {"cluster": {"certificate-authority-data": NO_PEM}},
        {"user": {"client-certificate-data": NO_PEM, "client-key-data": NO_PEM}},
    ],
    ids=["authority", "certificate"],
)
def test_certificates_that_are_none_are_one_sentence(parts: Any, server: str, tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text(server, **parts))
    with pytest.raises(CommandError, match=r"check the kubeconfig's certificates") as refused:
        access.connect(kubeconfig=str(file), context=None, namespace=None).list()
    assert "\n" not in str(refused.value)
