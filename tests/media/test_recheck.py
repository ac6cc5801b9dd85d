"""Whatever happened to a frame of the joined file is noticed, by one decoder or by many, in whichever segment."""

import dataclasses
import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import pytest
from tests.builders import clips
from tests.builders.clips import Clip, Sound
from tests.builders.passthrough import Passed, pass_through

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.video import join, recheck, streams, threads, verify
from restoration_runner.video.recheck import Run, Share
from restoration_runner.video.source import open_media

SEGMENTS, SEGMENT_FRAMES, GROUP_FRAMES = 3, 8, 4
HD_BYTES = 1280 * 720 * 3
DECODERS = {"one decoder": 1, "all segments side by side": 3, "with several threads each": 16}


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> Passed:
    """Three segments of two groups of pictures each, and sound between them."""
    folder = tmp_path_factory.mktemp("joined")
    clip = Clip(frames=SEGMENTS * SEGMENT_FRAMES, rate=Fraction(2), sounds=(Sound(seconds=2),))
    return pass_through(clips.write(folder / "in.mp4", clip), folder, segments=SEGMENTS)


@pytest.fixture(params=DECODERS)
def decoders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(threads, "decoder_threads", lambda: DECODERS[request.param])
    # Told apart in `test_writing`, by ffprobe, which takes longer than all the rest.
    monkeypatch.setattr(verify, "_check_header", lambda *_: None)
    return str(request.param)


def rejoin(passed: Passed, out: Path, **changes: object) -> Path:
    told = {"segments": passed.segments, "timeline": passed.timeline} | changes
    join.join(
        **told,  # type: ignore[arg-type]
        out=out,
        color=passed.color,
        facts=passed.facts,
        source=passed.source,
        kept=streams.copied(passed.streams),
    )
    return out


def without(passed: Passed, out: Path, *, left_out: int) -> Path:
    """All packets but one, everything else where it was."""
    with (
        open_media(passed.out) as given,
        av.open(str(out), "w", container_options={"fflags": "+bitexact"}) as container,
    ):
        copies = {stream.index: container.add_stream_from_template(stream, opaque=True) for stream in given.streams}
        copies[0].time_base = given.streams[0].time_base
        seen = itertools.count()
        for packet in given.demux():
            if packet.size and not (packet.stream.type == "video" and next(seen) == left_out):
                packet.stream = copies[packet.stream.index]
                container.mux(packet)
    return out


def packets(path: Path) -> list[tuple[int, int]]:
    """(place, bytes) of each of the video's packets."""
    with open_media(path) as container:
        return [(entry.pos, entry.size) for entry in container.streams.video[0].index_entries]


def flip(passed: Passed, out: Path, at: int, bits: int) -> Path:
    data = bytearray(passed.out.read_bytes())
    data[at] ^= bits
    out.write_bytes(data)
    return out


def damages(passed: Passed, out: Path, segment: int) -> Iterator[tuple[str, Path]]:
    """Each kind of damage to one segment: (what, a damaged file)."""
    first, times = segment * SEGMENT_FRAMES, passed.timeline
    for packet in (first, first + GROUP_FRAMES, first + SEGMENT_FRAMES - 1):
        place, size = packets(passed.out)[packet]
        yield f"bits of packet {packet} flipped", flip(passed, out, place + size // 2, 0xFF)
        yield f"packet {packet} no picture any more", flip(passed, out, place + 4, 0x40)  # in the NAL unit's type
        yield f"without packet {packet}", without(passed, out, left_out=packet)
    other = list(passed.segments)
    other[segment], other[segment - 1] = other[segment - 1], other[segment]
    yield "swapped with another", rejoin(passed, out, segments=other)
    other[segment] = other[segment - 1]
    yield "another one twice", rejoin(passed, out, segments=other)
    ticks = list(times.ticks)
    ticks[first + 3] += 1
    yield "a frame one tick late", rejoin(passed, out, timeline=dataclasses.replace(times, ticks=tuple(ticks)))
    place, _ = packets(passed.out)[first + 2]
    out.write_bytes(passed.out.read_bytes()[:place])
    yield "cut off", out


@pytest.mark.parametrize("segment", range(SEGMENTS))
def test_damage_of_any_kind_is_noticed(passed: Passed, tmp_path: Path, decoders: str, segment: int) -> None:
    verify.verify(passed.out, passed.expected)
    for what, path in damages(passed, tmp_path / "damaged.mp4", segment):
        with pytest.raises(RestorationError) as caught:
            pytest.fail(f"{decoders}, {what}: {verify.verify(path, passed.expected)}")
        assert caught.value.reason is FailureReason.VERIFICATION_FAILED, what


@pytest.mark.parametrize("border", [SEGMENT_FRAMES, 2 * SEGMENT_FRAMES])
def test_frames_that_only_playing_across_a_border_loses_are_missed(
    passed: Passed, tmp_path: Path, decoders: str, border: int
) -> None:
    """A keyframe can say that frames before it are not to be shown any more. By itself each segment is whole."""
    place, _ = packets(passed.out)[border]
    # Length of the NAL unit (4), its header (2), then first_slice_segment_in_pic_flag and the flag in question.
    damaged = flip(passed, tmp_path / "damaged.mp4", place + 4 + 2, 0x40)
    with pytest.raises(RestorationError, match=r"number of frames|at tick"):
        pytest.fail(f"{decoders}: {verify.verify(damaged, passed.expected)}")


def test_both_sides_of_a_border_must_decode_to_the_same_picture(passed: Passed, decoders: str) -> None:
    segments = [Run(first, first + SEGMENT_FRAMES) for first in range(0, SEGMENTS * SEGMENT_FRAMES, SEGMENT_FRAMES)]
    chosen = recheck.share(SEGMENTS, frame_bytes=64 * 48 * 3)
    found = list(recheck.decode_segments(passed.out, segments, share=chosen, check=lambda frame, rank: None))
    assert [before.after_sha256 for before in found[:-1]] == [after.first_sha256 for after in found[1:]]
    assert found[-1].after_sha256 is None
    assert [segment.sha256 for segment in found] == [written.frames_sha256 for written in passed.written]
    found[1] = dataclasses.replace(found[1], first_sha256="0")
    with pytest.raises(RestorationError, match="frame 8, decoded after the one before it"):
        verify._check_segments(found, passed.expected)


@pytest.mark.parametrize(
    ("cores", "segments", "frame_bytes", "wanted"),
    [
        (1, 5, HD_BYTES, Share(decoders=1, threads=1)),
        (2, 1, HD_BYTES, Share(decoders=1, threads=2)),
        (2, 5, HD_BYTES, Share(decoders=2, threads=1)),
        (16, 1, HD_BYTES, Share(decoders=1, threads=16)),
        (16, 3, HD_BYTES, Share(decoders=3, threads=5)),
        (16, 360, HD_BYTES, Share(decoders=16, threads=1)),
        (16, 360, 9 * HD_BYTES, Share(decoders=4, threads=4)),
        (16, 360, 200 * HD_BYTES, Share(decoders=1, threads=16)),
    ],
)
def test_cores_are_shared_within_the_memory(
    monkeypatch: pytest.MonkeyPatch, cores: int, segments: int, frame_bytes: int, wanted: Share
) -> None:
    monkeypatch.setattr(threads, "_cores", lambda: cores)
    assert recheck.share(segments, frame_bytes=frame_bytes) == wanted
    with threads.sparing(True):
        assert recheck.share(segments, frame_bytes=frame_bytes) == Share(decoders=1, threads=1)


def test_the_first_difference_is_told_whichever_decoder_is_first(passed: Passed, tmp_path: Path, decoders: str) -> None:
    """All segments but the first are another's."""
    wrong = (passed.segments[0], passed.segments[0], passed.segments[1])
    out = rejoin(passed, tmp_path / "wrong.mp4", segments=wrong)
    with pytest.raises(RestorationError, match="in segment 1 frames with hash"):
        verify.verify(out, passed.expected)
