"""What `open` makes of a finished restoration: a picture, excerpts that browsers play, and a page to compare them.

Both videos are read from the bucket with the user's own credentials, and only where they are looked at. The page is a
file like the others: it names its neighbours, and nothing else in the world.
"""

import html
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from string import Template
from typing import BinaryIO, Final, cast

from rich.console import Console

from restoration_cli import footage, store
from restoration_cli.errors import CommandError
from restoration_cli.footage import Excerpt, Pair, Video
from restoration_cli.reading import RemoteFile
from restoration_cli.sheet import sheet
from restoration_cli.view import Restoration

STILLS: Final = 3
_TEMPLATE: Final = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class Sides:
    """Where both videos lie. `skip_s`: the part of the input before `spec.input.clip`."""

    before: str
    after: str
    after_etag: str | None
    skip_s: float


def sides(it: Restoration) -> Sides:
    """Where the two videos of a restoration are.

    Raises:
        CommandError: it is not over, or its input is not in a bucket.
    """
    if not it.finished:
        raise CommandError(f"{it.name} is not over, there is nothing to open yet (kubectl vr explain {it.name})")
    source = it.spec.get("input") or {}
    output = it.status.output
    after = output.uri if output is not None and output.uri else (it.spec.get("output") or {}).get("uri")
    for uri in (source.get("uri"), after):
        if not str(uri).startswith("s3://"):
            raise CommandError(f"{it.name}: {uri} is not in a bucket, and only s3:// is read here")
    skip_s = ((source.get("clip") or {}).get("startMilliseconds") or 0) / 1000
    etag = output.etag.strip('"') if output is not None and output.etag else None
    return Sides(str(source["uri"]), str(after), etag, skip_s)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What to show: an excerpt of `seconds`, from `at_s` on; None is the middle."""

    seconds: float
    at_s: float | None


def make(it: Restoration, place: store.Place, folder: Path, choice: Choice, console: Console) -> Path:
    """Read both videos and write everything into `folder`. Returns the page.

    Raises:
        CommandError: a video is not there, cannot be decoded, is not the other's, or the folder cannot be written.
    """
    where = sides(it)
    client = store.connect(place)
    low, high = RemoteFile(client, where.before), RemoteFile(client, where.after)
    if where.after_etag not in (None, high.etag):
        console.print(f"{where.after} has been replaced since {it.name} was published", style="yellow")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            console.status(f"reading {where.before} and {where.after}"),
            Video(cast(BinaryIO, low), where.before, skip_s=where.skip_s) as before,
            Video(cast(BinaryIO, high), where.after) as after,
        ):
            return _write(it.name, before, after, folder, choice)
    except OSError as error:
        raise CommandError(f"{folder} cannot be written: {error.strerror or error}") from error


def _write(name: str, before: Video, after: Video, folder: Path, choice: Choice) -> Path:
    pairs = footage.stills(before, after, STILLS)
    middle_s = max(0.0, (after.length_s - choice.seconds) / 2)
    start_s = middle_s if choice.at_s is None else choice.at_s
    shown = footage.excerpt(before, after, folder, start_s=start_s, seconds=choice.seconds)
    if not shown.frames:
        raise CommandError(f"{after.name} has no frame at {start_s:g} s; it is {after.length_s:.1f} s long")
    for number, pair in enumerate(pairs, start=1):
        pair.before.save(folder / f"before-{number}.png")
        pair.after.save(folder / f"after-{number}.png")
    captions = {side: f"{side}: {_file(video)}, {_size(video)}" for side, video in _named(before, after)}
    sheet(pairs, **captions).save(folder / "before-after.png", optimize=True)
    page = folder / "index.html"
    page.write_text(_page(name, before, after, shown, pairs), encoding="utf-8")
    return page


def _named(before: Video, after: Video) -> tuple[tuple[str, Video], ...]:
    return ("before", before), ("after", after)


def _file(video: Video) -> str:
    return video.name.rpartition("/")[2]


def _size(video: Video) -> str:
    return f"{video.width}x{video.height}"


def _page(name: str, before: Video, after: Video, shown: Excerpt, pairs: list[Pair]) -> str:
    whole = shown.length_s >= after.length_s - 0.1
    said = "the whole of it" if whole else f"{shown.length_s:.1f} s from {timedelta(seconds=round(shown.start_s))} on"
    numbered = list(enumerate(pairs, start=1))
    fields = {
        "name": name,
        "before_uri": before.name,
        "after_uri": after.name,
        "before_size": _size(before),
        "after_size": _size(after),
        "excerpt": f"{said}, {shown.frames} frames, {shown.width}x{shown.height}, encoded once more for browsers",
        "width": str(after.width),
        "height": str(after.height),
        "frame_s": f"{shown.length_s / shown.frames:.6f}",
    }
    raw = {
        "still_buttons": "\n  ".join(
            f'<button data-show="still-{number}" aria-pressed="false">{pair.time_s:.2f} s</button>'
            for number, pair in numbered
        ),
        "still_images": "\n    ".join(
            f'<img class="{side}" src="{side}-{number}.png" alt="{side}" data-of="still-{number}" hidden>'
            for number, _ in numbered
            for side in ("after", "before")
        ),
    }
    escaped = {key: html.escape(value) for key, value in fields.items()}
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(escaped | raw)
