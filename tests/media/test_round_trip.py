"""A clip through probe, scan, read, colour, write, join and verify, judged by the machine's own ffprobe."""

import itertools
from fractions import Fraction
from pathlib import Path

import pytest
from tests.builders import clips, ffprobe
from tests.builders.clips import Clip, Sound
from tests.builders.passthrough import pass_through

from restoration_api.outcome import StreamAction, Verdict
from restoration_runner.video import ffmpeg_cli

FILM = Fraction(24000, 1001)
CASES: dict[str, tuple[str, Clip, int]] = {
    "constant rate": ("mp4", Clip(), 3),
    "23.976": ("mp4", Clip(rate=FILM, time_base=1 / FILM, frames=30), 4),
    "23.976 in ticks of a millisecond": ("mkv", Clip(rate=FILM, time_base=1 / FILM, frames=30), 3),
    "variable rate": (
        "mp4",
        Clip(frames=9, stamps=[0, 10, 15, 40, 41, 60, 90, 100, 130], time_base=Fraction(1, 600)),
        2,
    ),
    "variable rate in ticks of a millisecond": (
        "mkv",
        Clip(frames=7, stamps=[0, 33, 80, 81, 120, 400, 433], time_base=Fraction(1, 1000)),
        3,
    ),
    "variable rate with a long end": (
        "mkv",
        Clip(frames=15, stamps=[*range(0, 520, 40), 560, 3000], time_base=Fraction(1, 1000), options={"bf": "3"}),
        2,
    ),
    "no B-frames": ("mp4", Clip(options={"bf": "0"}), 3),
    "picture half a second late": ("mp4", Clip(start=Fraction(1, 2), sounds=(Sound(),)), 2),
    "sound a quarter of a second late": ("mp4", Clip(sounds=(Sound(delay=Fraction(1, 4)),)), 2),
    "starting at 1.4 s": ("ts", Clip(frames=12, sounds=(Sound(codec="mp2", sample_format="s16"),)), 2),
    "odd size": ("mp4", Clip(width=66, height=54, frames=10), 2),
    "full range": ("mp4", Clip(pixel_format="yuvj420p", full_range=True), 2),
    "10 bit": ("mkv", Clip(pixel_format="yuv420p10le"), 2),
    "4:2:2": ("mkv", Clip(pixel_format="yuv422p"), 2),
    "4:4:4 in 10 bit": ("mkv", Clip(pixel_format="yuv444p10le"), 2),
    "one frame": ("mp4", Clip(frames=1), 1),
    "four frames": ("mp4", Clip(frames=4), 4),
    "HEVC with open groups of pictures": (
        "mkv",
        Clip(codec="libx265", pixel_format="yuv420p10le", frames=30, gop=6),
        4,
    ),
    "raw H.264 without any clock": ("h264", Clip(frames=20), 3),
}


@pytest.mark.parametrize("case", CASES)
def test_frames_times_size_and_tags_survive(tmp_path: Path, case: str) -> None:
    suffix, clip, segments = CASES[case]
    source = clips.write(tmp_path / f"in.{suffix}", clip)

    passed = pass_through(source, tmp_path, segments=segments)
    assert passed.verify().verdict is Verdict.PASSED

    found = ffprobe.video(passed.out)
    assert (found["codec_name"], found["codec_tag_string"], found["profile"]) == ("hevc", "hvc1", "Main 10")
    assert (found["width"], found["height"], found["pix_fmt"]) == (clip.width, clip.height, "yuv420p10le")
    tags = [
        found[key] for key in ("color_space", "color_primaries", "color_transfer", "color_range", "chroma_location")
    ]
    assert tags == ["bt709", "bt709", "bt709", "tv", "left"]
    exact = [stamp * clip.clock for stamp in clip.times()]
    times = ffprobe.times(passed.out)
    assert [time - times[0] for time in times] == [time - exact[0] for time in exact]
    assert ffmpeg_cli.psnr(source, passed.out, pixel_format="yuv420p10le") > 40


@pytest.mark.parametrize(
    "clip",
    [
        Clip(start=Fraction(1, 2), sounds=(Sound(),)),
        Clip(sounds=(Sound(delay=Fraction(1, 4)),)),
        Clip(sounds=(Sound(),)),
    ],
    ids=["picture late", "sound late", "together"],
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_offset_between_picture_and_sound_is_kept(tmp_path: Path, clip: Clip, suffix: str) -> None:
    source = clips.write(tmp_path / f"in.{suffix}", clip)
    passed = pass_through(source, tmp_path, segments=2)

    def offset(path: Path) -> Fraction:
        return ffprobe.packet_times(path, "a:0")[0] - ffprobe.times(path)[0]

    assert abs(offset(passed.out) - offset(source)) <= Fraction(1, 1000)
    # The first packet of AAC is priming: it lies one frame before what is to be heard.
    intended = clip.sounds[0].delay - clip.times()[0] * clip.clock - Fraction(1024, 48000)
    assert abs(offset(passed.out) - intended) <= Fraction(1, 1000)
    steps = {
        round((after - before) * 48000) for before, after in itertools.pairwise(ffprobe.packet_times(passed.out, "a:0"))
    }
    assert steps == {1024}, "sound is played without gaps, whatever the input's clock"


def test_all_tracks_that_fit_are_copied_and_the_others_are_named(tmp_path: Path) -> None:
    sounds = (
        Sound(language="deu", title="Kommentar"),
        Sound(codec="libopus", sample_format="flt", language="fra"),
        Sound(codec="pcm_u8", sample_format="u8", rate=8000),
    )
    plain = clips.write(tmp_path / "plain.mkv", Clip(sounds=sounds, chapters=True))
    source = clips.with_subtitles(plain, tmp_path / "in.mkv")

    passed = pass_through(source, tmp_path)
    passed.verify()

    actions = [(outcome.type, outcome.action) for outcome in passed.streams]
    assert actions == [
        ("video", StreamAction.RESTORED),
        ("audio", StreamAction.COPIED),
        ("audio", StreamAction.COPIED),
        ("audio", StreamAction.DROPPED),
        ("subtitle", StreamAction.DROPPED),
    ]
    assert "pcm_u8" in (passed.streams[3].detail or "") and "eng" in (passed.streams[4].detail or "")
    found = [stream for stream in ffprobe.streams(passed.out) if stream["codec_type"] == "audio"]
    assert [stream["tags"]["language"] for stream in found] == ["deu", "fra"]
    for position in (0, 1):
        assert ffprobe.packet_hashes(passed.out, f"a:{position}") == ffprobe.packet_hashes(source, f"a:{position}")
    assert [chapter["tags"]["title"] for chapter in ffprobe.chapters(passed.out)] == ["One", "Two"]
