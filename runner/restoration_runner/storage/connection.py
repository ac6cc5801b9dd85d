"""From a storage entry of the request to a client that speaks with its server: whom it believes, and who it is."""

from dataclasses import dataclass
from urllib.parse import urlsplit

import urllib3
from minio import Minio

from restoration_api.outcome import FailureReason
from restoration_api.request import Addressing, CredentialSource, StorageRequest
from restoration_runner.errors import RestorationError
from restoration_runner.storage.answers import BoundedPool
from restoration_runner.storage.credentials import FileCredentials, RenewableProvider
from restoration_runner.storage.identity import PlatformCredentials
from restoration_runner.storage.refusals import Place, refuses_credentials
from restoration_runner.storage.tls import Trust, certificate_error

CONNECT_SECONDS, READ_SECONDS = 10.0, 120.0


@dataclass(frozen=True)
class Connection:
    """A client, and what it was made of. provider: None for anonymous access."""

    client: Minio
    place: Place
    trust: Trust
    provider: RenewableProvider | None

    def renew(self, error: Exception) -> bool:
        """After a refusal: whether there are newer credentials, or authorities, with which to try again."""
        if certificate_error(error) is not None:
            return self.trust.renew()
        return self.provider is not None and refuses_credentials(error) and self.provider.renew()


def connect(storage: StorageRequest) -> Connection:
    """A client for an entry.

    Raises:
        RestorationError: `InvalidParameters` for an endpoint or a CA bundle that is none.
    """
    endpoint = storage.endpoint or f"https://s3.{storage.region or 'us-east-1'}.amazonaws.com"
    _check(endpoint, storage.name)
    url = urlsplit(endpoint)
    trust = Trust(storage)
    provider = _provider(storage, trust)
    aws = (url.hostname or "").endswith(("amazonaws.com", "amazonaws.com.cn"))
    client = Minio(
        url.netloc,
        secure=url.scheme == "https",
        # Elsewhere the region is only part of the signature, and asking for it needs a right of its own.
        region=storage.region or (None if aws else "us-east-1"),
        http_client=BoundedPool(
            trust,
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            maxsize=8,
            retries=urllib3.Retry(total=0, redirect=0, raise_on_status=False),
        ),
        credentials=provider,
    )
    if storage.addressing is Addressing.PATH:
        client.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    elif storage.addressing is Addressing.VIRTUAL:
        client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    return Connection(client, Place(endpoint, storage.name), trust, provider)


def _provider(storage: StorageRequest, trust: Trust) -> RenewableProvider | None:
    """Files of a mounted Secret, the platform's identity, or nothing for anonymous access."""
    match storage.credentials:
        case CredentialSource.FILES:
            return FileCredentials(storage.name)
        case CredentialSource.WORKLOAD_IDENTITY:
            return PlatformCredentials(storage.name, region=storage.region, trust=trust)
        case CredentialSource.ANONYMOUS:
            return None


def _check(endpoint: str, entry: str) -> None:
    """An endpoint has no room for credentials: it is repeated in messages, and stands in the profile."""
    try:
        url = urlsplit(endpoint)
        good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        good = False
    if not good or url.path.strip("/") or url.query or url.fragment:
        problem = f"not '{endpoint}'" if "@" not in endpoint and "?" not in endpoint else "and nothing else"
    elif "@" in url.netloc:
        problem = "without user or password: those belong into the entry's Secret"
    else:
        return
    raise RestorationError(
        FailureReason.INVALID_PARAMETERS,
        f"endpoint of storage entry '{entry}' must be http(s)://host[:port], {problem}",
    )
