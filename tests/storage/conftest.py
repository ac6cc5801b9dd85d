"""One empty store of each kind for each test; the servers run once."""

import uuid
from pathlib import Path

import pytest
from tests.builders.servers import S3Server

from restoration_runner.storage.file import FileStore
from restoration_runner.storage.s3 import S3Store
from restoration_runner.storage.store import Store


@pytest.fixture(params=["file", "moto", "seaweed", "minio"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "file":
        return FileStore(tmp_path / "bucket")
    server: S3Server = request.getfixturevalue(request.param)
    monkeypatch.setenv("VR_STORAGE_DIR", str(server.secrets))
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    server.make_bucket(bucket)
    return S3Store(bucket, server.storage)
