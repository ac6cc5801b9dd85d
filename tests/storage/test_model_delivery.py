"""A model folder that is fetched: complete, checked and there once, or a class of failure and one sentence."""

import errno
import hashlib
import os
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.builders.hub import COMMIT, TOKEN, HubServer, Repository, hub
from tests.builders.servers import S3Server

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.storage import s3
from restoration_runner.storage.file import FileStore
from restoration_runner.storage.s3 import S3Store
from restoration_runner.weights import bucket, deliver
from restoration_runner.weights import digest as digest_module
from restoration_runner.weights import hub as hub_module
from restoration_runner.weights.bucket import BucketShelf
from restoration_runner.weights.deliver import is_whole
from restoration_runner.weights.digest import SUMS, check_sums, is_described, write_sums
from restoration_runner.weights.hub import Hub
from restoration_runner.weights.repository import RepositoryShelf
from restoration_runner.weights.shelf import MOST_LIST_BYTES, Shelf, read_description, read_promise

FILES: Mapping[str, bytes] = {
    "model.json": b'{"schema": 1}',
    "dit.safetensors": bytes(range(256)) * 1000,
    "vae.safetensors": b"vae" * 9000,
    "text.safetensors": b"text" * 100,
}
SIZE = sum(map(len, FILES.values()))


@dataclass
class Place:
    """Where a model lies (`origin`), and where it shall be (`target`)."""

    origin: Path
    target: Path
    digest: str
    received: list[int] = field(default_factory=list)
    total: list[int] = field(default_factory=list)

    @property
    def shelf(self) -> BucketShelf:
        return BucketShelf(FileStore(self.origin.parent), f"{self.origin.name}/")

    def deliver(self, shelf: Shelf | None = None, *, most_bytes: int | None = None) -> None:
        shelf = shelf or self.shelf
        promise = read_promise(shelf, digest=self.digest)
        deliver.deliver(
            shelf,
            promise,
            self.target,
            most_bytes=most_bytes,
            on_bytes=self.received.append,
            on_total=self.total.append,
        )

    def refused(self, shelf: Shelf | None = None, **options: Any) -> RestorationError:
        with pytest.raises(RestorationError) as caught:
            self.deliver(shelf, **options)
        assert not self.target.exists()
        return caught.value

    def assert_delivered(self) -> None:
        assert check_sums(self.target) == (self.digest, True)
        assert sorted(path.name for path in self.target.iterdir()) == sorted([*FILES, SUMS])
        assert [path.name for path in self.target.parent.iterdir()] == [self.target.name]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    origin = tmp_path / "bucket" / "nano"
    origin.mkdir(parents=True)
    for name, content in FILES.items():
        (origin / name).write_bytes(content)
    return Place(origin, tmp_path / "models" / "nano-0123", write_sums(origin))


def test_a_model_arrives_whole_counted_and_readable_for_all(place: Place) -> None:
    place.deliver()
    place.assert_delivered()
    assert (place.total, sum(place.received)) == ([SIZE], SIZE)
    assert {path.stat().st_mode & 0o777 for path in place.target.iterdir()} == {0o644}
    assert place.target.stat().st_mode & 0o777 == 0o755


def test_planning_reads_the_list_and_the_description_only(place: Place) -> None:
    for name in ("dit.safetensors", "vae.safetensors", "text.safetensors"):
        (place.origin / name).unlink()
    assert read_description(place.shelf, read_promise(place.shelf, digest=place.digest)) == FILES["model.json"]


def relist(change: Callable[[str], str]) -> Callable[[Path], object]:
    """Another list, made by somebody who pins its digest: what is wrong with it is not its digest."""
    return lambda folder: (folder / SUMS).write_text(change((folder / SUMS).read_text()))


def line(name: str) -> Callable[[Path], object]:
    return relist(lambda text: f"{text}{'0' * 64}  {name}\n")


SPOILED: list[tuple[str, Callable[[Path], object], str]] = [
    ("no list", lambda folder: (folder / SUMS).unlink(), r"SHA256SUMS does not exist"),
    ("another digest", relist(lambda text: text.replace(text[:8], "00000000", 1)), r"model\.digest: .* not sha256:"),
    ("no such file", lambda folder: (folder / "vae.safetensors").unlink(), r"vae\.safetensors does not exist"),
    ("other bytes", lambda folder: (folder / "vae.safetensors").write_bytes(b"VAE" * 9000), r"vae.*has the digest"),
    ("fewer bytes", lambda folder: (folder / "dit.safetensors").write_bytes(b"d"), r"dit\.safetensors has the digest"),
    ("another description", lambda folder: (folder / "model.json").write_text("{}"), r"model\.json has the digest"),
    ("a pickle", line("dit.pth"), r"dit\.pth is a pickle"),
    ("a pickle in capitals", line("pytorch_model.BIN"), r"pytorch_model\.BIN is a pickle"),
    ("a way out", line("../dit.safetensors"), r"'\.\./dit\.safetensors' names no file of the folder"),
    ("a root", line("/etc/passwd"), r"'/etc/passwd' names no file"),
    ("a folder", line("more/dit.safetensors"), r"names no file of the folder"),
    ("a hidden file", line(".cache.json"), r"names no file"),
    ("a control character", line("a\x1b[31m.json"), r"'a\\x1b\[31m\.json' names no file"),
    ("a name twice", relist(lambda text: text + text.splitlines()[0] + "\n"), r"is listed twice"),
    ("no list of digests", relist(lambda text: "<html>not found</html>"), r"no line of sha256sum"),
    ("no model", relist(lambda text: "".join(text.splitlines(True)[:1])), r"lists no model\.json.*no model folder"),
    ("a huge list", relist(lambda text: "x" * (MOST_LIST_BYTES + 1)), r"65537 bytes; 65536 are the most"),
]


@pytest.mark.parametrize(("spoil", "says"), [row[1:] for row in SPOILED], ids=[row[0] for row in SPOILED])
def test_a_wrong_model_is_refused_for_good(place: Place, spoil: Callable[[Path], object], says: str) -> None:
    spoil(place.origin)
    error = place.refused()
    assert error.reason is FailureReason.MODEL_INVALID
    assert re.search(says, error.message)
    assert not list(place.target.parent.glob(".*/vae.safetensors.partial"))  # wrong bytes are not kept


def test_a_list_may_name_other_files_as_sha256sum_writes_it(place: Place) -> None:
    text = (place.origin / SUMS).read_text().replace("  ", " *./")
    (place.origin / SUMS).write_text(f"{text}{'0' * 64}  README.md\n")
    place.deliver()
    place.assert_delivered()


def test_too_large_is_said_before_anything_is_fetched(place: Place) -> None:
    error = place.refused(most_bytes=SIZE - 1)
    assert (error.reason, place.received) == (FailureReason.MODEL_INVALID, [])
    assert "model.source.download.sizeLimit" in error.message
    place.deliver(most_bytes=SIZE)


def test_a_disk_that_is_too_small_is_not_the_models_fault(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver.shutil, "disk_usage", lambda path: SimpleNamespace(free=SIZE - 1))
    error = place.refused()
    assert error.reason is FailureReason.STORAGE_ERROR
    assert "has no room" in error.message


class StoppedError(Exception):
    """In the middle of it."""


def stop_after(count: int, place: Place) -> Callable[[int], None]:
    def received(size: int) -> None:
        place.received.append(size)
        if sum(place.received) >= count:
            raise StoppedError

    return received


def interrupted(place: Place, monkeypatch: pytest.MonkeyPatch, *, after: int) -> Path:
    """A runner that was killed after so many bytes; returns what it left."""
    monkeypatch.setattr(bucket, "PART_BYTES", 10_000)
    promise = read_promise(place.shelf, digest=place.digest)
    with pytest.raises(StoppedError):
        deliver.deliver(
            place.shelf,
            promise,
            place.target,
            most_bytes=None,
            on_bytes=stop_after(after, place),
            on_total=place.total.append,
        )
    place.received.clear()
    [left] = place.target.parent.iterdir()
    return left


def grow_old(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (0, 0))


def count_parts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    asked: list[tuple[str, int]] = []
    whole = FileStore.part

    def part(self: FileStore, key: str, *, start: int, size_bytes: int, if_match: str | None = None) -> bytes:
        asked.append((key.rpartition("/")[2], start))
        return whole(self, key, start=start, size_bytes=size_bytes, if_match=if_match)

    monkeypatch.setattr(FileStore, "part", part)
    return asked


def test_what_a_killed_runner_left_is_continued(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    grow_old(interrupted(place, monkeypatch, after=SIZE - 100_000))
    asked = count_parts(monkeypatch)
    place.deliver()
    place.assert_delivered()
    fetched = [at for at in asked if at != (SUMS, 0)]
    assert fetched[0] == ("dit.safetensors", 160_000)  # the files before it and its beginning were there
    assert {name for name, _ in fetched} == {"dit.safetensors"}
    assert sum(place.received) == SIZE  # progress counts what is there


@pytest.mark.parametrize("name", ["vae.safetensors", "dit.safetensors.partial"])
def test_what_rotted_meanwhile_is_not_believed(place: Place, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    left = interrupted(place, monkeypatch, after=SIZE - 100_000)
    data = bytearray((left / name).read_bytes())
    data[5] ^= 1
    (left / name).write_bytes(data)
    grow_old(left)
    if name.endswith(".partial"):
        assert "has the digest" in place.refused().message
        grow_old(next(place.target.parent.iterdir()))
    place.deliver()
    place.assert_delivered()


def test_a_runner_that_still_works_is_left_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    left = interrupted(place, monkeypatch, after=SIZE - 100_000)
    before = sorted(path.name for path in left.iterdir())
    place.deliver()
    assert check_sums(place.target) == (place.digest, True)
    assert sorted(path.name for path in left.iterdir()) == before


def test_a_frozen_runner_notices_that_another_went_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It wakes up after its folder was taken over: it must not publish, nor write more than it was writing."""
    monkeypatch.setattr(bucket, "PART_BYTES", 10_000)
    promise = read_promise(place.shelf, digest=place.digest)
    frozen = Place(place.origin, place.target, place.digest)

    def freeze(size: int) -> None:
        frozen.received.append(size)
        if len(frozen.received) == 9:
            [mine] = place.target.parent.iterdir()
            grow_old(mine)
            place.deliver()

    with pytest.raises(RestorationError, match="taken over by another runner") as caught:
        deliver.deliver(
            place.shelf, promise, place.target, most_bytes=None, on_bytes=freeze, on_total=frozen.total.append
        )
    assert caught.value.reason is FailureReason.MODEL_UNAVAILABLE
    place.assert_delivered()


def test_runners_that_race_publish_one_model(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "PART_BYTES", 10_000)
    together, errors = threading.Barrier(4), []

    def race() -> None:
        mine = Place(place.origin, place.target, place.digest)
        together.wait()
        try:
            mine.deliver()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=race) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    place.assert_delivered()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "vae.safetensors").write_bytes(b"VAE" * 9000),
        lambda folder: (folder / "vae.safetensors").unlink(),
        lambda folder: (folder / SUMS).unlink(),
        lambda folder: (folder / "dit.pth").write_bytes(b""),
    ],
    ids=["rotted", "incomplete", "without list", "a pickle beside it"],
)
def test_a_damaged_model_on_the_volume_is_replaced(place: Place, spoil: Callable[[Path], object]) -> None:
    place.deliver()
    assert is_whole(place.target, place.digest)
    spoil(place.target)
    assert not is_whole(place.target, place.digest)
    assert not place.target.exists()
    place.deliver()
    place.assert_delivered()


def test_a_volume_that_cannot_be_read_now_costs_no_model(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.deliver()

    def fail(path: Path) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as broken:
        broken.setattr(digest_module, "file_sha256", fail)
        with pytest.raises(RestorationError) as caught:
            is_whole(place.target, place.digest)
    assert caught.value.reason is FailureReason.MODEL_UNAVAILABLE
    place.assert_delivered()


@pytest.mark.parametrize("name", ["model.json", SUMS])
def test_a_damaged_description_is_not_planned_by(place: Place, name: str) -> None:
    place.deliver()
    assert is_described(place.target, place.digest)
    (place.target / name).write_text("{}")
    assert not is_described(place.target, place.digest)
    (place.target / name).unlink()
    assert not is_described(place.target, place.digest)


def test_something_else_in_its_place_is_removed(place: Place) -> None:
    shutil.copytree(place.origin.parent, place.target)
    place.deliver()
    place.assert_delivered()


# --- from a real bucket


@pytest.fixture
def stocked(place: Place, seaweed: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """The same model in a bucket of a real server, whose store answers in small parts."""
    monkeypatch.setattr(bucket, "PART_BYTES", 20_000)
    monkeypatch.setenv("VR_STORAGE_DIR", str(seaweed.secrets))
    name = f"models-{uuid.uuid4().hex[:8]}"
    seaweed.make_bucket(name)
    store = S3Store(name, seaweed.storage)
    for path in place.origin.iterdir():
        store.put(f"deep/{path.name}", path.read_bytes())
    return store


def test_a_bucket_is_read_in_parts(place: Place, stocked: S3Store) -> None:
    place.deliver(BucketShelf(stocked, "deep/"))
    place.assert_delivered()


def test_a_file_that_is_replaced_meanwhile_is_another_try(place: Place, stocked: S3Store) -> None:
    shelf = BucketShelf(stocked, "deep/")
    shelf.size_bytes("dit.safetensors")
    stocked.put("deep/dit.safetensors", b"another" * 40_000)
    error = place.refused(shelf)
    assert error.reason is FailureReason.MODEL_UNAVAILABLE
    assert "was replaced" in error.message


def test_a_store_that_is_away_is_another_try(place: Place, seaweed: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setenv("VR_STORAGE_DIR", str(seaweed.secrets))
    away = seaweed.storage.model_copy(update={"endpoint": "http://127.0.0.1:9"})
    error = place.refused(BucketShelf(S3Store("models", away), ""))
    assert error.reason is FailureReason.MODEL_UNAVAILABLE
    assert "model.source.download.uri" in error.message and "127.0.0.1:9" in error.message


def test_a_bucket_that_does_not_exist_is_not(place: Place, stocked: S3Store, seaweed: S3Server) -> None:
    error = place.refused(BucketShelf(S3Store("no-such-bucket", seaweed.storage), ""))
    assert error.reason is FailureReason.MODEL_INVALID
    assert "no-such-bucket" in error.message


# --- from a hub or its mirror

NAME = "someone/weights"


@pytest.fixture
def repository(place: Place) -> Repository:
    files = {f"nano/{path.name}": path.read_bytes() for path in place.origin.iterdir()}
    return Repository({**files, "other.bin": b"b" * 5000}, token=True)


def at_hub(server: HubServer, folder: Path, **changes: Any) -> RepositoryShelf:
    options = {"endpoint": server.endpoint, "token": TOKEN} | changes
    client = Hub(cache=folder / "plan", pause=lambda _: None, **options)
    return RepositoryShelf(client, NAME, "main", "nano")


def test_a_folder_of_a_repository_arrives_once(
    place: Place, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "RESUMABLE_BYTES", 2000)
    with hub({NAME: repository}) as server:
        place.deliver(at_hub(server, tmp_path))
        assert not server.bodies("other.bin")
        assert sum(one.sent for one in server.seen if one.path.startswith("/cdn/")) < SIZE + 100
        commits = {one.path.split("/")[4] for one in server.seen if "/resolve/" in one.path}
    place.assert_delivered()  # nothing of the client's cache is left
    assert sum(place.received) == SIZE
    assert commits == {COMMIT}  # looked up once: a branch that moves meanwhile changes nothing


def change_one(files: dict[str, bytes]) -> None:
    files["nano/vae.safetensors"] = b"VAE" * 9000


def lose(files: dict[str, bytes], name: str) -> dict[str, Any]:
    del files[f"nano/{name}"]
    return {}


HUB_TROUBLES: list[tuple[str, Callable[[HubServer, Repository], dict[str, Any]], FailureReason, str]] = [
    ("no token", lambda server, it: {"token": None}, FailureReason.ACCESS_DENIED, "no token was given"),
    ("gated", lambda server, it: setattr(it, "gated", True) or {}, FailureReason.ACCESS_DENIED, "accept its terms"),
    ("away", lambda server, it: {"endpoint": "http://127.0.0.1:9"}, FailureReason.MODEL_UNAVAILABLE, "cannot be"),
    ("other bytes", lambda server, it: change_one(it.files) or {}, FailureReason.MODEL_INVALID, "has the digest"),
    ("a file gone", lambda server, it: lose(it.files, "dit.safetensors"), FailureReason.MODEL_INVALID, "not exist"),
    ("no list", lambda server, it: lose(it.files, SUMS), FailureReason.MODEL_INVALID, "does not exist"),
]


@pytest.mark.parametrize(
    ("trouble", "reason", "says"), [row[1:] for row in HUB_TROUBLES], ids=[row[0] for row in HUB_TROUBLES]
)
def test_what_a_hub_says_has_a_class(
    place: Place,
    repository: Repository,
    tmp_path: Path,
    trouble: Callable[[HubServer, Repository], dict[str, Any]],
    reason: FailureReason,
    says: str,
) -> None:
    with hub({NAME: repository}) as server:
        changes = trouble(server, repository)
        error = place.refused(at_hub(server, tmp_path, **changes))
    assert error.reason is reason
    assert says in error.message
    assert TOKEN not in error.message


def test_the_digest_is_of_what_sha256sum_prints(place: Place) -> None:
    """Nothing but the standard tool is needed to put a model into a bucket."""
    expected = "".join(f"{hashlib.sha256(FILES[name]).hexdigest()}  {name}\n" for name in sorted(FILES))
    assert (place.origin / SUMS).read_text() == expected
