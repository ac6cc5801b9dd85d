"""Credentials that the platform gives to the pod's service account, renewed before they end.

Three ways, as the AWS SDKs know them by their environment variables: web identity (a projected token is exchanged at a
security token service: EKS, and any store with such a service, MinIO among them), container credentials (EKS Pod
Identity, ECS) and the instance profile of the node. minio-py has all three. The first is done here nevertheless: there
the token travels in the URL, which servers and proxies log and exceptions quote, and neither another endpoint nor a
private authority can be given (docs/decisions/0029).
"""

import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from xml.etree import ElementTree

import structlog
import urllib3
from minio.credentials.credentials import Credentials
from minio.credentials.providers import IamAwsProvider

from restoration_api.outcome import FailureReason
from restoration_runner import secrets
from restoration_runner.errors import RestorationError
from restoration_runner.storage.answers import BoundedPool, find_text, parse_xml
from restoration_runner.storage.credentials import RenewableProvider
from restoration_runner.storage.tls import Trust, certificate_error, certificate_sentence

log = structlog.get_logger()

METADATA_SECONDS = 5.0
"""The platform's endpoint is on the node or next to it."""
TOKEN_FILE, ROLE = "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"
AHEAD: Final = timedelta(minutes=5)
"""Before the end of the credentials new ones are asked for: a refusal then is no failure yet, only a warning."""
AGAIN: Final = timedelta(seconds=30)
"""Until the next try, while the old ones still hold."""
MOST_TOKEN_BYTES: Final = 64 << 10
DENIALS: Final = frozenset(
    {"AccessDenied", "ExpiredTokenException", "IDPRejectedClaim", "InvalidIdentityToken", "ExpiredToken"}
)


def now() -> datetime:
    """The time by which credentials end; tests replace it."""
    return datetime.now(UTC)


class PlatformCredentials(RenewableProvider):
    """What the platform gives, kept until shortly before its end. Threads share it."""

    def __init__(self, name: str, *, region: str | None, trust: Trust) -> None:
        self._name = name
        self._region = region
        self._lock = threading.Lock()
        self._current: Credentials | None = None
        self._next_try = datetime.min.replace(tzinfo=UTC)
        self._trust = trust
        self._pool = BoundedPool(
            trust,
            timeout=urllib3.Timeout(connect=METADATA_SECONDS, read=METADATA_SECONDS),
            retries=urllib3.Retry(
                total=2,
                redirect=0,
                backoff_factor=0.2,
                status_forcelist=[500, 502, 503, 504],
                allowed_methods=None,
                raise_on_status=False,
            ),
        )

    def retrieve(self) -> Credentials:
        with self._lock:
            if self._current is None or now() >= self._next_try:
                self._renew()
            assert self._current is not None
            return self._current

    def renew(self) -> bool:
        """The storage refused them: whatever their end, look for others."""
        with self._lock:
            before = self._current
            self._renew(insist=True)
            return self._current != before

    def _renew(self, *, insist: bool = False) -> None:
        try:
            self._current = self._ask()
        except RestorationError as error:
            if insist or self._current is None or _seconds_left(self._current) <= 0:
                raise
            log.warning("credentials cannot be renewed yet", storage=self._name, cause=error.message)
            self._next_try = now() + AGAIN
            return
        secrets.learn(self._current.access_key, self._current.secret_key, self._current.session_token)
        left = _seconds_left(self._current)
        self._next_try = now() + timedelta(seconds=max(left - AHEAD.total_seconds(), left / 2))

    def _ask(self) -> Credentials:
        if TOKEN_FILE in os.environ:
            return ask_web_identity(self._pool, entry=self._name, region=self._region)
        try:
            return IamAwsProvider(region=self._region, http_client=self._pool).retrieve()
        except Exception as error:  # minio-py lets through whatever its parsers and urllib3 raise
            raise RestorationError(
                FailureReason.ACCESS_DENIED,
                f"storage entry '{self._name}': the platform gives no credentials ({type(error).__name__}); check the "
                "profile's workloadIdentity and what its service account may assume",
            ) from error


def _seconds_left(credentials: Credentials) -> float:
    end = credentials.expiration
    if end is None:
        return timedelta(days=1).total_seconds()
    return ((end if end.tzinfo else end.replace(tzinfo=UTC)) - now()).total_seconds()


@dataclass(frozen=True)
class _Service:
    """The security token service, and what it is asked."""

    entry: str
    endpoint: str

    def failed(self, reason: FailureReason, text: str) -> RestorationError:
        return RestorationError(reason, f"storage entry '{self.entry}': {text}")


def ask_web_identity(pool: urllib3.PoolManager, *, entry: str, region: str | None) -> Credentials:
    """Exchange the projected token for credentials (`AssumeRoleWithWebIdentity`).

    The token file is read each time: the kubelet renews it. `AWS_ENDPOINT_URL_STS` names another service than AWS's.

    Raises:
        RestorationError: `AccessDenied` if the service refuses, or there is no token; `StorageError` if it does not
            answer; `InvalidParameters` for an endpoint that is none.
    """
    service = _Service(entry, _endpoint(entry, region))
    fields = {"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "WebIdentityToken": _token(entry)}
    if role := os.environ.get(ROLE):
        fields |= {"RoleArn": role, "RoleSessionName": os.environ.get("AWS_ROLE_SESSION_NAME") or "video-restoration"}
    try:
        answer = pool.request_encode_body(
            "POST", service.endpoint, fields=fields, encode_multipart=False, headers={"Accept": "application/xml"}
        )
    except urllib3.exceptions.HTTPError as error:
        raise _no_answer(service, error) from error
    if answer.status != 200:
        raise _refusal(service, answer.status, answer.data)
    try:
        root = parse_xml(answer.data)
        found = {name: find_text(root, name) or "" for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")}
        secrets.learn(*found.values())
        end = datetime.fromisoformat((find_text(root, "Expiration") or "").replace("Z", "+00:00"))
        return Credentials(
            found["AccessKeyId"],
            found["SecretAccessKey"],
            found["SessionToken"] or None,
            end if end.tzinfo else end.replace(tzinfo=UTC),
        )
    except (ElementTree.ParseError, ValueError) as error:
        raise service.failed(
            FailureReason.STORAGE_ERROR, f"{service.endpoint} gave an answer without credentials in it"
        ) from error


def _endpoint(entry: str, region: str | None) -> str:
    own = os.environ.get("AWS_ENDPOINT_URL_STS")
    if not own:
        region = os.environ.get("AWS_REGION") or region
        suffix = ".cn" if region and region.startswith("cn-") else ""
        return f"https://sts.{region}.amazonaws.com{suffix}" if region else "https://sts.amazonaws.com"
    url = urlsplit(own)
    if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc or url.query:
        raise RestorationError(
            FailureReason.INVALID_PARAMETERS,
            f"storage entry '{entry}': AWS_ENDPOINT_URL_STS must be http(s)://host[:port], without user or password",
        )
    return own


def _token(entry: str) -> str:
    path = Path(os.environ[TOKEN_FILE])
    try:
        with path.open("rb") as file:
            content = file.read(MOST_TOKEN_BYTES + 1)
        token = content.decode("ascii").strip()
        if not token or len(content) > MOST_TOKEN_BYTES:
            raise ValueError("empty, or too long")
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it holds no token"
        raise RestorationError(
            FailureReason.ACCESS_DENIED,
            f"storage entry '{entry}': {path} ({TOKEN_FILE}) cannot be used: {cause}; it is projected into the pod by "
            "the platform's webhook, or by a volume of the profile's pod.specPatch",
        ) from error
    secrets.learn(token)
    return token


def _no_answer(service: _Service, error: Exception) -> RestorationError:
    refused = certificate_error(error)
    if refused is not None:
        host = urlsplit(service.endpoint).hostname or service.endpoint
        return service.failed(
            FailureReason.STORAGE_ERROR, certificate_sentence(refused, host=host, entry=service.entry)
        )
    return service.failed(
        FailureReason.STORAGE_ERROR,
        f"{service.endpoint} gives no credentials: it does not answer ({type(error).__name__})",
    )


def _refusal(service: _Service, status: int, body: bytes) -> RestorationError:
    try:
        code = find_text(parse_xml(body), "Code") or ""
    except ElementTree.ParseError:
        code = ""
    said = f"{status} {code}".strip() if code.isalnum() else str(status)
    if status >= 500 or status == 429:
        return service.failed(FailureReason.STORAGE_ERROR, f"{service.endpoint} gives no credentials now ({said})")
    return service.failed(
        FailureReason.ACCESS_DENIED,
        f"{service.endpoint} gives no credentials to this service account ({said}); check the role ({ROLE}) and "
        "whether it trusts the cluster's issuer and this account",
    )
