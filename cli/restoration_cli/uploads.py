"""Local files on their way to object storage.

Credentials are the user's own: environment (`AWS_ACCESS_KEY_ID`, …) or a profile of the shared credentials file. They
are never taken from the command line, where every process of the machine can read them, nor from the cluster's Secrets.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.credentials.providers import AWSConfigProvider, EnvAWSProvider, Provider
from minio.error import MinioException, S3Error
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from restoration_cli.errors import CommandError

AWS: Final = "https://s3.amazonaws.com"
HASH: Final = "x-amz-meta-sha256"
SECONDS: Final = urllib3.Timeout(connect=10, read=120)


@dataclass(frozen=True, kw_only=True)
class Place:
    """An S3 server and the user's way of being known to it. Unset fields come from the environment."""

    endpoint: str | None = None
    region: str | None = None
    aws_profile: str | None = None
    ca_file: Path | None = None


def upload(path: Path, uri: str, place: Place, console: Console) -> str:
    """Put a file where `uri` says, unless it is there already. Returns its sha256.

    Raises:
        CommandError: the file cannot be read, another object lies there, or the store refuses.
    """
    bucket, key = _parts(uri)
    try:
        with _bar(console) as bar:
            digest = _hash(path, bar)
            store = _client(place)
            found = _stored(store, bucket, key)
            if found == digest:
                console.print(f"{uri} is there already", style="dim")
                return digest
            if found is not None:
                raise CommandError(f"another object lies at {uri}; rename the file, or give another --upload-to")
            _send(store, path, (bucket, key), digest, bar)
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror or error}") from error
    except S3Error as error:
        raise CommandError(f"{uri}: the store says {error.code}: {error.message}") from error
    except (MinioException, urllib3.exceptions.HTTPError, ValueError) as error:
        raise CommandError(f"{uri}: the store cannot be used ({_short(error)})") from error
    return digest


def _send(store: Minio, path: Path, where: tuple[str, str], digest: str, bar: Progress) -> None:
    size_bytes = path.stat().st_size
    with bar.open(path, "rb", description="uploading") as data:
        store.put_object(*where, data, length=size_bytes, metadata={"sha256": digest})


def _hash(path: Path, bar: Progress) -> str:
    with bar.open(path, "rb", description="reading  ") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()  # type: ignore[arg-type]


def _stored(store: Minio, bucket: str, key: str) -> str | None:
    """The hash that an object says it has; "" where it says none, None where there is no object."""
    try:
        return str((store.stat_object(bucket, key).metadata or {}).get(HASH, ""))
    except S3Error as error:
        if error.code in ("NoSuchKey", "NoSuchObject"):
            return None
        raise


def _client(place: Place) -> Minio:
    endpoint = place.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or AWS
    address = urlsplit(endpoint)
    if address.scheme not in ("http", "https") or not address.netloc:
        raise CommandError(f"--endpoint '{endpoint}': give http(s)://HOST[:PORT]")
    authority = str(place.ca_file) if place.ca_file else None
    retries = urllib3.Retry(total=3, backoff_factor=0.5)
    pool = urllib3.PoolManager(timeout=SECONDS, retries=retries, ca_certs=authority)
    region = place.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return Minio(
        address.netloc,
        credentials=_credentials(place.aws_profile),
        secure=address.scheme == "https",
        # A server of one's own has no regions; asking for the bucket's would need one more right.
        region=region or (None if endpoint == AWS else "us-east-1"),
        http_client=pool,
    )


def _credentials(profile: str | None) -> Provider:
    providers: list[Provider] = [AWSConfigProvider(profile=profile)]
    if profile is None:
        providers.insert(0, EnvAWSProvider())
    for provider in providers:
        try:
            provider.retrieve()
        except (ValueError, OSError, MinioException):
            continue
        return provider
    where = (
        f"the profile '{profile}' of the credentials file" if profile else "AWS_ACCESS_KEY_ID and ~/.aws/credentials"
    )
    raise CommandError(f"no credentials for the upload: {where} give none")


def _parts(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)


def _short(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error)
