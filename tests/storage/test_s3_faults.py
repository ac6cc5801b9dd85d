"""S3 over a bad network, at bad servers, with bad credentials: what heals, what is said, what is never said."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.builders.faulty import Faults, faulty
from tests.builders.requests import make_request
from tests.builders.servers import SECRET_KEY, S3Server, free_ports, write_secret

from restoration_api.outcome import FailureReason
from restoration_api.request import Addressing, CredentialSource, StorageRequest
from restoration_runner.errors import RestorationError
from restoration_runner.storage import credentials, s3
from restoration_runner.storage.connection import connect
from restoration_runner.storage.open import open_store
from restoration_runner.storage.s3 import S3Store
from restoration_runner.storage.store import Absent, PreconditionError, Unchanged, read_whole


@dataclass(frozen=True)
class Bad:
    """A store behind a faulty proxy, and the same bucket without it."""

    store: S3Store
    straight: S3Store
    faults: Faults


@pytest.fixture
def bad(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bad]:
    monkeypatch.setenv("VR_STORAGE_DIR", str(moto.secrets))
    monkeypatch.setattr(s3, "FIRST_PAUSE_SECONDS", 0.001)
    bucket = f"bad-{uuid.uuid4().hex[:12]}"
    moto.make_bucket(bucket)
    faults = Faults()
    with faulty(moto.endpoint, faults) as endpoint:
        storage = moto.storage.model_copy(update={"endpoint": endpoint})
        yield Bad(S3Store(bucket, storage), S3Store(bucket, moto.storage), faults)


def test_a_server_that_is_busy_is_asked_again(bad: Bad) -> None:
    bad.faults.unavailable = s3.ATTEMPTS - 1
    bad.store.put("key", b"content")
    assert read_whole(bad.straight, "key") == b"content"


def test_a_server_that_stays_busy_is_a_storage_error(bad: Bad) -> None:
    bad.faults.unavailable = 1000
    with pytest.raises(RestorationError, match=r"s3://bad-.*/key at http://127.*503 SlowDown") as caught:
        bad.store.put("key", b"content")
    assert caught.value.reason is FailureReason.STORAGE_ERROR
    assert len(bad.faults.seen) == s3.ATTEMPTS


WRITES: list[tuple[str, Callable[[S3Store, Path], object]]] = [
    ("put", lambda store, path: store.put("key", path.read_bytes(), when=Absent())),
    ("multipart", lambda store, path: store.upload("key", path, when=Absent())),
]


@pytest.mark.parametrize(("name", "write"), WRITES, ids=[row[0] for row in WRITES])
def test_a_conditional_write_whose_answer_was_lost_is_recognised_as_ours(
    bad: Bad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, write: Callable[[S3Store, Path], object]
) -> None:
    """The repeated request meets the success of the first one, and is refused for it."""
    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20 if name == "multipart" else 16 << 20)
    path = tmp_path / "content"
    path.write_bytes(bytes(6 << 20))
    last = "uploadId=" if name == "multipart" else "/key"
    bad.faults.matches = lambda method, p: method == ("POST" if name == "multipart" else "PUT") and last in p
    bad.faults.lost = 1
    write(bad.store, path)
    assert bad.faults.lost == 0
    found = bad.straight.head("key")
    assert found is not None
    assert found.size_bytes == 6 << 20


def test_a_lost_answer_does_not_hide_somebody_elses_object(bad: Bad) -> None:
    bad.straight.put("key", b"theirs")
    bad.faults.lost = 1
    with pytest.raises(PreconditionError):
        bad.store.put("key", b"mine", when=Absent())
    assert read_whole(bad.straight, "key") == b"theirs"


def test_a_download_that_breaks_goes_on_where_it_broke(bad: Bad) -> None:
    content = bytes(range(256)) * 10_000
    bad.straight.put("key", content)
    bad.faults.cut = 3
    assert read_whole(bad.store, "key") == content
    assert len(bad.faults.seen) == 4


def test_a_download_does_not_mix_two_versions(bad: Bad) -> None:
    bad.straight.put("key", b"a" * 4_000_000)
    bad.faults.cut = 1
    pieces = bad.store.stream("key")
    next(pieces)
    bad.straight.put("key", b"b" * 4_000_000)
    with pytest.raises(PreconditionError):
        list(pieces)


def test_an_endpoint_that_ignores_conditions_is_found_out_and_looked_after(bad: Bad) -> None:
    assert bad.straight.conditional("work/")
    bad.faults.blind = True
    assert not bad.store.conditional("work/")
    assert list(bad.straight.list_objects("work/")) == []
    first = bad.store.put("key", b"1", when=Absent())
    with pytest.raises(PreconditionError):
        bad.store.put("key", b"2", when=Absent())
    second = bad.store.put("key", b"2", when=Unchanged(first.etag))
    with pytest.raises(PreconditionError):
        bad.store.put("key", b"3", when=Unchanged(first.etag))
    assert read_whole(bad.straight, "key") == b"2"
    assert second.etag != first.etag


def test_nobody_listening_is_a_storage_error(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VR_STORAGE_DIR", str(moto.secrets))
    monkeypatch.setattr(s3, "FIRST_PAUSE_SECONDS", 0.001)
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}"
    store = S3Store("bucket", StorageRequest(name="default", endpoint=endpoint, addressing=Addressing.PATH))
    with pytest.raises(RestorationError, match=rf"s3://bucket/key at {endpoint}: no answer .*refused") as caught:
        store.head("key")
    assert caught.value.reason is FailureReason.STORAGE_ERROR


def storage(**changes: object) -> StorageRequest:
    base = StorageRequest(name="default", endpoint="http://127.0.0.1:1", addressing=Addressing.PATH)
    return base.model_copy(update=changes)


def remove(name: str) -> Callable[[Path], object]:
    return lambda secrets: (secrets / "default" / name).unlink()


CREDENTIALS: list[tuple[str, Callable[[Path], object], str]] = [
    ("no access key", remove("access-key"), "no key 'access-key'"),
    ("no secret key", remove("secret-key"), "no key 'secret-key'"),
    ("empty", lambda secrets: (secrets / "default" / "access-key").write_text("\n"), "no key 'access-key'"),
]


@pytest.mark.parametrize(("name", "spoil", "says"), CREDENTIALS, ids=[row[0] for row in CREDENTIALS])
def test_incomplete_credentials_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, spoil: Callable[[Path], object], says: str
) -> None:
    secrets = write_secret(tmp_path)
    monkeypatch.setenv("VR_STORAGE_DIR", str(secrets))
    spoil(secrets)
    with pytest.raises(RestorationError, match=says) as caught:
        S3Store("bucket", storage()).head("key")
    assert caught.value.reason is FailureReason.ACCESS_DENIED


def test_credentials_are_read_again_when_they_were_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = write_secret(tmp_path)
    (secrets / "default" / "session-token").write_text("token-1\n")
    monkeypatch.setenv("VR_STORAGE_DIR", str(secrets))
    provider = credentials.FileCredentials("default")
    first = provider.retrieve()
    assert (first.secret_key, first.session_token) == (SECRET_KEY, "token-1")
    (secrets / "default" / "session-token").write_text("token-2")
    assert provider.retrieve().session_token == "token-1"
    monkeypatch.setattr(credentials, "REREAD_SECONDS", 0.0)
    assert provider.retrieve().session_token == "token-2"


def test_a_platform_without_credentials_is_access_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{free_ports(1)[0]}/credentials")
    store = S3Store("bucket", storage(credentials=CredentialSource.WORKLOAD_IDENTITY))
    with pytest.raises(RestorationError, match=r"'default'.*workloadIdentity") as caught:
        store.head("key")
    assert caught.value.reason is FailureReason.ACCESS_DENIED


def test_anonymous_access_needs_no_secret(moto: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VR_STORAGE_DIR", str(tmp_path / "nothing"))
    moto.make_bucket("public")
    store = S3Store("public", moto.storage.model_copy(update={"credentials": CredentialSource.ANONYMOUS}))
    assert store.head("nothing") is None


OPENED: list[tuple[str, str | None, StorageRequest | None, str]] = [
    ("https://example.com/a.mp4", None, storage(), "https:// is not served"),
    ("ftp://example.com/a.mp4", None, storage(), "'ftp' URIs are not served"),
    ("s3://bucket/", None, storage(), "without a trailing slash"),
    ("s3://bucket/folder/", None, storage(), "without a trailing slash"),
    ("s3://bucket/key", "other", storage(), "no storage entry 'other' .*default"),
    ("s3://bucket/key", None, None, "no storage entry"),
    ("s3://bucket/key", None, storage(endpoint="localhost:9000"), "must be http"),
    ("s3://bucket/key", None, storage(endpoint="http://host/path"), "must be http"),
    ("s3://bucket/key", None, storage(custom_ca=True), "ca.crt"),
]


@pytest.mark.parametrize(("uri", "name", "entry", "says"), OPENED)
def test_what_cannot_be_opened_is_named(uri: str, name: str | None, entry: StorageRequest | None, says: str) -> None:
    request = make_request(storage=(entry,) if entry else ())
    with pytest.raises(RestorationError, match=says) as caught:
        open_store(uri, name, request, field="input.uri")
    assert caught.value.reason is FailureReason.INVALID_PARAMETERS


@pytest.mark.parametrize(
    ("addressing", "endpoint", "expected"),
    [
        (Addressing.PATH, "http://minio:9000", "http://minio:9000/bucket/a%20key"),
        (Addressing.AUTO, "http://minio:9000", "http://minio:9000/bucket/a%20key"),
        (Addressing.VIRTUAL, "http://minio:9000", "http://bucket.minio:9000/a%20key"),
        (
            Addressing.AUTO,
            "https://s3.eu-central-1.amazonaws.com",
            "https://bucket.s3.eu-central-1.amazonaws.com/a%20key",
        ),
        (
            Addressing.PATH,
            "https://s3.eu-central-1.amazonaws.com",
            "https://s3.eu-central-1.amazonaws.com/bucket/a%20key",
        ),
    ],
)
def test_addressing(addressing: Addressing, endpoint: str, expected: str) -> None:
    entry = storage(endpoint=endpoint, addressing=addressing, region="eu-central-1")
    client = connect(entry).client
    url = client._base_url.build(method="GET", region="eu-central-1", bucket_name="bucket", object_name="a key")
    assert url.geturl() == expected
