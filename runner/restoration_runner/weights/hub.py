"""Files of a Hugging Face repository, by the hub's own client, kept in its cache.

Three things are added to `snapshot_download`. A large file that was interrupted goes on where it stopped, also in
another process: the client continues only inside one call and starts 33 GB anew after a kill. What arrived is hashed
and compared with the name under which the hub knows it: the client compares sizes only. And a hub that is busy is
asked again, as long as it says when or for a few minutes.

A token is sent to the hub and nowhere else, and is in no message; nor are the signed addresses that the hub gives.
"""

import fcntl
import fnmatch
import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar, cast
from urllib.parse import urlsplit

import httpx
from huggingface_hub import (
    DryRunFileInfo,
    constants,
    get_hf_file_metadata,
    get_token,
    hf_hub_url,
    snapshot_download,
)
from huggingface_hub.errors import (
    DryRunError,
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # documented there, not in __all__
    build_hf_headers,
    disable_progress_bars,
    enable_progress_bars,
    logging,
)

from restoration_api.outcome import FailureReason
from restoration_runner import secrets
from restoration_runner.errors import RestorationError

RESUMABLE_BYTES = 32 << 20
"""Smaller files are fetched anew after an interruption: it takes seconds."""
WAITS_SECONDS = (1, 4, 15, 60)
"""Between the tries, where the hub does not say how long; beyond that, a Job's own retries are the better place."""
LONGEST_WAIT_SECONDS = 300
BUSY = (408, 429, 500, 502, 503, 504)

Pause = Callable[[float], None]
OnBytes = Callable[[int], None]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Hub:
    """endpoint: a mirror's address; unset means `HF_ENDPOINT`, else huggingface.co. offline: the cache only.

    on_bytes: told of every piece of a large file; may raise to stop.
    """

    endpoint: str | None = None
    token: str | None = field(default=None, repr=False)
    cache: Path | None = None
    offline: bool = False
    pause: Pause = time.sleep
    on_bytes: OnBytes = field(default=lambda received: None, repr=False)

    @property
    def address(self) -> str:
        return (self.endpoint or constants.ENDPOINT).rstrip("/")

    @property
    def folder(self) -> Path:
        return self.cache or Path(constants.HF_HUB_CACHE)


def read_token(file: Path | None) -> str | None:
    """The token of a file, of `HF_TOKEN`, or of the hub's own login; none if there is none.

    Raises:
        RestorationError: `AccessDenied` if the file cannot be read or holds no token.
    """
    if file is None:
        found = get_token()
        secrets.learn(found)
        return found
    try:
        token = file.read_text().strip()
        secrets.learn(token)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise RestorationError(FailureReason.ACCESS_DENIED, f"the token file {file} cannot be read: {why}") from error
    if not re.fullmatch(r"[!-~]+", token):
        raise RestorationError(FailureReason.ACCESS_DENIED, f"the token file {file} does not hold exactly one token")
    return token


def fetch(hub: Hub, repository: str, revision: str, patterns: Sequence[str]) -> Path:
    """The folder, in the hub's cache, with the files of `repository` that match; its name is the commit.

    Raises:
        RestorationError: `AccessDenied`, `ModelInvalid` (no such repository, revision or file; other bytes than the
            hub promises), `ModelUnavailable` (down, busy, unreachable; or not in the cache where that is all).
    """
    return _patiently(hub, repository, revision, patterns, lambda: _fetch(hub, repository, revision, list(patterns)))


def listed_sizes(hub: Hub, repository: str, revision: str, patterns: Sequence[str]) -> tuple[str, dict[str, int]]:
    """The commit that `revision` is now, and the sizes in bytes of its files that match; nothing is fetched.

    Raises:
        RestorationError: as `fetch`.
    """
    plan = _patiently(hub, repository, revision, patterns, lambda: _plan(hub, repository, revision, list(patterns)))
    if not plan:
        raise _invalid(f"hf://{repository}@{revision}: {hub.address} has no {' or '.join(patterns)} there")
    return plan[0].commit_hash, {file.filename: file.file_size or 0 for file in plan}


def _patiently(hub: Hub, repository: str, revision: str, patterns: Sequence[str], work: Callable[[], T]) -> T:
    """Do it, again where the hub is busy; whatever ends it is said in our words."""
    _quiet()
    what = f"hf://{repository}@{revision}"
    for wait in (*WAITS_SECONDS, None):
        try:
            return work()
        except (HfHubHTTPError, httpx.HTTPError, OSError, DryRunError, EntryNotFoundError, HFValidationError) as error:
            if wait is None or hub.offline or not _passing(error):
                _fail(error, hub, what, patterns)
            hub.pause(_asked_wait(error) or wait)
    raise AssertionError("the last try ends the loop")


def _fetch(hub: Hub, repository: str, revision: str, patterns: list[str]) -> Path:
    if not hub.offline:
        _resume_large(hub, repository, revision, patterns)
    folder = Path(
        snapshot_download(
            repository,
            revision=revision,
            cache_dir=hub.folder,
            token=hub.token or False,
            local_files_only=hub.offline,
            allow_patterns=patterns,
            endpoint=hub.endpoint,
        )
    )
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            check_blob(path)
    return folder


def _plan(hub: Hub, repository: str, revision: str, patterns: list[str]) -> list[DryRunFileInfo]:
    """What would be fetched, from a listing of the commit."""
    return snapshot_download(
        repository,
        revision=revision,
        cache_dir=hub.folder,
        token=hub.token or False,
        allow_patterns=patterns,
        endpoint=hub.endpoint,
        dry_run=True,
    )


def _resume_large(hub: Hub, repository: str, revision: str, patterns: list[str]) -> None:
    try:
        plan = _plan(hub, repository, revision, patterns)
    except DryRunError:
        return  # the hub cannot be asked; perhaps everything is in the cache
    for file in plan:
        if file.will_download and (file.file_size or 0) >= RESUMABLE_BYTES:
            _resume(hub, repository, file)


def _resume(hub: Hub, repository: str, file: DryRunFileInfo) -> None:
    """Put one file into the cache, going on with what an earlier process got of it."""
    url = hf_hub_url(repository, file.filename, revision=file.commit_hash, endpoint=hub.endpoint)
    facts = get_hf_file_metadata(url, token=hub.token or False, endpoint=hub.endpoint)
    if not facts.etag or not facts.size:
        return  # no name in the cache: left to the client, which says what is wrong
    blob = hub.folder / repo_folder_name(repo_id=repository, repo_type="model") / "blobs" / facts.etag
    blob.parent.mkdir(parents=True, exist_ok=True)
    partial = blob.with_name(f"{facts.etag}.resumable")
    partial.touch()
    with partial.open("r+b") as target:  # not appended: who is late writes the same bytes to the same places
        fcntl.flock(target, fcntl.LOCK_EX)  # another process may be fetching the same
        if blob.exists():
            partial.unlink(missing_ok=True)
            return
        if target.seek(0, os.SEEK_END) > facts.size:
            target.truncate(0)
        hub.on_bytes(target.seek(0, os.SEEK_END))
        http_get(
            facts.location,
            cast(BinaryIO, _Counted(target, hub.on_bytes)),
            resume_size=target.seek(0, os.SEEK_END),
            headers=_headers(hub, url, facts.location),
            expected_size=facts.size,
        )
        target.flush()
        os.fsync(target.fileno())
        partial.rename(blob)


class _Counted:
    """A file that says what is written to it."""

    def __init__(self, file: BinaryIO, on_bytes: OnBytes) -> None:
        self._file = file
        self._on_bytes = on_bytes

    def write(self, data: bytes) -> int:
        written = self._file.write(data)
        self._on_bytes(written)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _headers(hub: Hub, url: str, location: str) -> dict[str, str]:
    """Large files lie at another host's signed address, which is to see no token."""
    hosts = {urlsplit(url).hostname, urlsplit(constants.ENDPOINT).hostname}
    token = hub.token or False if urlsplit(location).hostname in hosts else False
    headers = dict(build_hf_headers(token=token))
    headers["Accept-Encoding"] = "identity"  # sizes and ranges are those of the file
    return headers


def check_blob(path: Path) -> None:
    """Compare a file of the cache with its name there: SHA-256 of a large file, git's own hash of a small one.

    Raises:
        RestorationError: `ModelInvalid`; the file is removed, so that another try fetches it again.
    """
    blob = path.resolve()
    with blob.open("rb") as file:
        if re.fullmatch(r"[0-9a-f]{64}", blob.name):
            found = hashlib.file_digest(file, "sha256").hexdigest()
        elif re.fullmatch(r"[0-9a-f]{40}", blob.name):
            size_bytes = blob.stat().st_size
            found = hashlib.sha1(b"blob %d\0" % size_bytes + file.read(), usedforsecurity=False).hexdigest()
        else:
            raise _invalid(f"{path.name}: the hub names it '{blob.name[:64]}', which is no digest to check it by")
    if found != blob.name:
        blob.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise _invalid(
            f"{path.name} arrived with the digest {found}, not {blob.name} as the hub promises; it was removed, "
            "pull again, and check the mirror if it happens again"
        )


def _passing(error: BaseException) -> bool:
    """Whether another try may go better: the hub is busy or restarting, or a connection broke."""
    for one in _chain(error):
        if isinstance(one, HfHubHTTPError):
            return one.response.status_code in BUSY
        if isinstance(one, httpx.TransportError):
            return True
        if isinstance(one, OSError) and "Consistency check failed" in str(one):
            return True  # fewer bytes than promised
    return False


def _chain(error: BaseException | None) -> list[BaseException]:
    """The client wraps what happened; the innermost error tells most, and comes last."""
    found = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _asked_wait(error: BaseException) -> float | None:
    for one in _chain(error):
        if isinstance(one, HfHubHTTPError):
            seconds = one.response.headers.get("Retry-After", "")
            return min(float(seconds), LONGEST_WAIT_SECONDS) if seconds.isdecimal() else None
    return None


def _fail(error: BaseException, hub: Hub, what: str, patterns: Sequence[str]) -> NoReturn:
    """Say what happened in our words: the client's carry addresses that may be signed."""
    chain = _chain(error)
    http = next((one for one in chain if isinstance(one, HfHubHTTPError)), None)
    if any(isinstance(one, HFValidationError) for one in chain):
        raise RestorationError(
            FailureReason.INVALID_PARAMETERS, f"{what}: that is no repository's name; write OWNER/NAME"
        ) from error
    if http is not None:
        raise _refused(http, hub, what) from error
    if any(isinstance(one, httpx.TransportError) for one in chain):
        kind = next(type(one).__name__ for one in chain if isinstance(one, httpx.TransportError))
        raise _unavailable(f"{hub.address} cannot be reached or breaks off ({kind}), asked for {what}") from error
    if any(isinstance(one, LocalEntryNotFoundError | OfflineModeIsEnabled) for one in chain):
        names = ", ".join(patterns)
        raise _unavailable(f"{what} ({names}) is not complete in {hub.folder}, and fetching is switched off") from error
    if any(isinstance(one, FileMetadataError) for one in chain):
        raise _unavailable(f"{hub.address} does not answer as a Hugging Face hub does, asked for {what}") from error
    if any(isinstance(one, OSError) and "Consistency check failed" in str(one) for one in chain):
        raise _unavailable(f"{hub.address} sends fewer bytes than it promises, asked for {what}") from error
    raise error


def _refused(error: HfHubHTTPError, hub: Hub, what: str) -> RestorationError:
    status = error.response.status_code
    token = "the token may not read it" if hub.token else "no token was given (--token-file, HF_TOKEN)"
    if isinstance(error, GatedRepoError) or status == 403:
        return RestorationError(
            FailureReason.ACCESS_DENIED, f"{what}: {hub.address} refuses access (accept its terms there); {token}"
        )
    if isinstance(error, RevisionNotFoundError):
        return _invalid(f"{what}: {hub.address} has no such revision")
    if status == 401:
        return RestorationError(
            FailureReason.ACCESS_DENIED, f"{what}: {hub.address} has no such repository to show; {token}"
        )
    if isinstance(error, RepositoryNotFoundError | EntryNotFoundError) or status == 404:
        return _invalid(f"{what}: {hub.address} has no such repository or file")
    return _unavailable(f"{hub.address} answers {status}, asked for {what}")


def _invalid(message: str) -> RestorationError:
    return RestorationError(FailureReason.MODEL_INVALID, message)


def _unavailable(message: str) -> RestorationError:
    return RestorationError(FailureReason.MODEL_UNAVAILABLE, message)


def _quiet() -> None:
    """The client's warnings carry addresses that may be signed; its bars are for people."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    if sys.stderr.isatty():
        enable_progress_bars()
    else:
        disable_progress_bars()
