"""What is said of an image: its layers, its contents, where its sources come from; and what the Dockerfiles pin."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hack.cluster.images import COMPONENTS, FILES_DATE
from hack.cluster.paths import CHECKOUT
from hack.images.bill import bill_of_materials
from hack.images.contents import Software, distribution, models, software
from hack.images.origin import Origin
from hack.images.sizes import layers, table

ORIGIN = Origin(
    "1.2.3", "c0ffee", datetime.datetime(2026, 11, 22, 10, 30, tzinfo=datetime.UTC), "https://git.example/x"
)
DIGEST = "sha256:" + "ab" * 32
OURS = "1980-01-01T00:00:00Z"

DPKG = """Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc
Version: 2.36-9+deb12u13
Description: GNU C Library
 Version: 9 is no version, it is a line of a description

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0
"""


def image_with(root: Path, *, metadata: str = "Metadata-Version: 2.4\nName: Some.Thing\nVersion: 4.5\n") -> Path:
    """Files of an image, as far as they matter for its bill."""
    files = {
        "etc/os-release": 'PRETTY_NAME="Debian 12"\nVERSION_ID="12"\nID=debian\n',
        "var/lib/dpkg/status": DPKG,
        "opt/venv/pyvenv.cfg": "home = /usr/bin\nversion = 3.11.2\n",
        "opt/venv/lib/python3.11/site-packages/some_thing-4.5.dist-info/METADATA": metadata,
        "app/runner/restoration_runner/tiny/model.json": '{"name": "tiny-model"}',
        "app/runner/restoration_runner/tiny/SHA256SUMS": f"{'0f' * 32}  dit.safetensors\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_packages_distributions_and_interpreter_are_found(tmp_path: Path) -> None:
    found = software(image_with(tmp_path))
    assert found == [
        Software("deb", "libc6", "2.36-9+deb12u13", architecture="amd64"),
        Software("generic", "python", "3.11.2", "PSF-2.0"),
        Software("pypi", "some-thing", "4.5"),
    ]
    assert distribution(tmp_path) == "debian-12"
    assert [(model.name, list(model.files)) for model in models(tmp_path)] == [("tiny-model", ["dit.safetensors"])]


def test_an_image_without_debian_is_listed_too(tmp_path: Path) -> None:
    assert software(tmp_path) == []
    assert distribution(tmp_path) == ""


@pytest.mark.parametrize(
    ("lines", "licence"),
    [
        ("License-Expression: MIT OR Apache-2.0", {"expression": "MIT OR Apache-2.0"}),
        ("License-Expression: MIT", {"license": {"id": "MIT"}}),
        ("Classifier: License :: OSI Approved :: MIT License", {"license": {"name": "MIT License"}}),
        ("Classifier: License :: OSI Approved\nLicense: BSD-3-Clause", {"license": {"id": "BSD-3-Clause"}}),
        ("Classifier: License :: A\nClassifier: License :: B", None),
        ("License: " + "the whole text of a licence " * 9, None),
    ],
    ids=["expression", "identifier", "classifier", "field", "two classifiers", "whole text"],
)
def test_licences_are_what_the_distribution_says(tmp_path: Path, lines: str, licence: dict[str, Any] | None) -> None:
    head = "Metadata-Version: 2.4\nName: some-thing\nVersion: 4.5\n"
    bill = read_bill(image_with(tmp_path, metadata=head + lines + "\n"))
    [component] = [one for one in bill["components"] if one["name"] == "some-thing"]
    assert component.get("licenses") == ([licence] if licence else None)


def read_bill(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bill_of_materials(root, name="operator", digest=DIGEST, origin=ORIGIN))
    return found


def test_the_bill_names_image_packages_and_model(tmp_path: Path) -> None:
    bill = read_bill(image_with(tmp_path))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["timestamp"] == "2026-11-22T10:30:00+00:00"
    assert bill["metadata"]["component"]["version"] == "1.2.3"
    assert {"name": "oci:image:config-digest", "value": DIGEST} in bill["metadata"]["component"]["properties"]
    urls = [one["purl"] for one in bill["components"] if "purl" in one]
    assert urls == [
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u13?arch=amd64&distro=debian-12",
        "pkg:generic/python@3.11.2",
        "pkg:pypi/some-thing@4.5",
    ]
    [model] = [one for one in bill["components"] if one["type"] == "machine-learning-model"]
    assert model["components"][0]["hashes"] == [{"alg": "SHA-256", "content": "0f" * 32}]
    [whole] = [one for one in bill["dependencies"] if one["ref"] == "image"]
    assert set(whole["dependsOn"]) == {*urls, "tiny-model"}


def test_the_same_image_has_the_same_bill(tmp_path: Path) -> None:
    texts = {bill_of_materials(image_with(tmp_path), name="x", digest=DIGEST, origin=ORIGIN) for _ in range(2)}
    assert len(texts) == 1


def described() -> dict[str, Any]:
    sizes = {"a": 100 * 1024**2, "b": 5 * 1024**2, "c": 512 * 1024}
    return {
        "Manifest": {"layers": [{"digest": f"sha256:{name * 64}", "size": size} for name, size in sizes.items()]},
        "OCIv1": {
            "history": [
                {"created": "2026-11-22T12:37:21Z", "created_by": "/bin/sh"},
                {"created": OURS, "created_by": "/bin/sh -c apt-get update"},
                {"created": OURS, "created_by": "/bin/sh -c #(nop) USER 1", "empty_layer": True},
                {"created": OURS, "created_by": f"/bin/sh -c #(nop) COPY dir:{'d' * 64} in /app"},
            ]
        },
    }


def test_layers_are_told_with_the_instruction_that_made_them() -> None:
    text = table("operator", layers(described()))
    assert re.findall(r"^ +([\d.]+) MiB  (.*)$", text, re.MULTILINE) == [
        ("100.0", "a" * 12 + "  the base"),
        ("5.0", "b" * 12 + "  apt-get update"),
        ("0.5", "c" * 12 + "  COPY … in /app"),
        ("105.5", "in all, 5.5 MiB more than the base"),
    ]


def test_a_history_that_does_not_fit_is_refused() -> None:
    image = described()
    image["OCIv1"]["history"].pop()
    with pytest.raises(ValueError, match="3 layers, and its history tells of 2"):
        layers(image)


def test_labels_say_when_and_where_the_sources_were_made() -> None:
    assert ORIGIN.labels == {
        "org.opencontainers.image.created": "2026-11-22T10:30:00Z",
        "org.opencontainers.image.revision": "c0ffee",
        "org.opencontainers.image.version": "1.2.3",
        "org.opencontainers.image.source": "https://git.example/x",
        "org.opencontainers.image.url": "https://git.example/x",
    }
    nowhere = Origin(ORIGIN.version, ORIGIN.revision, ORIGIN.created)
    assert [name.rpartition(".")[2] for name in nowhere.labels] == ["created", "revision", "version"]


def test_the_date_of_all_files_is_the_one_that_layers_are_recognised_by() -> None:
    assert datetime.datetime.fromtimestamp(FILES_DATE, tz=datetime.UTC).isoformat() == OURS.replace("Z", "+00:00")


@pytest.mark.parametrize("name", COMPONENTS)
def test_everything_that_a_dockerfile_fetches_is_pinned(name: str) -> None:
    text = (CHECKOUT / f"Dockerfile.{name}").read_text()
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    instructions = [line.strip() for line in joined.splitlines() if line.strip()]
    [base] = [line for line in instructions if line.startswith("ARG BASE_IMAGE=")]
    assert re.fullmatch(r"ARG BASE_IMAGE=\S+@sha256:[0-9a-f]{64}", base)
    stages = [line for line in instructions if line.startswith("FROM ")]
    assert all(line.split()[1] == "${BASE_IMAGE}" for line in stages)
    assert len(stages) >= 3
    # buildah 1.28 takes a LABEL from its cache without looking at the variables in it.
    assert not [line for line in instructions if line.startswith("LABEL ") and "$" in line]
    installs = [step for line in instructions for step in line.split("&&") if re.search(r"/pip .*\binstall\b", step)]
    assert len(installs) == {"operator": 2, "runner": 3}[name]
    assert all("--require-hashes" in step for step in installs)
    compiled = [step for line in instructions for step in line.split("&&") if "compileall" in step]
    assert compiled
    assert all("--invalidation-mode unchecked-hash" in step for step in compiled)


def test_the_context_holds_no_more_than_the_dockerfiles_copy() -> None:
    ignored = (CHECKOUT / ".dockerignore").read_text().splitlines()
    admitted = {line[1:] for line in ignored if line.startswith("!")}
    copied = set()
    for name in COMPONENTS:
        for line in (CHECKOUT / f"Dockerfile.{name}").read_text().splitlines():
            if line.startswith("COPY ") and "--from=" not in line:
                copied.update(line.split()[1:-1])
    assert "*" in ignored
    assert admitted == copied
