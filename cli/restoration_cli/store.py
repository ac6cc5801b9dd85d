"""The user's way into object storage: server, credentials, and what it refuses as one sentence.

Credentials are the user's own: environment (`AWS_ACCESS_KEY_ID`, …) or a profile of the shared credentials file. They
are never taken from the command line, where every process of the machine can read them, nor from the cluster's Secrets.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.credentials.providers import AWSConfigProvider, EnvAWSProvider, Provider
from minio.error import MinioException, S3Error

from restoration_cli.errors import CommandError

AWS: Final = "https://s3.amazonaws.com"
SECONDS: Final = urllib3.Timeout(connect=10, read=120)
MISSING: Final = ("NoSuchKey", "NoSuchObject")


@dataclass(frozen=True, kw_only=True)
class Place:
    """An S3 server and the user's way of being known to it. Unset fields come from the environment."""

    endpoint: str | None = None
    region: str | None = None
    aws_profile: str | None = None
    ca_file: Path | None = None


def connect(place: Place) -> Minio:
    """A client. Nothing is asked yet.

    Raises:
        CommandError: the endpoint is no address, or there are no credentials.
    """
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


def parts(uri: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


@contextlib.contextmanager
def refusals(uri: str) -> Iterator[None]:
    """Turn whatever the client raises about an object into one sentence."""
    try:
        yield
    except S3Error as error:
        if error.code in MISSING:
            raise CommandError(f"there is no object {uri} any more, or not at this endpoint") from error
        raise CommandError(f"{uri}: the store says {error.code}: {error.message}") from error
    except (MinioException, urllib3.exceptions.HTTPError, ValueError) as error:
        raise CommandError(f"{uri}: the store cannot be used ({_short(error)})") from error


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
    raise CommandError(f"no credentials for object storage: {where} give none")


def _short(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error)
