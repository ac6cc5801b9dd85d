"""One empty store of each kind for each test; the servers run once."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.builders.servers import S3Server, moto_server, seaweed_server

from restoration_runner.storage.file import FileStore
from restoration_runner.storage.s3 import S3Store
from restoration_runner.storage.store import Store


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with moto_server(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with seaweed_server(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(params=["file", "moto", "seaweed"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "file":
        return FileStore(tmp_path / "bucket")
    server: S3Server = request.getfixturevalue(request.param)
    monkeypatch.setenv("VR_STORAGE_DIR", str(server.secrets))
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    server.make_bucket(bucket)
    return S3Store(bucket, server.storage)
