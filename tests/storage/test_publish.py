"""The output: what counts as done, what may be replaced, and who wins at the last moment."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.builders.requests import make_request

from restoration_api.outcome import FailureReason
from restoration_api.request import CacheMode, Overwrite
from restoration_runner.errors import RestorationError
from restoration_runner.outcomes import SHA256_METADATA
from restoration_runner.plan import Keys
from restoration_runner.publish import KEY, REQUEST_KEY, WORK, Destination
from restoration_runner.storage.store import ObjectInfo, OnBytes, PreconditionError, Store, When, read_whole

KEYS = Keys(engine={}, engine_version="v", cache_key="k", request_key="r")
OUT = "out/a b.mp4"


def destination(store: Store, *, overwrite: Overwrite = Overwrite.IF_DIFFERENT, bypass: bool = False) -> Destination:
    request = make_request()
    request = request.model_copy(
        update={
            "output": request.output.model_copy(update={"overwrite": overwrite}),
            "cache": CacheMode.BYPASS if bypass else CacheMode.USE,
        }
    )
    return Destination(store, OUT, request=request, keys=KEYS, work_name="w")


NOTHING: dict[str, str] | None = None
OURS = {KEY: "k", REQUEST_KEY: "r", WORK: "w"}
SAME_KEY_OTHER_WORK = {KEY: "k", REQUEST_KEY: "r", WORK: "w2"}
SAME_WISH = {KEY: "older", REQUEST_KEY: "r", WORK: "w2"}
FOREIGN: dict[str, str] = {}

# what lies there, overwrite, bypass -> "hit", "go on" or "refused"
LOOKS: list[tuple[dict[str, str] | None, Overwrite, bool, str]] = [
    (NOTHING, Overwrite.NEVER, False, "go on"),
    (NOTHING, Overwrite.ALWAYS, True, "go on"),
    (OURS, Overwrite.NEVER, False, "hit"),
    (OURS, Overwrite.IF_DIFFERENT, False, "hit"),
    (OURS, Overwrite.ALWAYS, False, "hit"),
    (OURS, Overwrite.ALWAYS, True, "hit"),
    (SAME_KEY_OTHER_WORK, Overwrite.IF_DIFFERENT, False, "hit"),
    (SAME_KEY_OTHER_WORK, Overwrite.IF_DIFFERENT, True, "go on"),
    (SAME_KEY_OTHER_WORK, Overwrite.NEVER, True, "refused"),
    (SAME_WISH, Overwrite.NEVER, False, "hit"),
    (SAME_WISH, Overwrite.NEVER, True, "refused"),
    (SAME_WISH, Overwrite.IF_DIFFERENT, False, "go on"),
    (FOREIGN, Overwrite.NEVER, False, "refused"),
    (FOREIGN, Overwrite.IF_DIFFERENT, False, "go on"),
    (FOREIGN, Overwrite.ALWAYS, False, "go on"),
]


@pytest.mark.parametrize(("there", "overwrite", "bypass", "expected"), LOOKS)
def test_a_look_at_the_destination(
    tmp_path: Path, store: Store, there: dict[str, str] | None, overwrite: Overwrite, bypass: bool, expected: str
) -> None:
    if there is not None:
        store.put(OUT, b"there", metadata=there)
    target = destination(store, overwrite=overwrite, bypass=bypass)
    if expected == "refused":
        with pytest.raises(RestorationError, match=r"output\.uri: .*a b\.mp4.*overwrite") as caught:
            target.look()
        assert caught.value.reason is FailureReason.OUTPUT_CONFLICT
        return
    seen = target.look()
    assert (seen.hit is not None) == (expected == "hit")
    assert (seen.before is not None) == (there is not None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "verified.mp4"
    path.write_bytes(b"restored")
    return path


@pytest.mark.parametrize("before", [None, b"older"])
def test_what_is_published_says_what_made_it(store: Store, file: Path, before: bytes | None) -> None:
    if before:
        store.put(OUT, before)
    target = destination(store)
    seen = target.look()
    moved: list[int] = []
    published = target.publish(file, before=seen.before, on_bytes=moved.append)
    sha256 = hashlib.sha256(b"restored").hexdigest()
    assert (published.sha256, published.adopted, sum(moved)) == (sha256, False, 8)
    found = store.head(OUT)
    assert found is not None
    assert found.etag == published.info.etag
    expected = {KEY: "k", REQUEST_KEY: "r", WORK: "w", SHA256_METADATA: sha256}
    assert {name: found.metadata[name] for name in expected} == expected
    assert target.look().hit is not None


@dataclass
class LateStore:
    """Somebody else writes the output right before our last step, so many times."""

    inner: Store
    theirs: Callable[[], object]
    times: int = 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def upload(
        self,
        key: str,
        path: Path,
        *,
        when: When | None = None,
        metadata: Mapping[str, str] | None = None,
        on_bytes: OnBytes | None = None,
    ) -> ObjectInfo:
        if self.times:
            self.times -= 1
            self.theirs()
        return self.inner.upload(key, path, when=when, metadata=metadata, on_bytes=on_bytes)


# who is faster, overwrite, was something there before -> "adopted", "refused" or "replaced"
RACES: list[tuple[dict[str, str], Overwrite, bool, str]] = [
    (OURS, Overwrite.NEVER, False, "adopted"),
    (OURS, Overwrite.IF_DIFFERENT, True, "adopted"),
    (FOREIGN, Overwrite.NEVER, False, "refused"),
    (FOREIGN, Overwrite.IF_DIFFERENT, False, "refused"),
    (FOREIGN, Overwrite.IF_DIFFERENT, True, "refused"),
    (FOREIGN, Overwrite.ALWAYS, False, "replaced"),
    (FOREIGN, Overwrite.ALWAYS, True, "replaced"),
]


@pytest.mark.parametrize(("faster", "overwrite", "before", "expected"), RACES)
def test_somebody_is_faster(
    store: Store, file: Path, faster: dict[str, str], overwrite: Overwrite, before: bool, expected: str
) -> None:
    if before:
        store.put(OUT, b"older")
    late = LateStore(store, lambda: store.put(OUT, b"theirs", metadata=faster))
    target = destination(late, overwrite=overwrite)
    seen = target.look()
    if expected == "refused":
        with pytest.raises(RestorationError, match="somebody else") as caught:
            target.publish(file, before=seen.before, on_bytes=lambda _: None)
        assert caught.value.exit_code == 14
        assert read_whole(store, OUT) == b"theirs"
        return
    published = target.publish(file, before=seen.before, on_bytes=lambda _: None)
    assert published.adopted == (expected == "adopted")
    assert read_whole(store, OUT) == (b"theirs" if expected == "adopted" else b"restored")


def test_a_refusal_without_another_writer_is_tried_again(store: Store, file: Path) -> None:
    """AWS answers 409 while two uploads of one key overlap, though none of them is through."""

    def refuse_once() -> None:
        raise PreconditionError("409")

    late = LateStore(store, refuse_once)
    published = destination(late, overwrite=Overwrite.NEVER).publish(file, before=None, on_bytes=lambda _: None)
    assert not published.adopted
    assert read_whole(store, OUT) == b"restored"


@dataclass
class LyingStore:
    """Gives back another content than it was given."""

    inner: Store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def stream(self, key: str, *, if_match: str | None = None, version_id: str | None = None) -> Any:
        for piece in self.inner.stream(key, if_match=if_match, version_id=version_id):
            yield piece[:-1] + b"?"


def test_what_reads_back_differently_is_removed(store: Store, file: Path) -> None:
    target = destination(LyingStore(store))
    with pytest.raises(RestorationError, match="reads back") as caught:
        target.publish(file, before=None, on_bytes=lambda _: None)
    assert caught.value.reason is FailureReason.STORAGE_ERROR
    assert store.head(OUT) is None
