"""What only a file system can do wrong."""

import errno
from datetime import timedelta
from pathlib import Path

import pytest

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.storage.file import FileStore
from restoration_runner.storage.store import read_whole


def test_partial_files_of_a_killed_writer_are_not_listed_and_can_be_cleared(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.put("a/out.mp4", b"1")
    (tmp_path / "a" / ".out.mp4.0123.partial").write_bytes(b"half")
    assert [item.key for item in store.list_objects("a/") if "/.vr/" not in item.key] == ["a/out.mp4"]
    assert store.abort_uploads("a/out.mp4", older_than=timedelta(hours=1)) == 0
    assert store.abort_uploads("a/out.mp4", older_than=timedelta(0)) == 1
    assert not list(tmp_path.rglob("*.partial"))


def test_reading_creates_nothing(tmp_path: Path) -> None:
    (tmp_path / "in.mp4").write_bytes(b"1")
    store = FileStore(tmp_path)
    assert store.head("in.mp4") is not None
    assert read_whole(store, "in.mp4") == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_metadata_is_not_believed_for_a_file_that_somebody_replaced(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.put("out.mp4", b"1", metadata={"vr-key": "k"})
    (tmp_path / "out.mp4").write_bytes(b"2")
    found = store.head("out.mp4")
    assert found is not None
    assert found.metadata == {}


def test_no_permission_is_access_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, target: Path) -> None:  # root, who may run these tests, is never refused
        raise PermissionError(errno.EACCES, "Permission denied", str(target))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(RestorationError, match="no permission") as caught:
        FileStore(tmp_path).put("a", b"1")
    assert caught.value.reason is FailureReason.ACCESS_DENIED


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RestorationError, match="file") as caught:
        FileStore(tmp_path).put("file/out.mp4", b"1")
    assert caught.value.reason is FailureReason.STORAGE_ERROR
    assert "\n" not in caught.value.message
