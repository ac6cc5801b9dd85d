"""The work prefix: who wins when two write the same, and what counts as finished."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.builders.plans import make_plan

from restoration_api.ledger import Marker, Plan, Segment, marker_key, plan_key
from restoration_runner.errors import RestorationError
from restoration_runner.restoration.pipeline import Made
from restoration_runner.storage.file import FileStore
from restoration_runner.storage.store import ObjectInfo, ObjectMissingError, Store, When, read_whole
from restoration_runner.video.write import WrittenSegment
from restoration_runner.work import TRIES, Maker, Work

PREFIX = "out/.vr/0123456789abcdef-01234567/"
MAKER = Maker(execution=1, environment={"device": "cpu"}, fingerprint="f")


def made(folder: Path, segment: Segment, content: bytes = b"segment") -> Made:
    path = folder / f"made-{segment.index}-{hashlib.sha256(content).hexdigest()[:6]}"
    path.write_bytes(content)
    written = WrittenSegment(
        frames=segment.frames,
        frames_sha256=hashlib.sha256(b"planes of " + content).hexdigest(),
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
    )
    return Made(
        segment=segment,
        path=path,
        written=written,
        decode_milliseconds=1,
        inference_milliseconds=2,
        encode_milliseconds=3,
        peak_gpu_memory_bytes=None,
        non_finite_values=0,
    )


def test_a_plan_is_written_once_and_read_back(store: Store) -> None:
    first, second = make_plan(), make_plan(model="renamed")
    work = Work(store, PREFIX)
    assert work.read_plan(first.cache_key) is None
    assert work.publish_plan(first) == first
    assert work.publish_plan(second) == first
    assert work.read_plan(first.cache_key) == first


@pytest.mark.parametrize(
    "there",
    [b'{"schema": 2, "future": true}', b"not json", b'{"schema": 1}', make_plan(cache_key="f" * 64).to_json().encode()],
    ids=["another schema", "no JSON", "no plan", "another key"],
)
def test_a_plan_that_is_not_ours_counts_as_absent(store: Store, there: bytes) -> None:
    store.put(plan_key(PREFIX), there)
    plan, work = make_plan(), Work(store, PREFIX)
    assert work.read_plan(plan.cache_key) is None
    assert work.publish_plan(plan) == plan
    assert work.read_plan(plan.cache_key) == plan


def test_a_segment_counts_when_object_and_marker_agree(store: Store, tmp_path: Path) -> None:
    plan, work = make_plan(), Work(store, PREFIX)
    marker = work.commit(plan, made(tmp_path, plan.segments[1]), MAKER)
    assert work.markers(plan) == {1: marker}
    assert work.finished(plan, plan.segments[1]) == marker
    assert work.finished(plan, plan.segments[0]) is None
    folder = tmp_path / "fetched"
    folder.mkdir()
    assert work.fetch(marker, folder).read_bytes() == b"segment"


Spoil = Callable[[Store, Marker], object]
SPOILED: list[tuple[str, Spoil]] = [
    ("the object is gone", lambda store, marker: store.delete(marker.object_key)),
    ("the object is another", lambda store, marker: store.put(marker.object_key, b"tampered with")),
    ("the object is another of the same size", lambda store, marker: store.put(marker.object_key, b"SEGMENT")),
    ("the marker is gone", lambda store, marker: store.delete(marker_key(PREFIX, marker.segment))),
    (
        "the marker is of another work",
        lambda store, marker: store.put(
            marker_key(PREFIX, marker.segment), marker.model_copy(update={"cache_key": "0" * 64}).to_json().encode()
        ),
    ),
    (
        "the marker has another number of frames",
        lambda store, marker: store.put(
            marker_key(PREFIX, marker.segment), marker.model_copy(update={"frames": 1}).to_json().encode()
        ),
    ),
    (
        "the marker is of another schema",
        lambda store, marker: store.put(marker_key(PREFIX, marker.segment), b'{"schema": 2}'),
    ),
]


def test_a_marker_that_names_an_object_elsewhere_is_not_believed(store: Store, tmp_path: Path) -> None:
    plan, work = make_plan(), Work(store, PREFIX)
    marker = work.commit(plan, made(tmp_path, plan.segments[0]), MAKER)
    other = store.put("out/somebody-else.mkv", b"segment")
    lie = marker.model_copy(update={"object_key": "out/somebody-else.mkv", "etag": other.etag})
    store.put(marker_key(PREFIX, 0), lie.to_json().encode())
    assert work.markers(plan) == {}
    assert work.commit(plan, made(tmp_path, plan.segments[0]), MAKER).object_key == marker.object_key
    assert read_whole(store, "out/somebody-else.mkv") == b"segment"


def test_bytes_that_rotted_under_the_same_size_and_time_are_made_again(tmp_path: Path) -> None:
    store, plan = FileStore(tmp_path / "bucket"), make_plan()
    work = Work(store, PREFIX)
    marker = work.commit(plan, made(tmp_path, plan.segments[0]), MAKER)
    path = store.local_path(marker.object_key)
    assert path is not None
    stat = path.stat()
    path.write_bytes(b"SEGMENT")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert work.markers(plan) == {0: marker}
    with pytest.raises(ObjectMissingError, match="does not hold the bytes that its marker names"):
        work.fetch(marker, tmp_path)
    assert work.markers(plan) == {}
    again = work.commit(plan, made(tmp_path, plan.segments[0]), MAKER)
    assert work.fetch(again, tmp_path).read_bytes() == b"segment"


@pytest.mark.parametrize(("name", "spoil"), SPOILED, ids=[row[0] for row in SPOILED])
def test_what_does_not_agree_is_made_again_and_replaced(store: Store, tmp_path: Path, name: str, spoil: Spoil) -> None:
    plan, work = make_plan(), Work(store, PREFIX)
    first = work.commit(plan, made(tmp_path, plan.segments[0]), MAKER)
    spoil(store, first)
    assert work.markers(plan) == {}
    again = work.commit(plan, made(tmp_path, plan.segments[0]), replace(MAKER, execution=2))
    # On S3 equal bytes have an equal etag: once the object is back, its old marker is right again.
    assert again.execution == 2 or name.startswith("the object")
    assert work.markers(plan) == {0: again}
    assert read_whole(store, again.object_key, if_match=again.etag) == b"segment"


@pytest.mark.parametrize("theirs", [b"segment", b"the same frames, other bytes"])
def test_the_first_marker_wins(store: Store, tmp_path: Path, theirs: bytes) -> None:
    plan = make_plan()
    peer = Work(store, PREFIX)
    first = peer.commit(plan, made(tmp_path, plan.segments[0], theirs), replace(MAKER, execution=7))
    late = Work(store, PREFIX).commit(plan, made(tmp_path, plan.segments[0]), MAKER)
    assert late == first
    assert late.execution == 7
    objects = [item.key for item in store.list_objects(f"{PREFIX}seg/") if item.key.endswith(".mkv")]
    assert objects == [first.object_key]


@dataclass
class RacingStore:
    """Before the n-th write of a marker, a peer is faster."""

    inner: Store
    race: Callable[[], object]
    races: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def put(
        self, key: str, data: bytes, *, when: When | None = None, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        if key == marker_key(PREFIX, 0) and self.races:
            self.races -= 1
            self.race()
        return self.inner.put(key, data, when=when, metadata=metadata)


def test_a_peer_that_is_faster_by_one_request_wins(store: Store, tmp_path: Path) -> None:
    plan = make_plan()
    peer = made(tmp_path, plan.segments[0], b"the peer's")
    racing = RacingStore(store, lambda: Work(store, PREFIX).commit(plan, peer, replace(MAKER, execution=9)), races=1)
    marker = Work(racing, PREFIX).commit(plan, made(tmp_path, plan.segments[0]), MAKER)
    assert marker.execution == 9
    assert Work(store, PREFIX).markers(plan) == {0: marker}


def test_an_endless_fight_ends_in_a_sentence(tmp_path: Path) -> None:
    store, plan = FileStore(tmp_path / "bucket"), make_plan()
    racing = RacingStore(store, lambda: store.put(marker_key(PREFIX, 0), b"{}"), races=TRIES)
    with pytest.raises(RestorationError, match="another restoration writing to the same output"):
        Work(racing, PREFIX).commit(plan, made(tmp_path, plan.segments[0]), MAKER)


def test_clear_leaves_only_the_manifest(store: Store, tmp_path: Path) -> None:
    plan, work = make_plan(), Work(store, PREFIX)
    work.publish_plan(plan)
    for segment in plan.segments:
        work.commit(plan, made(tmp_path, segment), MAKER)
    store.put(f"{PREFIX}final.json", b"{}")
    store.put("out/.vr/another-work/plan.json", b"{}")
    work.clear()
    work.clear()
    assert [item.key for item in store.list_objects(PREFIX)] == [f"{PREFIX}final.json"]
    assert store.head("out/.vr/another-work/plan.json") is not None


def test_names(store: Store) -> None:
    work = Work(store, PREFIX)
    assert work.name == "0123456789abcdef-01234567"
    assert work.sibling("fedcba9876543210-76543210").prefix == "out/.vr/fedcba9876543210-76543210/"
    assert work.manifest_uri().endswith(f"{PREFIX}final.json")


@pytest.mark.parametrize("name", ["", "x", "..", "../../theirs", "0123456789abcdef-01234567/../x", "fedcba9876543210"])
def test_a_name_that_no_work_has_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    """It comes from an object's metadata, which whoever may write to the bucket has written."""
    work = Work(FileStore(tmp_path), PREFIX)
    assert work.sibling(name) is work


def test_a_plan_is_a_contract() -> None:
    assert Plan.from_json(make_plan().to_json()) == make_plan()
