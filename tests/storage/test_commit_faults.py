"""The commit protocol over a network and at servers that fail: one table, three real servers, every fault at each step.

Whatever happens, the output is whole or not there, it is published once and says what made it, nobody else's object is
touched, and no unfinished upload is left behind.
"""

import hashlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.builders.faulty import Faults, faulty
from tests.builders.requests import make_request
from tests.builders.servers import S3Server

from restoration_api.outcome import FailureReason
from restoration_api.request import Overwrite, StorageRequest
from restoration_runner.errors import RestorationError
from restoration_runner.outcomes import SHA256_METADATA
from restoration_runner.plan import Keys
from restoration_runner.publish import KEY, Destination
from restoration_runner.storage import connection, s3
from restoration_runner.storage.s3 import S3Store
from restoration_runner.storage.store import read_whole

KEYS = Keys(engine={}, engine_version="v", cache_key="k", request_key="r")
OUT = "out/film.mp4"
WHOLE, IN_PARTS = 300_000, 6 << 20
"""Bytes of a file that one PUT writes, and of one that takes two parts of 5 MiB, the least that S3 allows."""


@dataclass(frozen=True)
class Bad:
    """A bucket behind a faulty proxy, and the same bucket without it."""

    bucket: str
    storage: StorageRequest
    straight: S3Store
    faults: Faults

    def store(self) -> S3Store:
        return S3Store(self.bucket, self.storage)


@pytest.fixture(params=["moto", "seaweed", "minio"])
def bad(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bad]:
    server: S3Server = request.getfixturevalue(request.param)
    monkeypatch.setenv("VR_STORAGE_DIR", str(server.secrets))
    monkeypatch.setattr(s3, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20)
    bucket = f"commit-{uuid.uuid4().hex[:12]}"
    server.make_bucket(bucket)
    faults = Faults()
    with faulty(server.endpoint, faults) as endpoint:
        storage = server.storage.model_copy(update={"endpoint": endpoint})
        yield Bad(bucket, storage, S3Store(bucket, server.storage), faults)


def destination(store: S3Store) -> Destination:
    request = make_request()
    output = request.output.model_copy(update={"overwrite": Overwrite.NEVER})
    return Destination(store, OUT, request=request.model_copy(update={"output": output}), keys=KEYS, work_name="w")


def file(folder: Path, size: int) -> Path:
    path = folder / "verified.mp4"
    path.write_bytes(bytes(range(256)) * (size // 256))
    return path


def is_put(method: str, path: str) -> bool:
    return method == "PUT"


def is_begin(method: str, path: str) -> bool:
    return method == "POST" and "uploads" in path


def is_complete(method: str, path: str) -> bool:
    return method == "POST" and "uploadId=" in path


def is_get(method: str, path: str) -> bool:
    return method == "GET" and "/film.mp4" in path


BUSY = {"unavailable": 2}
BROKEN = {"unavailable": 2, "refusal": (500, "InternalError")}
FAILS_AFTER_200 = {"unavailable": 2, "refusal": (200, "InternalError")}

# what fails, how, at which requests, for files of these sizes
HEALED: list[tuple[str, dict[str, Any], Callable[[str, str], bool], tuple[int, ...]]] = [
    ("upload cut in its middle", {"torn": 2}, is_put, (WHOLE, IN_PARTS)),
    ("503 SlowDown to PUT", BUSY, is_put, (WHOLE, IN_PARTS)),
    ("500 to PUT", BROKEN, is_put, (WHOLE, IN_PARTS)),
    ("answer to PUT lost", {"lost": 1}, is_put, (WHOLE, IN_PARTS)),
    ("first byte of the answer to PUT too late", {"slow": 1}, is_put, (WHOLE,)),
    ("503 SlowDown to the begin of an upload", BUSY, is_begin, (IN_PARTS,)),
    ("answer to the begin of an upload lost", {"lost": 1}, is_begin, (IN_PARTS,)),
    ("503 SlowDown to Complete", BUSY, is_complete, (IN_PARTS,)),
    ("Complete fails after its 200", FAILS_AFTER_200, is_complete, (IN_PARTS,)),
    ("answer to Complete lost", {"lost": 1}, is_complete, (IN_PARTS,)),
    ("answer to Complete cut", {"halved": 1}, is_complete, (IN_PARTS,)),
    ("first byte of the answer to Complete too late", {"slow": 1}, is_complete, (IN_PARTS,)),
    ("503 SlowDown to the reading back", BUSY, is_get, (WHOLE,)),
    ("reading back cut", {"cut": 2}, is_get, (WHOLE, IN_PARTS)),
]
ROWS = [(name, fault, where, size) for name, fault, where, sizes in HEALED for size in sizes]
IDS = [f"{name}, {'one PUT' if size == WHOLE else 'parts'}" for name, _, _, size in ROWS]


@pytest.mark.parametrize(("name", "fault", "where", "size"), ROWS, ids=IDS)
def test_what_passes_heals(
    bad: Bad,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    fault: dict[str, Any],
    where: Callable[[str, str], bool],
    size: int,
) -> None:
    if "slow" in fault:
        monkeypatch.setattr(connection, "READ_SECONDS", 1.0)
    path = file(tmp_path, size)
    bad.faults.plan(where, **fault)
    published = destination(bad.store()).publish(path, before=None, on_bytes=lambda _: None)
    assert bad.faults.used_up, "the fault did not happen"
    assert not published.adopted
    assert_whole(bad.straight, path)
    assert bad.straight.abort_uploads(OUT, older_than=timedelta(0)) == 0, "an unfinished upload is left"


# a fault that meets somebody else's object, which came first
CONTESTED: list[tuple[str, dict[str, Any], Callable[[str, str], bool], int]] = [
    ("answer to PUT lost", {"lost": 1}, is_put, WHOLE),
    ("503 SlowDown to PUT", BUSY, is_put, WHOLE),
    ("answer to Complete lost", {"lost": 1}, is_complete, IN_PARTS),
    ("503 SlowDown to Complete", BUSY, is_complete, IN_PARTS),
]


@pytest.mark.parametrize(("name", "fault", "where", "size"), CONTESTED, ids=[row[0] for row in CONTESTED])
def test_a_fault_is_no_licence_to_replace_what_somebody_else_wrote(
    bad: Bad, tmp_path: Path, name: str, fault: dict[str, Any], where: Callable[[str, str], bool], size: int
) -> None:
    bad.straight.put(OUT, b"theirs")
    bad.faults.plan(where, **fault)
    with pytest.raises(RestorationError, match="somebody else") as caught:
        destination(bad.store()).publish(file(tmp_path, size), before=None, on_bytes=lambda _: None)
    assert caught.value.reason is FailureReason.OUTPUT_CONFLICT
    assert read_whole(bad.straight, OUT) == b"theirs"


# a fault that stays: the reason and the sentence
STAYS: list[tuple[str, dict[str, Any], Callable[[str, str], bool], int, str]] = [
    ("SlowDown for ever", {"unavailable": 1000}, is_put, WHOLE, r"film\.mp4 at http.*503 SlowDown"),
    ("no answer for ever", {"lost": 1000}, is_begin, IN_PARTS, "no answer from the storage"),
    ("Complete fails for ever", FAILS_AFTER_200 | {"unavailable": 1000}, is_complete, IN_PARTS, "InternalError"),
    (
        "the clock is wrong",
        {"unavailable": 1000, "refusal": (403, "RequestTimeTooSkewed")},
        is_put,
        WHOLE,
        "clock of this machine .*NTP",
    ),
]


@pytest.mark.parametrize(("name", "fault", "where", "size", "says"), STAYS, ids=[row[0] for row in STAYS])
def test_what_stays_is_said_and_nothing_is_visible(
    bad: Bad, tmp_path: Path, name: str, fault: dict[str, Any], where: Callable[[str, str], bool], size: int, says: str
) -> None:
    bad.faults.plan(where, **fault)
    with pytest.raises(RestorationError, match=says) as caught:
        destination(bad.store()).publish(file(tmp_path, size), before=None, on_bytes=lambda _: None)
    assert caught.value.reason is FailureReason.STORAGE_ERROR
    if name == "the clock is wrong":
        assert len(bad.faults.seen) == 1, "asking again does not set a clock"
    assert bad.straight.head(OUT) is None
    destination(bad.straight).publish(file(tmp_path, size), before=None, on_bytes=lambda _: None)
    assert bad.straight.abort_uploads(OUT, older_than=timedelta(0)) == 0, "the next runner cleans up"


def assert_whole(store: S3Store, path: Path) -> None:
    """The object is the file, and its metadata say what made it."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert hashlib.sha256(read_whole(store, OUT)).hexdigest() == sha256
    found = store.head(OUT)
    assert found is not None
    assert (found.metadata[KEY], found.metadata[SHA256_METADATA]) == ("k", sha256)
    assert [item.key for item in store.list_objects("out/")] == [OUT]
