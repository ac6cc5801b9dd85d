"""Make the files of a release in `out/release`: `python -m hack.release [--tag v1.2.3]`.

Wheel, source archive, chart, `install.yaml`, the bills of materials that `make images` wrote, `SHA256SUMS`. Images that
were pushed before (`out/images/*.digest`) are the defaults of chart and manifest. The same sources make the same files.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

import yaml

from hack.chart.deploy import install_manifest
from hack.chart.paths import CHART, ROOT
from hack.cluster.console import Console
from hack.cluster.errors import ClusterError
from hack.cluster.images import COMPONENTS, FILES_DATE
from hack.images.__main__ import OUTPUT as IMAGES
from hack.release.chart import package, released_chart

RELEASE = ROOT / "out" / "release"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the files. Returns the process's exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.release", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tag", default="", help="the git tag of the release: what it must fit is checked")
    options = parser.parse_args(arguments)
    try:
        check_versions(options.tag, project=_project_version(), app=_app_version())
        make(RELEASE, images=pushed_images(IMAGES), console=Console())
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print((RELEASE / "SHA256SUMS").read_text(), end="")
    return 0


def check_versions(tag: str, *, project: str, app: str) -> None:
    """Raises ClusterError if what is released would not say of itself which release it is."""
    if project != app:
        raise ClusterError(
            f"pyproject.toml has version {project}, the chart's appVersion is {app}; they must be equal."
        )
    if tag and tag != f"v{project}":
        raise ClusterError(f"The tag {tag} does not fit version {project} in pyproject.toml; it must be v{project}.")


def pushed_images(folder: Path) -> dict[str, str]:
    """References by name, of images that `make images REGISTRY=…` pushed. Raises ClusterError if only some were."""
    files = {name: folder / f"{name}.digest" for name in COMPONENTS}
    found = {name: file.read_text().strip() for name, file in files.items() if file.is_file()}
    if found and len(found) < len(files):
        missing = ", ".join(sorted(set(files) - set(found)))
        raise ClusterError(f"Some images were pushed, but not {missing}; a chart that names both would be half true.")
    for reference in found.values():
        if not re.fullmatch(r"[^@\s]+@sha256:[0-9a-f]{64}", reference):
            raise ClusterError(f"{reference!r} is not an exact reference of an image (registry/name@sha256:…).")
    return found


def make(folder: Path, *, images: dict[str, str], console: Console) -> None:
    """Fill `folder`, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with console.step("building wheel and source archive"):
        _build_distributions(folder)
    with tempfile.TemporaryDirectory() as scratch, console.step("packaging the chart"):
        chart = released_chart(Path(scratch), images)
        package(chart, folder, console)
        (folder / "install.yaml").write_text(install_manifest(chart))
    for bill in sorted(IMAGES.glob("*.cdx.json")):
        shutil.copyfile(bill, folder / f"video-restoration-{bill.name}")
    files = sorted(path for path in folder.iterdir() if path.is_file())
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines))


def _build_distributions(folder: Path) -> None:
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        raise ClusterError("There is no uv; `make release-artifacts` brings it, or set UV to its path.")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(FILES_DATE)}
    command = [uv, "build", "--quiet", f"--out-dir={folder}", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise ClusterError(f"uv cannot build the distributions: {done.stderr.strip()[-800:]}")
    (folder / ".gitignore").unlink(missing_ok=True)


def _project_version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def _app_version() -> str:
    return str(yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"])


if __name__ == "__main__":
    sys.exit(main())
