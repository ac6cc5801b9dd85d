"""What is found in a file: the right stream, its colour, and what the file does not say."""

from fractions import Fraction
from pathlib import Path

import pytest
from tests.builders import clips, ffprobe
from tests.builders.clips import Clip, Sound

from restoration_api.ledger import ColorRange
from restoration_api.request import AudioMode
from restoration_runner.video import streams
from restoration_runner.video.probe import probe
from restoration_runner.video.scan import scan


@pytest.mark.parametrize(
    ("clip", "matrix", "assumed"),
    [
        (Clip(frames=2), "bt709", ()),
        (Clip(frames=2, matrix=6, primaries=6, transfer=6), "smpte170m", ()),
        (Clip(frames=2, matrix=5, primaries=5, transfer=6), "bt470bg", ()),
        (Clip(frames=2, matrix=9, primaries=9, transfer=14), "bt2020nc", ()),
        (Clip(frames=2, matrix=None, primaries=None, transfer=None), "smpte170m", ("matrix", "primaries", "transfer")),
        (Clip(frames=2, matrix=None, primaries=None, transfer=None, height=576), "bt470bg", ("matrix", "primaries")),
        (Clip(frames=2, matrix=None, primaries=None, transfer=None, height=720), "bt709", ("matrix", "primaries")),
    ],
    ids=["bt709", "bt601-525", "bt601-625", "bt2020", "untagged 48 lines", "untagged 576 lines", "untagged 720 lines"],
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_matrix_and_what_was_assumed(
    tmp_path: Path, clip: Clip, matrix: str, assumed: tuple[str, ...], suffix: str
) -> None:
    color = probe(clips.write(tmp_path / f"in.{suffix}", clip)).color
    assert color.matrix == matrix
    assert set(assumed) <= set(color.assumed)
    assert ("matrix" in color.assumed) == bool(assumed)


@pytest.mark.parametrize(
    ("clip", "expected", "assumed"),
    [
        (Clip(frames=2, full_range=True, pixel_format="yuvj420p"), ColorRange.FULL, False),
        (Clip(frames=2, full_range=True), ColorRange.FULL, False),
        (Clip(frames=2, full_range=False), ColorRange.LIMITED, False),
        (Clip(frames=2, full_range=None, matrix=None, primaries=None, transfer=None), ColorRange.LIMITED, True),
    ],
    ids=["yuvj", "tagged full", "tagged limited", "untagged"],
)
def test_range(tmp_path: Path, clip: Clip, expected: ColorRange, assumed: bool) -> None:
    color = probe(clips.write(tmp_path / "in.mp4", clip)).color
    assert (color.range, "range" in color.assumed) == (expected, assumed)


@pytest.mark.parametrize("location", [("0", "left"), ("1", "center"), ("2", "topleft")])
def test_chroma_location_is_read(tmp_path: Path, location: tuple[str, str]) -> None:
    code, name = location
    clip = Clip(frames=2, options={"x264-params": f"chromaloc={code}"})
    assert probe(clips.write(tmp_path / "in.mp4", clip)).color.chroma_location == name


def test_facts_of_a_file_with_everything(tmp_path: Path) -> None:
    film = Fraction(24000, 1001)
    clip = Clip(rate=film, time_base=1 / film, pixel_format="yuv420p10le", sounds=(Sound(language="deu", title="Ton"),))
    path = clips.with_subtitles(clips.write(tmp_path / "plain.mkv", clip), tmp_path / "in.mkv")
    found = probe(path)
    assert (found.codec, found.pixel_format, found.bit_depth) == ("h264", "yuv420p10le", 10)
    assert (found.width, found.height, found.frame_rate) == (64, 48, "24000/1001")
    assert (found.sample_aspect_ratio, found.rotation_degrees, found.traits) == ("1:1", 0, ())
    kinds = [(stream.type, stream.codec, stream.language, stream.title) for stream in found.streams]
    assert kinds == [("video", "h264", None, None), ("audio", "aac", "deu", "Ton"), ("subtitle", "subrip", "eng", None)]


def test_cover_art_is_not_taken_for_the_video(tmp_path: Path) -> None:
    plain = clips.write(tmp_path / "plain.mp4", Clip(frames=3))
    clips.ffmpeg("-f", "lavfi", "-i", "color=red:size=320x320", "-frames:v", "1", tmp_path / "cover.png")
    arguments = ("-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic")
    clips.ffmpeg("-i", tmp_path / "cover.png", "-i", plain, *arguments, tmp_path / "in.mp4")
    found = probe(tmp_path / "in.mp4")
    assert (found.width, found.height) == (64, 48)
    assert not found.streams[found.stream_index].attached_picture


def test_the_default_video_stream_is_taken_else_the_largest(tmp_path: Path) -> None:
    small = clips.write(tmp_path / "small.mp4", Clip(frames=3))
    large = clips.write(tmp_path / "large.mp4", Clip(frames=3, width=96, height=64))
    both = ("-i", small, "-i", large, "-map", "0", "-map", "1", "-c", "copy")
    clips.ffmpeg(*both, "-disposition:v:0", "default", "-disposition:v:1", "0", tmp_path / "first.mkv")
    clips.ffmpeg(*both, "-disposition:v:0", "0", "-disposition:v:1", "0", tmp_path / "largest.mkv")
    assert probe(tmp_path / "first.mkv").width == 64
    assert probe(tmp_path / "largest.mkv").width == 96


@pytest.mark.parametrize(
    ("clip", "suffix"),
    [
        (Clip(frames=7), "mp4"),
        (Clip(frames=7, stamps=[0, 10, 15, 40, 41, 60, 90], time_base=Fraction(1, 600)), "mp4"),
        (Clip(frames=7, stamps=[3, 33, 80, 81, 120, 400, 433], time_base=Fraction(1, 1000)), "mkv"),
        (Clip(frames=7), "ts"),
        (Clip(frames=7, options={"bf": "0"}), "avi"),
        (Clip(frames=7), "flv"),
    ],
)
def test_times_are_those_that_ffprobe_decodes(tmp_path: Path, clip: Clip, suffix: str) -> None:
    path = clips.write(tmp_path / f"in.{suffix}", clip)
    found = scan(path, probe(path)).timestamps
    clock = Fraction(found.time_base)
    assert [stamp * clock for stamp in found.pts()] == ffprobe.times(path)


def test_what_was_assumed_or_is_lost_is_said_in_the_status(tmp_path: Path) -> None:
    untagged = Clip(frames=2, matrix=None, primaries=None, transfer=None, full_range=None)
    facts = probe(clips.write(tmp_path / "in.mp4", untagged))
    outcome = streams.decide(facts, audio=AudioMode.AUTO)[0]
    assert outcome.detail == ("h264 to hevc; matrix, primaries, range, transfer not tagged, taken as smpte170m limited")
    captioned = facts.model_copy(update={"traits": ("closed-captions",)})
    assert "closed captions inside it are dropped" in (streams.decide(captioned, audio=AudioMode.AUTO)[0].detail or "")
