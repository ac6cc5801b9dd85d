"""What strangers can make the runner read: requests, what lies in a bucket, answers of servers, mounted files, models.

Each parser either understands what it is given or says one sentence of a class; nothing else comes out of it, and
nothing takes memory beyond the size of its input.
"""

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import urllib3
from minio import Minio
from tests.builders.models import write_tiny_model
from tests.builders.mutations import bytes_of, document_of, each, text_of
from tests.builders.plans import make_plan
from tests.builders.requests import make_request

from restoration_api.ledger import Marker, manifest_key, marker_key, plan_key, segment_key
from restoration_api.request import StorageRequest
from restoration_runner import models
from restoration_runner.errors import RestorationError
from restoration_runner.models.seedvr2.folder import read_text
from restoration_runner.request_file import read_request
from restoration_runner.storage.answers import listing, parse_xml, uploads
from restoration_runner.storage.connection import connect
from restoration_runner.storage.credentials import FileCredentials
from restoration_runner.storage.file import FileStore
from restoration_runner.storage.open import open_store
from restoration_runner.storage.refusals import CLIENT_ERRORS, Asked, Place, failure
from restoration_runner.storage.tls import Trust
from restoration_runner.weights.checkpoint_file import open_checkpoint
from restoration_runner.weights.digest import check_sums, write_sums
from restoration_runner.work import Work

Read = Callable[[Path], object]
PREFIX = ".vr/0123456789abcdef-01234567/"


def refused_in_one_sentence(read: Callable[[], object]) -> None:
    """It is read, or a `RestorationError` says in one line of a sensible length why it is not."""
    try:
        read()
    except RestorationError as error:
        assert "\n" not in error.message
        assert len(error.message) < 2000, error.message[:200]


def file_case(path: Path, sample: bytes, read: Read, *, few: int) -> None:
    def check(content: bytes) -> None:
        path.write_bytes(content)
        refused_in_one_sentence(lambda: read(path))

    each(few, lambda chance: bytes_of(sample, chance), check)


def test_a_request_of_any_kind(tmp_path: Path) -> None:
    sample, path = json.loads(make_request().to_json()), tmp_path / "request.json"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        refused_in_one_sentence(lambda: read_request(path, None))

    each(150, lambda chance: text_of(sample, chance), check)


def marker(plan: Any) -> Marker:
    sha256 = "f" * 64
    return Marker(
        segment=0,
        cache_key=plan.cache_key,
        object_key=segment_key(PREFIX, 0, sha256),
        etag="e",
        size_bytes=1,
        frames=plan.segments[0].frames,
        sha256=sha256,
        frames_sha256=sha256,
        fingerprint="p",
        environment={},
        execution=1,
    )


def test_a_bucket_that_holds_anything(tmp_path: Path) -> None:
    """Plans, markers and manifests are ours or count as absent."""
    plan, store = make_plan(), FileStore(tmp_path)
    work = Work(store, PREFIX)
    samples = (json.loads(plan.to_json()), json.loads(marker(plan).to_json()), {"plan": json.loads(plan.to_json())})
    keys = (plan_key(PREFIX), marker_key(PREFIX, 0), manifest_key(PREFIX))

    def check(contents: list[bytes]) -> None:
        for key, content in zip(keys, contents, strict=True):
            store.put(key, content)
        work.read_plan(plan.cache_key)
        work.markers(plan)
        work.read_manifest()

    each(60, lambda chance: [text_of(sample, chance) for sample in samples], check)


LISTING = b"""<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>
<IsTruncated>true</IsTruncated><NextContinuationToken>abc</NextContinuationToken><Contents><Key>k</Key>
<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>"e"</ETag><Size>5</Size></Contents></ListBucketResult>"""
UPLOADS = b"""<ListMultipartUploadsResult><Upload><Key>k</Key><UploadId>u</UploadId>
<Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>"""
ERROR = b"""<?xml version="1.0"?><Error><Code>NoSuchKey</Code><Message>no</Message><Resource>/b/k</Resource>
<RequestId>1</RequestId><HostId>2</HostId></Error>"""
XML_BOMBS = [
    b"<a>" * 200_000,
    b"<a/>" * 200_000,
    b"<r>" + b"<a/>" * 200_000 + b"</r>",
    b"<a b='" + b"c" * 300_000,
    b"<!DOCTYPE r [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '" + b"&a;" * 1000 + b"'>]><r>" + b"&b;" * 10_000 + b"</r>",
    b"<!DOCTYPE r SYSTEM 'file:///etc/passwd'><r/>",
    "<r>\N{GREEK SMALL LETTER ALPHA}</r>".encode("utf-16"),
    b"",
    b"\x00",
]


@pytest.mark.parametrize(("read", "sample"), [(listing, LISTING), (uploads, UPLOADS)], ids=["listing", "uploads"])
def test_answers_of_any_kind_are_lists_or_none(read: Callable[[bytes], Any], sample: bytes) -> None:
    def check(content: bytes) -> None:
        with contextlib.suppress(ElementTree.ParseError, ValueError):
            list(read(content))

    each(120, lambda chance: bytes_of(sample, chance), check)
    for bomb in XML_BOMBS:
        check(bomb)


def test_bombs_of_elements_are_given_up_early() -> None:
    for bomb in XML_BOMBS[:3]:
        with pytest.raises(ElementTree.ParseError):
            parse_xml(bomb)


class Answering(urllib3.PoolManager):
    """A server that gives one answer to everything."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: tuple[int, dict[str, str], bytes] = (200, {}, b"")

    def urlopen(self, method: str, url: str, *_: Any, **__: Any) -> urllib3.HTTPResponse:  # type: ignore[override]
        status, headers, body = self.answer
        return urllib3.HTTPResponse(body=b"" if method == "HEAD" else body, headers=headers, status=status)


def test_errors_of_any_kind_are_one_sentence_of_a_class() -> None:
    pool = Answering()
    client = Minio("store:9000", "test-access", "test-secret", secure=False, region="us-east-1", http_client=pool)
    kinds = ("application/xml", "text/html", "application/xml; charset=nonsense", "")

    def check(case: tuple[str, tuple[int, dict[str, str], bytes]]) -> None:
        method, pool.answer = case
        try:
            client._execute(method, "bucket", "key", no_body_trace=True)
        except CLIENT_ERRORS as error:
            said = failure(error, Asked(method, "s3://bucket/key", "bucket", Place("http://store:9000", "default")))
            assert "\n" not in said.message
            assert len(said.message) < 400

    def make(chance: random.Random) -> tuple[str, tuple[int, dict[str, str], bytes]]:
        status = chance.choice((200, 204, 301, 304, 307, 400, 401, 403, 404, 409, 412, 429, 500, 503, 599))
        body = chance.choice((bytes_of(ERROR, chance), bytes_of(ERROR, chance), b"", *XML_BOMBS[5:]))
        return chance.choice(("GET", "HEAD", "PUT", "POST")), (status, {"content-type": chance.choice(kinds)}, body)

    each(200, make, check)


ADDRESSES = [
    "s3://",
    "s3:///",
    "s3://b/k",
    "https://u:p@h/k?X-Amz-Signature=s",
    "file:///../../etc",
    "s3://b/\x00",
    "://",
]


def test_addresses_of_any_kind() -> None:
    storage = StorageRequest(name="default", endpoint="http://127.0.0.1:1")
    request = make_request(storage=(storage,))

    def text(chance: random.Random) -> str:
        return bytes_of(chance.choice(ADDRESSES).encode(), chance).decode("utf-8", errors="replace")

    def check(case: tuple[str, str]) -> None:
        uri, endpoint = case
        refused_in_one_sentence(lambda: open_store(uri, None, request, field="input.uri"))
        endpoint = endpoint.replace("s3://", "https://")
        refused_in_one_sentence(lambda: connect(storage.model_copy(update={"endpoint": endpoint})))

    each(25, lambda chance: (text(chance), text(chance)), check)


def test_mounted_files_of_any_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VR_STORAGE_DIR", str(tmp_path))
    monkeypatch.setenv("VR_STORAGE_CA_DIR", str(tmp_path))
    (tmp_path / "default").mkdir()
    storage = StorageRequest(name="default", endpoint="https://127.0.0.1:1", custom_ca=True)
    for key in ("access-key", "secret-key"):
        (tmp_path / "default" / key).write_text("test-key-0123456789")
    token, bundle = tmp_path / "default" / "session-token", tmp_path / "default" / "ca.crt"
    file_case(token, b"session-token-0123456789\n", lambda path: FileCredentials("default").retrieve(), few=100)
    pem = b"-----BEGIN CERTIFICATE-----\n" + b"MIIBszCCAVmgAwIBAgIUQ" * 20 + b"\n-----END CERTIFICATE-----\n"
    file_case(bundle, pem, lambda path: Trust(storage), few=8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "model")


def test_models_of_any_kind(model: Path, tmp_path: Path) -> None:
    description = json.loads((model / "model.json").read_text())
    copy = tmp_path / "model"
    copy.mkdir()

    def check(content: bytes) -> None:
        (copy / "model.json").write_bytes(content)
        refused_in_one_sentence(lambda: models.describe(copy))

    each(120, lambda chance: text_of(description, chance), check)
    each(120, lambda chance: json.dumps(document_of(description, chance)).encode(errors="replace"), check)


def test_weights_of_any_kind(model: Path, tmp_path: Path) -> None:
    """The header of safetensors says where each tensor lies: it must not be believed."""
    sample = (model / "text.safetensors").read_bytes()
    header = 8 + int.from_bytes(sample[:8], "little")
    folder = tmp_path / "weights"
    folder.mkdir()

    def check(content: bytes) -> None:
        (folder / "text.safetensors").write_bytes(content)
        refused_in_one_sentence(lambda: list(map(str, open_checkpoint(folder / "text.safetensors").looks.items())))
        refused_in_one_sentence(lambda: read_text(folder, 1))

    each(100, lambda chance: bytes_of(sample[:header], chance) + sample[header:], check)
    for size in (0, 1, 2**32, 2**63 - 1, 2**64 - 1):
        check(size.to_bytes(8, "little") + sample[8:])
    write_sums(model)
    sums, described = (model / "SHA256SUMS").read_bytes(), (model / "model.json").read_bytes()
    (folder / "model.json").write_bytes(described)
    file_case(folder / "SHA256SUMS", sums, lambda path: check_sums(folder), few=40)
