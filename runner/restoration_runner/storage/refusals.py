"""What a request to object storage failed of, as one sentence with its class.

Never the client's own text: it may hold a signed request. Whatever may pass is told apart from what stays as it is.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit
from xml.etree import ElementTree

import urllib3
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.storage.store import ObjectMissingError, PreconditionError
from restoration_runner.storage.tls import certificate_error, certificate_sentence, speaks_no_tls

CLIENT_ERRORS: Final = (
    MinioException,
    urllib3.exceptions.HTTPError,
    OSError,
    ValueError,
    ElementTree.ParseError,
    AttributeError,
)
"""All that minio-py lets through; the last two are what its own parser says of an answer that is not S3's."""
RETRIED_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504})
SKEWED: Final = frozenset({"RequestTimeTooSkewed", "RequestInTheFuture"})
"""A signature is good for 15 minutes; no credentials help against a wrong clock."""
RANGE_STATUS: Final = 416
CONFLICT_STATUS: Final = frozenset({409, 412})
"""412: the condition does not hold. 409: somebody writes the same key at this moment (AWS)."""
EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
"""Temporary credentials have ended. Another execution may find newer ones, so this is nothing final."""
REPLACED: Final = frozenset({"InvalidAccessKeyId", "InvalidToken", "InvalidTokenId", "SignatureDoesNotMatch"})
"""A key or a token is unknown, as after a rotation. AWS says some of them with status 400."""
SPEAKS_TLS: Final = ("HTTP request to an HTTPS server", "plain HTTP request was sent to HTTPS port")
"""What Go's servers (MinIO among them) and nginx say to plain HTTP on a TLS port."""


@dataclass(frozen=True)
class Place:
    """The server of a storage entry, and the entry's name."""

    endpoint: str
    entry: str

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint).netloc


@dataclass(frozen=True)
class Asked:
    """A request. name: the object with its endpoint, for people."""

    method: str
    name: str
    bucket: str
    place: Place


class NotImplementedHereError(RestorationError):
    def __init__(self, message: str) -> None:
        super().__init__(FailureReason.STORAGE_ERROR, message)


def failure(error: Exception, asked: Asked) -> RestorationError:
    """The error as one sentence."""
    if isinstance(error, S3Error | ServerError | InvalidResponseError):
        return _refused(error, asked)
    name, place = asked.name, asked.place
    refused = certificate_error(error)
    if refused is not None:
        text = certificate_sentence(refused, host=place.host, entry=place.entry)
        return RestorationError(FailureReason.STORAGE_ERROR, f"{name}: {text}")
    if speaks_no_tls(error):
        return RestorationError(
            FailureReason.INVALID_PARAMETERS,
            f"{name}: {place.host} does not speak TLS; give the storage entry '{place.entry}' an endpoint with http:// "
            "or let the server have a certificate",
        )
    if isinstance(error, ElementTree.ParseError | AttributeError | ValueError):
        return RestorationError(FailureReason.STORAGE_ERROR, f"{name}: the storage's answer is not one of S3's")
    return RestorationError(FailureReason.STORAGE_ERROR, f"{name}: no answer from the storage ({_cause(error)})")


def _refused(error: Exception, asked: Asked) -> RestorationError:
    """The server has answered, and it is no."""
    name, status, code = asked.name, status_of(error), _code(error)
    endpoint = asked.place.endpoint
    if status == RANGE_STATUS:
        return PreconditionError(f"{name} is shorter than it was: it changed while it was read")
    if status in CONFLICT_STATUS and code != "NoSuchBucket":
        return PreconditionError(f"{name} is not in the expected state: somebody else wrote it ({code or status})")
    if code == "NoSuchUpload":
        return PreconditionError(f"{name}: the upload was given up by somebody else who wrote the same object")
    if code == "NoSuchBucket":
        return ObjectMissingError(f"bucket '{asked.bucket}' does not exist at {endpoint} ({name})")
    if status == 404:
        return ObjectMissingError(f"{name} does not exist")
    if code in SKEWED:
        return RestorationError(
            FailureReason.STORAGE_ERROR,
            f"{endpoint} refuses the clock of this machine ({code}); set the node's time, for example by NTP",
        )
    if code in EXPIRED:
        return RestorationError(
            FailureReason.STORAGE_ERROR,
            f"{name}: the temporary credentials of storage entry '{asked.place.entry}' have expired ({code}) and there "
            "are no newer ones; renew its Secret",
        )
    if status in (401, 403) or code in REPLACED:
        verb = "read" if asked.method in ("GET", "HEAD") else "write"
        hint = f" ({code})" if code and code != "AccessDenied" else ""
        return RestorationError(FailureReason.ACCESS_DENIED, f"the storage credentials may not {verb} {name}{hint}")
    if status == 501:
        return NotImplementedHereError(f"{endpoint} does not implement what {name} needs ({asked.method})")
    if status == 400 and endpoint.startswith("http:") and _speaks_tls(error):
        return RestorationError(
            FailureReason.INVALID_PARAMETERS,
            f"{name}: {asked.place.host} wants TLS; give the storage entry '{asked.place.entry}' an endpoint with "
            "https://",
        )
    return RestorationError(
        FailureReason.STORAGE_ERROR, f"{name}: the storage answered {status} {code or ''} to {asked.method}".rstrip()
    )


def refuses_credentials(error: Exception) -> bool:
    """Whether other credentials might help."""
    return _code(error) in EXPIRED | REPLACED or (status_of(error) in (401, 403) and _code(error) not in SKEWED)


def _speaks_tls(error: Exception) -> bool:
    return isinstance(error, InvalidResponseError) and any(words in str(error) for words in SPEAKS_TLS)


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed a moment later."""
    status = status_of(error)
    if status is not None:
        return status in RETRIED_STATUS
    return isinstance(error, urllib3.exceptions.HTTPError | OSError) and not (
        certificate_error(error) is not None or speaks_no_tls(error)
    )


def status_of(error: Exception) -> int | None:
    """The HTTP status of an answer; None where there was none."""
    if isinstance(error, S3Error):
        return int(error.response.status)
    if isinstance(error, ServerError):
        return int(error.status_code)
    if isinstance(error, InvalidResponseError):
        return int(error._code)
    return None


def _code(error: Exception) -> str | None:
    code = error.code if isinstance(error, S3Error) else None
    return code if isinstance(code, str) and code.isalnum() and len(code) <= 64 else None


def _cause(error: Exception) -> str:
    """The innermost reason in a few words: `Connection refused`, `timed out`."""
    reason: object = getattr(error, "reason", None) or error
    text = str(reason).split("object at 0x")[-1].split(">: ")[-1]
    return text.split(": ", 1)[-1][:120] if text else type(error).__name__
