"""A commit that dies between any two of its steps leaves nothing that lies, and nothing behind once it is repeated.

Every step is tried: what a plan, a segment with its marker, and the clearing of a work do to files or send to S3 is
counted, then a process that does it is killed before the first, the second … the last of them, and another process goes
on. On S3 the segment goes up in parts. `make soak` names more servers in VR_TEST_S3.
"""

import multiprocessing
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.builders.plans import make_plan
from tests.builders.servers import LEAST_MOTO_PART_BYTES, S3Server
from tests.builders.steps import Steps
from tests.storage.test_work import MAKER, PREFIX, made

from restoration_runner.storage import s3
from restoration_runner.storage.file import FileStore
from restoration_runner.storage.s3 import S3Store
from restoration_runner.storage.store import Store, read_whole
from restoration_runner.work import Work

LEAST_STEPS, MOST_STEPS = 30, 200
SERVERS = os.environ.get("VR_TEST_S3", "moto").split()
LEAST_PART_BYTES = {"moto": LEAST_MOTO_PART_BYTES}
"""Elsewhere 5 MiB, as S3 wants it for every part but the last: many times slower."""


@dataclass(frozen=True)
class Place:
    """Where one work is done: a folder for what is local, and the bucket that holds the work."""

    root: Path
    server: S3Server | None
    bucket: str

    @property
    def part_bytes(self) -> int:
        return LEAST_PART_BYTES.get(self.server.name, 5 << 20) if self.server else s3.PART_BYTES

    @property
    def content(self) -> bytes:
        """Of the segment; more than one part on S3."""
        return b"segment" * (self.part_bytes // len(b"segment") + 500 if self.server else 1000)

    def store(self) -> Store:
        return S3Store(self.bucket, self.server.storage) if self.server else FileStore(self.root / self.bucket)

    def work(self) -> Work:
        return Work(self.store(), PREFIX)

    def watched(self, steps: Steps) -> None:
        if self.server:
            steps.watch_requests()
        else:
            steps.watch(self.root / self.bucket)

    def left(self) -> list[str]:
        """What lies there, the store's own folders of bookkeeping apart."""
        if self.server:
            return [item.key for item in self.store().list_objects("")]
        files = [path for path in (self.root / self.bucket).rglob("*") if path.is_file()]
        return [path.name for path in files if path.parent.name != ".store"]


def commit(place: Place) -> None:
    plan = make_plan()
    place.work().commit(plan, made(place.root, plan.segments[0], place.content), MAKER)


def whole(place: Place) -> None:
    place.work().publish_plan(make_plan())
    commit(place)
    place.work().clear()


def _do(place: Place, fatal: int) -> None:
    steps = Steps(fatal=fatal)
    place.watched(steps)
    whole(place)


def killed(place: Place, fatal: int) -> bool:
    """Whether it died; false if it had fewer steps and is through."""
    process = multiprocessing.get_context("fork").Process(target=_do, args=(place, fatal))
    process.start()
    process.join()
    assert process.exitcode in (-9, 0)
    return process.exitcode == -9


def look(place: Place) -> None:
    """What a successor may believe, it may believe wholly."""
    plan, work, store = make_plan(), place.work(), place.store()
    assert work.read_plan(plan.cache_key) in (None, plan)
    for marker in work.markers(plan).values():
        assert read_whole(store, marker.object_key, if_match=marker.etag) == place.content


def again(place: Place) -> None:
    """What the successor does: all of it from the beginning, with a look in between."""
    plan, work, store = make_plan(), place.work(), place.store()
    assert work.publish_plan(plan) == plan
    commit(place)
    markers = work.markers(plan)
    assert list(markers) == [0]
    keys = {item.key for item in store.list_objects(PREFIX)}
    assert keys == {f"{PREFIX}plan.json", f"{PREFIX}seg/00000.json", markers[0].object_key}
    look(place)
    work.clear()


@pytest.mark.parametrize("kind", ["file", *SERVERS])
def test_killed_before_every_step(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: S3Server | None = None if kind == "file" else request.getfixturevalue(kind)
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    if server:
        monkeypatch.setenv("VR_STORAGE_DIR", str(server.secrets))
        monkeypatch.setattr(s3, "PART_BYTES", Place(tmp_path, server, bucket).part_bytes)
        server.make_bucket(bucket)
    for fatal in range(1, MOST_STEPS):
        place = Place(tmp_path / str(fatal), server, bucket)
        place.root.mkdir()
        died = killed(place, fatal)
        look(place)
        again(place)
        assert place.left() == [], f"killed before step {fatal}"
        if not died:
            break
    assert LEAST_STEPS < fatal < MOST_STEPS - 1
