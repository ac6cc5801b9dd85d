"""S3 credentials from the files of a mounted Secret.

They are read again while the runner works: a film takes hours, and Secrets are rotated meanwhile.
"""

import os
import re
import threading
import time
from abc import abstractmethod
from pathlib import Path
from typing import Final

from minio.credentials.credentials import Credentials
from minio.credentials.providers import Provider

from restoration_api.outcome import FailureReason
from restoration_runner import secrets
from restoration_runner.errors import RestorationError

SECRETS_FOLDER = Path("/var/run/vr/storage")
REREAD_SECONDS = 30.0
"""The kubelet renews a mounted Secret about once a minute."""
MOST_BYTES: Final = 64 << 10
"""Of one key. Session tokens are the longest, with a few thousand; headers of more are refused by every server."""
_WRITABLE: Final = re.compile(r"[\x21-\x7e]+")
"""Credentials go into headers: a line break or a letter beyond ASCII would be refused by the HTTP library, in words
that quote it."""
_SWAPS: Final = 3
"""How often the kubelet may replace the files while they are read."""


class RenewableProvider(Provider):
    """minio-py's provider, with a way to say that what it gave was refused."""

    @abstractmethod
    def renew(self) -> bool:
        """Look for newer credentials now; says whether there are."""


def secrets_folder(name: str) -> Path:
    """Where the Secret of storage entry `name` is mounted; `VR_STORAGE_DIR` moves it outside a pod."""
    return Path(os.environ.get("VR_STORAGE_DIR", SECRETS_FOLDER)) / name


class FileCredentials(RenewableProvider):
    """The keys `access-key`, `secret-key` and optionally `session-token` of a mounted Secret."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._folder = secrets_folder(name)
        self._lock = threading.Lock()
        self._read_at = 0.0
        self._current: Credentials | None = None

    def retrieve(self) -> Credentials:
        with self._lock:
            now = time.monotonic()
            if self._current is None or now - self._read_at > REREAD_SECONDS:
                self._current = self._read()
                self._read_at = now
            return self._current

    def renew(self) -> bool:
        with self._lock:
            before, self._current = self._current, self._read()
            self._read_at = time.monotonic()
            return self._current != before

    def _read(self) -> Credentials:
        """The three keys, all of one version of the Secret: halves of two would sign nothing."""
        for _ in range(_SWAPS):
            version = self._version()
            access_key, secret_key = self._value("access-key"), self._value("secret-key")
            token = self._value("session-token")
            if self._version() == version:
                break
        secrets.learn(access_key, secret_key, token)
        if access_key is None or secret_key is None:
            missing = "access-key" if access_key is None else "secret-key"
            raise self._denied(f"are incomplete: its Secret has no key '{missing}' (needed: access-key and secret-key)")
        return Credentials(access_key, secret_key, token)

    def _version(self) -> str | None:
        """The kubelet keeps each version in a folder of its own, and `..data` points to the one that counts."""
        try:
            return os.readlink(self._folder / "..data")  # noqa: PTH115  # Path.readlink makes a Path of it
        except OSError:
            return None

    def _value(self, key: str) -> str | None:
        path = self._folder / key
        try:
            with path.open("rb") as file:
                content = file.read(MOST_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._denied(f"cannot be read: {path}: {error.strerror}") from error
        text = content.decode("latin-1").strip()
        if not text:
            return None
        if len(content) > MOST_BYTES or not _WRITABLE.fullmatch(text):
            raise self._denied(
                f"cannot be used: the key '{key}' of its Secret is not one line of ASCII of a sensible length"
            )
        return text

    def _denied(self, text: str) -> RestorationError:
        return RestorationError(FailureReason.ACCESS_DENIED, f"credentials of storage entry '{self._name}' {text}")
