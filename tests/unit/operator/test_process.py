"""Settings, and what somebody reads who started the operator wrongly."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from restoration_operator.settings import Settings, flag


def test_namespaces_are_a_comma_separated_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VR_RUNNER_IMAGE", "runner:1")
    monkeypatch.setenv("VR_WATCH_NAMESPACES", "studio-a, studio-b,")
    settings = Settings()  # type: ignore[call-arg]
    assert settings.watch_namespaces == ("studio-a", "studio-b")
    assert not settings.cluster_wide


def test_all_namespaces_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VR_RUNNER_IMAGE", "runner:1")
    monkeypatch.setenv("VR_WATCH_NAMESPACES", "")
    assert Settings().cluster_wide  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("variable", "value"), [("VR_WORKERS", "0"), ("VR_LOG_FORMAT", "xml"), ("VR_RUNNER_IMAGE", "")]
)
def test_a_wrong_value_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv("VR_RUNNER_IMAGE", "runner:1")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError):
        Settings()  # type: ignore[call-arg]


def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VR_RUNNER_IMAGE", "runner:1")
    monkeypatch.setenv("VR_WORKERS", "2")
    flags = ["--workers=3", "--no-cluster-profiles", "--watch-namespaces", "studio-a,studio-b"]
    settings = Settings.from_arguments(flags)
    assert (settings.runner_image, settings.workers, settings.cluster_profiles) == ("runner:1", 3, False)
    assert settings.watch_namespaces == ("studio-a", "studio-b")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_a_flag_and_says_why_it_is_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Settings.from_arguments(["--help"])
    assert flag(name) in capsys.readouterr().out
    description = Settings.model_fields[name].description or ""
    assert len(description) > 30


def run(environment: dict[str, str], *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-m", "restoration_operator"],
        env={"PATH": "/usr/bin", "HOME": "/nonexistent", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "VR_RUNNER_IMAGE (--runner-image) is required"),
        (
            {"VR_RUNNER_IMAGE": "runner:1", "VR_WORKERS": "many"},
            "VR_WORKERS (--workers) is wrong: Input should be a valid integer",
        ),
        ({"VR_RUNNER_IMAGE": "runner:1"}, "no Kubernetes cluster"),
    ],
    ids=["nothing set", "wrong value", "no cluster"],
)
def test_a_wrong_start_is_one_sentence(environment: dict[str, str], sentence: str) -> None:
    result = run(environment)
    assert result.returncode == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_extra_is_one_sentence() -> None:
    program = "import sys; sys.modules['kopf'] = None; from restoration_operator.__main__ import main; main()"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert "pip install 'video-restoration[operator]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_operator_needs_no_runner_library() -> None:
    """Its image has no torch: an import of one would only be noticed there."""
    program = (
        "import sys, restoration_operator.main; "
        "print(*sorted(name for name in ('torch', 'av', 'numpy', 'minio') if name in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout.strip() == ""
