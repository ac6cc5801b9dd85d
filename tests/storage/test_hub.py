"""Pulling with the hub's own client from a server that speaks its protocol: resumed, checked, never half there."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from click.testing import Result
from tests.builders.checkpoints import published
from tests.builders.hub import COMMIT, SIGNATURE, TOKEN, HubServer, Repository, hub
from tests.builders.models import write_tiny_model
from typer.testing import CliRunner

from restoration_api.outcome import FailureReason
from restoration_runner.cli import app
from restoration_runner.errors import RestorationError
from restoration_runner.weights import hub as hub_module
from restoration_runner.weights import pull as pull_module
from restoration_runner.weights.catalogue import HubFile, KnownModel
from restoration_runner.weights.digest import check_sums, folder_digest
from restoration_runner.weights.hub import Hub, fetch, read_token
from restoration_runner.weights.pull import pull_folder, pull_known

NAME = "someone/tiny"
LARGE = bytes(range(256)) * 400


@dataclass
class Client:
    """A hub's client with a cache of its own, that notes how long it would have waited."""

    server: HubServer
    hub: Hub
    waited: list[float] = field(default_factory=list)

    def fetch(self, *patterns: str, revision: str = "main") -> Path:
        return fetch(self.hub, NAME, revision, patterns or ("*",))

    def changed(self, **changes: object) -> "Client":
        return Client(self.server, replace(self.hub, **changes), self.waited)  # type: ignore[arg-type]


@pytest.fixture
def repository() -> Repository:
    return Repository({"config.json": b"{}", "large.bin": LARGE, "sub/other.txt": b"text", "README.md": b"# Tiny"})


@pytest.fixture
def client(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(hub_module, "RESUMABLE_BYTES", 2000)
    monkeypatch.setattr(hub_module.constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # what the client may lose: else 10 MB
    with hub({NAME: repository}) as server:
        found = Client(server, Hub(endpoint=server.endpoint, cache=tmp_path / "cache"))
        yield found.changed(pause=found.waited.append)


def reason(caught: "pytest.ExceptionInfo[RestorationError]") -> FailureReason:
    return caught.value.reason


def test_files_arrive_whole_under_their_commit(client: Client, repository: Repository) -> None:
    folder = client.fetch()
    assert folder.name == COMMIT
    assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == repository.files


def test_only_what_was_asked_for_is_fetched(client: Client) -> None:
    folder = client.fetch("*.json")
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert not client.server.bodies("large.bin")


def test_the_second_time_nothing_is_fetched_even_if_the_hub_is_down(client: Client) -> None:
    client.fetch()
    before = len(client.server.seen)
    assert client.fetch(revision=COMMIT).is_dir()
    assert len(client.server.seen) == before  # a commit cannot change, so nobody is asked
    down = client.changed(endpoint="http://127.0.0.1:9")
    assert down.fetch(revision=COMMIT).is_dir()
    assert down.fetch().is_dir()


def test_offline_is_the_cache_or_a_sentence(client: Client) -> None:
    offline = client.changed(offline=True)
    with pytest.raises(RestorationError, match=r"not complete in .*cache.* switched off") as caught:
        offline.fetch()
    assert reason(caught) is FailureReason.MODEL_UNAVAILABLE
    client.fetch("*.json")
    with pytest.raises(RestorationError, match="not complete"):
        offline.fetch("large.bin")
    client.fetch()
    seen = len(client.server.seen)
    assert (offline.fetch() / "large.bin").read_bytes() == LARGE
    assert len(client.server.seen) == seen


def test_a_cut_connection_is_continued_where_it_was_cut(client: Client) -> None:
    client.server.faults.cut_after, client.server.faults.cuts = 30_000, 2
    assert (client.fetch() / "large.bin").read_bytes() == LARGE
    bodies = client.server.bodies("large.bin")
    assert [body.range for body in bodies] == [None, "bytes=30000-", "bytes=60000-"]
    assert sum(body.sent for body in bodies) == len(LARGE)


def test_a_killed_process_is_continued_by_another(client: Client, tmp_path: Path) -> None:
    """SIGKILL while the large file arrives: the next process asks for the rest only."""
    program = (
        "import sys, threading, time; from pathlib import Path\n"
        "from restoration_runner.weights import hub\n"
        "hub.RESUMABLE_BYTES = 2000\n"
        "hub.constants.DOWNLOAD_CHUNK_SIZE = 10_000\n"
        "time.sleep = lambda _: threading.Event().wait()\n"  # after the cut, the client pauses: for ever
        "hub.fetch(hub.Hub(endpoint=sys.argv[1], cache=Path(sys.argv[2])), sys.argv[3], 'main', ['*'])\n"
    )
    client.server.faults.cut_after, client.server.faults.cuts = 70_000, 1
    arguments = [client.server.endpoint, str(client.hub.cache), NAME]
    process = subprocess.Popen([sys.executable, "-c", program, *arguments])
    partial = client.hub.folder / "models--someone--tiny" / "blobs" / f"{hashlib.sha256(LARGE).hexdigest()}.resumable"
    while not (partial.exists() and partial.stat().st_size == 70_000):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (client.fetch() / "large.bin").read_bytes() == LARGE
    assert [body.range for body in client.server.bodies("large.bin")] == [None, "bytes=70000-"]
    assert not list(client.hub.folder.rglob("*.resumable"))


def test_other_bytes_are_refused_removed_and_fetched_again(client: Client) -> None:
    client.server.faults.other_bytes = True
    with pytest.raises(RestorationError, match=r"large\.bin arrived with the digest [0-9a-f]{64}, not") as caught:
        client.fetch()
    assert reason(caught) is FailureReason.MODEL_INVALID
    client.server.faults.other_bytes = False
    assert (client.fetch() / "large.bin").read_bytes() == LARGE


def test_a_file_of_the_cache_that_rotted_is_found(client: Client) -> None:
    for name in ("large.bin", "config.json"):
        path = client.fetch() / name
        data = bytearray(path.read_bytes())
        data[0] ^= 1
        path.resolve().write_bytes(data)
        with pytest.raises(RestorationError, match=rf"{name} arrived with the digest"):
            client.fetch()
        assert client.fetch()


REFUSALS: list[tuple[str, dict[str, object], str, FailureReason, str]] = [
    ("no such repository", {"token": True}, "main", FailureReason.ACCESS_DENIED, "no token was given"),
    ("terms", {"gated": True}, "main", FailureReason.ACCESS_DENIED, "accept its terms"),
    ("no such revision", {}, "v9", FailureReason.MODEL_INVALID, "no such revision"),
    ("no such commit", {}, "f" * 40, FailureReason.MODEL_INVALID, "no such revision"),
]


@pytest.mark.parametrize(
    ("changes", "revision", "why", "says"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS]
)
def test_refusals_name_the_repository_and_the_way_out(
    changes: dict[str, object],
    revision: str,
    why: FailureReason,
    says: str,
    client: Client,
    repository: Repository,
) -> None:
    for name, value in changes.items():
        setattr(repository, name, value)
    with pytest.raises(RestorationError) as caught:
        client.fetch(revision=revision)
    assert reason(caught) is why
    assert says in caught.value.message
    assert f"hf://{NAME}@{revision}" in caught.value.message
    assert client.waited == []  # asking again would not help


@pytest.mark.parametrize(("status", "why"), [(401, FailureReason.ACCESS_DENIED), (403, FailureReason.ACCESS_DENIED)])
def test_a_bare_refusal(status: int, why: FailureReason, client: Client) -> None:
    client.server.faults.statuses, client.server.faults.path = [status] * 20, "/api/"
    with pytest.raises(RestorationError) as caught:
        client.fetch()
    assert reason(caught) is why


def test_a_busy_hub_is_asked_again_when_it_says(client: Client) -> None:
    client.server.faults.statuses, client.server.faults.path = [429, 429], "/api/"
    client.server.faults.retry_after = "7"
    assert client.fetch().is_dir()
    assert client.waited == [7.0]  # the dry run and the run itself each met one


def test_a_hub_that_stays_down_ends_in_a_sentence(client: Client) -> None:
    client.server.faults.statuses, client.server.faults.path = [503] * 100, "/api/"
    with pytest.raises(RestorationError, match=r"answers 503, asked for hf://someone/tiny@main") as caught:
        client.fetch()
    assert reason(caught) is FailureReason.MODEL_UNAVAILABLE
    assert client.waited == list(hub_module.WAITS_SECONDS)


def test_nobody_listens(client: Client) -> None:
    nowhere = client.changed(endpoint="http://127.0.0.1:9")
    with pytest.raises(RestorationError, match=r"127\.0\.0\.1:9 cannot be reached or breaks off \(ConnectError\)") as c:
        nowhere.fetch()
    assert reason(c) is FailureReason.MODEL_UNAVAILABLE


def test_a_server_that_is_no_hub(client: Client, repository: Repository) -> None:
    client.server.repositories = {}  # type: ignore[misc]
    with pytest.raises(RestorationError) as caught:
        client.fetch()
    assert reason(caught) in (FailureReason.ACCESS_DENIED, FailureReason.MODEL_INVALID)


@pytest.mark.parametrize("name", ["", "a/b/c", "../up", "a b/c"])
def test_names_that_are_none(name: str, client: Client) -> None:
    with pytest.raises(RestorationError, match="OWNER/NAME") as caught:
        fetch(client.hub, name, "main", ["*"])
    assert reason(caught) is FailureReason.INVALID_PARAMETERS


def test_the_token_goes_to_the_hub_and_nowhere_else(
    client: Client, repository: Repository, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    repository.token = True
    secret = tmp_path / "token"
    secret.write_text(TOKEN + "\n")
    known = client.changed(token=read_token(secret))
    client.server.faults.cut_after, client.server.faults.cuts = 10, 1
    known.fetch()
    assert {one.authorized for one in client.server.seen if one.host == "127.0.0.1"} == {True}
    assert {one.authorized for one in client.server.seen if one.host == "localhost"} == {False}
    said = "".join(capfd.readouterr()) + repr(known.hub)
    assert TOKEN not in said
    assert SIGNATURE not in said


@pytest.mark.parametrize("content", [b"", b"two words", b"\xff\xfe", None])
def test_token_files_that_hold_none(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RestorationError, match="token file") as caught:
        read_token(path)
    assert reason(caught) is FailureReason.ACCESS_DENIED
    assert "two words" not in caught.value.message


# --- whole models -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder_repository(repository: Repository, tmp_path: Path) -> Path:
    """The repository is a model folder."""
    folder = write_tiny_model(tmp_path / "origin")
    repository.files.clear()
    repository.files.update({path.name: path.read_bytes() for path in folder.iterdir()})
    return folder


def test_a_model_folder_is_copied_and_summed(client: Client, folder_repository: Path, tmp_path: Path) -> None:
    digest = pull_folder(client.hub, NAME, "main", tmp_path / "models" / "mine")
    assert digest == folder_digest(folder_repository)
    assert check_sums(tmp_path / "models" / "mine") == (digest, True)


def spoil_digest(files: dict[str, bytes]) -> None:
    files["SHA256SUMS"] = f"{'0' * 64}  model.json\n".encode()


def spoil_weights(files: dict[str, bytes]) -> None:
    files["vae.safetensors"] = files["dit.safetensors"]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda files: files.pop("text.safetensors"), "has no text.safetensors"),
        (spoil_digest, "not what SHA256SUMS promises"),
        (spoil_weights, "vae.safetensors does not hold"),
    ],
)
def test_a_folder_that_is_no_model_leaves_nothing(
    spoil: Callable[[dict[str, bytes]], object],
    says: str,
    client: Client,
    repository: Repository,
    folder_repository: Path,
    tmp_path: Path,
) -> None:
    spoil(repository.files)
    with pytest.raises(RestorationError, match=says) as caught:
        pull_folder(client.hub, NAME, "main", tmp_path / "models" / "mine")
    assert reason(caught) is FailureReason.MODEL_INVALID
    assert not list((tmp_path / "models").glob("*")) and not list((tmp_path / "models").glob(".*"))


def test_another_digest_than_asked_for(client: Client, folder_repository: Path, tmp_path: Path) -> None:
    with pytest.raises(RestorationError, match="--digest"):
        pull_folder(client.hub, NAME, "main", tmp_path / "mine", digest="sha256:" + "0" * 64)
    assert not (tmp_path / "mine").exists()


@pytest.fixture
def known(client: Client, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownModel:
    """A catalogue's entry of tiny official files."""
    model = published("dit7b")
    paths = model.write_official(tmp_path / "released")
    repository.files.clear()
    repository.files.update({path.name: path.read_bytes() for path in paths.values()})
    files = {
        part: HubFile(NAME, COMMIT, path.name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for part, path in paths.items()
    }
    monkeypatch.setattr(pull_module, "released_description", lambda name, architecture: model.description)
    return KnownModel(name="tiny", architecture="seedvr2-7b", summary="A tiny one", **files)


def test_a_known_model_is_fetched_checked_and_converted(client: Client, known: KnownModel, tmp_path: Path) -> None:
    digest = pull_known(client.hub, known, tmp_path / "models" / "tiny")
    assert check_sums(tmp_path / "models" / "tiny") == (digest, True)
    card = (tmp_path / "models" / "tiny" / "README.md").read_text()
    assert COMMIT in card and known.dit.sha256 in card
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["tiny"]


def test_a_mirror_with_other_weights_is_found_out(client: Client, known: KnownModel, tmp_path: Path) -> None:
    """The mirror's own digests agree with its files; the catalogue's do not."""
    other = replace(known, vae=replace(known.vae, sha256="0" * 64))
    with pytest.raises(RestorationError, match=r"ema_vae\.pth has the digest [0-9a-f]{64}, not 0000") as caught:
        pull_known(client.hub, other, tmp_path / "models" / "tiny")
    assert reason(caught) is FailureReason.MODEL_INVALID
    assert not (tmp_path / "models").exists()


def test_the_command_takes_mirror_and_token_from_the_environment(
    client: Client, repository: Repository, folder_repository: Path, tmp_path: Path
) -> None:
    """As a user runs it."""
    repository.token = True
    environment = {
        **os.environ,
        "HF_ENDPOINT": client.server.endpoint,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "home"),
        "VR_MODELS_DIR": str(tmp_path / "models"),
    }
    command = [sys.executable, "-m", "restoration_runner", "models", "pull", f"hf://{NAME}@{COMMIT}"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'models' / 'tiny'}  {folder_digest(folder_repository)}\n"
    assert TOKEN not in done.stderr


@pytest.fixture
def pull(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("VR_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))

    def invoke(*arguments: str | Path) -> Result:
        fixed = ("--endpoint", client.server.endpoint, "--cache-dir", str(client.hub.cache))
        return CliRunner().invoke(app, ["models", "pull", *map(str, arguments), *fixed])

    return invoke


def test_pulling_twice_fetches_once(
    pull: Callable[..., Result], client: Client, folder_repository: Path, tmp_path: Path
) -> None:
    first = pull(NAME)
    assert first.exit_code == 0, first.stderr
    seen = len(client.server.seen)
    again = pull(NAME, "--digest", folder_digest(folder_repository))
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    assert "nothing was fetched" in again.stderr
    other = pull(NAME, "--digest", "sha256:" + "0" * 64)
    assert other.exit_code == 17
    assert "remove it first" in other.stderr
    assert pull(NAME, "--to", tmp_path / "second", "--offline").exit_code == 0
    assert len(client.server.seen) == seen


WRONG: list[tuple[str, list[str], int, str]] = [
    ("no model", ["seedvr2-9b"], 11, "seedvr2-7b-sharp"),
    ("two revisions", [f"{NAME}@v1", "--revision", "v2"], 11, "no OWNER/NAME"),
    ("a known model is pinned", ["seedvr2-3b", "--revision", "main"], 11, "37255ff8cccfb01071b87f635a5948ca8d53117c"),
    ("precision of a folder", [NAME, "--precision", "BF16"], 11, "copied as it is"),
    ("no such token file", [NAME, "--token-file", "/nowhere"], 13, "/nowhere cannot be read"),
    ("not a model folder", [NAME], 17, "has no model.json"),
    ("not in the cache", [NAME, "--offline"], 22, "not complete"),
    ("no such repository", ["someone/else"], 13, "no token was given"),
]


@pytest.mark.parametrize(("arguments", "code", "says"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_use_is_one_sentence(
    arguments: list[str], code: int, says: str, pull: Callable[..., Result], tmp_path: Path
) -> None:
    done = pull(*arguments)
    assert done.exit_code == code, done.stderr
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "models").exists()
