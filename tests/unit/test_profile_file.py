"""The built-in default profile: what the chart mounts is judged as strictly as what users apply."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.builders.resources import UNSET, changed, make_profile

from restoration_operator.decide.types import NoProfile, Profile
from restoration_operator.profile_file import BuiltinProfile, ImageFiller

GOOD = make_profile()["spec"]


def builtin(file: Path | None) -> BuiltinProfile:
    return BuiltinProfile(file, ImageFiller("registry.example.com/runner:1", "Always"))


def written(folder: Path, content: Any) -> Path:
    file = folder / "profile.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return file


def test_a_good_file_is_a_profile_with_the_operators_image(tmp_path: Path) -> None:
    profile = builtin(written(tmp_path, GOOD))()
    assert isinstance(profile, Profile)
    assert profile.kind == "Builtin"
    assert profile.spec.image == "registry.example.com/runner:1"
    assert profile.spec.storage[0].name == "media"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (changed(GOOD, {"storage": []}), "defaultProfile.storage"),
        (changed(GOOD, {"storage": UNSET}), "defaultProfile.storage"),
        (changed(GOOD, {"storage.0.allowedInputPrefix": ["s3://a/"]}), "storage[0].allowedInputPrefix: unknown field"),
        (changed(GOOD, {"storage.0.allowedInputPrefixes": ["s3://a"]}), "storage[0].allowedInputPrefixes[0]: "),
        (changed(GOOD, {"model.source": {}}), "model.source: set exactly one of builtin"),
        (changed(GOOD, {"gpu": {"count": "1"}}), "gpu.count: "),
        ("storage: [", "not YAML"),
        ("just text", "defaultProfile.storage"),
        ("", "defaultProfile.storage"),
    ],
    ids=lambda value: str(value)[-60:],
)
def test_a_bad_file_is_one_sentence_about_the_field(tmp_path: Path, content: Any, sentence: str) -> None:
    answer = builtin(written(tmp_path, content))()
    assert isinstance(answer, NoProfile)
    assert answer.reason == "ProfileNotReady"
    assert sentence in answer.message
    assert "\n" not in answer.message


def test_a_file_that_is_not_there_names_itself(tmp_path: Path) -> None:
    answer = builtin(tmp_path / "absent.yaml")()
    assert isinstance(answer, NoProfile)
    assert "absent.yaml" in answer.message


def test_no_file_means_no_profile() -> None:
    answer = builtin(None)()
    assert isinstance(answer, NoProfile)
    assert answer.reason == "ProfileNotFound"


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """The kubelet swaps the file under a running operator when the release is upgraded."""
    file = written(tmp_path, changed(GOOD, {"storage": []}))
    profile = builtin(file)
    assert isinstance(profile(), NoProfile)
    written(tmp_path, GOOD)
    os.utime(file, (1, 1))
    assert isinstance(profile(), Profile)
