"""What `open` shows: the same moments, in the colours of the files, in files that need nothing but each other."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw
from tests.builders import clips, ffprobe
from tests.builders.clips import Clip
from tests.builders.resources import make_vr
from tests.builders.statuses import make_status, running, succeeded

from restoration_cli import beforeafter, footage
from restoration_cli.beforeafter import Choice, Sides
from restoration_cli.errors import CommandError
from restoration_cli.footage import Pair, Video
from restoration_cli.sheet import CELL, detailed, sheet
from restoration_cli.view import Restoration

# A frame rate that changes, a scene that is brighter than the other one, a picture that does not start at zero.
STAMPS = [0, 20, 40, 41, 60, 90, 100, 130, 150, 151, 190, 200, 223, 246, 269, 292]
CUT = 7
BEFORE = Clip(
    frames=16, width=48, height=32, stamps=STAMPS, time_base=Fraction(1, 600), cuts=(CUT,), start=Fraction(1, 2)
)
AFTER = BEFORE.but(width=96, height=64, codec="libx265", pixel_format="yuv420p10le", start=Fraction(0))


def opened(folder: Path, before: Clip = BEFORE, after: Clip = AFTER, *, skip_s: float = 0.0) -> tuple[Video, Video]:
    low, high = clips.write(folder / "in.mp4", before), clips.write(folder / "out.mp4", after)
    return Video(str(low), "s3://media/in.mp4", skip_s=skip_s), Video(str(high), "s3://media/out.mp4")


def brightness(path: Path) -> list[float]:
    """Mean luma of every frame."""
    with av.open(str(path)) as container:
        return [float(frame.to_ndarray()[: frame.height].mean()) for frame in container.decode(video=0)]


# -- which videos ----------------------------------------------------------------------------------------------------


def restoration(status: Any, changes: Any = None) -> Restoration:
    return Restoration.of(make_vr(changes, name="clip") | {"status": status})


def test_where_the_videos_lie() -> None:
    status = succeeded()
    status["output"]["etag"] = '"abc"'
    found = beforeafter.sides(restoration(status, {"input.uri": "s3://media/raw/clip.mp4"}))
    assert found == Sides("s3://media/raw/clip.mp4", "s3://media/restored/clip.mp4", "abc", 0.0)
    part = restoration(succeeded(), {"input.clip": {"startMilliseconds": 1500}})
    assert beforeafter.sides(part).skip_s == 1.5


NOTHING_TO_SHOW = [
    (restoration(running(41)), "clip is not over"),
    (restoration(make_status("Pending")), "clip is not over"),
    (
        restoration(succeeded(), {"input.uri": "https://example.com/a.mp4"}),
        "https://example.com/a.mp4 is not in a bucket",
    ),
]


@pytest.mark.parametrize(("it", "said"), NOTHING_TO_SHOW)
def test_what_cannot_be_shown(it: Restoration, said: str) -> None:
    with pytest.raises(CommandError, match=said):
        beforeafter.sides(it)


# -- which frames ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 3, 9])
def test_both_excerpts_show_the_same_moments(start: int, tmp_path: Path) -> None:
    before, after = opened(tmp_path)
    with before, after:
        made = footage.excerpt(before, after, tmp_path, start_s=STAMPS[start] / 600, seconds=1000)
    times = ffprobe.times(tmp_path / "before.mp4")
    assert times == ffprobe.times(tmp_path / "after.mp4")
    assert [time - times[0] for time in times] == [Fraction(stamp - STAMPS[start], 600) for stamp in STAMPS[start:]]
    assert made.frames == len(STAMPS) - start
    assert (made.width, made.height) == (96, 64)
    for path in ("before.mp4", "after.mp4"):
        video = ffprobe.video(tmp_path / path)
        assert (video["codec_name"], video["pix_fmt"], video["width"]) == ("h264", "yuv420p", 96)
        # The cut, by its brightness: the frames themselves are the same, and not only their number.
        bright = [value > 128 for value in brightness(tmp_path / path)]
        assert bright == [rank >= CUT for rank in range(start, len(STAMPS))]


def test_an_excerpt_ends_in_time(tmp_path: Path) -> None:
    before, after = opened(tmp_path)
    with before, after:
        made = footage.excerpt(before, after, tmp_path, start_s=0, seconds=100 / 600)
    assert made.frames == sum(stamp < 100 for stamp in STAMPS)


def test_the_input_begins_where_its_restored_part_does(tmp_path: Path) -> None:
    part = AFTER.but(frames=9, stamps=[stamp - STAMPS[CUT] for stamp in STAMPS[CUT:]], cuts=(0,))
    before, after = opened(tmp_path, after=part, skip_s=STAMPS[CUT] / 600)
    with before, after:
        assert footage.excerpt(before, after, tmp_path, start_s=0, seconds=1000).frames == 9
    assert min(brightness(tmp_path / "before.mp4")) > 128


def test_stills_are_spread_over_the_whole(tmp_path: Path) -> None:
    before, after = opened(tmp_path)
    with before, after:
        pairs = footage.stills(before, after, 3)
        assert len(footage.stills(before, after, 100)) <= len(STAMPS)
    assert len(pairs) == 3
    assert pairs == sorted(pairs, key=lambda pair: pair.time_s)
    assert {pair.before.size for pair in pairs} == {pair.after.size for pair in pairs} == {(96, 64)}
    assert pairs[-1].time_s > STAMPS[CUT] / 600 > pairs[0].time_s


def test_videos_that_do_not_belong_together_are_told_apart(tmp_path: Path) -> None:
    before, after = opened(tmp_path, after=AFTER.but(stamps=[stamp + 12 * (stamp > 50) for stamp in STAMPS]))
    with before, after, pytest.raises(CommandError, match="one of them has been replaced"):
        footage.excerpt(before, after, tmp_path, start_s=0, seconds=1000)


@pytest.mark.parametrize("content", [b"", b"This is no video.\n" * 50])
def test_what_is_no_video_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_bytes(content)
    with pytest.raises(CommandError, match=r"s3://media/notes\.mp4 cannot be decoded here"):
        Video(str(tmp_path / "notes.mp4"), "s3://media/notes.mp4")


def test_a_moment_behind_the_end_is_said(tmp_path: Path) -> None:
    before, after = opened(tmp_path)
    with before, after, pytest.raises(CommandError, match=r"has no frame at 9 s; it is 0\.5 s long"):
        beforeafter._write("clip", before, after, tmp_path, Choice(seconds=1, at_s=9))


# -- which colours ---------------------------------------------------------------------------------------------------

RED = (200, 40, 60)
WEIGHTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""Red's and blue's part of the luma, by matrix: BT.709, BT.601, BT.2020 (ITU-R)."""


def red_clip(path: Path, *, coded: int, tagged: int | None, pixel_format: str = "yuv420p") -> Path:
    """Red, encoded with one matrix and tagged with another, or with none."""
    clip = Clip(frames=4, width=32, height=32, matrix=tagged, pixel_format=pixel_format, options={"crf": "1"})
    kr, kb = WEIGHTS[coded]
    red, green, blue = (value / 255 for value in RED)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = [128 + 224 * (value - luma) / (2 - 2 * weight) for value, weight in ((blue, kb), (red, kr))]
    step = 1 << (clip.depth - 8)
    values = [round(value * step) for value in (16 + 219 * luma, *chroma)]
    shapes = ((32, 32), *[clips.chroma_shape(pixel_format, 32, 32)] * 2)
    planes = tuple(np.full(shape, value, np.uint16) for shape, value in zip(shapes, values, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "picture", lambda *_: planes)
        return clips.write(path, clip)


@pytest.mark.parametrize(("coded", "tagged"), [(1, 1), (6, 6), (9, 9), (1, None), (6, None)])
def test_colours_are_those_of_the_files(coded: int, tagged: int | None, tmp_path: Path) -> None:
    """An input without a tag is what the output says it is."""
    low = red_clip(tmp_path / "in.mp4", coded=coded, tagged=tagged)
    high = red_clip(tmp_path / "out.mp4", coded=coded, tagged=coded)
    with Video(str(low), "in") as before, Video(str(high), "out") as after:
        [pair, *_] = footage.stills(before, after, 1)
        footage.excerpt(before, after, tmp_path, start_s=0, seconds=1)
    for image in (pair.before, pair.after):
        assert max(abs(a - b) for a, b in zip(image.getpixel((16, 16)), RED, strict=True)) <= 4  # type: ignore[arg-type]
    for name in ("before.mp4", "after.mp4"):
        video = ffprobe.video(tmp_path / name)
        assert video["color_space"] == {1: "bt709", 6: "smpte170m", 9: "bt2020nc"}[coded]
        with av.open(str(tmp_path / name)) as container:
            [frame, *_] = container.decode(video=0)
        assert abs(int(frame.to_ndarray()[16, 16]) - _luma(coded)) <= 2


def _luma(matrix: int) -> float:
    kr, kb = WEIGHTS[matrix]
    return 16 + 219 * (kr * RED[0] + (1 - kr - kb) * RED[1] + kb * RED[2]) / 255


# -- what is drawn and written ---------------------------------------------------------------------------------------


def test_the_detail_is_where_most_is_to_be_seen() -> None:
    image = Image.new("RGB", (640, 360), "gray")
    pen = ImageDraw.Draw(image)
    for left in range(400, 480, 4):
        pen.line((left, 200, left, 260), fill="white")
    box = detailed(image, (160, 90))
    assert (box[2] - box[0], box[3] - box[1]) == (160, 90)
    # As good as all of it: boxes are looked for on a grid.
    assert box[0] <= 400 + CELL and box[2] >= 480 - CELL and box[1] <= 200 + CELL and box[3] >= 260 - CELL


@pytest.mark.parametrize("size", [(64, 64), (1920, 1080), (720, 1280), (9, 7)])
def test_a_sheet_has_room_for_everything(size: tuple[int, int]) -> None:
    pairs = [Pair(0.5, Image.new("RGB", size, "red"), Image.new("RGB", size, "blue"))] * 2
    picture = sheet(pairs, before="before: " + "a" * 500, after="after")
    counts = {colour: count for count, colour in picture.getcolors(1 << 24) or ()}
    assert counts[255, 0, 0] == counts[0, 0, 255] > 0
    assert picture.width <= 2 * 800 + 24


def test_the_page_needs_nothing_but_its_neighbours(tmp_path: Path) -> None:
    low, high = clips.write(tmp_path / "in.mp4", BEFORE), clips.write(tmp_path / "out.mp4", AFTER)
    folder = tmp_path / "made"
    folder.mkdir()
    with Video(str(low), "s3://media/<b>&.mp4") as before, Video(str(high), "s3://media/out.mp4") as after:
        page = beforeafter._write("clip", before, after, folder, Choice(seconds=10, at_s=None))
    text = page.read_text()
    named = set(re.findall(r'(?:src|href)="([^"]+)"', text))
    assert named == {path.name for path in folder.iterdir()} - {"index.html"}
    assert not re.search(r"https?://|//\w+\.", text)
    assert "s3://media/&lt;b&gt;&amp;.mp4" in text
    assert "$" not in text.replace("${", "")
    with Image.open(folder / "before-after.png") as picture:
        assert picture.width > 2 * 96
