"""The chart of a release: it names the images that were pushed, by digest, and is the same archive each time."""

from __future__ import annotations

import gzip
import io
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from hack.chart.paths import CHART
from hack.cluster.console import Console
from hack.cluster.errors import ClusterError
from hack.cluster.images import FILES_DATE
from hack.cluster.toolchain import ensure_helm


def released_chart(target: Path, images: Mapping[str, str]) -> Path:
    """A copy of the chart below `target` whose default images are `images` (`registry/repository@sha256:…` by name).

    Raises ClusterError if a place where an image is named cannot be found.
    """
    chart = target / CHART.name
    shutil.copytree(CHART, chart)
    values, description = chart / "values.yaml", chart / "Chart.yaml"
    for name, reference in images.items():
        repository, _, digest = reference.partition("@")
        plain = f"video-restoration-{name}"
        _replace(
            values,
            rf'(?P<indent> +)repository: {plain}\n(?P<tag> +tag: ""\n) +digest: ""',
            rf"\g<indent>repository: {repository}\n\g<tag>\g<indent>digest: {digest}",
        )
        _replace(description, rf"image: {plain}:\S+", f"image: {reference}")
    return chart


def package(chart: Path, folder: Path, console: Console) -> Path:
    """`helm package` into `folder`, with one date for all files."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [ensure_helm(console), "package", chart, f"--destination={scratch}"]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(f"helm cannot package the chart: {done.stderr.strip()}")
        [archive] = Path(scratch).glob("*.tgz")
        target = folder / archive.name
        target.write_bytes(_timeless(archive))
    return target


def _timeless(archive: Path) -> bytes:
    """The same files in the order of their names (Chart.yaml first, as Helm has it), without dates."""
    buffer = io.BytesIO()
    with tarfile.open(archive) as packed, tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as result:
        for entry in sorted(packed, key=lambda one: (not one.name.endswith("/Chart.yaml"), one.name)):
            plain = tarfile.TarInfo(entry.name)
            plain.size, plain.mode, plain.mtime = entry.size, 0o644, FILES_DATE
            result.addfile(plain, packed.extractfile(entry))
    return gzip.compress(buffer.getvalue(), mtime=0)


def _replace(file: Path, pattern: str, replacement: str) -> None:
    text, found = re.subn(pattern, replacement, file.read_text())
    if found != 1:
        raise ClusterError(f"{file.name} names an image {found} times where it should once: {pattern}")
    file.write_text(text)
