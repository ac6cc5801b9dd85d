"""Building the project's images without Docker and without a public registry.

The Dockerfiles take `ARG BASE_IMAGE`. Here it is a minimal Debian with Python made by debootstrap; anybody else passes
a public image. Layers and base image stay in the cache, so that after an edit only the last layer is built and pushed.
The same sources make the same image, byte for byte, whether layers come from the cache or not.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hack.cluster.console import Console
from hack.cluster.errors import ClusterError
from hack.cluster.leftovers import unmount_below
from hack.cluster.locks import file_lock, release, try_lock
from hack.cluster.packages import IMAGE_PACKAGES, install
from hack.cluster.paths import CHECKOUT, cache_folder
from hack.cluster.services import REGISTRY

COMPONENTS = ("operator", "runner")
REPOSITORY = "video-restoration"
FILES_DATE = 315_532_800
"""The date that every file of an image gets, in seconds: 1980, the first that any archive format can hold.

Not the commit's: a layer whose files did not change keeps its digest from release to release then, and nodes that have
its 5 GB need not fetch them again. The label `created` says when the sources were made."""
_SUITE = "bookworm"
# What the head of each Dockerfile says its base must contain, as Debian names it.
_BASE_PACKAGES = ("ca-certificates", "python3", "python3-venv")
_DEFAULT_MIRROR = "http://deb.debian.org/debian"
_SECURITY_MIRROR = "http://deb.debian.org/debian-security"
_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_OUTPUT_LINES = 12  # of a failed command, shown to the user
# Whole folders of a Debian system that no program reads.
_BALLAST = ("usr/share/doc", "usr/share/man", "usr/share/info", "var/cache/apt", "var/lib/apt/lists", "var/log")


def build_component(name: str, console: Console, *, registry: str = REGISTRY, base_image: str | None = None) -> str:
    """Build `Dockerfile.<name>` and push it. Returns `registry/repository@sha256:…`: exactly this content."""
    return build_image(
        name,
        dockerfile=CHECKOUT / f"Dockerfile.{name}",
        context=CHECKOUT,
        console=console,
        registry=registry,
        base_image=base_image,
    )


def build_image(
    name: str,
    *,
    dockerfile: Path,
    context: Path,
    console: Console,
    registry: str = REGISTRY,
    base_image: str | None = None,
) -> str:
    """Build and push one image. Without `base_image`, a Dockerfile that wants one gets a Debian made here."""
    reference = f"{registry}/{REPOSITORY}/{name}:dev"
    with image_builder(console) as builder:
        with console.step(f"building {name}"):
            build(Recipe(dockerfile, context, reference, base_image), builder, console)
        with console.step(f"pushing {name} to {registry}"):
            digest = builder.push(reference, plain_http=registry == REGISTRY)
    return f"{registry}/{REPOSITORY}/{name}@{digest}"


@dataclass(frozen=True)
class Recipe:
    """What one image is made of, and its name in the builder's storage.

    `labels` come on top of the Dockerfile's own; with `fresh`, no layer is taken from the cache.
    """

    dockerfile: Path
    context: Path
    name: str
    base_image: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)
    fresh: bool = False


def build(recipe: Recipe, builder: Builder, console: Console) -> None:
    """Build one image in the builder's storage. Raises ClusterError with the last lines of what the builder said."""
    options = [f"--file={recipe.dockerfile}", f"--tag={recipe.name}", f"--timestamp={FILES_DATE}"]
    options += ["--layers", "--isolation=chroot", "--network=host", "--identity-label=false"]
    options += [f"--label={name}={value}" for name, value in recipe.labels.items()]
    options += [f"--build-arg={name}={value}" for name, value in recipe.arguments.items()]
    options += ["--no-cache"] if recipe.fresh else []
    if recipe.base_image:
        options.append(f"--build-arg=BASE_IMAGE={recipe.base_image}")
    elif "BASE_IMAGE" in recipe.dockerfile.read_text():
        # --pull-never: the base is in the builder's storage, and no registry has it.
        options += [f"--build-arg=BASE_IMAGE={_ensure_base(builder, console)}", "--pull-never"]
    # The machine's certificates, since an index may be behind a proxy that has its own authority. Mounted, so that
    # they do not become part of the image.
    if _CERTIFICATES.exists():
        options.append(f"--volume={_CERTIFICATES}:{_CERTIFICATES}:ro")
    builder.build([*options, recipe.context], console)


def remove_builder_mounts() -> None:
    """Unmount what buildah, which keeps its storage mounted, left behind; not while a build is running."""
    locks = cache_folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    descriptor = try_lock(locks / "images.lock")
    if descriptor is not None:
        unmount_below([_storage()])
        release(descriptor)


class Builder:
    """buildah with its storage in our cache."""

    def __init__(self, storage: Path) -> None:
        self._program = [
            "buildah",
            f"--root={storage / 'layers'}",
            f"--runroot={storage / 'run'}",
            "--storage-driver=overlay",
        ]

    def run(self, *arguments: str | Path) -> str:
        """Run one buildah command; its standard output. Raises ClusterError with the last lines of its output."""
        result = self._execute(arguments)
        if result.returncode:
            lines = (result.stdout + result.stderr).strip().splitlines()[-_OUTPUT_LINES:]
            output = "\n".join(f"  {line}" for line in lines)
            raise ClusterError(f"buildah {arguments[0]} failed:\n{output}")
        return result.stdout.strip()

    def build(self, arguments: Sequence[str | Path], console: Console) -> None:
        """Run `buildah build`, printing each step as it starts: installing torch takes minutes without a word."""
        command = [*self._program, "build", *map(str, arguments)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            lines: deque[str] = deque(maxlen=_OUTPUT_LINES)
            for line in process.stdout:
                lines.append(line.rstrip())
                if line.startswith(("STEP", "[")) and "STEP" in line:
                    console.say(f"  {line.strip()[:100]}")
        if process.returncode:
            output = "\n".join(f"  {line}" for line in lines)
            raise ClusterError(f"buildah build failed:\n{output}")

    def has(self, image: str) -> bool:
        """Whether the storage holds `image`."""
        return self._execute(["inspect", "--type=image", image]).returncode == 0

    def describe(self, image: str) -> dict[str, Any]:
        """What the storage knows of `image`: its manifest (`Manifest`, uncompressed layers) and config (`OCIv1`)."""
        found: dict[str, Any] = json.loads(self.run("inspect", "--type=image", image))
        return {**found, "Manifest": json.loads(found["Manifest"])}

    @contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """The image's files, to be read."""
        container = self.run("from", "--pull-never", image)
        try:
            yield Path(self.run("mount", container))
        finally:
            self.run("rm", container)

    def push(self, reference: str, *, plain_http: bool) -> str:
        """Push `reference` to the registry it names. Returns the manifest's digest there."""
        with tempfile.TemporaryDirectory() as folder:
            digest = Path(folder, "digest")
            security = ["--tls-verify=false"] if plain_http else []
            self.run("push", *security, f"--digestfile={digest}", reference, f"docker://{reference}")
            return digest.read_text().strip()

    def _execute(self, arguments: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self._program, *map(str, arguments)], capture_output=True, text=True)


@contextmanager
def image_builder(console: Console) -> Iterator[Builder]:
    """The builder, for us alone: a build is heavy, and mounts can only be cleaned up when nobody else uses them."""
    install(IMAGE_PACKAGES, console)
    with file_lock(cache_folder() / "locks" / "images.lock", purpose="building images", console=console):
        try:
            yield Builder(_storage())
        finally:
            unmount_below([_storage()])


def _storage() -> Path:
    return cache_folder() / "images"


def _ensure_base(builder: Builder, console: Console) -> str:
    """Name of the base image in the builder's storage; made the first time."""
    mirror = _mirror()
    sources = _sources(mirror)
    recipe = "\n".join([_SUITE, *_BASE_PACKAGES, *_BALLAST, sources])
    name = f"localhost/{REPOSITORY}/base:{_SUITE}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if builder.has(name):
        return name
    with (
        console.step(f"making the base image from Debian {_SUITE} (about a minute, the first time only)"),
        tempfile.TemporaryDirectory(prefix=".base-", dir=_storage()) as scratch,
    ):
        root, archive = Path(scratch, "root"), Path(scratch, "root.tar")
        _bootstrap(root, mirror)
        for folder in _BALLAST:
            shutil.rmtree(root / folder, ignore_errors=True)
            (root / folder).mkdir(parents=True)
        (root / "etc/apt/sources.list").write_text(sources)
        for file in ("etc/resolv.conf", "etc/hostname"):  # this machine's; a container gets its own
            (root / file).unlink(missing_ok=True)
        # A tar keeps owners, and leaves out device nodes, which containers are given by their runtime.
        _execute("tar", f"--directory={root}", "--exclude=./dev/*", "--numeric-owner", "-cf", archive, ".")
        container = builder.run("from", "scratch")
        try:
            builder.run("add", container, archive, "/")
            builder.run("config", f"--env=PATH={_SEARCH_PATH}", "--cmd=/bin/bash", container)
            builder.run("commit", container, name)
        finally:
            builder.run("rm", container)
    return name


def _bootstrap(root: Path, mirror: str) -> None:
    include = f"--include={','.join(_BASE_PACKAGES)}"
    _execute("debootstrap", "--variant=minbase", include, _SUITE, root, mirror)


def _mirror() -> str:
    """The Debian mirror this machine itself uses: the one it can reach, and perhaps the only one."""
    if shutil.which("apt-get") is None:
        return _DEFAULT_MIRROR
    targets = _execute("apt-get", "indextargets", "--format", "$(CODENAME) $(ORIGIN) $(REPO_URI)")
    found = re.search(rf"^{_SUITE} Debian (\S+)$", targets, re.MULTILINE)
    return found[1].rstrip("/") if found else _DEFAULT_MIRROR


def _sources(mirror: str) -> str:
    security = mirror + "-security" if mirror.endswith("/debian") else _SECURITY_MIRROR
    lines = [f"deb {mirror} {_SUITE} main", f"deb {mirror} {_SUITE}-updates main"]
    return "\n".join([*lines, f"deb {security} {_SUITE}-security main", ""])


def _execute(program: str, *arguments: str | Path) -> str:
    result = subprocess.run([program, *arguments], capture_output=True, text=True)
    if result.returncode:
        reason = "\n".join(f"  {line}" for line in (result.stdout + result.stderr).strip().splitlines()[-8:])
        raise ClusterError(f"{program} failed:\n{reason}")
    return result.stdout
