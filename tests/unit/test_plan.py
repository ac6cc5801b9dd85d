"""The plan: sizes, scenes, segment table, keys. Pure, as tables."""

import itertools

import pytest
from tests.builders.requests import make_request

from restoration_api.defaults import Choices
from restoration_api.ledger import Grid, InputIdentity, Scene
from restoration_api.request import Chunk, Limits, Precision, Target
from restoration_runner.errors import RestorationError
from restoration_runner.models.restorer import Capabilities
from restoration_runner.plan import (
    make_grid,
    make_keys,
    make_scenes,
    make_segments,
    output_size,
    plan_output_size,
    scene_works,
)

CAPABILITIES = Capabilities(alignment=16, encoder_warmup=4, decoder_warmup=4, algorithm="test/1")


@pytest.mark.parametrize(
    ("target", "source", "expected"),
    [
        (Target(scale_factor=4), (160, 120), (640, 480)),
        (Target(scale_factor=1), (161, 121), (162, 122)),
        (Target(scale_factor=3), (161, 121), (484, 364)),
        (Target(short_side=1080), (1280, 720), (1920, 1080)),
        (Target(short_side=1080), (720, 1280), (1080, 1920)),
        (Target(short_side=720), (853, 479), (1282, 720)),
        (Target(short_side=720), (854, 480), (1282, 720)),
        (Target(short_side=64), (4000, 40), (6400, 64)),
        (Target(width=1920, height=800), (640, 480), (1920, 800)),
    ],
)
def test_output_size_is_what_was_asked_in_even_pixels(
    target: Target, source: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert output_size(target, width=source[0], height=source[1]) == expected


@pytest.mark.parametrize(("limit", "allowed"), [(None, True), (3, True), (2, False)])
def test_a_profile_caps_the_output(limit: int | None, allowed: bool) -> None:
    choices = Choices(target=Target(short_side=1080))
    request = make_request(choices=choices, limits=Limits(max_output_megapixels=limit))
    if allowed:
        assert plan_output_size(request, width=640, height=360) == (1920, 1080)
        return
    with pytest.raises(RestorationError, match=r"restoration.target: .*1920x1080.*maxOutputMegapixels.*shortSide 1060"):
        plan_output_size(request, width=640, height=360)


@pytest.mark.parametrize(
    ("frames", "cuts", "expected"),
    [
        (10, [], [(0, 10, None)]),
        (10, [(4, 0.5)], [(0, 4, None), (4, 6, 0.5)]),
        (10, [(4, 0.5), (9, 0.7)], [(0, 4, None), (4, 5, 0.5), (9, 1, 0.7)]),
    ],
)
def test_scenes_lie_between_cuts(
    frames: int, cuts: list[tuple[int, float]], expected: list[tuple[int, int, float | None]]
) -> None:
    assert [(s.first_frame, s.frames, s.score) for s in make_scenes(frames, cuts)] == expected


@pytest.mark.parametrize(
    ("chunk", "segment_frames", "expected"),
    [
        (Chunk(frames=21, overlap_frames=4), 60, (6, 1, 3)),
        (Chunk(frames=49, overlap_frames=4), 480, (13, 1, 10)),
        (Chunk(frames=9, overlap_frames=4), 1, (3, 1, 1)),
        (Chunk(frames=1, overlap_frames=0), 8, (1, 0, 2)),
    ],
)
def test_grid_counts_in_latents(chunk: Chunk, segment_frames: int, expected: tuple[int, int, int]) -> None:
    grid = make_grid(chunk, segment_frames, CAPABILITIES)
    assert (grid.window_latents, grid.overlap_latents, grid.windows_per_segment) == expected
    assert (grid.encoder_warmup_latents, grid.decoder_warmup_latents) == (4, 4)


GRID = Grid(
    window_latents=3, overlap_latents=1, windows_per_segment=2, encoder_warmup_latents=2, decoder_warmup_latents=2
)  # nominal segment: 16 frames


def scenes(*lengths: int) -> list[Scene]:
    starts = [0, *itertools.accumulate(lengths)]
    return [Scene(first_frame=start, frames=frames) for start, frames in zip(starts, lengths, strict=False)]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ((9,), [[9]]),
        ((40,), [[13], [27]]),
        ((3, 4, 5), [[3, 4, 5]]),
        ((3, 4, 5, 5), [[3, 4, 5], [5]]),
        ((3, 40, 4), [[3], [13], [27], [4]]),
        ((4, 4, 4, 4, 4), [[4, 4, 4, 4], [4]]),
        ((17, 1, 1), [[17], [1, 1]]),
    ],
)
def test_short_scenes_share_a_segment(lengths: tuple[int, ...], expected: list[list[int]]) -> None:
    segments = make_segments(scenes(*lengths), GRID)
    assert [[run.frames for run in segment.runs] for segment in segments] == expected
    assert [segment.index for segment in segments] == list(range(len(segments)))


@pytest.mark.parametrize("seed", range(20))
def test_every_frame_is_in_one_run_of_one_segment(seed: int) -> None:
    lengths = [1 + (seed * 7919 + step * 104729) % 60 for step in range(12)]
    table = scenes(*lengths)
    segments = make_segments(table, GRID)
    frames = [
        frame
        for segment in segments
        for run in segment.runs
        for frame in range(run.first_frame, run.first_frame + run.frames)
    ]
    assert frames == list(range(sum(lengths)))
    for segment in segments:
        for run in segment.runs:
            work = list(scene_works(table[run.scene], GRID))[run.part]
            assert (work.scene_start + work.first_frame, work.frames) == (run.first_frame, run.frames)


def key_of(**changes: object) -> str:
    known: dict[str, object] = {
        "request": make_request(),
        "input_": InputIdentity(uri="s3://a/b", size_bytes=1, etag="e"),
        "model_digest": "sha256:m",
        "capabilities": CAPABILITIES,
        "rules": {"cuts": "c1"},
        "libraries": {"torch": "2"},
    }
    return make_keys(**{**known, **changes}).cache_key  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"input_": InputIdentity(uri="s3://a/b", size_bytes=1, etag="other")},
        {"model_digest": "sha256:n"},
        {"capabilities": Capabilities(alignment=16, encoder_warmup=4, decoder_warmup=4, algorithm="test/2")},
        {"capabilities": Capabilities(alignment=16, encoder_warmup=3, decoder_warmup=4, algorithm="test/1")},
        {"rules": {"cuts": "c2"}},
        {"libraries": {"torch": "3"}},
        {"request": make_request(choices=Choices(chunk_frames=25))},
        {"request": make_request(choices=Choices(seed=7))},
        {"request": make_request(precision=Precision.BF16)},
    ],
)
def test_whatever_decides_a_byte_changes_the_key(change: dict[str, object]) -> None:
    assert key_of() == key_of()
    assert key_of(**change) != key_of()
