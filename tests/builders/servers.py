"""Object storage for tests: real servers on loopback, free ports, gone with the test run."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import urllib3
from hack.cluster.binaries import MINIO
from hack.cluster.ports import PortLeases
from minio import Minio

from restoration_api.request import Addressing, StorageRequest
from tests.builders.certificates import TestAuthority

ACCESS_KEY = "test-access"
SECRET_KEY = "test-secret-0123456789"
LEAST_MOTO_PART_BYTES = 2048
"""S3 wants 5 MiB of every part but the last one, which makes tests with many uploads slow."""


@dataclass(frozen=True)
class S3Server:
    """A running server; `secrets` is the folder that `VR_STORAGE_DIR` must name."""

    name: str
    endpoint: str
    secrets: Path
    authority: Path | None = None
    """Of its certificate, where it speaks TLS."""

    @property
    def storage(self) -> StorageRequest:
        return StorageRequest(name="default", endpoint=self.endpoint, addressing=Addressing.PATH)

    def pool(self) -> urllib3.PoolManager | None:
        """Connections that believe its authority; None where there is none to believe."""
        return None if self.authority is None else urllib3.PoolManager(ca_certs=str(self.authority))

    def client(self) -> Minio:
        place = urlsplit(self.endpoint)
        secure = place.scheme == "https"
        return Minio(place.netloc, ACCESS_KEY, SECRET_KEY, secure=secure, region="us-east-1", http_client=self.pool())

    def make_bucket(self, bucket: str) -> None:
        client = self.client()
        if not client.bucket_exists(bucket):
            client.make_bucket(bucket)


_LEASES = PortLeases()


def free_ports(count: int) -> list[int]:
    """Ports that stay ours until this process ends.

    Not the kernel's: a store takes seconds to start, and with several test processes one of those would be an outgoing
    connection by then.
    """
    return [_LEASES.take() for _ in range(count)]


def write_secret(folder: Path, *, access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY) -> Path:
    """A mounted Secret of the storage entry `default`, as the kubelet would lay it out."""
    secret = folder / "secrets" / "default"
    secret.mkdir(parents=True, exist_ok=True)
    (secret / "access-key").write_text(access_key)
    (secret / "secret-key").write_text(secret_key + "\n")
    return folder / "secrets"


@contextlib.contextmanager
def moto_server(folder: Path) -> Iterator[S3Server]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    sizes = {"S3_UPLOAD_PART_MIN_SIZE": LEAST_MOTO_PART_BYTES, "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": 5 << 20}
    with _process(command, folder / "moto.log", **{name: str(size) for name, size in sizes.items()}):
        server = S3Server("moto", f"http://127.0.0.1:{port}", write_secret(folder))
        _wait_until_it_writes(server)
        yield server


@contextlib.contextmanager
def seaweed_server(folder: Path) -> Iterator[S3Server]:
    """SeaweedFS in one process: master, volume server, filer and S3 gateway."""
    identities = folder / "identities.json"
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    identities.write_text(
        json.dumps({"identities": [{"name": "test", "credentials": credentials, "actions": ["Admin"]}]})
    )
    data = folder / "seaweed"
    data.mkdir()
    # Each server also takes its port + 10000 for gRPC unless told otherwise.
    names = ["s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc"]
    ports = dict(zip([*names, "filer.port", "filer.port.grpc"], free_ports(8), strict=True))
    command = [
        str(Path(sys.executable).parent / "weed"),
        "server",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-volume.max=2000",  # every bucket takes a handful; nothing is reserved for them
        "-master.volumeSizeLimitMB=64",
        "-master.volumePreallocate=false",
        "-s3",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.config={identities}",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    with _process(command, folder / "weed.log"):
        server = S3Server("seaweed", f"http://127.0.0.1:{ports['s3.port']}", write_secret(folder))
        _wait_until_it_writes(server)
        yield server


@contextlib.contextmanager
def minio_server(folder: Path, *, authority: TestAuthority | None = None, **more: str) -> Iterator[S3Server]:
    """MinIO with one drive; `hack.cluster` builds it. With an authority it speaks TLS. more: of its environment."""
    (port,) = free_ports(1)
    data = folder / "minio"
    data.mkdir()
    command = [str(MINIO.path), "server", str(data), "--address", f"127.0.0.1:{port}", "--quiet"]
    environment = {
        "MINIO_ROOT_USER": ACCESS_KEY,
        "MINIO_ROOT_PASSWORD": SECRET_KEY,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
        "MINIO_CI_CD": "on",  # a drive that is the root file system will do
        **more,
    }
    if authority is not None:
        authority.laid_out_for_minio(folder / "certificates")
        command.append(f"--certs-dir={folder / 'certificates'}")
    with _process(command, folder / "minio.log", **environment):
        endpoint = f"{'https' if authority else 'http'}://127.0.0.1:{port}"
        server = S3Server("minio", endpoint, write_secret(folder), authority.path if authority else None)
        _wait_until_it_writes(server)
        yield server


@contextlib.contextmanager
def _process(command: list[str], log: Path, **environment: str) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, "HOME": str(log.parent), **environment}
        )
        try:
            yield
            assert process.poll() is None, f"{command[0]} ended on its own: {log.read_text()[-2000:]}"
        finally:
            process.kill()
            process.wait()


def _wait_until_it_writes(server: S3Server) -> None:
    """A port that answers is not yet a store that writes."""
    deadline = time.monotonic() + 60
    while True:
        try:
            server.make_bucket("ready")
            server.client().put_object("ready", "probe", _Empty(), 0)
            return
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


class _Empty:
    def read(self, size: int = -1) -> bytes:
        return b""
