"""The fast VAE equals the plain one: for every configuration, chunking and knob, in fp32 on the CPU."""

import gc
import weakref
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from restoration_runner.models.seedvr2.config import MODELS, RELEASED_VAE, VaeConfig
from restoration_runner.models.seedvr2.fast.vae import FastVae
from restoration_runner.models.seedvr2.fast.vae_state import VaeKnobs
from restoration_runner.models.seedvr2.vae import VideoVae
from tests.model import fixtures
from tests.model.comparing import Place
from tests.model.kernel_cases import errors_in_interpreter
from tests.model.test_fixtures import FOLDER
from tests.model.vae_kernels import cases

NANO = MODELS["seedvr2-nano"].vae
CPU, GPU = torch.device("cpu"), torch.device("cuda")

CONFIGS = {
    "like nano": VaeConfig(channels=(8, 8, 16, 16), groups=4),
    "three, eight": VaeConfig(channels=(24, 8, 24), groups=2, encoder_blocks=1),
    "time in every level": VaeConfig(channels=(8, 16), groups=4, temporal_levels=1),
    "no time": VaeConfig(channels=(8, 16), groups=4, temporal_levels=0, encoder_blocks=1),
    "other pictures": VaeConfig(channels=(8, 16), groups=4, temporal_levels=1, image_channels=2, latent_channels=5),
}
KNOBS = {
    "whole": VaeKnobs(frames_at_once=None),
    "ring": VaeKnobs(),
    "three": VaeKnobs(frames_at_once=3, upsample_frames=1),
    "winograd": VaeKnobs(frames_at_once=4, winograd=True),
    "winograd, whole": VaeKnobs(frames_at_once=None, winograd=True),
    "strips": VaeKnobs(frames_at_once=1, strip_rows=3, attention_scores=7),
    "strips in the decoder": VaeKnobs(strip_rows=4, encoder_strips=False, strip_levels=1),
    "past on host": VaeKnobs(frames_at_once=1, strip_rows=5, past_on_host=True),
    "second level": VaeKnobs(frames_at_once=1, strip_rows=5, past_on_host=True, second_level=True),
}
LATENTS_PER_CALL = {
    "whole": (None, 1, 2),
    "ring": (None, 1),
    "three": (2,),
    "winograd": (None, 1, 2),
    "winograd, whole": (3,),
    "strips": (None, 1),
    "strips in the decoder": (1,),
    "past on host": (1,),
    "second level": (None, 1, 2),
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def plain_vae(config: VaeConfig) -> VideoVae:
    torch.manual_seed(0)
    return VideoVae(config).eval().requires_grad_(False)


def clip(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def chunked(vae: FastVae | VideoVae, x: Tensor, *, step: int | None, encode: bool) -> Tensor:
    """1, step, step … frames a call, or all in one without a state."""
    run = vae.encode if encode else vae.decode
    if step is None:
        return run(x)
    state = vae.new_state()
    cuts = [0, *range(1, x.shape[2], step), x.shape[2]]
    parts = [run(x[:, :, a:b], state) for a, b in pairwise(cuts)]  # type: ignore[arg-type]
    return torch.cat(parts, dim=2)


@pytest.mark.parametrize("latents", [1, 3])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@torch.no_grad()
def test_fast_equals_plain(config: VaeConfig, latents: int) -> None:
    plain, time, space = plain_vae(config), config.temporal_stride, config.spatial_stride
    video = clip(1, config.image_channels, 1 + (latents - 1) * time, 2 * space, 3 * space)
    latent = clip(1, config.latent_channels, latents, 2, 3)
    moments, decoded = plain.encode(video), plain.decode(latent)
    for name, knobs in KNOBS.items():
        fast = FastVae(plain, knobs=knobs)
        for step in LATENTS_PER_CALL[name]:
            made = chunked(fast, video, step=None if step is None else step * time, encode=True)
            assert (made - moments).abs().max() < 1e-5, (knobs, step)
            made = chunked(fast, latent, step=step, encode=False)
            assert made.shape == decoded.shape
            assert (made - decoded).abs().max() < 1e-5, (knobs, step)


def test_what_is_supported() -> None:
    for config in (RELEASED_VAE, NANO, *CONFIGS.values()):
        assert FastVae.supports(config, torch.float32, CPU)
        assert FastVae.supports(config, torch.bfloat16, GPU)
        assert not FastVae.supports(config, torch.float16, GPU)
    with pytest.raises(ValueError, match=r"float32 or .*bfloat16, not in .*float16"):
        FastVae(plain_vae(CONFIGS["no time"]).half())


@pytest.mark.parametrize(
    ("knobs", "problem"),
    [
        ({"frames_at_once": 0}, "frames_at_once must be at least 1"),
        ({"frames_at_once": 1, "strip_rows": -8}, "strip_rows must be at least 1"),
        ({"frames_at_once": None, "strip_rows": 8}, "needs frames_at_once = 1"),
        ({"frames_at_once": 2, "strip_rows": 8}, "needs frames_at_once = 1"),
        ({"frames_at_once": 3, "winograd": True}, "winograd needs frames_at_once of at least 4"),
        ({"strip_rows": 8, "winograd": True}, "winograd needs frames_at_once of at least 4"),
        ({"frames_at_once": 1, "past_on_host": True}, "past_on_host needs strip_rows"),
        ({"frames_at_once": 1, "second_level": True}, "second_level needs strip_rows"),
        ({"strip_rows": 8, "past_on_host": True, "encoder_strips": False}, "past_on_host needs strips everywhere"),
        ({"upsample_frames": 0}, "upsample_frames must be at least 1"),
        ({"attention_scores": 0}, "attention_scores must be at least 1"),
    ],
)
def test_impossible_knobs_are_refused(knobs: dict[str, int], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        VaeKnobs(**knobs)


def test_more_than_one_clip_is_refused() -> None:
    with pytest.raises(ValueError, match="one clip at a time, not 2"):
        FastVae(plain_vae(CONFIGS["no time"])).encode(clip(2, 3, 1, 8, 8))


@pytest.mark.parametrize("knobs", KNOBS.values(), ids=KNOBS)
def test_the_remembered_past_does_not_grow(knobs: VaeKnobs) -> None:
    fast = FastVae(plain_vae(CONFIGS["like nano"]), knobs=knobs)
    state, sizes = fast.new_state(), []
    for start in range(5):
        fast.decode(clip(1, 16, 1, 2, 2) + start, state)
        sizes.append(state.size_bytes)
    assert sizes[0] > 0
    assert len(set(sizes[1:])) == 1


def test_the_plain_vae_may_be_dropped() -> None:
    """Its memory is the fast one's: no weight is there twice."""
    plain = plain_vae(CONFIGS["like nano"])
    fast, gone = FastVae(plain), weakref.ref(plain.encoder)
    del plain
    gc.collect()
    assert gone() is None
    assert fast.decode(clip(1, 16, 2, 2, 2)).isfinite().all()


@pytest.mark.parametrize(
    "case",
    [case for case in fixtures.read_cases(FOLDER) if case.kind in ("vae", "pipeline")],
    ids=lambda case: case.name,
)
def test_stored_result(case: fixtures.Case) -> None:
    """The released code's stored results, one pass, streamed, frame by frame and in strips; and with both networks."""
    assert fixtures.run_case(case, Place(path="fast")).problem is None


@pytest.fixture(scope="module")
def kernel_errors() -> dict[str, float]:
    """Every kernel in Triton's interpreter, in a process of its own."""
    return errors_in_interpreter("tests.model.vae_kernels")


@pytest.mark.parametrize("name", [name for name, _, _ in cases()])
def test_kernel_equals_its_fallback(kernel_errors: dict[str, float], name: str) -> None:
    """In units of the last place of the largest value; sums of many values are added in another order."""
    assert kernel_errors[name] < 16


def test_the_interpreter_ran_the_kernels(kernel_errors: dict[str, float]) -> None:
    """Else the test above would compare the fallbacks with themselves."""
    assert sum(error > 0 for error in kernel_errors.values()) > len(kernel_errors) / 2
