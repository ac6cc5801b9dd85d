"""FP16: only products are half precision, so values beyond 65504 do no harm."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from restoration_runner.models import load_restorer
from restoration_runner.models.restorer import Restorer
from restoration_runner.models.seedvr2.dit import NaDiT
from restoration_runner.models.seedvr2.folder import read_folder
from restoration_runner.models.seedvr2.half import Linear, unit_scale
from restoration_runner.models.seedvr2.vae import CausalConv3d, PointwiseConv3d
from restoration_runner.restoration.grid import scene_segments
from restoration_runner.weights.source import SHIPPED, find_model
from tests.builders.models import write_tiny_model

LARGEST_HALF = 65504.0


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def restored(restorer: Restorer, video: Tensor) -> Tensor:
    (work,) = scene_segments(
        start=0, frames=len(video), window=3, overlap=1, per_segment=100, encoder_warmup=1, decoder_warmup=1
    )
    return torch.stack(list(restorer.restore(work, iter(video), seed=0)))


def clip(frames: int, side: int) -> Tensor:
    return torch.rand(frames, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(
    ("values", "dim", "scale"),
    [
        ([0.0, 0.0], None, 1.0),
        ([1.0, -3.0], None, 4.0),
        ([0.3, -0.2], None, 0.5),
        ([1e6, 1.0], None, 2.0**20),
        ([[1e6, 1.0], [0.1, 0.0]], -1, [[2.0**20], [0.125]]),
    ],
)
def test_scale_is_the_next_power_of_two(values: list[float], dim: int | None, scale: object) -> None:
    assert torch.equal(unit_scale(torch.tensor(values), dim), torch.tensor(scale))


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6, 1e12])
def test_products_of_any_size(size: float) -> None:
    torch.manual_seed(0)
    dense, conv, point = Linear(64, 32), CausalConv3d(8, 4), PointwiseConv3d(8, 4)
    for module, x in (
        (dense, torch.randn(5, 64)),
        (conv, torch.randn(1, 8, 3, 6, 6)),
        (point, torch.randn(1, 8, 2, 4, 4)),
    ):
        x = x * size
        with torch.no_grad():
            expected = module(x)
            module.weight.data = module.weight.data.half()
            found = module(x)
        assert found.dtype is torch.float32
        assert (found - expected).norm() / expected.norm() < 1e-3


def test_nano_leaves_the_range_of_half_precision_and_survives_it() -> None:
    folder, cpu = find_model(SHIPPED), torch.device("cpu")
    model = read_folder(folder, device=cpu, dtype=torch.float16)
    largest = watch_text(model.dit)
    model.dit(torch.randn(1, 2, 4, 4, 33), model.text[None], torch.tensor([1000.0]))
    assert max(largest) > LARGEST_HALF, "otherwise this model proves nothing"

    video = clip(5, 48)
    exact = restored(load_restorer(folder, device="cpu", precision="FP32", threads=1), video)
    half = load_restorer(folder, device="cpu", precision="FP16", threads=1)
    found = restored(half, video)
    assert half.environment()["precision"] == "FP16"
    assert half.report().non_finite_values == 0
    assert ((found - exact) * 127.5).abs().quantile(0.999) < 1, "less than a level of 255"


def watch_text(dit: NaDiT) -> list[float]:
    found: list[float] = []
    for block in dit.blocks:
        block.register_forward_hook(lambda _module, _inputs, out: found.append(out[1].abs().max().item()))
    return found


def test_fp16_is_closer_to_fp32_than_bf16(tmp_path: Path) -> None:
    model, video = write_tiny_model(tmp_path), clip(9, 64)
    results = {
        name: restored(load_restorer(model, device="cpu", precision=name, threads=1), video)
        for name in ("FP32", "FP16", "BF16")
    }
    errors = {name: ((x - results["FP32"]).norm() / results["FP32"].norm()).item() for name, x in results.items()}
    assert 0 < errors["FP16"] < 0.005
    assert errors["FP16"] < errors["BF16"] / 3


def test_only_matrices_and_kernels_are_stored_in_half(tmp_path: Path) -> None:
    model = read_folder(write_tiny_model(tmp_path), device=torch.device("cpu"), dtype=torch.float16)
    for part in (model.dit, model.vae):
        for name, parameter in part.named_parameters():
            assert parameter.dtype is (torch.float16 if parameter.ndim > 1 else torch.float32), name
    assert model.text.dtype is torch.float32
