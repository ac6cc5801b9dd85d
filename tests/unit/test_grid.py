"""The grid has no gap, no overlap, and every needed window, for every scene length."""

import pytest

from restoration_runner.restoration.grid import (
    blend_weight,
    latent_count,
    padded_frames,
    scene_segments,
    scene_windows,
    windows_per_segment,
)

SHAPES = [(1, 0), (2, 0), (3, 1), (6, 1), (6, 2), (13, 1)]


@pytest.mark.parametrize(("window", "overlap"), SHAPES)
@pytest.mark.parametrize("per_segment", [1, 2, 3, 10])
@pytest.mark.parametrize("warmup", [(1, 1), (4, 4), (28, 37)])
def test_every_frame_is_owned_once_and_every_input_is_there(
    window: int, overlap: int, per_segment: int, warmup: tuple[int, int]
) -> None:
    encoder_warmup, decoder_warmup = warmup
    for frames in [*range(1, 130), 333, 699]:
        works = list(
            scene_segments(
                start=1000,
                frames=frames,
                window=window,
                overlap=overlap,
                per_segment=per_segment,
                encoder_warmup=encoder_warmup,
                decoder_warmup=decoder_warmup,
            )
        )
        assert [frame for work in works for frame in range(work.first_frame, work.last_frame + 1)] == list(
            range(frames)
        )
        assert [j for work in works for j in range(work.latents.start, work.latents.stop)] == list(
            range(latent_count(frames))
        )
        for work in works:
            covered = {j for w in work.windows for j in range(w.start, w.stop)}
            assert covered >= set(range(work.decode_from, work.latents.stop))
            whole = [w for w in work.scene_windows if w.stop > work.decode_from and w.start < work.latents.stop]
            assert list(work.windows) == whole
            assert work.encode_from % 4 == 0
            # The latent that the encoder's first frame stands for is a cold start: never used inside a scene.
            assert work.encode_from == 0 or work.encode_latent < work.windows[0].start
            assert work.encode_to == frames - 1 or work.encode_to == 4 * (work.windows[-1].stop - 1)
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
