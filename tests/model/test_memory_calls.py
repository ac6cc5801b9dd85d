"""Which calls the memory model counts with, beside those that a restorer makes, with networks that compute nothing."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from restoration_runner.models import load_restorer
from restoration_runner.models.seedvr2.config import MODELS
from restoration_runner.models.seedvr2.knobs import Knobs
from restoration_runner.models.seedvr2.memory_model import Load, decodes_before_the_last_window, encoder_calls
from restoration_runner.models.seedvr2.restorer import SeedVr2Restorer
from restoration_runner.restoration.grid import scene_segments
from tests.builders.models import write_tiny_model

SIDE = 16


class Watched:
    """A restorer's networks that only say what is asked of them, and when the decoder first was."""

    def __init__(self, restorer: SeedVr2Restorer, latents_at_once: int) -> None:
        self.encoded: list[tuple[int, bool]] = []
        self.decodes_in_windows: list[bool] = []
        self._decodes = False
        restorer.networks = replace(
            restorer.networks,
            encode=self._encode,
            velocity=self._velocity,
            decode=self._decode,
            latents_at_once=latents_at_once,
        )

    def _encode(self, frames: Tensor, _state: Any) -> Tensor:
        self.encoded.append((frames.shape[2], self._decodes))
        return torch.zeros(1, 32, (frames.shape[2] + 3) // 4, SIDE // 8, SIDE // 8)

    def _velocity(self, latents: Tensor, _text: Tensor, _timestep: Tensor) -> Tensor:
        self.decodes_in_windows.append(self._decodes)
        return torch.zeros(*latents.shape[:-1], 16)

    def _decode(self, latents: Tensor, _state: Any) -> Iterator[Tensor]:
        frames = 4 * latents.shape[2] - (0 if self._decodes else 3)
        self._decodes = True
        yield torch.zeros(1, 3, frames, SIDE, SIDE)


@pytest.fixture(scope="module")
def restorer(tmp_path_factory: pytest.TempPathFactory) -> SeedVr2Restorer:
    made = load_restorer(write_tiny_model(tmp_path_factory.mktemp("model")), device="cpu", precision="FP32")
    assert isinstance(made, SeedVr2Restorer)
    return made


def load_of(scene: int, window: int, overlap: int) -> Load:
    config = MODELS["seedvr2-3b"]
    return Load(
        dit=config.dit,
        vae=config.vae,
        width=SIDE,
        height=SIDE,
        window_latents=min(window, scene),
        overlap_latents=overlap,
        scene_latents=scene,
        text_tokens=58,
    )


def restore(
    restorer: SeedVr2Restorer, scene: int, window: int, overlap: int, at_once: int, *, per_segment: int
) -> list[Watched]:
    """The segments of a scene of so many latents, one after the other."""
    watched: list[Watched] = []
    for work in scene_segments(
        start=0,
        frames=4 * scene - 3,
        window=window,
        overlap=overlap,
        per_segment=per_segment,
        encoder_warmup=2,
        decoder_warmup=2,
    ):
        watched.append(Watched(restorer, at_once))
        given = torch.zeros(work.encode_to - work.encode_from + 1, 3, SIDE, SIDE)
        assert sum(1 for _ in restorer.restore(work, iter(given), seed=0)) == work.frames
    return watched


WINDOWS = [(2, 0), (3, 1), (6, 0), (6, 1), (6, 2), (13, 1), (13, 6)]


@pytest.mark.parametrize("scene", [2, 3, 6, 7, 11, 12, 16, 23, 40])
@pytest.mark.parametrize(("window", "overlap"), WINDOWS)
@pytest.mark.parametrize("at_once", [1, 2, 6])
def test_the_calls_of_a_scene_are_those_of_a_restorer(
    restorer: SeedVr2Restorer, scene: int, window: int, overlap: int, at_once: int
) -> None:
    [watched] = restore(restorer, scene, window, overlap, at_once, per_segment=10_000)
    load, knobs = load_of(scene, window, overlap), Knobs(latents_at_once=min(at_once, scene))
    counted = list(encoder_calls(load, knobs))
    assert watched.encoded[: len(counted)] == counted
    assert set(watched.encoded[len(counted) :]) <= {counted[-1], (watched.encoded[-1][0], True)}
    assert watched.decodes_in_windows[-1] == decodes_before_the_last_window(load, knobs)


@pytest.mark.parametrize("scene", [7, 16, 23, 40])
@pytest.mark.parametrize(("window", "overlap"), WINDOWS)
@pytest.mark.parametrize("at_once", [1, 2, 6])
def test_a_segment_takes_no_more_than_its_scene(
    restorer: SeedVr2Restorer, scene: int, window: int, overlap: int, at_once: int
) -> None:
    load, knobs = load_of(scene, window, overlap), Knobs(latents_at_once=min(at_once, scene))
    counted = list(encoder_calls(load, knobs))
    for watched in restore(restorer, scene, window, overlap, at_once, per_segment=2):
        for frames, decodes in watched.encoded:
            assert any(frames <= most and decodes <= with_past for most, with_past in counted)
        assert watched.decodes_in_windows[-1] <= decodes_before_the_last_window(load, knobs)
