"""The files of a release: they say which release they are, name images exactly, and are the same each time."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml
from hack.chart.paths import CHART
from hack.cluster.binaries import ACTIONLINT
from hack.cluster.console import SILENT
from hack.cluster.errors import ClusterError
from hack.cluster.images import FILES_DATE
from hack.cluster.paths import CHECKOUT
from hack.release.__main__ import check_versions, pushed_images
from hack.release.chart import package, released_chart

IMAGES = {
    "operator": "registry.example/me/operator@sha256:" + "ab" * 32,
    "runner": "registry.example:5000/me/runner@sha256:" + "cd" * 32,
}


@pytest.mark.parametrize(
    ("tag", "app", "complaint"),
    [
        ("", "1.2.3", None),
        ("v1.2.3", "1.2.3", None),
        ("v1.2.4", "1.2.3", "must be v1.2.3"),
        ("1.2.3", "1.2.3", "must be v1.2.3"),
        ("v1.2.3", "1.2.2", "must be equal"),
    ],
)
def test_a_tag_fits_what_is_released(tag: str, app: str, complaint: str | None) -> None:
    if complaint is None:
        check_versions(tag, project="1.2.3", app=app)
    else:
        with pytest.raises(ClusterError, match=complaint):
            check_versions(tag, project="1.2.3", app=app)


def test_images_are_named_by_what_was_pushed(tmp_path: Path) -> None:
    assert pushed_images(tmp_path) == {}
    (tmp_path / "operator.digest").write_text(IMAGES["operator"] + "\n")
    with pytest.raises(ClusterError, match="but not runner"):
        pushed_images(tmp_path)
    (tmp_path / "runner.digest").write_text(IMAGES["runner"] + "\n")
    assert pushed_images(tmp_path) == IMAGES
    (tmp_path / "runner.digest").write_text("registry.example/me/runner:latest\n")
    with pytest.raises(ClusterError, match="not an exact reference"):
        pushed_images(tmp_path)


def test_the_chart_of_a_release_names_its_images(tmp_path: Path) -> None:
    chart = released_chart(tmp_path, IMAGES)
    values = yaml.safe_load((chart / "values.yaml").read_text())
    for name, found in (("operator", values["image"]), ("runner", values["runner"]["image"])):
        assert f"{found['repository']}@{found['digest']}" == IMAGES[name]
        assert found["tag"] == ""
    listed = yaml.safe_load((chart / "Chart.yaml").read_text())["annotations"]["artifacthub.io/images"]
    assert {one["name"]: one["image"] for one in yaml.safe_load(listed)} == IMAGES
    assert len((chart / "values.yaml").read_text().splitlines()) == len(
        (CHART / "values.yaml").read_text().splitlines()
    )


def test_the_archive_of_the_chart_does_not_depend_on_when_it_was_made(tmp_path: Path) -> None:
    archives = []
    for index, date in enumerate((1, 2_000_000_000)):
        chart = released_chart(tmp_path / str(index), IMAGES)
        for file in chart.rglob("*"):
            os.utime(file, (date, date))
        (tmp_path / f"packed{index}").mkdir()
        archives.append(package(chart, tmp_path / f"packed{index}", SILENT))
    assert archives[0].read_bytes() == archives[1].read_bytes()
    with tarfile.open(archives[0]) as archive:
        entries = archive.getmembers()
    assert {entry.mtime for entry in entries} == {FILES_DATE}
    assert entries[0].name == "video-restoration-operator/Chart.yaml"
    shipped = {path.relative_to(CHART).as_posix() for path in CHART.rglob("*") if path.is_file()}
    assert {entry.name.partition("/")[2] for entry in entries} == shipped - {".helmignore"}


WORKFLOWS = sorted((CHECKOUT / ".github" / "workflows").glob("*.yaml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_have_few_rights_pinned_actions_and_targets_that_exist(path: Path) -> None:
    text = path.read_text()
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] in ({}, {"contents": "read"})
    targets = set(re.findall(r"^([a-z0-9-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", step["uses"])
            # What an attacker may choose (a branch's or a tag's name) is never pasted into a script.
            assert "${{" not in step.get("run", "")
            assert set(re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))) <= targets
    assert len(re.findall(r"uses: \S+ # v\d+\.\d+\.\d+$", text, re.MULTILINE)) == text.count("uses:")


def lint(*files: Path) -> subprocess.CompletedProcess[str]:
    """Without what may be on this machine and not on the next: shellcheck, pyflakes, a configuration."""
    command = [ACTIONLINT.path, "-no-color", "-shellcheck=", "-pyflakes=", *files]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_an_independent_program_finds_nothing_wrong_with_the_workflows(
    actionlint_program: None, tmp_path: Path
) -> None:
    found = lint(*WORKFLOWS)
    assert (found.returncode, found.stdout) == (0, "")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("runs-on: ubuntu-24.04", "runs-in: ubuntu-24.04"))
    assert 'unexpected key "runs-in"' in lint(wrong).stdout


def test_a_release_is_built_on_the_base_that_the_dockerfiles_name() -> None:
    release = yaml.safe_load((CHECKOUT / ".github" / "workflows" / "release.yaml").read_text())
    base = release["jobs"]["images"]["env"]["BASE_IMAGE"]
    for name in ("operator", "runner"):
        assert f"ARG BASE_IMAGE={base}\n" in (CHECKOUT / f"Dockerfile.{name}").read_text()
