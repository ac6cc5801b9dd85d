"""The scenes of the benchmarks are what their tables claim: they have a border, and room for the warm-up before it."""

from itertools import pairwise

import torch
from benchmarks import determinism, nano_borders

from restoration_runner.restoration.grid import scene_segments


def test_the_scene_of_the_border_benchmark_has_one_border_and_room_before_it() -> None:
    first, behind = nano_borders.works(nano_borders.DEFAULT_GRID, nano_borders.ENOUGH, nano_borders.ENOUGH)
    assert behind.first_frame == first.last_frame + 1
    assert behind.frames >= nano_borders.NEAR_FRAMES
    # A warm-up that the scene's start cuts off would measure nothing.
    assert behind.latents.start - behind.decode_from == nano_borders.ENOUGH
    for latents in (1, 2, 3, 4):
        _, work = nano_borders.works(nano_borders.DEFAULT_GRID, latents, max(nano_borders.TRIED))
        assert work.windows[0].start - work.encode_latent == latents
    _, hardest = nano_borders.works(nano_borders.HARDEST_GRID, 2, 7)
    assert hardest.decode_from == hardest.windows[0].start == hardest.encode_latent + 2


def test_percentile_is_of_all_values() -> None:
    assert nano_borders.percentile(torch.arange(1000.0).view(10, 100)) == 998


def test_the_scene_of_the_determinism_benchmark_is_cut() -> None:
    frames = list(determinism.scene())
    works = list(
        scene_segments(
            start=0,
            frames=len(frames),
            window=determinism.WINDOW,
            overlap=determinism.OVERLAP,
            per_segment=determinism.PER_SEGMENT,
            encoder_warmup=1,
            decoder_warmup=7,
        )
    )
    assert len(works) > 1
    assert all(frame.shape[1] % 16 == frame.shape[2] % 16 == 0 and frame.abs().max() <= 1 for frame in frames)
    assert all(not torch.equal(a, b) for a, b in pairwise(frames))
