"""A scene in segments equals the scene in one piece, wherever the grid puts windows and borders.

With as much warm-up as the VAE's convolutions can see at all (28 latents for the encoder, 37 for the decoder, counted
on the released graph, which the tiny weights have too) nothing but rounding may differ. So every wrong index shows:
a frame fed twice, a latent too early, a blend that forgets a neighbour. Scenes of 1 to 200 frames, windows, overlaps
and segments of many sizes are drawn by a fixed seed; `make soak` sets VR_TEST_SCENES and draws them all.
"""

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import torch
from torch import Tensor

from restoration_runner.models import load_restorer
from restoration_runner.models.restorer import Restorer
from restoration_runner.restoration.grid import SegmentWork, scene_segments
from tests.builders.models import tiny_description, write_tiny_model

ENCODER_REACH: Final = 28
DECODER_REACH: Final = 37
LIMIT: Final = 1e-5
SCENES: Final = int(os.environ.get("VR_TEST_SCENES", "10"))
QUICK_FRAMES: Final = 700
"""Frames through encoder and decoder that a case may cost, unless all are asked for."""
GRIDS: Final = ((1, 0), (2, 0), (3, 1), (5, 2), (6, 1), (13, 1))
"""Window and overlap in latents."""
EDGES: Final = (1, 2, 5, 6, 9, 10)
"""Lengths at which the number of latents or of windows changes."""


@dataclass(frozen=True)
class Scene:
    frames: int
    window: int
    overlap: int
    per_segment: int

    def works(self, *, whole: bool = False) -> list[SegmentWork]:
        return list(
            scene_segments(
                start=0,
                frames=self.frames,
                window=self.window,
                overlap=self.overlap,
                per_segment=10_000 if whole else self.per_segment,
                encoder_warmup=0 if whole else ENCODER_REACH,
                decoder_warmup=0 if whole else DECODER_REACH,
            )
        )

    @property
    def cost_frames(self) -> int:
        return sum(2 * w.encode_to - w.encode_from - 4 * w.decode_from for w in self.works()) + 2 * self.frames


def scenes(count: int) -> list[Scene]:
    """Without repetition; every grid and every length of segment has its turn."""
    drawn: dict[Scene, None] = {}
    rng = random.Random("scenes")
    lengths = [*EDGES, *rng.sample(range(1, 201), 200)]
    while len(drawn) < count:
        number = len(drawn)
        window, overlap = GRIDS[number % len(GRIDS)]
        frames = lengths[number % len(lengths)] if count > len(lengths) else rng.randint(1, 200)
        scene = Scene(frames, window, overlap, rng.choice((1, 2, 3, 10)))
        cuts = len(scene.works())
        if count <= len(lengths) and (scene.cost_frames > QUICK_FRAMES or cuts < 2):
            continue
        drawn[scene] = None
    return list(drawn)


@pytest.fixture(scope="module")
def restorer(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    model = write_tiny_model(tmp_path_factory.mktemp("model"))
    return load_restorer(model, device="cpu", precision="FP32", threads=1)


def run(restorer: Restorer, works: list[SegmentWork], video: Tensor) -> Tensor:
    made = []
    for work in works:
        frames = list(restorer.restore(work, iter(video[work.encode_from : work.encode_to + 1]), seed=5))
        assert len(frames) == work.frames
        made.extend(frames)
    return torch.stack(made)


def check(restorer: Restorer, scene: Scene) -> None:
    generator = torch.Generator().manual_seed(scene.frames)
    video = torch.rand(scene.frames, 3, 16, 16, generator=generator) * 2 - 1
    (whole,) = scene.works(whole=True)
    difference = run(restorer, scene.works(), video) - run(restorer, [whole], video)
    assert difference.abs().max() < LIMIT


@pytest.mark.parametrize("scene", scenes(SCENES), ids=str)
def test_segments_with_full_warmup_equal_one_segment(restorer: Restorer, scene: Scene) -> None:
    check(restorer, scene)


@torch.no_grad()
def test_the_rules_of_the_7b_network_stream_too(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path, tiny_description(rules="dit7b"))
    check(load_restorer(model, device="cpu", precision="FP32", threads=1), Scene(41, 3, 1, 2))


@pytest.mark.parametrize("frames", EDGES)
def test_a_scene_of_few_frames(restorer: Restorer, frames: int) -> None:
    check(restorer, Scene(frames, window=2, overlap=0, per_segment=1))


def test_the_scenes_differ() -> None:
    """Else the test above would prove little."""
    drawn = scenes(10)
    assert {(s.window, s.overlap) for s in drawn} == set(GRIDS)
    assert len({s.per_segment for s in drawn}) >= 3
    assert max(len(s.works()) for s in drawn) >= 4
    assert len(set(scenes(400))) == 400
