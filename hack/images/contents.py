"""What is installed in an image, read from its files: never by running anything in it.

Three kinds of software are there: Debian's packages, Python distributions, and the interpreter where it is not a
package. The shipped model is listed too, with the digests of its weights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_SITE_PACKAGES = (
    "opt/venv/lib/python3*/site-packages",
    "usr/local/lib/python3*/site-packages",
    "usr/lib/python3/dist-packages",
)


@dataclass(frozen=True)
class Software:
    """One thing that is installed. `kind` is a type of package URLs: `pypi`, `deb` or `generic`."""

    kind: str
    name: str
    version: str
    licence: str = ""
    architecture: str = ""


@dataclass(frozen=True)
class Model:
    """A shipped model: SHA-256 in hexadecimal by file name."""

    name: str
    files: dict[str, str]


def software(root: Path) -> list[Software]:
    """Everything that is installed below `root`, sorted, each once."""
    found = {*_debian_packages(root), *_distributions(root), *_interpreter(root)}
    return sorted(found, key=lambda one: (one.kind, one.name, one.version))


def models(root: Path) -> list[Model]:
    """The models that the image carries."""
    found = []
    for sums in sorted(root.glob("app/runner/*/*/SHA256SUMS")):
        lines = (line.split() for line in sums.read_text().splitlines() if line.strip())
        name = json.loads((sums.parent / "model.json").read_text())["name"]
        found.append(Model(name, {file.removeprefix("*"): digest for digest, file in lines}))
    return found


def distribution(root: Path) -> str:
    """The Linux distribution as package URLs name it: `debian-12`; empty if the image does not say."""
    release = root / "etc/os-release"
    if not release.is_file():
        release = root / "usr/lib/os-release"
    if not release.is_file():
        return ""
    fields = dict(re.findall(r'^(ID|VERSION_ID)="?([^"\n]*)"?$', release.read_text(), re.MULTILINE))
    return "-".join(part for part in (fields.get("ID", ""), fields.get("VERSION_ID", "")) if part)


def _debian_packages(root: Path) -> Iterator[Software]:
    status = root / "var/lib/dpkg/status"
    if not status.is_file():
        return
    for paragraph in status.read_text(encoding="utf-8").split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): *(.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            yield Software("deb", fields["Package"], fields["Version"], architecture=fields.get("Architecture", ""))


def _distributions(root: Path) -> Iterator[Software]:
    """Names as package indexes normalise them."""
    for pattern in _SITE_PACKAGES:
        for folder in sorted(root.glob(pattern)):
            for found in metadata.distributions(path=[str(folder)]):
                name = re.sub(r"[-_.]+", "-", found.name).lower()
                yield Software("pypi", name, found.version, _licence(found.metadata))


def _licence(fields: metadata.PackageMetadata) -> str:
    """What the distribution says of its licence: an SPDX expression, or a short name, or nothing."""
    if "License-Expression" in fields:
        return str(fields["License-Expression"])
    classifiers = [str(line) for line in fields.get_all("Classifier") or [] if str(line).startswith("License :: ")]
    names = [line.rpartition(" :: ")[2] for line in classifiers if not line.endswith(":: OSI Approved")]
    if len(names) == 1:
        return names[0]
    stated = str(fields["License"]).strip() if "License" in fields else ""
    return stated if stated and "\n" not in stated and len(stated) < 80 else ""


def _interpreter(root: Path) -> Iterator[Software]:
    """Python itself, as the environment names it."""
    configuration = root / "opt/venv/pyvenv.cfg"
    if configuration.is_file() and (found := re.search(r"^version = (\S+)$", configuration.read_text(), re.MULTILINE)):
        yield Software("generic", "python", found[1], "PSF-2.0")
