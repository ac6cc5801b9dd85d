"""TLS to object storage: an authority of one's own is believed, everything else is refused, each in its own words."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from tests.builders.certificates import DAY, Server, TestAuthority
from tests.builders.faulty import Faults, faulty
from tests.builders.servers import S3Server

from restoration_api.outcome import FailureReason
from restoration_api.request import StorageRequest
from restoration_runner.errors import RestorationError
from restoration_runner.storage import s3
from restoration_runner.storage.s3 import S3Store
from restoration_runner.storage.store import read_whole
from restoration_runner.storage.tls import Trust

HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Lab:
    """An S3 server, an authority whose bundle is mounted, and somebody else's authority."""

    moto: S3Server
    bundles: Path
    ours: TestAuthority
    theirs: TestAuthority
    faults: Faults

    @contextmanager
    def store(self, server: Server | None, *, host: str = "127.0.0.1", custom_ca: bool = True) -> Iterator[S3Store]:
        """A bucket behind a server with this certificate; without one it speaks plain HTTP."""
        bucket = f"tls-{uuid.uuid4().hex[:12]}"
        self.moto.make_bucket(bucket)
        with faulty(self.moto.endpoint, self.faults, tls=server.context() if server else None) as endpoint:
            changes = {"endpoint": endpoint.replace("127.0.0.1", host), "custom_ca": custom_ca}
            yield S3Store(bucket, self.moto.storage.model_copy(update=changes))


@pytest.fixture
def lab(moto: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    ours, theirs = TestAuthority(tmp_path / "ours"), TestAuthority(tmp_path / "theirs")
    monkeypatch.setenv("VR_STORAGE_DIR", str(moto.secrets))
    monkeypatch.setenv("VR_STORAGE_CA_DIR", str(ours.mounted(tmp_path / "bundles")))
    monkeypatch.setattr(s3, "FIRST_PAUSE_SECONDS", 0.001)
    return Lab(moto, tmp_path / "bundles", ours, theirs, Faults())


def test_a_private_authority_is_believed(lab: Lab) -> None:
    for host in ("127.0.0.1", "localhost"):
        with lab.store(lab.ours.server(), host=host) as store:
            store.put("key", b"content")
            assert read_whole(store, "key") == b"content"


def test_public_authorities_are_believed_beside_it(lab: Lab) -> None:
    alone = Trust(lab.moto.storage).context.cert_store_stats()["x509_ca"]
    assert alone > 50
    both = Trust(lab.moto.storage.model_copy(update={"custom_ca": True}))
    assert both.context.cert_store_stats()["x509_ca"] == alone + 1


def servers(lab: Lab) -> dict[str, tuple[Server | None, str]]:
    """By name: a certificate, and what is said of it."""
    return {
        "of another authority": (lab.theirs.server(), "not from an authority that is trusted .*caConfigMapName"),
        "for another host": (lab.ours.server(hosts=("minio.media.svc",)), "made out to another name"),
        "for another address": (lab.ours.server(hosts=("127.0.0.9",)), "made out to another name"),
        "expired": (lab.ours.server(begins=-2 * DAY, ends=-DAY), "has expired"),
        "not valid yet": (lab.ours.server(begins=HOUR, ends=DAY), "not valid yet"),
    }


@pytest.mark.parametrize(
    "name", ["of another authority", "for another host", "for another address", "expired", "not valid yet"]
)
def test_another_certificate_is_refused(lab: Lab, name: str) -> None:
    certificate, says = servers(lab)[name]
    with lab.store(certificate) as store, pytest.raises(RestorationError, match=says) as caught:
        store.put("key", b"content")
    assert caught.value.reason is FailureReason.STORAGE_ERROR
    assert caught.value.message.startswith("s3://tls-")
    assert "\n" not in caught.value.message
    assert lab.faults.seen == [], "the server was told something before it had shown who it is"


def test_a_private_authority_is_not_believed_where_it_was_not_given(lab: Lab) -> None:
    with (
        lab.store(lab.ours.server(), custom_ca=False) as store,
        pytest.raises(RestorationError, match="that is trusted"),
    ):
        store.head("key")


def test_an_authority_that_is_replaced_while_we_work_is_believed_at_once(lab: Lab) -> None:
    with lab.store(lab.theirs.server()) as store:
        with pytest.raises(RestorationError):
            store.head("key")
        lab.theirs.mounted(lab.bundles)
        assert store.head("key") is None


def test_https_at_a_server_without_tls_says_so(lab: Lab) -> None:
    with faulty(lab.moto.endpoint, lab.faults) as endpoint:
        store = S3Store("bucket", lab.moto.storage.model_copy(update={"endpoint": endpoint.replace("http", "https")}))
        with pytest.raises(RestorationError, match=r"does not speak TLS; .*http://") as caught:
            store.head("key")
    assert caught.value.reason is FailureReason.INVALID_PARAMETERS


BUNDLES: list[tuple[str, bytes | None, str]] = [
    ("missing", None, "does not exist.*key ca.crt"),
    ("empty", b"", "holds no certificate"),
    ("not PEM", b"\xff\xfe\x00", "not PEM text"),
    ("a private key", b"-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n", "holds no certificate"),
    ("cut off", b"-----BEGIN CERTIFICATE-----\nMIIB", "holds no certificate"),
]


@pytest.mark.parametrize(("name", "content", "says"), BUNDLES, ids=[row[0] for row in BUNDLES])
def test_a_bundle_that_is_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None, says: str
) -> None:
    (tmp_path / "default").mkdir()
    if content is not None:
        (tmp_path / "default" / "ca.crt").write_bytes(content)
    monkeypatch.setenv("VR_STORAGE_CA_DIR", str(tmp_path))
    with pytest.raises(RestorationError, match=rf"'default'.*{says}") as caught:
        Trust(StorageRequest(name="default", endpoint="https://minio:9000", custom_ca=True))
    assert caught.value.reason is FailureReason.INVALID_PARAMETERS
