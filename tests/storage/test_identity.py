"""Temporary credentials: what the token service is asked, when again, and what its refusals mean."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.builders.faulty import Faults, faulty
from tests.builders.servers import S3Server, free_ports, write_secret
from tests.builders.sts import ROLE, TokenService, token_service

from restoration_api.outcome import FailureReason
from restoration_api.request import Addressing, CredentialSource, StorageRequest
from restoration_runner.errors import RestorationError
from restoration_runner.storage import credentials, identity, s3
from restoration_runner.storage.connection import connect
from restoration_runner.storage.credentials import FileCredentials
from restoration_runner.storage.identity import PlatformCredentials
from restoration_runner.storage.s3 import S3Store
from restoration_runner.storage.tls import Trust

TOKEN = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJydW5uZXIifQ.signature-1"
STORAGE = StorageRequest(
    name="archive",
    endpoint="http://127.0.0.1:1",
    addressing=Addressing.PATH,
    credentials=CredentialSource.WORKLOAD_IDENTITY,
)


class Platform:
    """A pod whose service account may assume a role. `moment` is the time; `token` the projected file."""

    def __init__(self, service: TokenService, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.service = service
        self.token = folder / "token"
        self.moment = datetime.now(UTC)
        self.project(TOKEN)
        patch.setenv(identity.TOKEN_FILE, str(self.token))
        patch.setenv(identity.ROLE, ROLE)
        patch.setenv("AWS_ENDPOINT_URL_STS", service.url)
        patch.setattr(identity, "now", lambda: self.moment)

    def project(self, token: str) -> None:
        self.token.write_text(token + "\n")
        self.service.valid = {token}

    def provider(self) -> PlatformCredentials:
        return PlatformCredentials("archive", region=None, trust=Trust(STORAGE))


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    with token_service() as service:
        yield Platform(service, tmp_path, monkeypatch)


def test_a_token_is_exchanged_once_and_never_in_a_url(platform: Platform) -> None:
    provider = platform.provider()
    first = provider.retrieve()
    assert (first.access_key, first.session_token) == ("ASIATEMPORARY001", "temporary-session-001")
    assert provider.retrieve() is first
    assert platform.service.wrong == []
    assert [asked["WebIdentityToken"] for asked in platform.service.asked] == [TOKEN]


# How long credentials last, and after how much of that new ones are asked for.
RENEWED = [
    (timedelta(hours=1), timedelta(minutes=54), timedelta(minutes=56)),
    (timedelta(minutes=15), timedelta(minutes=9), timedelta(minutes=11)),
    (timedelta(minutes=4), timedelta(minutes=1), timedelta(minutes=3)),
]


@pytest.mark.parametrize(("lifetime", "kept", "renewed"), RENEWED)
def test_credentials_are_renewed_before_they_end_with_the_token_of_then(
    platform: Platform, lifetime: timedelta, kept: timedelta, renewed: timedelta
) -> None:
    platform.service.lifetime = lifetime
    provider, begun = platform.provider(), platform.moment
    assert provider.retrieve().access_key == "ASIATEMPORARY001"
    platform.project("eyJhbGciOiJub25lIn0.eyJzdWIiOiJydW5uZXIifQ.signature-2")
    platform.moment = begun + kept
    assert provider.retrieve().access_key == "ASIATEMPORARY001"
    platform.moment = begun + renewed
    assert provider.retrieve().access_key == "ASIATEMPORARY002"
    assert platform.service.asked[1]["WebIdentityToken"].endswith("signature-2")


def test_a_service_that_fails_while_the_old_ones_hold_is_no_failure(platform: Platform) -> None:
    provider = platform.provider()
    provider.retrieve()
    platform.service.refusal = (503, "ServiceUnavailable")
    platform.moment += timedelta(minutes=57)
    assert provider.retrieve().access_key == "ASIATEMPORARY001"
    asked = len(platform.service.asked)
    assert provider.retrieve().access_key == "ASIATEMPORARY001"
    assert len(platform.service.asked) == asked, "it is not asked with every request"
    platform.moment += timedelta(minutes=4)
    with pytest.raises(RestorationError, match="503 ServiceUnavailable") as caught:
        provider.retrieve()
    assert caught.value.reason is FailureReason.STORAGE_ERROR
    platform.service.refusal = None
    assert provider.retrieve().access_key != "ASIATEMPORARY001"


REFUSALS: list[tuple[tuple[int, str] | bytes, FailureReason, str]] = [
    ((403, "AccessDenied"), FailureReason.ACCESS_DENIED, "403 AccessDenied.*AWS_ROLE_ARN"),
    ((400, "ExpiredTokenException"), FailureReason.ACCESS_DENIED, "400 ExpiredTokenException"),
    ((500, "InternalFailure"), FailureReason.STORAGE_ERROR, "500 InternalFailure"),
    ((429, "Throttling"), FailureReason.STORAGE_ERROR, "429 Throttling"),
    (b"<html>hello</html>", FailureReason.STORAGE_ERROR, "without credentials"),
    (b"not XML", FailureReason.STORAGE_ERROR, "without credentials"),
    (b"<a>" * 100_000, FailureReason.STORAGE_ERROR, "without credentials"),
    (b"<!DOCTYPE a [<!ENTITY b 'ccc'>]><a>&b;</a>", FailureReason.STORAGE_ERROR, "without credentials"),
    (b" " * (17 << 20), FailureReason.STORAGE_ERROR, "does not answer"),
]


@pytest.mark.parametrize(("refusal", "reason", "says"), REFUSALS, ids=[str(row[0])[:32] for row in REFUSALS])
def test_refusals_have_a_class_and_do_not_repeat_the_token(
    platform: Platform, refusal: tuple[int, str] | bytes, reason: FailureReason, says: str
) -> None:
    platform.service.refusal = refusal
    with pytest.raises(RestorationError, match=f"storage entry 'archive': .*{says}") as caught:
        platform.provider().retrieve()
    assert caught.value.reason is reason
    assert TOKEN not in caught.value.message


def test_a_token_that_is_missing_or_none_is_named(platform: Platform) -> None:
    for content in (None, b"", b"\xff\xfe", b"x" * (65 << 10)):
        platform.token.unlink(missing_ok=True)
        if content is not None:
            platform.token.write_bytes(content)
        with pytest.raises(RestorationError, match=r"'archive': .*token \(AWS_WEB_IDENTITY_TOKEN_FILE\)") as caught:
            platform.provider().retrieve()
        assert caught.value.reason is FailureReason.ACCESS_DENIED
    assert platform.service.asked == []


@pytest.mark.parametrize("endpoint", ["sts.example.com", "ftp://sts", "https://user:password@sts", "https://sts/?a=b"])
def test_an_endpoint_that_is_none_is_named_and_not_repeated(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", endpoint)
    with pytest.raises(RestorationError, match="AWS_ENDPOINT_URL_STS must be") as caught:
        platform.provider().retrieve()
    assert caught.value.reason is FailureReason.INVALID_PARAMETERS
    assert "password" not in caught.value.message.replace("without user or password", "")


@pytest.mark.parametrize(
    ("region", "endpoint"),
    [
        (None, "https://sts.amazonaws.com"),
        ("eu-central-1", "https://sts.eu-central-1.amazonaws.com"),
        ("cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_without_an_endpoint_of_its_own_the_regions_is_asked(
    monkeypatch: pytest.MonkeyPatch, region: str | None, endpoint: str
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_STS", raising=False)
    monkeypatch.delenv("AWS_REGION", raising=False)
    assert identity._endpoint("archive", region) == endpoint


def test_a_service_that_is_away_is_a_storage_error(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(RestorationError, match="does not answer") as caught:
        platform.provider().retrieve()
    assert caught.value.reason is FailureReason.STORAGE_ERROR


def test_a_run_goes_on_with_renewed_credentials(
    platform: Platform, moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the storage refuses them before their end: a role's sessions can be revoked."""
    monkeypatch.setattr(s3, "FIRST_PAUSE_SECONDS", 0.001)
    bucket, faults = f"sts-{uuid.uuid4().hex[:12]}", Faults()
    moto.make_bucket(bucket)
    with faulty(moto.endpoint, faults) as endpoint:
        store = S3Store(bucket, STORAGE.model_copy(update={"endpoint": endpoint}))
        store.put("one", b"1")
        platform.moment += timedelta(minutes=56)
        store.put("two", b"2")
        faults.plan(lambda method, path: True, unavailable=1, refusal=(403, "ExpiredToken"))
        store.put("three", b"3")
    keys = [signed.partition("Credential=")[2][:16] for signed in faults.signed]
    assert keys == ["ASIATEMPORARY001", "ASIATEMPORARY002", "ASIATEMPORARY002", "ASIATEMPORARY003"]


# Files of a Secret.


def swap(folder: Path, number: int, **keys: str) -> None:
    """What the kubelet does: a new folder, and one rename that makes it the one that counts."""
    version = folder / f"..version_{number}"
    version.mkdir(parents=True)
    for name, value in keys.items():
        (version / name.replace("_", "-")).write_text(value)
        if not (folder / name.replace("_", "-")).is_symlink():
            (folder / name.replace("_", "-")).symlink_to(f"..data/{name.replace('_', '-')}")
    (folder / "..data_tmp").symlink_to(version.name)
    (folder / "..data_tmp").rename(folder / "..data")


def test_keys_of_two_versions_are_never_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VR_STORAGE_DIR", str(tmp_path))
    folder = tmp_path / "archive"
    swap(folder, 1, access_key="first-access", secret_key="first-secret")
    provider = FileCredentials("archive")
    read = FileCredentials._value

    def interrupted(self: FileCredentials, key: str) -> str | None:
        found = read(self, key)
        if key == "access-key" and found == "first-access":
            swap(folder, 2, access_key="second-access", secret_key="second-secret")
        return found

    monkeypatch.setattr(FileCredentials, "_value", interrupted)
    given = provider.retrieve()
    assert (given.access_key, given.secret_key) == ("second-access", "second-secret")


def test_a_refused_key_is_read_again_at_once(moto: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "FIRST_PAUSE_SECONDS", 0.001)
    secrets = write_secret(tmp_path, access_key="old-access-key")
    monkeypatch.setenv("VR_STORAGE_DIR", str(secrets))
    bucket, faults = f"rotated-{uuid.uuid4().hex[:12]}", Faults()
    moto.make_bucket(bucket)
    with faulty(moto.endpoint, faults) as endpoint:
        storage = moto.storage.model_copy(update={"endpoint": endpoint})
        store = S3Store(bucket, storage)
        store.put("one", b"1")
        write_secret(tmp_path, access_key="new-access-key")
        faults.plan(lambda method, path: True, unavailable=1, refusal=(403, "InvalidAccessKeyId"))
        store.put("two", b"2")
        assert "new-access-key" in faults.signed[-1]
        faults.plan(lambda method, path: True, unavailable=1, refusal=(403, "InvalidAccessKeyId"))
        with pytest.raises(RestorationError, match="InvalidAccessKeyId") as denied:
            store.put("three", b"3")
        faults.plan(lambda method, path: True, unavailable=1, refusal=(400, "ExpiredToken"))
        with pytest.raises(RestorationError, match="have expired") as expired:
            store.put("three", b"3")
    assert denied.value.reason is FailureReason.ACCESS_DENIED
    assert expired.value.reason is FailureReason.STORAGE_ERROR, "another execution may find newer ones"


UNUSABLE = [b"two\nlines", b"caf\xc3\xa9-secret", b"nul\x00-secret", b"x" * (65 << 10), b"with space"]


@pytest.mark.parametrize("content", UNUSABLE, ids=["lines", "letters", "nul", "long", "space"])
def test_keys_that_no_header_holds_are_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    secrets = write_secret(tmp_path)
    (secrets / "default" / "secret-key").write_bytes(content)
    monkeypatch.setenv("VR_STORAGE_DIR", str(secrets))
    connection = connect(STORAGE.model_copy(update={"name": "default", "credentials": CredentialSource.FILES}))
    with pytest.raises(RestorationError, match="'secret-key' of its Secret is not one line") as caught:
        assert connection.provider is not None
        connection.provider.retrieve()
    assert caught.value.reason is FailureReason.ACCESS_DENIED
    assert content.decode("latin-1")[:8] not in caught.value.message
    assert credentials.REREAD_SECONDS > 0
