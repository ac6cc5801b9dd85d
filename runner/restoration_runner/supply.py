"""A Job's model: which one it is, and its folder when it is needed.

Which one is known early and cheaply, from the pinned digest or the folder's own list: planning reads a description and
no weights. The weights are checked by whoever reads them. Where they have to be fetched first, that goes on beside the
input's download and the look at it.
"""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from restoration_api.outcome import FailureReason
from restoration_api.request import ModelDownload, ModelRequest, Request
from restoration_runner import models
from restoration_runner.errors import RestorationError
from restoration_runner.models.restorer import Capabilities
from restoration_runner.progress import ProgressTracker
from restoration_runner.stopping import InterruptedByRequestError, StopSignal
from restoration_runner.storage.open import open_store
from restoration_runner.weights.bucket import BucketShelf
from restoration_runner.weights.deliver import deliver, is_whole
from restoration_runner.weights.digest import (
    SUMS,
    check_digest,
    check_sums,
    is_described,
    promised_digest,
    read_sums,
)
from restoration_runner.weights.shelf import Promise, Shelf, read_description, read_promise

TOKEN_FOLDER = Path("/var/run/vr/model-token")
TOKEN_KEY = "token"
PAUSE_STEP_SECONDS = 0.5
"""How late a pause may notice a signal."""


class Supply(Protocol):
    """digest, capabilities: known from the beginning. is_fetched: whether the folder has to be filled first."""

    digest: str
    capabilities: Capabilities
    folder: Path
    is_fetched: bool

    def begin(self) -> None:
        """Start what takes long."""
        ...

    @property
    def has_arrived(self) -> bool: ...

    def wait(self) -> None:
        """Until the weights are there.

        Raises:
            RestorationError: `ModelInvalid`, `ModelUnavailable`, and what storage says.
            InterruptedByRequestError: told to stop, or given up.
        """
        ...

    def check(self) -> None:
        """Compare what is there with what was promised, byte for byte.

        Raises:
            RestorationError: `ModelInvalid`; `ModelUnavailable` if its volume cannot be read.
        """
        ...

    def give_up(self) -> None:
        """Nobody needs it any more; returns when nothing is being fetched."""
        ...


def open_supply(request: Request, *, scratch: Path, stop: StopSignal, progress: ProgressTracker) -> Supply:
    """The supply of the request's model. scratch: for a description that is looked at before the model is there.

    Raises:
        RestorationError: what is wrong with the model, as far as that is seen without reading weights.
    """
    model = request.model
    if model.download is None:
        return FolderSupply(Path(model.path), pinned=model.digest)
    if model.digest is None:
        message = "model.digest: weights that are fetched must be pinned; 'video-restoration models verify' prints it"
        raise RestorationError(FailureReason.INVALID_PARAMETERS, message)
    given_up = Stopping(stop)
    shelf = open_shelf(request, model.download, cache=scratch / "hub", pause=given_up.pause)
    supply = DownloadSupply(shelf, model, model.download, model.digest, given_up=given_up, progress=progress)
    supply.describe(scratch)
    return supply


class Stopping:
    """Why fetching may end early: the runner is told to stop, or the work needs no model any more."""

    def __init__(self, stop: StopSignal) -> None:
        self._stop = stop
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def check(self) -> None:
        """Raises:
        InterruptedByRequestError: it is time to stop.
        """
        self._stop.check()
        if self._event.is_set():
            raise InterruptedByRequestError

    def pause(self, seconds: float) -> None:
        """Sleep, and wake up for either."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            self._event.wait(min(left, PAUSE_STEP_SECONDS))
        self.check()


class FolderSupply:
    """A folder that is there: in the image, on a volume."""

    is_fetched = False
    has_arrived = True

    def __init__(self, folder: Path, *, pinned: str | None) -> None:
        self.folder = folder
        self._pinned = pinned
        self.capabilities = models.describe(folder)
        self.digest = pinned or promised_digest(folder)
        self._was_computed = pinned is None and read_sums(folder) is None

    def begin(self) -> None: ...

    def wait(self) -> None: ...

    def check(self) -> None:
        if self._pinned is not None:
            check_digest(self.folder, expected=self._pinned)
        elif not self._was_computed:
            check_sums(self.folder)

    def give_up(self) -> None: ...


class DownloadSupply:
    """A folder that is fetched, unless an earlier runner left it on the volume."""

    is_fetched = True
    capabilities: Capabilities

    def __init__(
        self,
        shelf: Shelf,
        model: ModelRequest,
        download: ModelDownload,
        digest: str,
        *,
        given_up: Stopping,
        progress: ProgressTracker,
    ) -> None:
        self.digest = digest
        self._shelf = shelf
        self.folder = Path(model.path)
        self._download = download
        self._given_up = given_up
        self._progress = progress
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._arrival: Future[None] | None = None
        self._promise: Promise | None = None

    def describe(self, scratch: Path) -> None:
        """Find the capabilities: from the folder if it is on the volume already, else from afar."""
        if self._download.shared and is_described(self.folder, self.digest):
            self.capabilities = models.describe(self.folder)  # the weights are checked before they are used
            return
        self._promise = read_promise(self._shelf, digest=self.digest)
        folder = scratch / "model"
        folder.mkdir(exist_ok=True)
        (folder / "model.json").write_bytes(read_description(self._shelf, self._promise))
        self.capabilities = models.describe(folder)

    def begin(self) -> None:
        if self._arrival is None:
            self._arrival = self._pool.submit(self._deliver)

    @property
    def has_arrived(self) -> bool:
        return self._arrival is not None and self._arrival.done()

    def wait(self) -> None:
        self.begin()
        assert self._arrival is not None
        self._arrival.result()

    def check(self) -> None:
        """It was, while it arrived."""

    def give_up(self) -> None:
        self._given_up.set()
        self._pool.shutdown()

    def _deliver(self) -> None:
        if self._download.shared and is_whole(self.folder, self.digest):
            return
        promise = self._promise or read_promise(self._shelf, digest=self.digest)
        deliver(
            self._shelf,
            promise,
            self.folder,
            most_bytes=self._download.max_bytes,
            on_total=self._progress.model_bytes_expected,
            on_bytes=self._count,
        )

    def _count(self, received: int) -> None:
        self._given_up.check()
        self._progress.model_bytes_received(received)


def open_shelf(request: Request, download: ModelDownload, *, cache: Path, pause: Callable[[float], None]) -> Shelf:
    """Where a download comes from. cache: for what the hub's client keeps of small files. pause: between its tries.

    Raises:
        RestorationError: `InvalidParameters` for an address that is not served; `AccessDenied` without a token that the
            request promises.
    """
    field = "model.source.download.uri"
    scheme, _, rest = download.uri.partition("://")
    if scheme in ("s3", "file"):
        store, key = open_store(f"{download.uri.rstrip('/')}/{SUMS}", download.storage, request, field=field)
        return BucketShelf(store, key.removesuffix(SUMS))
    parts = [part for part in rest.split("/") if part]
    if scheme == "hf" and len(parts) >= 2 and ".." not in parts:
        from restoration_runner.weights.hub import Hub, read_token  # only where it is needed: it takes a moment
        from restoration_runner.weights.repository import RepositoryShelf

        folder = Path(os.environ.get("VR_MODEL_TOKEN_DIR", TOKEN_FOLDER))
        token = read_token(folder / TOKEN_KEY) if download.token else None
        hub = Hub(endpoint=download.endpoint, token=token, cache=cache, pause=pause)
        return RepositoryShelf(hub, "/".join(parts[:2]), download.revision or "main", "/".join(parts[2:]))
    raise RestorationError(
        FailureReason.INVALID_PARAMETERS, f"{field}: {download.uri} is neither s3://bucket/folder nor hf://OWNER/NAME"
    )
