"""Where S3 credentials come from: files of a mounted Secret, the platform's identity, or nowhere.

They are read again while the runner works: a film takes hours, and Secrets are rotated meanwhile.
"""

import os
import time
from pathlib import Path

import urllib3
from minio.credentials.credentials import Credentials
from minio.credentials.providers import IamAwsProvider, Provider

from restoration_api.outcome import FailureReason
from restoration_api.request import CredentialSource, StorageRequest
from restoration_runner.errors import RestorationError

SECRETS_FOLDER = Path("/var/run/vr/storage")
CA_FOLDER = Path("/var/run/vr/storage-ca")
METADATA_SECONDS = 5.0
"""The platform's endpoint is on the node or next to it."""
REREAD_SECONDS = 30.0
"""The kubelet renews a mounted Secret about once a minute."""


def secrets_folder(name: str) -> Path:
    """Where the Secret of storage entry `name` is mounted; `VR_STORAGE_DIR` moves it outside a pod."""
    return Path(os.environ.get("VR_STORAGE_DIR", SECRETS_FOLDER)) / name


def ca_bundle(storage: StorageRequest) -> Path | None:
    """The entry's own certificate authority, if it has one.

    Raises:
        RestorationError: `InvalidParameters` if the request promises a bundle that is not mounted.
    """
    if not storage.custom_ca:
        return None
    path = Path(os.environ.get("VR_STORAGE_CA_DIR", CA_FOLDER)) / storage.name / "ca.crt"
    if not path.is_file():
        raise RestorationError(
            FailureReason.INVALID_PARAMETERS,
            f"storage entry '{storage.name}' names a CA bundle, but {path} does not exist: "
            "its ConfigMap must have the key ca.crt",
        )
    return path


class FileCredentials(Provider):
    """The keys `access-key`, `secret-key` and optionally `session-token` of a mounted Secret."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._folder = secrets_folder(name)
        self._read_at = 0.0
        self._current: Credentials | None = None

    def retrieve(self) -> Credentials:
        now = time.monotonic()
        if self._current is None or now - self._read_at > REREAD_SECONDS:
            self._current = Credentials(
                self._key("access-key"), self._key("secret-key"), self._optional("session-token")
            )
            self._read_at = now
        return self._current

    def _optional(self, key: str) -> str | None:
        path = self._folder / key
        try:
            return path.read_text().strip() or None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RestorationError(
                FailureReason.ACCESS_DENIED,
                f"credentials of storage entry '{self._name}' cannot be read: {path}: {error.strerror}",
            ) from error

    def _key(self, key: str) -> str:
        value = self._optional(key)
        if value is None:
            raise RestorationError(
                FailureReason.ACCESS_DENIED,
                f"credentials of storage entry '{self._name}' are incomplete: its Secret has no key '{key}' "
                "(needed: access-key and secret-key)",
            )
        return value


class PlatformCredentials(Provider):
    """What the platform gives the pod's service account (web identity, container credentials, instance profile)."""

    def __init__(self, name: str, *, region: str | None) -> None:
        self._name = name
        client = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=METADATA_SECONDS, read=METADATA_SECONDS),
            retries=urllib3.Retry(total=2, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
        )
        self._inner = IamAwsProvider(region=region, http_client=client)

    def retrieve(self) -> Credentials:
        try:
            return self._inner.retrieve()
        except Exception as error:  # minio-py lets through whatever its parsers and urllib3 raise
            raise RestorationError(
                FailureReason.ACCESS_DENIED,
                f"storage entry '{self._name}': the platform gives no credentials ({type(error).__name__}); check the "
                "profile's workloadIdentity and what its service account may assume",
            ) from error


def credentials(storage: StorageRequest) -> Provider | None:
    """The provider for an entry; none for anonymous access."""
    match storage.credentials:
        case CredentialSource.FILES:
            return FileCredentials(storage.name)
        case CredentialSource.WORKLOAD_IDENTITY:
            return PlatformCredentials(storage.name, region=storage.region)
        case CredentialSource.ANONYMOUS:
            return None
