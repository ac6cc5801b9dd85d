"""Two implementations of the networks behind one restorer: which one is taken, and that they agree."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from restoration_api.outcome import FailureReason
from restoration_runner.environment import environment, fingerprint
from restoration_runner.errors import RestorationError
from restoration_runner.models import load_restorer
from restoration_runner.models.seedvr2.fast.dit_knobs import DitKnobs
from restoration_runner.models.seedvr2.fast.vae_state import VaeKnobs
from restoration_runner.models.seedvr2.folder import place_of_transformer, read_folder
from restoration_runner.models.seedvr2.knobs import Knobs
from restoration_runner.models.seedvr2.networks import NetworkPath, choose_path, parse_path
from restoration_runner.models.seedvr2.restorer import SeedVr2Restorer
from restoration_runner.restoration.grid import scene_segments
from tests.builders.models import write_tiny_model

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
FRAMES = 17


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_tiny_model(tmp_path_factory.mktemp("model"))


def restorer(folder: Path, path: str, knobs: Knobs | None = None) -> SeedVr2Restorer:
    dtype = torch.float32
    model = read_folder(folder, device=CPU, dtype=dtype)
    return SeedVr2Restorer(model, device=CPU, dtype=dtype, path=NetworkPath(path), knobs=knobs)


def restored(of: SeedVr2Restorer) -> Tensor:
    """Two windows of three latents, the second one slid."""
    video = torch.rand(FRAMES, 3, 32, 48, generator=torch.Generator().manual_seed(3)) * 2 - 1
    (work,) = scene_segments(
        start=0, frames=FRAMES, window=3, overlap=1, per_segment=9, encoder_warmup=1, decoder_warmup=1
    )
    return torch.stack(list(of.restore(work, iter(video), seed=5)))


@pytest.fixture(scope="module")
def plain(folder: Path) -> Tensor:
    return restored(restorer(folder, "plain"))


class Calls:
    """What the networks of a restorer are called with: name and sizes."""

    def __init__(self, of: SeedVr2Restorer) -> None:
        self.seen: list[tuple[str, torch.Size]] = []
        networks = of.networks
        watched = {name: self._watch(name, getattr(networks, name)) for name in ("encode", "decode", "velocity")}
        of.networks = replace(networks, **watched)

    def _watch(self, name: str, call: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def watched(x: Tensor, *others: Any) -> Tensor:
            self.seen.append((name, x.shape))
            return call(x, *others)

        return watched


KNOBS = {
    "default": Knobs(),
    "several latents in a call": Knobs(latents_at_once=3),
    "stage by stage": Knobs(stage_by_stage=True, latents_at_once=2),
    "by Winograd": Knobs(latents_at_once=2, vae=VaeKnobs(frames_at_once=4, winograd=True)),
    "frame by frame, in strips": Knobs(vae=VaeKnobs(frames_at_once=1, strip_rows=8)),
    "few rows": Knobs(dit=DitKnobs(mlp_rows=16, attention_rows=16)),
}


@pytest.mark.parametrize("knobs", KNOBS.values(), ids=KNOBS)
def test_the_fast_path_computes_the_same(folder: Path, plain: Tensor, knobs: Knobs) -> None:
    fast = restored(restorer(folder, "fast", knobs))
    assert fast.shape == plain.shape == (FRAMES, 3, 32, 48)
    assert (fast - plain).abs().max().item() < 2e-4 * plain.abs().max().item()


@pytest.mark.parametrize(
    ("knobs", "frames"),
    [(None, 5), ("default", 1), ("default", 9), ("several latents in a call", 9), ("stage by stage", 13)],
)
def test_a_rehearsal_makes_all_calls_of_a_window_and_leaves_nothing(
    folder: Path, knobs: str | None, frames: int
) -> None:
    made = restorer(folder, "fast", KNOBS[knobs]) if knobs else restorer(folder, "plain")
    video = torch.rand(frames, 3, 32, 48, generator=torch.Generator().manual_seed(3)) * 2 - 1
    (work,) = scene_segments(
        start=0, frames=frames, window=4, overlap=1, per_segment=9, encoder_warmup=1, decoder_warmup=1
    )
    expected = list(made.restore(work, iter(video), seed=5))
    calls = Calls(made)
    for _ in made.rehearse(work, iter(torch.full_like(video, torch.nan))):
        pass
    rehearsed, calls.seen = calls.seen, []
    found = list(made.restore(work, iter(video), seed=5))
    assert torch.equal(torch.stack(found), torch.stack(expected))
    assert made.report().non_finite_values == 0
    assert rehearsed == calls.seen  # in the same order, so it takes no more memory


def test_a_rehearsal_may_be_given_up_after_any_part(folder: Path) -> None:
    made = restorer(folder, "fast")
    (work,) = scene_segments(start=0, frames=5, window=2, overlap=1, per_segment=9, encoder_warmup=1, decoder_warmup=1)
    video = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1
    expected = list(made.restore(work, iter(video), seed=5))
    for parts in range(4):
        rehearsal = made.rehearse(work, iter(torch.zeros_like(video)))
        assert len(list(islice(rehearsal, parts))) == parts
        del rehearsal
        found = list(made.restore(work, iter(video), seed=5))
        assert torch.equal(torch.stack(found), torch.stack(expected))


@pytest.mark.parametrize(
    ("precision", "device", "wished", "expected"),
    [
        ("fp32", CPU, None, "plain"),  # where the product's bytes are promised
        ("bf16", CPU, None, "plain"),
        ("bf16", CUDA, None, "fast"),
        ("fp32", CUDA, None, "fast"),
        ("fp16", CUDA, None, "plain"),
        ("bf16", CUDA, "plain", "plain"),
        ("fp32", CPU, "fast", "fast"),
    ],
)
def test_choice(folder: Path, precision: str, device: torch.device, wished: str | None, expected: str) -> None:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    model = read_folder(folder, device=CPU, dtype=dtype)
    assert choose_path(model, device, parse_path(wished)) == expected


def test_a_path_that_cannot_be_is_refused(folder: Path) -> None:
    for path, precision, word in (("fast", "FP16", "float16"), ("quick", "FP32", "plain, fast")):
        with pytest.raises(RestorationError, match=word) as caught:
            load_restorer(folder, device="cpu", precision=precision, path=path)
        assert caught.value.reason is FailureReason.INVALID_PARAMETERS


def test_path_and_knobs_are_in_the_fingerprint(folder: Path) -> None:
    choices = [("plain", None), *(("fast", knobs) for knobs in KNOBS.values())]
    found = [environment(restorer(folder, path, knobs)) for path, knobs in choices]
    assert [values["path"] for values in found] == ["plain"] + ["fast"] * len(KNOBS)
    assert dict(zip(KNOBS, found[1:], strict=True))["frame by frame, in strips"]["vae.strip_rows"] == "8"
    assert len({fingerprint(values) for values in found}) == len(choices)


@pytest.mark.parametrize(("total", "place"), [(3.0, CUDA), (2.4, CPU)])
def test_a_transformer_that_would_fill_the_gpu_waits_on_the_host(
    folder: Path, monkeypatch: pytest.MonkeyPatch, total: float, place: torch.device
) -> None:
    """total: of the GPU's memory, in sizes of the file."""
    file = folder / "dit.safetensors"
    properties = SimpleNamespace(total_memory=int(total * file.stat().st_size))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: properties)
    assert place_of_transformer(file, CUDA) == place
    assert place_of_transformer(file, CPU) == CPU
    assert place_of_transformer(folder / "missing", CUDA) == CUDA
