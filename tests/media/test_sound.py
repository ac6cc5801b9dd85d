"""Every kind of sound that MP4 can hold arrives packet for packet; the rest is named as dropped."""

from pathlib import Path

import pytest
from tests.builders import clips, ffprobe
from tests.builders.clips import Clip, Sound
from tests.builders.passthrough import pass_through

from restoration_api.outcome import StreamAction
from restoration_runner.video import streams

PICTURE = Clip(frames=5)
ENCODERS = {
    "aac": ("aac", "fltp"),
    "ac3": ("ac3", "fltp"),
    "alac": ("alac", "s16p"),
    "eac3": ("eac3", "fltp"),
    "flac": ("flac", "s16"),
    "mp2": ("mp2", "s16"),
    "mp3": ("libmp3lame", "fltp"),
    "opus": ("libopus", "flt"),
    "pcm_f32le": ("pcm_f32le", "flt"),
    "pcm_s16le": ("pcm_s16le", "s16"),
    "pcm_s24le": ("pcm_s24le", "s32"),
}


@pytest.mark.parametrize("codec", ENCODERS)
def test_the_codec_is_copied_from_matroska(tmp_path: Path, codec: str) -> None:
    encoder, sample_format = ENCODERS[codec]
    sound = Sound(codec=encoder, sample_format=sample_format, seconds=0.3)
    check(clips.write(tmp_path / "in.mkv", PICTURE.but(sounds=(sound,))), tmp_path)


@pytest.mark.parametrize(
    ("suffix", "arguments"),
    [
        ("mkv", ("-c:a", "dca", "-strict", "-2")),
        ("mov", ("-c:a", "pcm_s16be")),
        ("mov", ("-c:a", "pcm_s24le")),
        ("avi", ("-c:v", "mpeg4", "-c:a", "pcm_s16le")),
        ("avi", ("-c:v", "mpeg4", "-c:a", "libmp3lame")),
        ("ogv", ("-c:v", "libtheora", "-c:a", "flac")),
    ],
)
def test_the_codec_is_copied_from_other_containers(tmp_path: Path, suffix: str, arguments: tuple[str, ...]) -> None:
    plain = clips.write(tmp_path / "plain.mkv", PICTURE.but(sounds=(Sound(codec="pcm_s16le", sample_format="s16"),)))
    source = tmp_path / f"in.{suffix}"
    clips.ffmpeg("-i", plain, "-c:v", "copy", *arguments, source)
    check(source, tmp_path)


def check(source: Path, folder: Path) -> None:
    passed = pass_through(source, folder, segments=1)
    assert passed.streams[1].action is StreamAction.COPIED
    passed.verify()
    # PCM is cut into packets as each demuxer likes, and FFmpeg 5 cannot read ISO 23003-5 at all: `verify` compared it.
    if not passed.facts.streams[1].codec.startswith("pcm_"):
        assert ffprobe.packet_hashes(passed.out, "a:0") == ffprobe.packet_hashes(source, "a:0")


def test_the_packet_headers_of_a_transport_stream_are_taken_off(tmp_path: Path) -> None:
    """ADTS headers inside MP4 make players silent; without them the packets are those of a plain AAC track."""
    plain = clips.write(tmp_path / "plain.mp4", PICTURE.but(sounds=(Sound(seconds=0.5),)))
    clips.ffmpeg("-i", plain, "-c", "copy", tmp_path / "in.ts")
    passed = pass_through(tmp_path / "in.ts", tmp_path, segments=1)
    passed.verify()
    found, given = (ffprobe.packet_hashes(path, "a:0") for path in (passed.out, plain))
    assert found == given
    assert next(stream for stream in ffprobe.streams(passed.out) if stream["codec_type"] == "audio")["profile"] == "LC"


@pytest.mark.parametrize("arguments", [("-c:a", "libvorbis"), ("-c:a", "truehd", "-strict", "-2"), ("-c:a", "wmav2")])
def test_what_mp4_cannot_hold_is_dropped_by_name(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    plain = clips.write(tmp_path / "plain.mkv", PICTURE.but(sounds=(Sound(codec="pcm_s16le", sample_format="s16"),)))
    source = tmp_path / "in.mkv"
    clips.ffmpeg("-i", plain, "-c:v", "copy", *arguments, source)
    passed = pass_through(source, tmp_path, segments=1)
    passed.verify()
    codec = passed.facts.streams[1].codec
    assert (passed.streams[1].action, codec in (passed.streams[1].detail or "")) == (StreamAction.DROPPED, True)
    assert [stream["codec_type"] for stream in ffprobe.streams(passed.out)] == ["video"]


def test_every_codec_of_the_table_is_tried_here() -> None:
    others = {"dts", "pcm_s16be"}
    same_form = {"pcm_f32be", "pcm_s24be", "pcm_s32be", "pcm_s32le"}
    assert {*ENCODERS, *others, *same_form} == streams.MP4_AUDIO
