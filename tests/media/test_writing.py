"""A segment's bytes depend on its frames and nothing else; a joined file that is not what was planned is noticed."""

import dataclasses
import hashlib
import os
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from tests.builders import clips
from tests.builders.clips import Clip, Sound
from tests.builders.passthrough import Passed, encode, pass_through, settings

from restoration_api.outcome import FailureReason
from restoration_api.request import AudioMode
from restoration_runner.errors import RestorationError
from restoration_runner.video import colorimetry, join, streams, threads, timeline, verify, write
from restoration_runner.video.frame_hash import FollowedFrames, hash_frames
from restoration_runner.video.probe import probe
from restoration_runner.video.scan import scan

REAL = Path(__file__).parents[2] / "examples/01-first-restoration/clip/original.mp4"
"""Filmed, 640x272: drawn clips have the same bytes even where x265's lookahead goes another way."""
BT709 = colorimetry.output_color(
    colorimetry.complete(
        matrix="bt709", primaries="bt709", transfer="bt709", full_range=False, chroma_location="left", height=1080
    )
)
FRAMES = 30
"""More than the lookahead sees at once."""
WRITE = """
import sys
from pathlib import Path
from tests.media.test_writing import write_real
print(write_real(Path(sys.argv[1])))
"""


def write_real(out: Path) -> str:
    facts = probe(REAL)
    return encode(REAL, out, facts, scan(REAL, facts), first=0, last=FRAMES - 1, preset="medium").sha256


def test_a_segment_has_the_same_bytes_in_every_run_and_with_any_number_of_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """x265 chooses by the threads of its pool, not by the cores it may use, so many are pretended as well."""
    core, out = min(os.sched_getaffinity(0)), tmp_path / "one core.mkv"
    command = ["taskset", "-c", str(core), sys.executable, "-c", WRITE, str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == hashlib.sha256(out.read_bytes()).hexdigest()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16))
    assert write_real(tmp_path / "sixteen cores.mkv") == done.stdout.strip()


SMALL = """
import sys
from pathlib import Path
from tests.media.test_writing import write_fading
folder, width, height = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
print(*{write_fading(folder / "small.mkv", width, height) for _ in range(25)})
"""


def write_fading(out: Path, width: int, height: int) -> str:
    """Few frames that get darker, which x265 predicts with weights, in memory that is not as new."""
    settings = write.encoder_settings(
        crf=18, preset="medium", width=width, height=height, frame_rate="24/1", color=BT709
    )
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    texture = 400 + 200 * torch.sin(rows / 5 + columns / 9) + 100 * torch.cos(rows * columns / 40)
    chroma = torch.full((height // 2, width // 2), 512, dtype=torch.int16)
    used = [torch.randint(1, 1000, (size,), dtype=torch.int16) for size in range(2_000, 200_000, 2_000)]
    del used
    with write.SegmentWriter(
        out, settings=settings, color=BT709, width=width, height=height, frame_rate="24/1"
    ) as writer:
        for frame in range(6):
            writer.write(((texture.roll(frame, 1) * (1 - frame / 12)).clamp(64, 940).to(torch.int16), chroma, chroma))
    return writer.result().frames_sha256


@pytest.mark.parametrize(
    ("width", "height"),
    [(96, 64), (320, 64), (64, 64), (64, 272), (32, 64), (64, 18), (32, 32), (48, 32), (34, 64), (40, 128), (48, 272)],
)
def test_small_pictures_have_the_same_bytes_in_every_run(tmp_path: Path, width: int, height: int) -> None:
    """x265 4.2 reads what it never wrote where a picture is one row or column of blocks, and with AVX2 writes where it
    should not at 33 to 48 columns, which ends the process."""
    command = [sys.executable, "-c", SMALL, str(tmp_path), str(width), str(height)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 1


@pytest.mark.parametrize(("cores", "wanted"), [(1, 4), (3, 4), (4, 4), (16, 16), (128, 32)])
def test_the_encoders_pool_follows_the_cores_above_four(
    monkeypatch: pytest.MonkeyPatch, cores: int, wanted: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))
    assert threads.pool_size() == wanted
    with threads.sparing(True):
        assert threads.pool_size() == 4


def test_a_growing_file_is_decoded_to_its_end(tmp_path: Path) -> None:
    """Piece by piece as a muxer writes it: opened before it exists, and read to where it ends in the end."""
    whole = tmp_path / "whole.mkv"
    source = clips.write(tmp_path / "in.mp4", Clip(frames=30, width=176, height=144))
    facts = probe(source)
    written = encode(source, whole, facts, scan(source, facts), first=0, last=29)
    assert hash_frames(whole) == (30, written.frames_sha256)
    growing = tmp_path / "growing.mkv"
    followed = FollowedFrames(growing)
    data = whole.read_bytes()
    try:
        with growing.open("wb", buffering=0) as out:
            for start in range(0, len(data), 4096):
                out.write(data[start : start + 4096])
                time.sleep(0.005)
    finally:
        followed.file_is_complete()
    assert followed.result() == (30, written.frames_sha256)


@pytest.mark.parametrize("kept_bytes", [0, 100, 3000])
def test_a_segment_that_cannot_be_decoded_is_nobody_s_input(tmp_path: Path, kept_bytes: int) -> None:
    source = clips.write(tmp_path / "in.mp4", Clip(frames=3, width=176, height=144))
    facts = probe(source)
    path = tmp_path / "out.mkv"
    encode(source, path, facts, scan(source, facts), first=0, last=2)
    path.write_bytes(path.read_bytes()[:kept_bytes].ljust(kept_bytes + 500, b"\xff"))
    followed = FollowedFrames(path)
    followed.file_is_complete()
    for look in (followed.result, lambda: hash_frames(path)):
        try:
            assert look()[0] < 3
        except RestorationError as error:
            assert error.reason is FailureReason.VERIFICATION_FAILED


@pytest.mark.parametrize(
    ("width", "height", "of_size"),
    [
        (1920, 1080, ""),
        (66, 66, ""),
        (66, 64, ":ctu=16:weightp=0:weightb=0"),
        (64, 66, ":ctu=16:weightp=0:weightb=0"),
        (62, 66, ":ctu=16:weightp=0:weightb=0:asm=0"),
    ],
)
def test_the_encoders_settings_are_pinned(width: int, height: int, of_size: str) -> None:
    """Whoever changes one of these changes the bytes of every segment, and must change the engine version."""
    found = write.encoder_settings(
        crf=18, preset="medium", width=width, height=height, frame_rate="24000/1001", color=BT709
    )
    pinned = "frame-threads=16:wpp=1:info=0:repeat-headers=0:open-gop=0:scenecut=0"
    assert found.parameters == f"{pinned}{of_size}:keyint=48:min-keyint=48:chromaloc=0"
    assert (found.pixel_format, found.gop_frames, found.crf, found.preset) == ("yuv420p10le", 48, 18, "medium")


@pytest.mark.parametrize(
    ("said", "expected"),
    [(None, 25), ("25/1", 25), ("24000/1001", Fraction(24000, 1001)), ("1/10", 1), ("90000/1", 300)],
)
def test_the_nominal_rate_stays_sane(said: str | None, expected: Fraction) -> None:
    assert write.nominal_rate(said) == expected


@pytest.fixture
def passed(tmp_path: Path) -> Passed:
    return pass_through(clips.write(tmp_path / "in.mp4", Clip(sounds=(Sound(),))), tmp_path, segments=2)


def failure(out: Path, expected: verify.Expected) -> str:
    with pytest.raises(RestorationError) as caught:
        verify.verify(out, expected)
    assert caught.value.reason is FailureReason.VERIFICATION_FAILED
    return caught.value.message


def test_the_joined_file_is_the_same_every_time(passed: Passed, tmp_path: Path) -> None:
    again = tmp_path / "again.mp4"
    join.join(
        passed.segments,
        again,
        timeline=passed.timeline,
        color=passed.color,
        facts=passed.facts,
        source=passed.source,
        kept=streams.copied(passed.streams),
    )
    assert again.read_bytes() == passed.out.read_bytes()
    data = again.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "a player must not have to fetch the end first"


def test_verification_notices_what_differs_from_the_plan(passed: Passed, tmp_path: Path) -> None:
    good = passed.expected
    times, (first, second) = good.timeline, good.segments
    later = dataclasses.replace(times, ticks=(*times.ticks[:-1], times.ticks[-1] + 1))
    shorter = dataclasses.replace(times, ticks=times.ticks[:-1])
    longer = dataclasses.replace(times, last_duration=times.last_duration + 1)
    other_sound = clips.write(tmp_path / "other.mp4", Clip(sounds=(Sound(seconds=0.5),)))
    cases = [
        (dataclasses.replace(good, width=66), "width 64, the plan says 66"),
        (dataclasses.replace(good, color=good.color.model_copy(update={"matrix": "smpte170m"})), "color_space bt709"),
        (dataclasses.replace(good, color=good.color.model_copy(update={"chroma_location": "topleft"})), "chroma_loc"),
        (dataclasses.replace(good, timeline=later), "frame shown until tick"),
        (
            dataclasses.replace(good, timeline=dataclasses.replace(later, last_duration=times.last_duration - 1)),
            "frame 23",
        ),
        (dataclasses.replace(good, timeline=longer), "last frame shown until tick"),
        (dataclasses.replace(good, timeline=shorter), "the plan says"),
        (dataclasses.replace(good, segments=(second, first)), "segment 0"),
        (dataclasses.replace(good, segments=(first,)), "segments that hold frames 12, the plan says 24"),
        (dataclasses.replace(good, kept=()), "streams ['video', 'audio']"),
        (dataclasses.replace(good, source=other_sound), "packets with hash"),
    ]
    for expected, sentence in cases:
        assert sentence in failure(passed.out, expected)
    passed.verify()


def test_verification_notices_a_damaged_file(passed: Passed) -> None:
    data = bytearray(passed.out.read_bytes())
    # Somewhere in the middle of the coded pictures, which lie after the index.
    at = data.index(b"mdat") + 200
    data[at] ^= 0xFF
    passed.out.write_bytes(data)
    failure(passed.out, passed.expected)
    clips.truncate(passed.out, keep=0.8)
    failure(passed.out, passed.expected)
    passed.out.write_bytes(b"")
    failure(passed.out, passed.expected)


def test_segments_that_do_not_fit_together_are_not_joined(tmp_path: Path) -> None:
    source = clips.write(tmp_path / "in.mp4", Clip())
    facts = probe(source)
    scanned = scan(source, facts)
    times = timeline.timeline(scanned.timestamps, facts)
    color = colorimetry.output_color(facts.color)
    a, b, other = tmp_path / "a.mkv", tmp_path / "b.mkv", tmp_path / "other.mkv"
    encode(source, a, facts, scanned, first=0, last=11)
    encode(source, b, facts, scanned, first=12, last=22)
    changed = settings(facts).model_copy(update={"parameters": settings(facts).parameters + ":ref=5"})
    with write.SegmentWriter(
        other, settings=changed, color=color, width=64, height=48, frame_rate=facts.frame_rate
    ) as writer:
        planes = clips.picture(Clip(pixel_format="yuv420p10le"), 0)
        for _ in range(12):
            writer.write(tuple(torch.from_numpy(plane.astype("int16")) for plane in planes))  # type: ignore[arg-type]
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(a.read_bytes()[:100])
    cases = (
        ((a, b), "hold 23 frames, the plan says 24"),
        ((a, other), "other parameters"),
        ((a, broken), r"segment broken\.mkv cannot be read; delete it and run again"),
    )
    for segments, sentence in cases:
        with pytest.raises(RestorationError, match=sentence) as caught:
            join.join(segments, tmp_path / "out.mp4", timeline=times, color=color, facts=facts, source=source, kept=())
        assert caught.value.reason is FailureReason.VERIFICATION_FAILED


def test_audio_copy_that_is_impossible_is_refused(tmp_path: Path) -> None:
    sound = Sound(codec="pcm_u8", sample_format="u8", rate=8000)
    facts = probe(clips.write(tmp_path / "in.mkv", Clip(sounds=(sound,))))
    with pytest.raises(
        RestorationError, match=r"output\.audio: Copy is not possible: MP4 cannot hold pcm_u8"
    ) as caught:
        streams.decide(facts, audio=AudioMode.COPY)
    assert caught.value.reason is FailureReason.INVALID_PARAMETERS
    dropped = streams.decide(facts, audio=AudioMode.DROP)
    assert [outcome.detail for outcome in dropped] == ["h264 to hevc", "output.audio is Drop"]
