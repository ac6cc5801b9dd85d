"""An object that is read in pieces: the same bytes as the whole, few requests, and never two objects in one."""

import random
from pathlib import Path

import pytest
from minio import Minio
from tests.builders.servers import S3Server

from restoration_cli.errors import CommandError
from restoration_cli.reading import BLOCK_BYTES, RemoteFile

SIZE = 3 * BLOCK_BYTES + 12345
DATA = random.Random(1).randbytes(SIZE)


@pytest.fixture
def client(moto: S3Server, tmp_path: Path) -> Minio:
    moto.make_bucket("reading")
    connected = moto.client()
    (tmp_path / "data").write_bytes(DATA)
    connected.fput_object("reading", "data.bin", str(tmp_path / "data"))
    return connected


def test_any_part_is_the_same_bytes(client: Minio) -> None:
    file, chance = RemoteFile(client, "s3://reading/data.bin"), random.Random(2)
    assert file.size_bytes == SIZE
    edges = [(0, 10), (BLOCK_BYTES - 3, 7), (SIZE - 5, 100), (SIZE, 1), (SIZE + 9, 5)]
    for start, length in edges + [(chance.randrange(SIZE), chance.randrange(1, 99999)) for _ in range(20)]:
        assert file.seek(start) == start
        found = bytearray()
        while len(found) < length and (piece := file.read(length - len(found))):
            found += piece
        assert bytes(found) == DATA[start : start + length]
    assert file.seek(-4, 2) == SIZE - 4 and file.read() == DATA[-4:]


def test_only_what_is_read_is_fetched_and_once(client: Minio) -> None:
    file = RemoteFile(client, "s3://reading/data.bin")
    assert file.fetched_bytes == 0
    for _ in range(3):
        file.seek(BLOCK_BYTES + 5)
        file.read(100)
    assert file.fetched_bytes == BLOCK_BYTES


def test_an_object_that_is_replaced_meanwhile_is_not_mixed(client: Minio, tmp_path: Path) -> None:
    file = RemoteFile(client, "s3://reading/data.bin")
    file.read(10)
    (tmp_path / "other").write_bytes(bytes(SIZE))
    client.fput_object("reading", "data.bin", str(tmp_path / "other"))
    file.seek(2 * BLOCK_BYTES)
    with pytest.raises(CommandError, match=r"s3://reading/data\.bin was replaced while it was read"):
        file.read(10)


@pytest.mark.parametrize("uri", ["s3://reading/nothing.mp4", "s3://no-such-bucket/a.mp4"])
def test_what_is_not_there_is_named(uri: str, client: Minio) -> None:
    with pytest.raises(CommandError, match=uri):
        RemoteFile(client, uri)
