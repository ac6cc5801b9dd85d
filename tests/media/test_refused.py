"""Every input that cannot be restored exactly ends in one sentence that names it, what was found, and a remedy."""

import random
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
from tests.builders import clips
from tests.builders.clips import Clip, Sound

from restoration_api.ledger import ColorFacts, ColorRange, Timestamps, VideoFacts
from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.video import source, supported
from restoration_runner.video.probe import probe
from restoration_runner.video.scan import Scan, scan
from restoration_runner.video.supported import check_supported

NAME = "s3://media/in.mp4"


def accept(path: Path) -> Scan:
    """What the runner does with a file before it plans."""
    facts = probe(path, name=NAME)
    check_supported(facts, name=NAME)
    found = scan(path, facts, name=NAME)
    check_supported(facts, found, name=NAME)
    return found


def refusal(path: Path) -> str:
    with pytest.raises(RestorationError) as caught:
        accept(path)
    assert caught.value.reason is FailureReason.INVALID_INPUT
    message = caught.value.message
    assert message.startswith(f"{NAME}: ") and "\n" not in message and message.endswith(".")
    assert str(path) not in message, "the path of a temporary copy means nothing to a user"
    return message


def text(folder: Path) -> Path:
    path = folder / "in.mp4"
    path.write_text("this is not a video\n" * 100)
    return path


def empty(folder: Path) -> Path:
    path = folder / "in.mp4"
    path.touch()
    return path


def random_bytes(folder: Path) -> Path:
    path = folder / "in.mp4"
    path.write_bytes(bytes((n * n * 31 + n) % 251 for n in range(20000)))
    return path


def sound_only(folder: Path) -> Path:
    both = clips.write(folder / "both.mp4", Clip(sounds=(Sound(),)))
    clips.ffmpeg("-i", both, "-vn", "-c", "copy", folder / "in.mp4")
    return folder / "in.mp4"


def cover_art_only(folder: Path) -> Path:
    sound = sound_only(folder)
    clips.ffmpeg("-f", "lavfi", "-i", "color=red:size=32x32", "-frames:v", "1", folder / "cover.png")
    arguments = ("-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic")
    clips.ffmpeg("-i", sound, "-i", folder / "cover.png", *arguments, folder / "cover.mp4")
    return folder / "cover.mp4"


def still_image(folder: Path) -> Path:
    clips.ffmpeg("-f", "lavfi", "-i", "color=red:size=32x32", "-frames:v", "1", folder / "in.png")
    return folder / "in.png"


def playlist(folder: Path) -> Path:
    clips.write(folder / "part.ts", Clip())
    path = folder / "in.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\npart.ts\n#EXT-X-ENDLIST\n")
    return path


def concat_script(folder: Path) -> Path:
    clips.write(folder / "part.mp4", Clip())
    path = folder / "in.ffconcat"
    path.write_text("ffconcat version 1.0\nfile part.mp4\n")
    return path


def faststart_cut_off(folder: Path) -> Path:
    clip = Clip(frames=100, container_options={"movflags": "+faststart"})
    return clips.truncate(clips.write(folder / "in.mp4", clip), keep=0.7)


def index_lost(folder: Path) -> Path:
    return clips.truncate(clips.write(folder / "in.mp4", Clip(frames=100)), keep=0.7)


def matroska_cut_off(folder: Path) -> Path:
    return clips.truncate(clips.write(folder / "in.mkv", Clip(frames=150, gop=10)), keep=0.4)


def no_frames(folder: Path) -> Path:
    """An index full of frames, and zeros where they should be."""
    path = clips.write(folder / "in.mp4", Clip(frames=5))
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    return path


def damaged_inside(folder: Path) -> Path:
    path = clips.write(folder / "in.mkv", Clip(frames=60, width=128, height=96))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    for at in range(middle, middle + 3000, 7):
        data[at] ^= 0xA5
    path.write_bytes(data)
    return path


def size_change(folder: Path) -> Path:
    """Two raw streams of different sizes, one after the other, as a camera that was switched writes them."""
    small = clips.write(folder / "small.h264", Clip(frames=5))
    large = clips.write(folder / "large.h264", Clip(frames=5, width=96, height=64))
    (folder / "in.h264").write_bytes(small.read_bytes() + large.read_bytes())
    return folder / "in.h264"


BROKEN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a text file": (text, "not a video"),
    "an empty file": (empty, "not a video"),
    "random bytes": (random_bytes, "not a video"),
    "sound only": (sound_only, "only audio"),
    "cover art only": (cover_art_only, "cover art"),
    "a still image": (still_image, "not a video"),
    "a playlist": (playlist, "not a video"),
    "a concat script": (concat_script, "not a video"),
    "cut off, index first": (faststart_cut_off, "cut off"),
    "cut off, index last": (index_lost, "not a video"),
    "cut off Matroska": (matroska_cut_off, "cut off"),
    "no frame that decodes": (no_frames, "without a single frame"),
    "damaged inside": (damaged_inside, "damaged"),
    "another size midway": (size_change, "changes from 64x48 yuv420p to 96x64 yuv420p at frame 5"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_invalid_input(tmp_path: Path, case: str) -> None:
    build, expected = BROKEN[case]
    assert expected in refusal(build(tmp_path))


def test_a_missing_ffprobe_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clips.write(tmp_path / "in.mp4", Clip(frames=1))
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RestorationError, match="ffprobe is not installed"):
        probe(path)


def through_ffmpeg(*arguments: str, suffix: str = "mkv") -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        source = clips.write(folder / "plain.mp4", Clip(frames=6))
        clips.ffmpeg("-i", source, *arguments, folder / f"in.{suffix}")
        return folder / f"in.{suffix}"

    return build


def clip_of(clip: Clip, suffix: str = "mp4") -> Callable[[Path], Path]:
    return lambda folder: clips.write(folder / f"in.{suffix}", clip)


def mirrored(folder: Path) -> Path:
    source = clips.write(folder / "plain.mp4", Clip(frames=3, rotation=180))
    # A turn by 180 degrees negates both axes; with the second made positive again it is a mirror image.
    turned = b"\xff\xff\x00\x00" + bytes(12) + b"\xff\xff\x00\x00"
    data = source.read_bytes()
    assert data.count(turned) == 1
    path = folder / "in.mp4"
    path.write_bytes(data.replace(turned, b"\xff\xff\x00\x00" + bytes(12) + b"\x00\x01\x00\x00"))
    return path


FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "codec": (through_ffmpeg("-c:v", "snow", "-strict", "-2"), "transcode it to H.264"),
    "alpha": (through_ffmpeg("-c:v", "ffv1", "-pix_fmt", "yuva444p"), "two opaque videos"),
    "pixel format": (through_ffmpeg("-c:v", "ffv1", "-pix_fmt", "gray"), "gray"),
    "HDR": (clip_of(Clip(frames=3, transfer=16, primaries=9, matrix=9)), "HDR10 (PQ)"),
    "transfer": (clip_of(Clip(frames=3, transfer=8)), "linear"),
    "matrix": (clip_of(Clip(frames=3, matrix=8)), "ycgco"),
    "rotation": (clip_of(Clip(frames=3, rotation=90)), "rotated by"),
    "mirrored": (mirrored, "mirrored"),
    "pixel aspect": (clip_of(Clip(frames=3, aspect=Fraction(64, 45))), "64:45"),
    "interlaced": (clip_of(Clip(frames=6, interlaced=True), "mkv"), "deinterlace"),
}
"""Files that show how a property is found in practice."""


@pytest.mark.parametrize("case", FILES)
def test_a_property_that_is_not_handled_is_found_and_refused(tmp_path: Path, case: str) -> None:
    build, expected = FILES[case]
    message = refusal(build(tmp_path))
    assert expected in message and "not supported by this version; " in message


def test_hlg_is_refused(tmp_path: Path) -> None:
    assert "HLG" in refusal(clips.write(tmp_path / "in.mp4", Clip(frames=3, transfer=18, primaries=9, matrix=9)))


def facts(**changes: object) -> VideoFacts:
    color = ColorFacts(
        matrix="bt709", primaries="bt709", transfer="bt709", range=ColorRange.LIMITED, chroma_location="left"
    )
    color = color.model_copy(update={key: changes.pop(key) for key in list(changes) if key in ColorFacts.model_fields})
    plain = VideoFacts(
        container="mov",
        stream_index=0,
        codec="h264",
        pixel_format="yuv420p",
        bit_depth=8,
        width=64,
        height=48,
        color=color,
    )
    return plain.model_copy(update=changes)


def scanned(
    *,
    time_base: str = "1/25",
    damaged_packets: int = 0,
    interlaced_frames: int = 0,
    unusable_sound: tuple[int, ...] = (),
) -> Scan:
    return Scan(
        timestamps=Timestamps(time_base=time_base, first=0, last_duration=1),
        damaged_packets=damaged_packets,
        interlaced_frames=interlaced_frames,
        unusable_sound=unusable_sound,
    )


def test_an_empty_track_of_sound_is_refused(tmp_path: Path) -> None:
    source = clips.write(tmp_path / "in.mkv", Clip(frames=5, sounds=(Sound(seconds=0.3), Sound(seconds=0))))
    assert "its sound (stream 2) is empty" in refusal(source)


def test_subtitles_that_last_longer_than_the_picture_do_not_look_like_a_cut_off_file(tmp_path: Path) -> None:
    source = clips.write(tmp_path / "plain.mkv", Clip(frames=10))
    text = tmp_path / "in.srt"
    text.write_text("1\n00:00:08,000 --> 00:00:30,000\nThe end\n")
    clips.ffmpeg("-i", source, "-i", text, "-c", "copy", "-c:s", "srt", tmp_path / "in.mkv")
    assert accept(tmp_path / "in.mkv").frames == 10


def test_a_title_in_another_encoding_is_read(tmp_path: Path) -> None:
    source = clips.write(tmp_path / "plain.avi", Clip(frames=3, codec="mpeg4"))
    clips.ffmpeg("-i", source, "-c", "copy", "-metadata", "title=Xrger", tmp_path / "in.avi")
    (tmp_path / "in.avi").write_bytes((tmp_path / "in.avi").read_bytes().replace(b"Xrger", b"\xc4rger"))
    assert accept(tmp_path / "in.avi").frames == 3


def test_a_frame_size_beyond_all_codecs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clips.write(tmp_path / "in.mp4", Clip(frames=2))
    with monkeypatch.context() as patch:
        patch.setattr(source, "MOST_PIXELS", 64 * 48 - 1)
        assert "its frame size is not one that" in refusal(path), "the decoder itself refuses, whatever is claimed"
    monkeypatch.setattr("restoration_runner.video.probe.MOST_PIXELS", 64 * 48 - 1)
    assert "claims frames of 64x48" in refusal(path)


def test_more_streams_than_the_status_can_name_are_refused(tmp_path: Path) -> None:
    plain = clips.write(tmp_path / "plain.mkv", Clip(frames=2))
    clips.ffmpeg("-i", plain, *(("-map", "0:v") * 65), "-c", "copy", tmp_path / "in.mkv")
    assert "not a video that can be read" in refusal(tmp_path / "in.mkv")


def test_a_file_name_is_never_taken_for_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = clips.write(tmp_path / "in.mp4", Clip(frames=2))
    plain.rename(tmp_path / "concat:in.mp4")
    monkeypatch.chdir(tmp_path)
    assert accept(Path("concat:in.mp4")).frames == 2


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_a_few_changed_bytes_never_end_in_anything_but_a_sentence(tmp_path: Path, suffix: str) -> None:
    tone = Sound(codec="mp2", sample_format="s16", seconds=0.3)
    base = clips.write(tmp_path / f"base.{suffix}", Clip(frames=8, codec="mpeg4", sounds=(tone,))).read_bytes()
    rng = random.Random(suffix)
    for _ in range(12):
        data = bytearray(base)
        for _ in range(rng.choice((1, 20, 200))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path = tmp_path / f"in.{suffix}"
        path.write_bytes(data[: rng.choice((len(data), rng.randrange(len(data))))])
        try:
            accept(path)
        except RestorationError as error:
            assert error.reason is FailureReason.INVALID_INPUT and error.message.startswith(f"{NAME}: ")


ROWS: dict[str, VideoFacts | Scan] = {
    "codec": facts(codec="bink"),
    "alpha": facts(traits=("alpha",)),
    "pixel format": facts(pixel_format="gbrp"),
    "Dolby Vision": facts(traits=("dolby-vision",)),
    "HDR": facts(transfer="smpte2084"),
    "transfer": facts(transfer="log100"),
    "matrix": facts(matrix="ictcp"),
    "chroma location": facts(chroma_location="somewhere"),
    "mirrored": facts(traits=("mirrored",)),
    "rotation": facts(rotation_degrees=-90),
    "pixel aspect": facts(sample_aspect_ratio="16:15"),
    "interlaced": facts(field_order="tt"),
    "spherical": facts(traits=("spherical",)),
    "stereo": facts(traits=("stereo3d",)),
    "encrypted": facts(traits=("encrypted",)),
    "interlaced frames": scanned(interlaced_frames=1),
    "damage": scanned(damaged_packets=1),
    "sound": scanned(unusable_sound=(1,)),
    "clock": scanned(time_base="1/4294967295"),
}


def test_every_row_has_a_case() -> None:
    assert list(ROWS) == [row.name for row in (*supported.REFUSALS, *supported.SCAN_REFUSALS)]


@pytest.mark.parametrize("name", ROWS)
def test_the_row_refuses_and_is_the_only_one(name: str) -> None:
    case = ROWS[name]
    applying = [row.name for row in supported.REFUSALS if isinstance(case, VideoFacts) and row.applies(case)]
    applying += [row.name for row in supported.SCAN_REFUSALS if isinstance(case, Scan) and row.applies(case)]
    assert applying == ([name] if name != "HDR" else ["HDR", "transfer"])
    with pytest.raises(RestorationError) as caught:
        if isinstance(case, VideoFacts):
            check_supported(case, name=NAME)
        else:
            check_supported(facts(), case, name=NAME)
    assert caught.value.reason is FailureReason.INVALID_INPUT


def test_a_plain_file_is_accepted() -> None:
    check_supported(facts(), scanned(), name=NAME)


def test_ffmpeg_is_there_to_judge() -> None:
    assert shutil.which("ffmpeg") and shutil.which("ffprobe")
