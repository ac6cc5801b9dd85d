"""When each frame of the output is shown: a pure function of the plan, exact in the output's own clock.

The output's clock starts where the first of the kept streams starts, so an offset between picture and sound stays what
it was. Its ticks are chosen so that every time is an integer:

* constant rate: ticks of the rate itself (1/24000 s for 24000/1001), frame k at exactly k · 1001;
* variable rate: the input's own ticks, copied one to one.

A constant rate in a container with coarse ticks (Matroska: 1 ms, so 41 and 42 ms in turn) is recognised and restored:
if every time is the rate's exact time rounded to that clock, the exact times are what was meant.
"""

import itertools
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from restoration_api.ledger import StreamFacts, Timestamps, VideoFacts

LEAST_TICKS_PER_SECOND: Final = 10_000
"""A start offset of sound against picture is rounded to the output's tick: 0.1 ms cannot be heard."""
MOST_TICKS_PER_SECOND: Final = 2**31 - 1
"""MP4 stores the ticks per second in 32 bits, and some readers take them as signed."""


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Times of the output's frames.

    Attributes:
        ticks_per_second: the clock of the output's video track.
        ticks: presentation time of each frame, increasing; the first is the picture's start offset.
        last_duration: ticks that the last frame is shown.
        origin: the input's time, in seconds, that is 0 in the output.
        rate: the constant rate, if it is constant.
    """

    ticks_per_second: int
    ticks: tuple[int, ...]
    last_duration: int
    origin: Fraction
    rate: Fraction | None


def timeline(timestamps: Timestamps, facts: VideoFacts, *, kept: tuple[int, ...] = ()) -> Timeline:
    """Times of the output.

    Args:
        timestamps: of the input, from the plan.
        facts: of the input.
        kept: indexes of the other streams that are copied.
    """
    time_base = Fraction(timestamps.time_base)
    stamps = list(timestamps.pts())
    video_start = stamps[0] * time_base
    origin = min([video_start, *_starts(facts.streams, kept)])
    rate = constant_rate(stamps, time_base, facts.frame_rate)
    if rate is not None:
        clock = rate.numerator * -(-LEAST_TICKS_PER_SECOND // rate.numerator)
        step = clock // rate.numerator * rate.denominator
        first = round((video_start - origin) * clock)
        ticks = tuple(first + step * rank for rank in range(len(stamps)))
        return Timeline(ticks_per_second=clock, ticks=ticks, last_duration=step, origin=origin, rate=rate)
    clock, step = _fine(time_base)
    first = round((video_start - origin) * clock)
    ticks = tuple(first + (stamp - stamps[0]) * step for stamp in stamps)
    return Timeline(
        ticks_per_second=clock, ticks=ticks, last_duration=timestamps.last_duration * step, origin=origin, rate=None
    )


def decoding_lead(times: Timeline, *, delay: int, last_rank: int) -> int:
    """Ticks between the decoding times of the packets that are decoded before the first frame is shown.

    A frame's decoding time is the presentation time of the frame `delay` places earlier; the first `delay` packets need
    times of their own, before that of the first frame. At least a frame's length apart, as an encoder would have it,
    and so early that the track's length (which MP4 counts in decoding times) reaches the end of the last frame: with a
    variable rate the frame that is decoded last may be short and the one that is shown last long.
    """
    if delay == 0:
        return 0
    ends = (*times.ticks[1:], times.ticks[-1] + times.last_duration)
    natural = ends[0] - times.ticks[0]
    covered = times.ticks[len(times.ticks) - 1 - delay] + ends[last_rank] - times.ticks[last_rank]
    return max(natural, -(-(ends[-1] - covered) // delay))


def constant_rate(stamps: list[int], time_base: Fraction, frame_rate: str | None) -> Fraction | None:
    """The rate if all times are multiples of its period, rounded to the input's ticks; None for variable rate."""
    candidates = [Fraction(frame_rate)] if frame_rate else []
    if len(stamps) > 1:
        if all(after - before == stamps[1] - stamps[0] for before, after in itertools.pairwise(stamps)):
            exact = 1 / ((stamps[1] - stamps[0]) * time_base)
            # Equal steps are a constant rate by themselves, unless they are only equal after rounding.
            candidates.append(exact)
        mean = (len(stamps) - 1) / ((stamps[-1] - stamps[0]) * time_base)
        candidates += [rate for rate in STANDARD_RATES if abs(rate / mean - 1) < Fraction(1, 200)]
    for rate in candidates:
        if rate > 0 and rate.numerator <= MOST_TICKS_PER_SECOND and _fits(stamps, 1 / (rate * time_base)):
            return rate
    return None


STANDARD_RATES: Final = tuple(
    Fraction(rate)
    for rate in (
        "24000/1001",
        "24",
        "25",
        "30000/1001",
        "30",
        "48",
        "50",
        "60000/1001",
        "60",
        "100",
        "120000/1001",
        "120",
    )
)
"""Rates that a header rounded to milliseconds may have meant."""


def _fits(stamps: list[int], period: Fraction) -> bool:
    """True if every time is less than one tick from its rank's exact time (rounded up, down or to nearest)."""
    numerator, denominator = period.numerator, period.denominator
    first = stamps[0]
    errors = [(stamp - first) * denominator - rank * numerator for rank, stamp in enumerate(stamps)]
    # Less than one tick between the earliest and the latest error, so that one clock explains them all. A clock that
    # is a multiple of the period has no error at all.
    return max(errors) - min(errors) < denominator


def _fine(time_base: Fraction) -> tuple[int, int]:
    """(ticks per second, ticks per tick of the input): the input's clock, refined if it is coarse."""
    clock, step = time_base.denominator, time_base.numerator
    if clock > MOST_TICKS_PER_SECOND:
        raise ValueError(f"a clock of {clock} ticks per second does not fit into MP4")
    factor = -(-LEAST_TICKS_PER_SECOND // clock)
    return clock * factor, step * factor


def _starts(streams: tuple[StreamFacts, ...], kept: tuple[int, ...]) -> list[Fraction]:
    """Where kept streams start. Before zero lies only what a decoder needs first (priming) and nobody is to hear."""
    return [
        max(Fraction(stream.start), Fraction(0))
        for stream in streams
        if stream.index in kept and stream.start is not None
    ]
