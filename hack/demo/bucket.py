"""The demo's side of object storage: a bucket, an upload, a download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import minio
import urllib3
from minio.error import S3Error

from hack.demo.kubectl import DemoError


@dataclass(frozen=True)
class Endpoint:
    """An S3 server with the credentials for it. `from_pods` is how runner pods reach it, `from_here` how we do."""

    from_here: str
    from_pods: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"

    def client(self) -> minio.Minio:
        """A client for this machine's view of the server; gives up after seconds, not minutes."""
        address = urlsplit(self.from_here)
        return minio.Minio(
            address.netloc,
            access_key=self.access_key,
            secret_key=self.secret_key,
            secure=address.scheme == "https",
            region=self.region,
            http_client=urllib3.PoolManager(
                timeout=urllib3.Timeout(connect=5, read=60), retries=urllib3.Retry(total=3, backoff_factor=0.5)
            ),
        )


@dataclass(frozen=True)
class Bucket:
    """One bucket at an endpoint. Methods raise DemoError naming endpoint, bucket and key."""

    endpoint: Endpoint
    name: str

    def ensure(self) -> None:
        """Create the bucket if it is missing."""
        try:
            client = self.endpoint.client()
            if not client.bucket_exists(self.name):
                client.make_bucket(self.name)
        except (S3Error, urllib3.exceptions.HTTPError) as error:
            raise self._failed("the bucket cannot be made", error) from error

    def upload(self, path: Path, key: str) -> None:
        """Put a file at `key`."""
        try:
            self.endpoint.client().fput_object(self.name, key, str(path))
        except (S3Error, urllib3.exceptions.HTTPError) as error:
            raise self._failed(f"{path} cannot be written to {key}", error) from error

    def download(self, key: str, path: Path) -> None:
        """Fetch `key` into a file; the folder is made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.endpoint.client().fget_object(self.name, key, str(path))
        except (S3Error, urllib3.exceptions.HTTPError) as error:
            raise self._failed(f"{key} cannot be read", error) from error

    def keys(self, prefix: str = "") -> list[str]:
        """All keys below `prefix`."""
        found = self.endpoint.client().list_objects(self.name, prefix=prefix, recursive=True)
        return [item.object_name for item in found if item.object_name]

    def uri(self, key: str) -> str:
        """`s3://bucket/key`."""
        return f"s3://{self.name}/{key}"

    def _failed(self, what: str, error: Exception) -> DemoError:
        cause = getattr(error, "message", None) or error
        return DemoError(f"Bucket {self.name} at {self.endpoint.from_here}: {what} ({cause}).")
