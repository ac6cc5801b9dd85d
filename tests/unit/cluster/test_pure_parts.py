"""The parts of the development cluster that need no Kubernetes: keys, formats, locks, ports."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hack.cluster import leftovers, preflight
from hack.cluster.binaries import ALL, Binary
from hack.cluster.console import Console
from hack.cluster.errors import ClusterError
from hack.cluster.images import _sources
from hack.cluster.kubeconfig import Token, write_kubeconfig
from hack.cluster.locks import file_lock, release, try_lock
from hack.cluster.oci import write_image
from hack.cluster.packages import Package, install, missing_packages
from hack.cluster.pki import Authority
from hack.cluster.ports import PortLeases, port_is_free
from hack.cluster.s3 import S3Endpoint, sign_put
from hack.cluster.toolchain import _numbers

# -- binaries


@pytest.mark.parametrize("binary", ALL.values(), ids=ALL.keys())
def test_every_program_has_a_pinned_version_and_a_cache_key(binary: Binary) -> None:
    assert binary.version.startswith("v")
    assert binary.path.name == binary.name
    assert binary.version in binary.path.parent.name


def test_the_version_is_stamped_into_the_server() -> None:
    server = ALL["kube-apiserver"]
    assert f"-X k8s.io/component-base/version.gitVersion={server.version}" in server.linker_flags


def test_another_package_is_another_cache_entry() -> None:
    server = ALL["kube-apiserver"]
    other = Binary(server.name, server.module, server.source, "elsewhere/cmd", 1, server.stamp)
    assert other.path != server.path


def test_versions_compare_as_numbers() -> None:
    assert _numbers("1.26.10") > _numbers("1.26.6") > _numbers("1.9.99")


# -- ports and locks


def test_two_lease_holders_never_get_the_same_port(tmp_path: Path) -> None:
    with PortLeases(folder=tmp_path) as first, PortLeases(folder=tmp_path) as second:
        ports = [leases.take() for _ in range(20) for leases in (first, second)]
    assert len(set(ports)) == len(ports)


def test_a_closed_lease_gives_its_ports_back(tmp_path: Path) -> None:
    leases = PortLeases(folder=tmp_path)
    port = leases.take()
    assert try_lock(tmp_path / str(port)) is None
    leases.close()
    descriptor = try_lock(tmp_path / str(port))
    assert descriptor is not None
    release(descriptor)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_somebody_listens_on_is_not_free(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as server:
        server.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            server.listen()
        port = server.getsockname()[1]
        assert not port_is_free("127.0.0.1", port, kind=kind)
    assert port_is_free("127.0.0.1", port, kind=kind)


def test_an_address_the_machine_gets_later_is_judged_too() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as everywhere:
        everywhere.bind(("0.0.0.0", 0))
        everywhere.listen()
        port = everywhere.getsockname()[1]
        assert not port_is_free("192.0.2.77", port)
    assert port_is_free("192.0.2.77", port)


def test_who_waits_for_a_lock_is_told_for_whom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / "build.lock"
    # A lock belongs to an open file, so the second holder has to be another process.
    script = (
        "import sys; from pathlib import Path; from hack.cluster.console import Console\n"
        "from hack.cluster.locks import file_lock\n"
        "with file_lock(Path(sys.argv[1]), purpose='testing', console=Console()): print('mine', flush=True)"
    )
    with file_lock(lock, purpose="building Kubernetes"):
        waiter = subprocess.Popen([sys.executable, "-c", script, lock], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        assert waiter.stderr is not None
        assert waiter.stdout is not None
        line = waiter.stderr.readline().decode()
    assert f"process {os.getpid()}" in line
    assert "building Kubernetes" in line
    assert waiter.stdout.readline() == b"mine\n"
    waiter.communicate()
    assert waiter.returncode == 0


# -- formats


def handshake(authority: Path, certificate: Path, key: Path, *, host: str) -> None:
    """A TLS handshake in memory, in which the client checks that the server is `host`. Raises ssl.SSLError."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(certificate, key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = ssl.create_default_context(cafile=str(authority)).wrap_bio(to_client, to_server, server_hostname=host)
    for _ in range(4):
        for side in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    assert client.version() is not None


@pytest.mark.parametrize(
    ("host", "accepted"), [("10.0.0.1", True), ("me.local", True), ("10.0.0.2", False), ("you.local", False)]
)
def test_a_server_is_accepted_under_its_own_names_only(tmp_path: Path, host: str, accepted: bool) -> None:
    authority = Authority(tmp_path, name="authority")
    pair = authority.issue("server", common_name="me", hosts=["10.0.0.1", "me.local"])
    expectation = contextlib.nullcontext() if accepted else pytest.raises(ssl.SSLCertVerificationError)
    with expectation:
        handshake(authority.pair.certificate, pair.certificate, pair.key, host=host)
    assert pair.key.stat().st_mode & 0o077 == 0


def test_an_authority_is_loaded_again_where_it_was_made(tmp_path: Path) -> None:
    first = Authority(tmp_path, name="authority").pair.certificate.read_bytes()
    again = Authority(tmp_path, name="authority")
    assert again.pair.certificate.read_bytes() == first
    again.issue("client", common_name="later")


def test_a_kubeconfig_carries_everything_and_is_private(tmp_path: Path) -> None:
    authority = Authority(tmp_path, name="authority")
    path = write_kubeconfig(
        tmp_path / "config", server="https://x:1", authority=authority.pair.certificate, identity=Token("secret")
    )
    document = yaml.safe_load(path.read_text())
    (cluster,), (user,) = document["clusters"], document["users"]
    inline = base64.b64decode(cluster["cluster"]["certificate-authority-data"])
    assert inline == authority.pair.certificate.read_bytes()
    assert user["user"] == {"token": "secret"}
    assert path.stat().st_mode & 0o077 == 0


def test_signed_headers_are_those_of_an_independent_signer() -> None:
    endpoint = S3Endpoint(
        endpoint="http://10.88.0.1:8333", region="us-east-1", bucket="video", accessKey="id", secretKey="key"
    )
    now = datetime.datetime.now(datetime.UTC)
    ours = sign_put(endpoint, path="/video/.ready", host="10.88.0.1:8333", body=b"ready", now=now)
    request = AWSRequest("PUT", f"{endpoint.endpoint}/video/.ready", data=b"ready")
    request.context["payload_signing_enabled"] = True
    request.context["timestamp"] = now.strftime("%Y%m%dT%H%M%SZ")
    signer = S3SigV4Auth(Credentials(endpoint.accessKey, endpoint.secretKey), "s3", endpoint.region)
    request.headers["X-Amz-Date"] = request.context["timestamp"]
    request.headers["X-Amz-Content-SHA256"] = ours["x-amz-content-sha256"]
    canonical = signer.canonical_request(request)
    expected = signer.signature(signer.string_to_sign(request, canonical), request)
    assert ours["Authorization"].endswith(f"Signature={expected}")


def test_an_image_is_a_consistent_oci_archive_and_the_same_each_time(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/true")
    for name in ("one.tar", "two.tar"):
        write_image(tmp_path / name, name="localhost/x:1", files={"/bin/x": program}, command=["/bin/x"])
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    shutil.unpack_archive(tmp_path / "one.tar", tmp_path / "image")
    blobs = tmp_path / "image" / "blobs" / "sha256"
    for blob in blobs.iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    index = json.loads((tmp_path / "image" / "index.json").read_text())
    manifest = json.loads((blobs / index["manifests"][0]["digest"].removeprefix("sha256:")).read_text())
    layer = blobs / manifest["layers"][0]["digest"].removeprefix("sha256:")
    with tarfile.open(layer) as archive:
        assert archive.getmember("bin/x").mode == 0o755


def test_security_updates_come_from_beside_the_machines_own_mirror() -> None:
    assert "deb http://mirror.local/debian-security bookworm-security main" in _sources("http://mirror.local/debian")


# -- prerequisites


def test_without_root_there_is_one_sentence_and_no_further_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (sentence,) = preflight.problems()
    assert "root" in sentence


def test_a_full_disk_is_named_with_what_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # an empty cache: everything is still to be built
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * preflight.GIB))
    sentences = list(preflight._disk())
    assert any("5 GiB free" in s and "XDG_CACHE_HOME" in s for s in sentences)


def test_a_port_in_use_is_named_with_the_server_that_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setattr(preflight, "FIXED_PORTS", (preflight.Port(port, "the kubelet", "127.0.0.1"),))
        (sentence,) = preflight._ports()
    assert f"TCP port {port}, which the kubelet needs" in sentence


def test_packages_are_named_before_apt_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    present = Package("coreutils", tmp_path, "everything")
    absent = Package("no-such-package", tmp_path / "missing", "nothing")
    assert missing_packages((present, absent)) == [absent]
    monkeypatch.setenv("PATH", str(tmp_path))
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/false")
    apt.chmod(0o755)
    with pytest.raises(ClusterError, match="apt could not install no-such-package"):
        install((present, absent), Console())
    assert "apt will install no-such-package, for nothing" in capsys.readouterr().err


def test_mounts_below_a_folder_are_found_deepest_first() -> None:
    assert leftovers.mounts_below([Path("/nowhere")]) == []
    everything = leftovers.mounts_below([Path("/")])
    assert everything[-1] == Path("/")
    depths = [len(point.parts) for point in everything]
    assert depths == sorted(depths, reverse=True)
