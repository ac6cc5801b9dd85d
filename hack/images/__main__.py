"""Build the images of a release: `python -m hack.images --help`.

For each image: what its layers weigh, and `out/images/<name>.cdx.json`, its bill of materials. With `--registry` they
are pushed, as `REGISTRY/video-restoration/<name>:VERSION`, and `out/images/<name>.digest` holds `…@sha256:…`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.console import Console
from hack.cluster.errors import ClusterError
from hack.cluster.images import COMPONENTS, REPOSITORY, Builder, Recipe, build, image_builder
from hack.cluster.paths import CHECKOUT
from hack.cluster.services import REGISTRY
from hack.images.bill import bill_of_materials
from hack.images.origin import Origin, origin
from hack.images.sizes import layers, table

OUTPUT = CHECKOUT / "out" / "images"


@dataclass(frozen=True)
class Wish:
    """What was typed."""

    registry: str
    base_image: str | None
    snapshot: str
    fresh: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what was asked for. Returns the process's exit code."""
    options = _parser().parse_args(arguments)
    console = Console()
    wish = Wish(options.registry.rstrip("/"), options.base_image, options.debian_snapshot, options.fresh)
    sources = origin(options.source)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    try:
        with image_builder(console) as builder:
            for name in _chosen(options.images):
                _make(name, wish, sources, builder, console)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hack.images", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", help=f"of {', '.join(COMPONENTS)} (default: all)")
    parser.add_argument("--registry", default="", help="push there; without it nothing leaves this machine")
    parser.add_argument("--base-image", help="BASE_IMAGE of the Dockerfiles (default: a Debian made here)")
    parser.add_argument("--source", default="", help="address of the repository, for the labels")
    parser.add_argument("--debian-snapshot", default="", help="Debian's packages of that moment: 20261101T000000Z")
    parser.add_argument("--fresh", action="store_true", help="take no layer from the cache")
    return parser


def _chosen(names: Sequence[str]) -> Sequence[str]:
    for name in names:
        if name not in COMPONENTS:
            raise ClusterError(f"There is no image {name!r}; there are {', '.join(COMPONENTS)}.")
    return names or COMPONENTS


def _make(name: str, wish: Wish, sources: Origin, builder: Builder, console: Console) -> None:
    reference = f"{wish.registry or 'localhost'}/{REPOSITORY}/{name}:{sources.version}"
    arguments = {"DEBIAN_SNAPSHOT": wish.snapshot} if wish.snapshot and name == "runner" else {}
    recipe = Recipe(
        dockerfile=CHECKOUT / f"Dockerfile.{name}",
        context=CHECKOUT,
        name=reference,
        base_image=wish.base_image,
        labels=sources.labels,
        arguments=arguments,
        fresh=wish.fresh,
    )
    with console.step(f"building {name}"):
        build(recipe, builder, console)
    digest = report(name, reference, sources, builder, OUTPUT)
    print(f"{name}: image {digest}")
    if wish.registry:
        with console.step(f"pushing {reference}"):
            pushed = builder.push(reference, plain_http=wish.registry == REGISTRY)
        exact = f"{wish.registry}/{REPOSITORY}/{name}@{pushed}"
        (OUTPUT / f"{name}.digest").write_text(exact + "\n")
        print(f"{name}: pushed {exact}")


def report(name: str, reference: str, sources: Origin, builder: Builder, folder: Path) -> str:
    """Print what the image weighs and write its bill of materials. Returns the digest that names it."""
    described = builder.describe(reference)
    print(table(name, layers(described)))
    digest = str(described["Manifest"]["config"]["digest"])
    with builder.mounted(reference) as root:
        bill = bill_of_materials(root, name=name, digest=digest, origin=sources)
    (folder / f"{name}.cdx.json").write_text(bill)
    return digest


if __name__ == "__main__":
    sys.exit(main())
