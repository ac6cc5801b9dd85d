"""A model folder in a repository of the Hugging Face hub, or of a mirror of it.

The hub's client keeps what it fetches in a cache of its own. Here that cache lies beside the folder that is being
filled, and a file that has arrived is moved out of it: a network is on the disk once.
"""

from dataclasses import replace
from pathlib import Path

from restoration_runner.weights.digest import file_sha256, invalid
from restoration_runner.weights.hub import Hub, fetch, listed_sizes
from restoration_runner.weights.shelf import Item, OnBytes, missing, small_size


class RepositoryShelf:
    """revision: a commit, tag or branch; what it means now is looked up once. folder: inside the repository, or ''."""

    def __init__(self, hub: Hub, repository: str, revision: str, folder: str = "") -> None:
        self._hub = hub
        self._repository = repository
        self._revision = revision
        self._folder = f"{folder.strip('/')}/" if folder.strip("/") else ""
        self._sizes: dict[str, int] | None = None

    def describe(self, name: str) -> str:
        return f"hf://{self._repository}/{self._folder}{name} at {self._hub.address}"

    def read(self, name: str, *, most_bytes: int) -> bytes:
        small_size(self, name, most_bytes=most_bytes)
        return self._fetched(self._hub, name).read_bytes()

    def size_bytes(self, name: str) -> int:
        if self._sizes is None:
            wanted = [f"{self._folder}{suffix}" for suffix in ("*.json", "*.safetensors", "SHA256SUMS")]
            commit, sizes = listed_sizes(self._hub, self._repository, self._revision, wanted)
            self._revision, self._sizes = commit, sizes
        size = self._sizes.get(self._folder + name)
        if size is None:
            raise missing(self.describe(name))
        return size

    def fetch(self, item: Item, target: Path, *, on_bytes: OnBytes) -> None:
        """The client compares with the hub's digest; with the promised one it is compared here."""
        cache = target.parent / ".hub"
        counted = _Counter(on_bytes)
        found = self._fetched(replace(self._hub, cache=cache, on_bytes=counted), item.name)
        on_bytes(item.size_bytes - counted.total)  # small files are the client's own affair
        blob = found.resolve()
        sha256 = blob.name if len(blob.name) == len(item.sha256) else file_sha256(blob)
        if sha256 != item.sha256:
            blob.unlink()
            raise invalid(
                f"{self.describe(item.name)} has the digest {sha256}, not {item.sha256} as SHA256SUMS promises"
            )
        blob.chmod(0o644)
        blob.rename(target)
        found.unlink()

    def _fetched(self, hub: Hub, name: str) -> Path:
        folder = fetch(hub, self._repository, self._revision, [self._folder + name])
        found = folder / self._folder / name
        if not found.is_file():
            raise missing(self.describe(name))
        return found


class _Counter:
    """Passes on what is counted, and knows the sum."""

    def __init__(self, on_bytes: OnBytes) -> None:
        self._on_bytes = on_bytes
        self.total = 0

    def __call__(self, received: int) -> None:
        self.total += received
        self._on_bytes(received)
