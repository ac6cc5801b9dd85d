"""The input: the object that was meant, all of it, and not another one half-way."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from tests.builders.requests import make_request
from tests.builders.servers import S3Server

from restoration_api.outcome import FailureReason
from restoration_api.request import InputRequest, Limits, Request
from restoration_runner import inputs
from restoration_runner.errors import RestorationError
from restoration_runner.inputs import check_unchanged, fetch_input, find_input
from restoration_runner.stopping import InterruptedByRequestError, StopSignal
from restoration_runner.storage.file import FileStore
from restoration_runner.storage.s3 import S3Store
from restoration_runner.storage.store import Store

CONTENT = b"a video" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def request_(store: Store, request: pytest.FixtureRequest) -> Request:
    """A request for `in.mp4` in the store of this test."""
    store.put("in.mp4", CONTENT)
    if isinstance(store, FileStore):
        path = store.local_path("in.mp4")
        assert path is not None
        return make_request(input=InputRequest(uri=path.as_uri()))
    assert isinstance(store, S3Store)
    server: S3Server = request.getfixturevalue(request.node.callspec.params["store"])
    return make_request(input=InputRequest(uri=store.uri("in.mp4")), storage=(server.storage,))


def pinned(request: Request, **pins: Any) -> Request:
    return request.model_copy(update={"input": request.input.model_copy(update=pins)})


def test_the_input_is_found_fetched_and_unchanged(store: Store, request_: Request, tmp_path: Path) -> None:
    for asked in (request_, pinned(request_, sha256=SHA256), pinned(request_, sha256=f"sha256:{SHA256.upper()}"[:71])):
        found = find_input(asked, stop=StopSignal())
        assert found.identity.size_bytes == len(CONTENT)
        assert (found.identity.etag is None) == isinstance(store, FileStore)
        assert fetch_input(found, asked, folder=tmp_path, stop=StopSignal()).read_bytes() == CONTENT
        check_unchanged(found)


def test_a_pinned_etag_may_be_quoted(store: Store, request_: Request) -> None:
    info = store.head("in.mp4")
    assert info is not None
    assert find_input(pinned(request_, etag=f'"{info.etag}"'), stop=StopSignal()).info.etag == info.etag


PINS: list[tuple[dict[str, Any], FailureReason, str]] = [
    ({"etag": "0" * 32}, FailureReason.INPUT_CHANGED, "input.etag"),
    ({"sha256": "0" * 64}, FailureReason.INPUT_CHANGED, "input.sha256"),
]


@pytest.mark.parametrize(("pins", "reason", "says"), PINS)
def test_another_input_than_pinned_is_refused(
    request_: Request, tmp_path: Path, pins: dict[str, Any], reason: FailureReason, says: str
) -> None:
    asked = pinned(request_, **pins)
    with pytest.raises(RestorationError, match=says) as caught:
        fetch_input(find_input(asked, stop=StopSignal()), asked, folder=tmp_path, stop=StopSignal())
    assert caught.value.reason is reason


def test_too_large_is_said_before_anything_is_read(request_: Request) -> None:
    request = request_.model_copy(update={"limits": Limits(max_input_bytes=len(CONTENT) - 1)})
    with pytest.raises(RestorationError, match=r"limits\.maxInputBytes"):
        find_input(request, stop=StopSignal())


def test_an_input_that_changes_after_it_was_found_is_refused(store: Store, request_: Request, tmp_path: Path) -> None:
    found = find_input(request_, stop=StopSignal())
    store.put("in.mp4", b"another" * 1000)
    with pytest.raises(RestorationError, match="changed") as caught:
        fetch_input(found, request_, folder=tmp_path, stop=StopSignal())
        check_unchanged(found)
    assert caught.value.reason is FailureReason.INPUT_CHANGED


def test_an_input_that_vanishes_is_refused(store: Store, request_: Request, tmp_path: Path) -> None:
    found = find_input(request_, stop=StopSignal())
    store.delete("in.mp4")
    with pytest.raises(RestorationError, match="changed"):
        fetch_input(found, request_, folder=tmp_path, stop=StopSignal())
        check_unchanged(found)


def test_no_such_input(store: Store, request_: Request) -> None:
    store.delete("in.mp4")
    with pytest.raises(RestorationError, match=r"input\.uri: .*in\.mp4.* does not exist") as caught:
        find_input(request_, stop=StopSignal())
    assert caught.value.reason is FailureReason.INPUT_NOT_FOUND


def test_reading_stops_when_told(request_: Request, tmp_path: Path) -> None:
    stop = StopSignal()
    stop.set()
    with pytest.raises(InterruptedByRequestError):
        fetch_input(find_input(request_, stop=stop), request_, folder=tmp_path, stop=stop)


def test_a_disk_that_is_too_small_is_said_with_the_remedy(
    store: Store, request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(store, FileStore):
        return  # read in place
    found = find_input(request_, stop=StopSignal())
    monkeypatch.setattr(inputs.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10})())
    with pytest.raises(RestorationError, match=r"scratch\.sizeLimit"):
        fetch_input(found, request_, folder=tmp_path, stop=StopSignal())
