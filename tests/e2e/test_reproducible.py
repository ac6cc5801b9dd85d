"""The operator's image, built anew from another checkout: the same bytes.

The runner's is made by the same rules, but its 5 GB take minutes to install: `python -m hack.images --fresh runner`
prints its layers, to be compared with those of the first. `test_images` looks at its bytecode, where dates hide.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hack.cluster.console import Console
from hack.cluster.images import Recipe, build, image_builder
from hack.cluster.paths import CHECKOUT

CONTEXT = ("pyproject.toml", "uv.lock", ".dockerignore", "Dockerfile.operator", "crds", "operator")


def another_checkout(target: Path) -> Path:
    """What is built from, as somebody else has it: written now, readable for nobody else, folders in another order."""
    umask = os.umask(0o077)
    try:
        target.mkdir()
        for name in reversed(CONTEXT):
            source = CHECKOUT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, target / name, ignore=ignored, copy_function=shutil.copyfile)
            else:
                shutil.copyfile(source, target / name)
    finally:
        os.umask(umask)
    return target


def layers(image: dict[str, Any]) -> list[str]:
    return [layer["digest"] for layer in image["Manifest"]["layers"]]


def settings(image: dict[str, Any]) -> dict[str, Any]:
    """The configuration, without which images of the builder's cache each step was made from: ours, and nobody's."""
    config = dict(image["OCIv1"])
    config["history"] = [{key: value for key, value in step.items() if key != "comment"} for step in config["history"]]
    return config


@pytest.mark.timeout(420)
def test_another_checkout_builds_the_same_image_without_the_cache(tmp_path: Path) -> None:
    here = Recipe(CHECKOUT / "Dockerfile.operator", CHECKOUT, "localhost/video-restoration/operator:here")
    checkout = another_checkout(tmp_path / "elsewhere")
    there = Recipe(
        checkout / "Dockerfile.operator", checkout, "localhost/video-restoration/operator:elsewhere", fresh=True
    )
    found: list[dict[str, Any]] = []
    with image_builder(Console()) as builder:
        for recipe in (here, there):
            build(recipe, builder, Console())
            found.append(builder.describe(recipe.name))
        builder.run("rmi", there.name)
    first, second = found
    assert layers(first) == layers(second)
    assert settings(first) == settings(second)
