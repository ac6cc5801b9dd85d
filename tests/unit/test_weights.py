"""The digest of a model folder, and finding one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.weights.digest import check_digest, folder_digest
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
