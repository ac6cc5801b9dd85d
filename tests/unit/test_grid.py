"""The grid has no gap, no overlap, and every needed window, for every scene length."""

from itertools import pairwise

import pytest

from restoration_runner.restoration.grid import (
    SegmentWork,
    blend_weight,
    latent_count,
    padded_frames,
    scene_segments,
    scene_windows,
    windows_per_segment,
)

SHAPES = [(1, 0), (2, 0), (3, 1), (6, 1), (6, 2), (13, 1)]
LONGEST = 700


def reference(frames: int, *, window: int, overlap: int, per_segment: int, e: int, d: int) -> list[tuple[object, ...]]:
    """The rules written down once more, by search instead of arithmetic: (frames, windows, encode, decode, drop)."""
    latents = next(n for n in range(1, frames + 2) if 4 * n - 3 >= frames and (n > 1) == (frames > 1))
    starts, at = [0], window - overlap
    while starts[-1] + window < latents:
        starts.append(min(at, latents - window))
        at += window - overlap
    windows = [(start, min(start + window, latents)) for start in starts]
    regular = [w for w in windows if w[0] % (window - overlap) == 0 and (w[1] < latents or len(windows) == 1)]
    # Where the last window ends up on the grid by itself, it still counts as the last: nothing begins at it.
    borders = [w[0] for number, w in enumerate(regular) if number % per_segment == 0]
    if len(borders) > 1 and latents - borders[-1] < per_segment * (window - overlap) // 2:
        del borders[-1]
    found: list[tuple[object, ...]] = []
    for begin, end in zip(borders, [*borders[1:], latents], strict=True):
        owned = [f for f in range(frames) if begin <= -(-f // 4) < end or (end == latents and -(-f // 4) >= end)]
        decode = max(begin - d, 0)
        run = [w for w in windows if any(decode <= j < end for j in range(*w))]
        encode = max(run[0][0] - e, 0)
        last = min(frames - 1, 4 * (run[-1][1] - 1))
        found.append(((owned[0], owned[-1]), tuple(run), (4 * encode, last), decode, owned[0] - 4 * decode))
    return found


@pytest.mark.parametrize(("window", "overlap"), SHAPES)
def test_the_rules_written_twice_agree(window: int, overlap: int) -> None:
    for frames in [*range(1, 60), 131, 333, 699]:
        for per_segment in (1, 3, 10):
            for e, d in ((1, 1), (5, 5), (28, 37)):
                works = segments(frames, window=window, overlap=overlap, per_segment=per_segment, e=e, d=d)
                found = [
                    (
                        (w.first_frame, w.last_frame),
                        tuple((x.start, x.stop) for x in w.windows),
                        (w.encode_from, w.encode_to),
                        w.decode_from,
                        w.drop_frames,
                    )
                    for w in works
                ]
                assert found == reference(frames, window=window, overlap=overlap, per_segment=per_segment, e=e, d=d)


def segments(frames: int, *, window: int, overlap: int, per_segment: int, e: int, d: int) -> list[SegmentWork]:
    return list(
        scene_segments(
            start=1000,
            frames=frames,
            window=window,
            overlap=overlap,
            per_segment=per_segment,
            encoder_warmup=e,
            decoder_warmup=d,
        )
    )


@pytest.mark.parametrize(("window", "overlap"), SHAPES)
@pytest.mark.parametrize("per_segment", [1, 2, 3, 10])
@pytest.mark.parametrize("warmup", [(1, 1), (28, 37)])
def test_every_frame_is_owned_once_and_every_input_is_there(
    window: int, overlap: int, per_segment: int, warmup: tuple[int, int]
) -> None:
    """For every scene length there is below 700 frames."""
    e, d = warmup
    for frames in range(1, LONGEST):
        works = segments(frames, window=window, overlap=overlap, per_segment=per_segment, e=e, d=d)
        latents = latent_count(frames)
        assert works[0].first_frame == works[0].latents.start == 0
        assert works[-1].last_frame == frames - 1
        assert works[-1].latents.stop == latents
        for before, after in pairwise(works):
            assert after.first_frame == before.last_frame + 1
            assert after.latents.start == before.latents.stop
        for work in works:
            assert 0 <= work.first_frame <= work.last_frame
            windows, run = work.scene_windows, work.windows
            # All windows that touch what is decoded, and no other: they cover it without a gap.
            assert run[0].start <= work.decode_from
            assert run[-1].stop >= work.latents.stop
            assert all(left.stop >= right.start for left, right in pairwise(run))
            assert work.needed.start == 0 or windows[work.needed.start - 1].stop <= work.decode_from
            assert work.needed.stop == len(windows) or windows[work.needed.stop].start >= work.latents.stop
            assert work.encode_from % 4 == 0
            # The latent that the encoder's first frame stands for is a cold start: never used inside a scene.
            assert work.encode_from == 0 or work.encode_latent < run[0].start
            assert work.encode_to == frames - 1 or work.encode_to == 4 * (run[-1].stop - 1)
            assert work.drop_frames == work.first_frame - 4 * work.decode_from >= 0


def test_worked_example_of_1200_frames() -> None:
    works = list(
        scene_segments(start=0, frames=1200, window=13, overlap=1, per_segment=10, encoder_warmup=4, decoder_warmup=4)
    )
    assert [(w.first_frame, w.last_frame) for w in works] == [(0, 476), (477, 956), (957, 1199)]
    second = works[1]
    assert (second.encode_from, second.encode_to, len(second.needed)) == (416, 960, 11)
    assert (second.decode_from, second.drop_frames) == (116, 13)


@pytest.mark.parametrize(("window", "overlap"), SHAPES)
def test_blend_weights_are_positive_where_a_window_covers(window: int, overlap: int) -> None:
    for latents in range(1, 60):
        windows = scene_windows(latents, window=window, overlap=overlap)
        assert {w.stop - w.start for w in windows} == {min(latents, window)}
        for j in range(latents):
            weights = [blend_weight(windows, i, j) for i, w in enumerate(windows) if w.start <= j < w.stop]
            assert weights
            assert all(0 < weight <= 1 for weight in weights)


def test_equal_overlaps_need_no_division() -> None:
    windows = scene_windows(26, window=6, overlap=2)
    for j in range(26):
        assert sum(blend_weight(windows, i, j) for i, w in enumerate(windows) if w.start <= j < w.stop) == 1


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (2, 2), (5, 2), (6, 3), (9, 3), (10, 4), (21, 6)])
def test_latents_of_a_scene(frames: int, latents: int) -> None:
    assert latent_count(frames) == latents
    assert padded_frames(latents) >= frames


@pytest.mark.parametrize(("segment_frames", "windows"), [(1, 1), (60, 3), (480, 24)])
def test_segments_are_whole_windows(segment_frames: int, windows: int) -> None:
    assert windows_per_segment(segment_frames, window=6, overlap=1) == windows
