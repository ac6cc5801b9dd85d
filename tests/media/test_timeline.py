"""When frames are shown: exact for constant and variable rate, whatever the input's clock."""

import math
from fractions import Fraction

import pytest
from tests.media.test_refused import facts

from restoration_api.ledger import StreamFacts, Timestamps, VideoFacts
from restoration_runner.video.timeline import Timeline, constant_rate, decoding_lead, timeline

FILM = Fraction(24000, 1001)
MS = Fraction(1, 1000)


def rounded(rate: Fraction, clock: Fraction, *, count: int, down: bool = False) -> list[int]:
    """Times of a constant rate as a muxer writes them: cut off, or to the nearest tick, halves up, as FFmpeg does."""
    half = Fraction(0) if down else Fraction(1, 2)
    return [math.floor(rank / rate / clock + half) for rank in range(count)]


@pytest.mark.parametrize("rate", ["24000/1001", "24", "25", "30000/1001", "30", "50", "60000/1001", "60", "120"])
@pytest.mark.parametrize("said", [True, False], ids=["header says so", "header silent"])
@pytest.mark.parametrize("down", [True, False], ids=["rounded down", "rounded to nearest"])
def test_a_constant_rate_in_milliseconds_is_restored(rate: str, said: bool, down: bool) -> None:
    exact = Fraction(rate)
    stamps = rounded(exact, MS, count=2000, down=down)
    assert constant_rate(stamps, MS, rate if said else None) == exact


@pytest.mark.parametrize(
    ("stamps", "clock", "said", "expected"),
    [
        ([0, 1001, 2002, 3003], Fraction(1, 24000), None, FILM),
        ([5, 6, 7], Fraction(1, 15), None, Fraction(15)),
        ([0, 40, 80, 121], MS, "25", None),
        ([0, 40, 80, 160], MS, "25", None),
        ([0, 33, 80, 81, 120], MS, "30", None),
        ([0, 42, 83, 125, 167, 208, 250], MS, "24000/1001", FILM),
        ([7], MS, "25", Fraction(25)),
        ([7], MS, None, None),
        ([0, 10], Fraction(1, 600), None, Fraction(60)),
        ([0, 17, 33, 50, 67, 84], MS, "59.94", Fraction(2997, 50)),
    ],
)
def test_constant_or_variable(stamps: list[int], clock: Fraction, said: str | None, expected: Fraction | None) -> None:
    assert constant_rate(stamps, clock, said) == expected


def test_a_drift_of_one_part_in_a_thousand_is_not_hidden() -> None:
    """24 and 24000/1001 differ by one millisecond after 24 frames: over a minute they cannot be confused."""
    stamps = rounded(FILM, MS, count=1440)
    assert constant_rate(stamps, MS, "24") == FILM


def plan(stamps: list[int], clock: Fraction, *, last: int, **changes: object) -> tuple[Timestamps, VideoFacts]:
    return Timestamps.of(stamps, time_base=clock, last_duration=last), facts(**changes)


def test_constant_rate_uses_ticks_of_the_rate() -> None:
    found = timeline(*plan(rounded(FILM, MS, count=100), MS, last=41, frame_rate="24000/1001"))
    assert found.ticks_per_second == 24000
    assert found.ticks == tuple(1001 * rank for rank in range(100)) and found.last_duration == 1001


def test_a_small_clock_is_refined_so_that_offsets_fit() -> None:
    found = timeline(*plan([0, 1, 2], Fraction(1, 25), last=1, frame_rate="25/1"))
    assert (found.ticks_per_second, found.ticks, found.last_duration) == (10000, (0, 400, 800), 400)


def test_variable_rate_keeps_the_inputs_ticks() -> None:
    found = timeline(*plan([90, 100, 105, 130], Fraction(1, 90000), last=7, frame_rate="25/1"))
    assert (found.ticks_per_second, found.ticks, found.last_duration) == (90000, (0, 10, 15, 40), 7)
    coarse = timeline(*plan([0, 1, 5], Fraction(1001, 24000), last=2))
    assert (coarse.ticks_per_second, coarse.ticks, coarse.last_duration) == (24000, (0, 1001, 5005), 2002)


@pytest.mark.parametrize(
    ("picture", "sound", "shift"),
    [(0, "0/1", 0), (12, "0/1", 12), (0, "1/2", 0), (35, "7/5", 0), (36, "7/5", 1), (0, "-21/1000", 0), (5, None, 0)],
)
def test_the_first_kept_stream_starts_at_zero(picture: int, sound: str | None, shift: int) -> None:
    """In frames of 1/25 s: how long after the output's start the picture begins."""
    streams = (
        StreamFacts(index=0, type="video", codec="h264", start=f"{picture}/25"),
        StreamFacts(index=1, type="audio", codec="aac", start=sound),
        StreamFacts(index=2, type="subtitle", codec="srt", start="-100/1"),
    )
    found = timeline(*plan([picture, picture + 1], Fraction(1, 25), last=1, streams=streams), kept=(1,))
    assert found.ticks[0] == shift * 400


@pytest.mark.parametrize(
    ("stamps", "last", "delay", "last_rank", "expected"),
    [
        ([0, 40, 80, 120, 160], 40, 2, 3, 40),
        ([0, 40, 80, 120, 160], 40, 0, 4, 0),
        ([0, 40, 80, 160, 240], 40, 2, 3, 60),
        ([0, 40, 80, 160, 240], 4000, 2, 3, 2040),
        ([0, 10, 20, 500, 510], 10, 1, 4, 10),
    ],
)
def test_the_tracks_length_reaches_the_end_of_the_last_frame(
    stamps: list[int], last: int, delay: int, last_rank: int, expected: int
) -> None:
    """Sum of the decoding times' differences and of the last decoded frame's length, as MP4 counts it."""
    times = Timeline(ticks_per_second=1000, ticks=tuple(stamps), last_duration=last, origin=Fraction(0), rate=None)
    lead = decoding_lead(times, delay=delay, last_rank=last_rank)
    assert lead == expected
    ends = [*stamps[1:], stamps[-1] + last]
    length = stamps[len(stamps) - 1 - delay] + delay * lead + ends[last_rank] - stamps[last_rank]
    assert length >= ends[-1]


def test_the_timeline_is_a_function_of_what_the_plan_holds() -> None:
    timestamps, found = plan([0, 3, 4, 9], Fraction(1, 90000), last=2)
    again = Timestamps.from_json(timestamps.to_json()), VideoFacts.from_json(found.to_json())
    assert timeline(*again) == timeline(timestamps, found)
