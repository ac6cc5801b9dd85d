"""The memory plan against measured peaks, and what it chooses for GPUs of all sizes. Pure: no GPU, no networks."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.models.seedvr2.config import MODELS, VaeConfig
from restoration_runner.models.seedvr2.dit import NaDiT
from restoration_runner.models.seedvr2.fast.dit import FastDit
from restoration_runner.models.seedvr2.fast.dit_knobs import DitKnobs
from restoration_runner.models.seedvr2.fast.vae import FastVae
from restoration_runner.models.seedvr2.fast.vae_state import VaeKnobs
from restoration_runner.models.seedvr2.fitted import refusal
from restoration_runner.models.seedvr2.knobs import Knobs
from restoration_runner.models.seedvr2.memory_model import (
    Load,
    decoder_state,
    dit_weights,
    encoder_state,
    estimate,
    vae_weights,
)
from restoration_runner.models.seedvr2.memory_plan import GIB, fitting, ladder, largest_window, usable_bytes
from restoration_runner.models.seedvr2.vae import VideoVae
from restoration_runner.restoration.grid import latent_count

SIZES = {"480p": (864, 480), "720p": (1280, 720), "1080p": (1920, 1088), "2160p": (3840, 2160)}
RING = VaeKnobs(frames_at_once=1)
WINOGRAD = VaeKnobs(frames_at_once=4, winograd=True)


def load(size: str = "720p", *, model: str = "seedvr2-3b", window: int = 13) -> Load:
    config = MODELS[model]
    width, height = SIZES[size]
    return Load(dit=config.dit, vae=config.vae, width=width, height=height, window_latents=window, text_tokens=58)


CARDS = [8, 12, 16, 24, 40, 48, 80, 141]
"""GiB."""


@pytest.mark.parametrize("total", CARDS)
@pytest.mark.parametrize("model", ["seedvr2-3b", "seedvr2-7b"])
@pytest.mark.parametrize("size", SIZES)
def test_what_is_chosen_fits_and_each_step_down_takes_less(size: str, model: str, total: int) -> None:
    work = load(size, model=model)
    found = fitting(work, total * GIB)
    peaks = [estimate(work, knobs).peak for knobs in found]
    assert all(peak <= usable_bytes(total * GIB) for peak in peaks)
    assert peaks == sorted(set(peaks), reverse=True)
    order = list(ladder(work))
    assert [order.index(knobs) for knobs in found] == sorted(order.index(knobs) for knobs in found)


@pytest.mark.parametrize(
    ("size", "model", "total", "expected"),
    [
        ("720p", "seedvr2-3b", 80, Knobs(latents_at_once=6, vae=WINOGRAD)),  # nothing is in short supply
        ("1080p", "seedvr2-3b", 80, Knobs(latents_at_once=6, vae=WINOGRAD)),
        ("720p", "seedvr2-7b", 80, Knobs(latents_at_once=6, vae=WINOGRAD)),
    ],
)
def test_a_large_card_takes_the_fastest(size: str, model: str, total: int, expected: Knobs) -> None:
    assert fitting(load(size, model=model), total * GIB)[0] == expected


@pytest.mark.parametrize(
    ("size", "total", "stage_by_stage", "strips", "streamed"),
    [
        ("720p", 40, False, False, False),
        ("720p", 32, False, False, False),
        ("720p", 24, True, False, True),
        ("720p", 12, True, True, True),
        ("1080p", 24, True, True, True),
        ("2160p", 80, True, True, True),
    ],
)
def test_small_cards_give_up_speed_not_exactness(
    size: str, total: int, stage_by_stage: bool, strips: bool, streamed: bool
) -> None:
    chosen = fitting(load(size), total * GIB)[0]
    assert chosen.stage_by_stage is stage_by_stage
    assert (chosen.vae.strip_rows is not None) is strips
    assert chosen.dit.streamed_weights is streamed


def test_what_cannot_fit_is_refused_with_numbers_and_a_remedy() -> None:
    large = load("1080p", window=33)
    window = largest_window(large, 24 * GIB)
    assert fitting(load("2160p"), 24 * GIB) == []
    assert largest_window(load("2160p"), 24 * GIB) is None
    assert "choose a smaller target" in refusal(load("2160p"), 24 * GIB)
    assert window is not None and fitting(replace(large, window_latents=window), 24 * GIB)
    assert not fitting(replace(large, window_latents=window + 1), 24 * GIB) or window == 64


def test_more_of_anything_takes_more() -> None:
    base = estimate(load(), Knobs(vae=RING)).peak
    for more in (load("1080p"), load(window=40), load(model="seedvr2-7b"), replace(load(), element_bytes=4)):
        assert estimate(more, Knobs(vae=RING)).peak > base
    assert estimate(load(), Knobs(vae=RING, latents_at_once=4)).peak > base


RESIDENT = Knobs(latents_at_once=6, vae=WINOGRAD)
LEAN = DitKnobs(mlp_rows=8192, attention_rows=8192, streamed_weights=True)
STAGED = Knobs(stage_by_stage=True, vae=RING, dit=LEAN)
IN_MAPS = replace(STAGED, latents_at_once=2, vae=WINOGRAD)


def in_last_level(rows: int) -> VaeKnobs:
    return replace(RING, strip_rows=rows, strip_levels=1, encoder_strips=False)


@pytest.mark.parametrize(
    ("size", "model", "frames", "window", "knobs", "peak_gib"),
    [
        ("480p", "seedvr2-3b", 21, 21, RESIDENT, 18.52),
        ("480p", "seedvr2-3b", 61, 21, RESIDENT, 19.57),
        ("480p", "seedvr2-3b", 61, 21, replace(STAGED, latents_at_once=2), 6.20),
        ("480p", "seedvr2-3b", 241, 81, IN_MAPS, 10.47),
        ("720p", "seedvr2-3b", 21, 21, RESIDENT, 31.5),
        ("720p", "seedvr2-3b", 61, 21, RESIDENT, 31.89),
        ("720p", "seedvr2-3b", 241, 81, RESIDENT, 35.07),
        ("720p", "seedvr2-3b", 61, 21, replace(STAGED, vae=in_last_level(180)), 10.46),
        ("720p", "seedvr2-3b", 145, 49, IN_MAPS, 20.45),
        ("720p", "seedvr2-7b", 49, 49, RESIDENT, 41.27),
        ("1080p", "seedvr2-3b", 81, 81, RESIDENT, 62.1),
        ("1080p", "seedvr2-3b", 61, 21, Knobs(latents_at_once=2, vae=RING), 43.01),
        ("1080p", "seedvr2-3b", 145, 49, replace(STAGED, vae=in_last_level(272)), 21.75),
        ("1080p", "seedvr2-7b", 21, 21, RESIDENT, 70.38),
        ("2160p", "seedvr2-3b", 1, 1, Knobs(latents_at_once=6, vae=replace(RING, strip_rows=540)), 16.14),
        ("2160p", "seedvr2-3b", 25, 9, replace(STAGED, latents_at_once=2, vae=replace(RING, strip_rows=540)), 76.27),
    ],
)
def test_the_plan_predicts_what_was_measured(
    size: str, model: str, frames: int, window: int, knobs: Knobs, peak_gib: float
) -> None:
    """Live peaks on one H100, BF16 (benchmarks/RESULTS.md)."""
    work = replace(load(size, model=model, window=latent_count(window)), scene_latents=latent_count(frames))
    assert estimate(work, knobs).peak / GIB == pytest.approx(peak_gib, rel=0.05)


@pytest.mark.parametrize("knobs", [RESIDENT, Knobs(latents_at_once=2, vae=RING), IN_MAPS])
@pytest.mark.parametrize("window", [2, 3, 6, 13])
def test_a_longer_scene_takes_more_until_it_is_like_any(window: int, knobs: Knobs) -> None:
    endless = load(window=window)
    scenes = [replace(endless, window_latents=min(window, n), scene_latents=n) for n in range(2, 60)]
    peaks = [estimate(scene, knobs).peak for scene in scenes]
    # Calls of at most four frames keep all of them, larger ones two: 3 % at most, in scenes of five frames.
    assert all(longer >= 0.97 * peak for peak, longer in pairwise(peaks))
    assert peaks[-1] == estimate(endless, knobs).peak


def test_a_short_scene_may_be_restored_faster() -> None:
    """Encoder and decoder then never hold their pasts in a full call of both."""
    long = load("1080p", model="seedvr2-7b", window=6)
    assert fitting(replace(long, scene_latents=6), 80 * GIB)[0] == RESIDENT
    assert fitting(long, 80 * GIB)[0] != RESIDENT


def held_by(owner: object) -> int:
    """Bytes of all tensors that an object holds, each storage once."""
    seen: set[int] = set()
    storages: dict[int, int] = {}
    waiting = [owner]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            storages[item.untyped_storage().data_ptr()] = item.untyped_storage().nbytes()
        elif isinstance(item, list | tuple):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()
        elif hasattr(item, "__dict__"):
            waiting.append(vars(item))
    return sum(storages.values())


SMALL = VaeConfig(channels=(16, 32, 64, 64), groups=16)


STRIPS = replace(RING, strip_rows=8)
HELD = {
    "ring": RING,
    "winograd": WINOGRAD,
    "strips": STRIPS,
    "decoder": replace(STRIPS, encoder_strips=False),
    "end of the decoder": replace(STRIPS, strip_levels=1),
    "second level": replace(STRIPS, second_level=True),
}


@pytest.mark.parametrize("knobs", HELD.values(), ids=HELD)
def test_weights_and_states_are_counted_as_they_are(knobs: VaeKnobs) -> None:
    """Of a small network, on the CPU: the same arithmetic as for the released ones."""
    torch.set_num_threads(1)
    size = 64
    work = replace(load(), vae=SMALL, width=size, height=size)
    fast = FastVae(VideoVae(SMALL).bfloat16(), knobs=knobs)
    assert vae_weights(work, knobs) == pytest.approx(held_by([fast._encoder, fast._decoder]), rel=0.05)
    encoded, decoded = fast.new_state(), fast.new_state()
    for frames, latents in ((1, 1), (4, 1)):
        fast.encode(torch.zeros(1, 3, frames, size, size), encoded)
        fast.decode(torch.zeros(1, 16, latents, size // 8, size // 8), decoded)
    assert encoder_state(work, Knobs(vae=knobs)) == pytest.approx(encoded.size_bytes, rel=0.06)
    assert decoder_state(work, Knobs(vae=knobs)) == pytest.approx(decoded.size_bytes, rel=0.06)


def test_the_transformer_s_matrices_are_counted_as_they_are() -> None:
    config = MODELS["seedvr2-nano"]
    work = replace(load(), dit=config.dit)
    fast = FastDit(NaDiT(config.dit).bfloat16())
    assert dit_weights(work, DitKnobs()) == pytest.approx(fast.weight_bytes, rel=0.1)


def test_refusal_is_an_error_of_the_gpu_s_size() -> None:
    error = RestorationError(FailureReason.INSUFFICIENT_GPU_MEMORY, refusal(load("2160p"), 24 * GIB))
    assert "3840x2160 in windows of 49 frames takes" in error.message
    assert "24.0 GiB" in error.message


def least(size: str, card_gib: int, **more: int) -> Knobs:
    return fitting(load(size, window=6), card_gib * GIB, more.get("host_gib", 0) * GIB)[0]


def test_the_host_s_memory_is_used_where_nothing_else_fits_and_there_is_enough_of_it() -> None:
    assert fitting(load("2160p", window=6), 24 * GIB, 32 * GIB) == []
    chosen = least("2160p", 24, host_gib=96)
    assert (chosen.vae.past_on_host, chosen.vae.second_level, chosen.dit.streamed_weights) == (True, True, True)
    assert not least("2160p", 80, host_gib=500).vae.past_on_host


def test_a_refusal_says_how_much_memory_of_the_host_would_help() -> None:
    work = load("2160p", window=6)
    words = refusal(work, 24 * GIB, 32 * GIB)
    needed = int(words.partition("give the pod ")[2].split()[0])
    assert fitting(work, 24 * GIB, (needed + 1) * GIB)
    assert not fitting(work, 24 * GIB, (needed - 1) * GIB)
    assert "give the pod" not in refusal(work, 12 * GIB, 32 * GIB)


def test_one_picture_needs_no_past() -> None:
    """2160p fits 24 GB with the transformer's weights on the GPU or close to it; a clip of that size does not."""
    picture = replace(load("2160p", window=1), scene_latents=1)
    assert not fitting(picture, 24 * GIB)[0].vae.past_on_host
    assert estimate(picture, Knobs()).peak < 0.2 * estimate(load("2160p", window=1), Knobs()).peak
