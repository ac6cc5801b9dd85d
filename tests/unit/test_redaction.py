"""What is taken out of texts, what is left in, and that it takes no time that an attacker could stretch."""

import base64
import time
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders.leaks import leaks

from restoration_api.redaction import MARK, redact
from restoration_runner import faults, logs, outcomes, secrets
from restoration_runner.errors import FailureReason, RestorationError

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY="
LOOKS = [
    "http://user:hunter2-hunter2@host/key",
    "s3://user:hunter2-hunter2@bucket/key",
    "https://bucket/key?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=hunter2-hunter2&X-Amz-Date=1",
    "https://bucket/key?AWSAccessKeyId=x&Signature=hunter2-hunter2%2F",
    quote("https://bucket/key?X-Amz-Signature=hunter2-hunter2", safe=""),
    "POST /?Action=AssumeRoleWithWebIdentity&WebIdentityToken=hunter2-hunter2 HTTP/1.1",
    "{'Authorization': 'AWS4-HMAC-SHA256 Credential=a/b, Signature=hunter2-hunter2'}",
    "{'x-amz-security-token': 'hunter2-hunter2'}",
    "x-amz-security-token: hunter2-hunter2",
    "Authorization: Bearer hunter2-hunter2-hunter2",
    '{"SecretAccessKey": "hunter2-hunter2", "Token" : "hunter2-hunter2"}',
    "<SecretAccessKey>hunter2-hunter2</SecretAccessKey><SessionToken>hunter2-hunter2</SessionToken>",
    "-----BEGIN RSA PRIVATE KEY-----\nhunter2-hunter2\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nhunter2-hunter2 cut off",
    "token=hunter2-hunter2;password=hunter2-hunter2",
]


@pytest.mark.parametrize("text", LOOKS)
def test_what_looks_secret_is_taken_out_unknown_as_it_is(text: str) -> None:
    assert leaks([redact(text)], ["hunter2-hunter2"]) == []
    assert MARK in redact(text)
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "text",
    ["eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJydW5uZXIifQ.c2lnbmF0dXJl", "hf_abcdefghijklmnopqrstuv", "ASIAIOSFODNN7EXAMPLE"],
)
def test_tokens_are_known_by_their_beginning(text: str) -> None:
    assert redact(f"the answer was {text}.").startswith(f"the answer was {MARK}")


LEFT = [
    "s3://media/raw/a@b.mp4 at http://minio.media.svc:9000 does not exist",
    "its Secret has no key 'access-key' (needed: access-key and secret-key)",
    "seg/00017-1f2e3d4c.mkv has the sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "the token: see the documentation; a secret: none",
    "input.etag: s3://media/in.mp4 has the etag 9b2cf535f27731c974343645a3985328-3, not another",
    "arn:aws:iam::123456789012:role/restorer",
]


@pytest.mark.parametrize("text", LEFT)
def test_sentences_are_left_as_they_are(text: str) -> None:
    assert redact(text, [SECRET]) == text


SPELLINGS = {
    "as it is": SECRET,
    "percent": quote(SECRET, safe=""),
    "percent, lower case": quote(SECRET, safe="").replace("%2F", "%2f").replace("%2B", "%2b"),
    "percent, slashes kept": quote(SECRET),
    "form": quote_plus(SECRET),
    "percent twice": quote(quote(SECRET, safe=""), safe=""),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(SECRET.encode()).decode(),
    "basic authorization": base64.b64encode(b"u:" + SECRET.encode()).decode(),
    "in a longer one": base64.b64encode(b"user:" + SECRET.encode() + b"\nmore").decode(),
    "repr": repr(SECRET.encode()),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_what_is_known_is_found_in_every_spelling(spelling: str) -> None:
    text = f"failed: {spelling!s} (tried twice)"
    assert leaks([text], [SECRET]), "the judge must see it before it can say that it is gone"
    assert leaks([redact(text, [SECRET])], [SECRET]) == []


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=16, max_size=60),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=9),
)
def test_any_value_is_found_in_every_spelling(secret: str, before: str) -> None:
    texts = [before + secret, quote(before + secret, safe=""), base64.b64encode((before + secret).encode()).decode()]
    for text in texts:
        assert leaks([redact(text, [secret])], [secret]) == []


BOMBS = [
    "://a" * 20_000,
    "%3A%2F%2Fx" * 15_000,
    "eyJaaaaaaaa" * 10_000,
    "-eyJ" * 50_000,
    "token=" * 50_000,
    "<token>" * 15_000,
]


@pytest.mark.parametrize("bomb", BOMBS, ids=[bomb[:8] for bomb in BOMBS])
def test_no_text_takes_long(bomb: str) -> None:
    begun = time.process_time()
    redact(bomb, [SECRET])
    assert time.process_time() - begun < 5.0, "processor time: hundreds of milliseconds, not minutes"


@pytest.fixture
def known() -> Iterator[None]:
    secrets.forget_all()
    secrets.learn(SECRET)
    yield
    secrets.forget_all()


def test_whatever_logs_or_fails_is_cleaned(known: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Fields, lists, tracebacks, lines of libraries; messages before they are cut."""
    import logging

    logs.configure(json=True, default_level="debug")
    log = structlog.get_logger()
    try:
        raise ValueError(f"Invalid header value b'{SECRET}'")
    except ValueError as error:
        log.warning("failed", cause=str(error), seen=[("key", SECRET)], raw=SECRET.encode(), exc_info=True)
        sentence = outcomes.failed_unexpectedly(faults.unexpected(error)).message
    logging.getLogger("urllib3.connectionpool").warning("Retrying after %s: /?WebIdentityToken=%s", "x", SECRET)
    long = outcomes.failed(RestorationError(FailureReason.STORAGE_ERROR, "x" * 1010 + SECRET)).message
    written = capsys.readouterr().err
    assert written.count(MARK) >= 5
    assert leaks([written, sentence, long], [SECRET]) == []
    assert "urllib3.connectionpool" in written
