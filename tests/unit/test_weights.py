"""The digest of a model folder, and finding one."""

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.weights import digest as digest_module
from restoration_runner.weights.digest import check_digest, check_sums, folder_digest, promised_digest, write_sums
from restoration_runner.weights.source import find_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("model.json", "dit.safetensors", "vae.safetensors"):
        (folder / name).write_text(name)
    return folder


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (write("README.md", "words"), True),
        (write("model.json", "model.json"), True),
        (write("model.json", "other"), False),
        (write("dit.safetensors", "other"), False),
        (write("more.safetensors", "new"), False),
        (lambda folder: (folder / "dit.safetensors").rename(folder / "d.safetensors"), False),
    ],
)
def test_the_digest_covers_what_the_engine_reads(folder: Path, change: Callable[[Path], object], same: bool) -> None:
    before = folder_digest(folder)
    change(folder)
    assert (folder_digest(folder) == before) is same


def test_the_digest_is_a_fixed_function(folder: Path) -> None:
    """Pinned in profiles: it must not change between versions."""
    assert folder_digest(folder) == "sha256:46bc5b45a50cb56601a2089a8a43fa600698adcbc1a05507310a25fd0889aef0"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "model.json").unlink(), "no model.json"),
        (write("dit.pt", "pickle"), "pickle"),
        (write("pytorch_model.bin", "pickle"), "pickle"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(folder: Path, spoil: Callable[[Path], object], says: str) -> None:
    spoil(folder)
    with pytest.raises(RestorationError, match=says) as caught:
        folder_digest(folder)
    assert caught.value.reason is FailureReason.MODEL_INVALID


def test_a_pinned_digest_is_compared(folder: Path) -> None:
    assert check_digest(folder, expected=folder_digest(folder)) == check_digest(folder, expected=None)
    with pytest.raises(RestorationError, match=r"model\.digest") as caught:
        check_digest(folder, expected="sha256:0")
    assert caught.value.exit_code == 17


def test_a_model_is_found_by_path_or_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_model(str(folder)) == folder
    monkeypatch.setenv("VR_MODELS_DIR", str(folder.parent))
    assert find_model("model") == folder
    with pytest.raises(RestorationError, match="there is no model 'other'"):
        find_model("other")


# A folder of a volume or an image, whose list stands for its weights until they are read.


def with_list(folder: Path) -> str:
    digest = write_sums(folder)
    assert digest == folder_digest(folder)
    return digest


def test_the_list_names_the_weights_without_reading_them(folder: Path) -> None:
    digest = with_list(folder)
    (folder / "dit.safetensors").write_text("rotten, and nobody reads it")
    assert promised_digest(folder) == digest
    with pytest.raises(RestorationError, match=r"changed: dit\.safetensors"):
        check_sums(folder)


def test_without_a_list_the_weights_are_read(folder: Path) -> None:
    assert promised_digest(folder) == folder_digest(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / "vae.safetensors").unlink(), r"missing: vae\.safetensors"),
        (write("more.safetensors", "new"), r"not listed: more\.safetensors"),
        (write("dit.pth", "pickle"), r"dit\.pth is a pickle"),
        (write("SHA256SUMS", "../x"), "no line of sha256sum"),
    ],
)
def test_what_is_seen_of_a_wrong_folder_is_said_at_once(
    folder: Path, change: Callable[[Path], object], says: str
) -> None:
    with_list(folder)
    change(folder)
    with pytest.raises(RestorationError, match=says) as caught:
        promised_digest(folder)
    assert caught.value.reason is FailureReason.MODEL_INVALID


@pytest.mark.parametrize(
    ("number", "reason", "says"),
    [
        (errno.EACCES, FailureReason.MODEL_INVALID, "may not be read by user"),
        (errno.EIO, FailureReason.MODEL_UNAVAILABLE, "Input/output error; check the volume"),
        (errno.ESTALE, FailureReason.MODEL_UNAVAILABLE, "Stale file handle"),
    ],
)
def test_a_volume_that_fails_may_be_well_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: FailureReason, says: str
) -> None:
    def fail(path: Path) -> str:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(digest_module, "file_sha256", fail)
    with pytest.raises(RestorationError, match=says) as caught:
        folder_digest(folder)
    assert caught.value.reason is reason


@pytest.mark.parametrize("size_bytes", [0, 1, 7, 8, 9, 16, 17, 50])
def test_a_file_s_digest_is_of_all_its_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int) -> None:
    monkeypatch.setattr(digest_module, "PIECE_BYTES", 8)
    content = bytes(range(size_bytes))
    (tmp_path / "file").write_bytes(content)
    assert digest_module.file_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
