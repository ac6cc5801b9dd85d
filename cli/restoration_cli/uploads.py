"""Local files on their way to object storage."""

import hashlib
from pathlib import Path
from typing import Final

from minio import Minio
from minio.error import S3Error
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from restoration_cli import store
from restoration_cli.errors import CommandError

HASH: Final = "x-amz-meta-sha256"


def upload(path: Path, uri: str, place: store.Place, console: Console) -> str:
    """Put a file where `uri` says, unless it is there already. Returns its sha256.

    Raises:
        CommandError: the file cannot be read, another object lies there, or the store refuses.
    """
    bucket, key = store.parts(uri)
    try:
        with store.refusals(uri), _bar(console) as bar:
            digest = _hash(path, bar)
            client = store.connect(place)
            found = _stored(client, bucket, key)
            if found == digest:
                console.print(f"{uri} is there already", style="dim")
                return digest
            if found is not None:
                raise CommandError(f"another object lies at {uri}; rename the file, or give another --upload-to")
            _send(client, path, (bucket, key), digest, bar)
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror or error}") from error
    return digest


def _send(client: Minio, path: Path, where: tuple[str, str], digest: str, bar: Progress) -> None:
    size_bytes = path.stat().st_size
    with bar.open(path, "rb", description="uploading") as data:
        client.put_object(*where, data, length=size_bytes, metadata={"sha256": digest})


def _hash(path: Path, bar: Progress) -> str:
    with bar.open(path, "rb", description="reading  ") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()  # type: ignore[arg-type]


def _stored(client: Minio, bucket: str, key: str) -> str | None:
    """The hash that an object says it has; "" where it says none, None where there is no object."""
    try:
        return str((client.stat_object(bucket, key).metadata or {}).get(HASH, ""))
    except S3Error as error:
        if error.code in store.MISSING:
            return None
        raise


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)
