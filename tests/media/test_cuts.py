"""Scene cuts: hard cuts are found on the frame, everything that only looks like one is not."""

from pathlib import Path

import numpy as np
import pytest
from tests.builders import clips
from tests.builders.clips import Clip

from restoration_runner.video.cuts import CutDetector, Signature, distance, signature
from restoration_runner.video.pixels import Plane
from restoration_runner.video.probe import probe
from restoration_runner.video.scan import scan


def cuts_of(frames: list[Plane]) -> list[int]:
    detector = CutDetector()
    for frame in frames:
        detector.push(signature(frame, bit_depth=8))
    return [cut.frame for cut in detector.cuts]


def luma(clip: Clip) -> list[Plane]:
    return [clips.picture(clip, frame)[0].astype(np.uint8) for frame in range(clip.frames)]


PLAIN = Clip(frames=30, width=160, height=120)


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        (PLAIN, []),
        (PLAIN.but(cuts=(10,)), [10]),
        (PLAIN.but(cuts=(3, 27)), [3, 27]),
        (PLAIN.but(cuts=(10, 13, 20)), [10, 13, 20]),
        (PLAIN.but(flashes=(10,)), []),
        (PLAIN.but(flashes=(10, 11)), []),
        (PLAIN.but(flashes=(10, 14, 18)), []),
        (PLAIN.but(cuts=(20,), flashes=(8,)), [20]),
        (PLAIN.but(width=16, height=16, cuts=(15,)), [15]),
        (PLAIN.but(width=854, height=480, cuts=(15,)), [15]),
        (PLAIN.but(frames=5, cuts=(2,)), []),
    ],
    ids=[
        "one scene",
        "one cut",
        "near both ends",
        "three frames apart",
        "one white frame",
        "two white frames",
        "strobe",
        "flash and cut",
        "tiny",
        "large",
        "shorter than the test's reach",
    ],
)
def test_cuts_and_flashes(clip: Clip, expected: list[int]) -> None:
    assert cuts_of(luma(clip)) == expected


def test_a_fade_and_a_cross_fade_are_not_cuts() -> None:
    first, second = (luma(PLAIN.but(cuts=cuts))[-1].astype(np.float64) for cuts in ((), (1,)))
    cross = [first + (second - first) * step / 12 for step in range(13)]
    black = [first * (12 - step) / 12 for step in range(13)]
    for frames in (cross, black):
        assert cuts_of([frame.round().astype(np.uint8) for frame in [first] * 5 + frames + frames[-1:] * 5]) == []


def test_a_fast_pan_is_not_a_cut() -> None:
    rng = np.random.default_rng(3)
    world = np.kron(rng.integers(30, 220, (12, 100)), np.ones((10, 10))).astype(np.uint8)
    frames = [world[:, 30 * n : 30 * n + 160].copy() for n in range(25)]
    assert cuts_of(frames) == []


def test_a_cut_to_a_moving_camera_is_found() -> None:
    rng = np.random.default_rng(3)
    world = np.kron(rng.integers(30, 220, (12, 60)), np.ones((10, 10))).astype(np.uint8)
    moving = [world[:, 4 * n : 4 * n + 160].copy() for n in range(12)]
    assert cuts_of(luma(PLAIN.but(frames=12)) + moving) == [12]


def test_noise_alone_is_far_below_the_threshold() -> None:
    rng = np.random.default_rng(5)
    grey = [(118 + rng.normal(0, 12, (120, 160))).clip(0, 255).astype(np.uint8) for _ in range(2)]
    assert distance(*(signature(frame, bit_depth=8) for frame in grey)) < 0.03


def test_ten_bit_and_eight_bit_give_the_same_signature() -> None:
    eight = luma(PLAIN)[0]
    ten = eight.astype(np.uint16) << 2
    a, b = signature(eight, bit_depth=8), signature(ten, bit_depth=10)
    assert isinstance(a, Signature) and (a.blocks == b.blocks).all() and (a.histogram == b.histogram).all()


def test_the_scan_finds_cuts_in_a_coded_file_without_growing(tmp_path: Path) -> None:
    source = clips.write(tmp_path / "in.mp4", PLAIN.but(frames=40, cuts=(11, 25), flashes=(5, 31)))
    found = scan(source, probe(source))
    assert [cut.frame for cut in found.cuts] == [11, 25]
    assert all(0.14 <= cut.score <= 1 for cut in found.cuts)
