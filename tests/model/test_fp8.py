"""`precision: FP8`: the transformer's matrices in 8 bits, the same numbers on every path, and half the memory."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from restoration_runner.models import load_restorer
from restoration_runner.models.kernels.dequantise import dequantise
from restoration_runner.models.seedvr2.config import MODELS, DitConfig
from restoration_runner.models.seedvr2.dit import NaDiT
from restoration_runner.models.seedvr2.fast.dit import FastDit
from restoration_runner.models.seedvr2.fast.dit_knobs import DitKnobs
from restoration_runner.models.seedvr2.fast.dit_store import ResidentMatrices
from restoration_runner.models.seedvr2.fp8 import quantise, round_matrices
from restoration_runner.models.seedvr2.knobs import Knobs
from restoration_runner.models.seedvr2.memory_model import dit_weights, estimate
from tests.model.test_fast_dit import SMALL_3B, SMALL_7B, error, inputs, network
from tests.model.test_memory_plan import load


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def restored(matrix: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(matrix)
    dequantise(*quantise(matrix), out=out)
    return out


def test_each_number_has_four_significant_bits_of_its_row_s_scale() -> None:
    matrix = torch.randn(7, 300, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 6, 7)[:, None]
    largest = matrix.abs().amax(dim=1, keepdim=True)
    allowed = torch.maximum(matrix.abs() / 16, largest / 448 * 2**-10)  # half a step: of four bits, of the smallest
    difference = (restored(matrix) - matrix).abs()
    assert (difference <= allowed * 1.001).all()
    assert 0.02 < difference.norm() / matrix.norm() < 0.03


def test_rows_of_zeros_and_the_largest_number_stay_what_they_are() -> None:
    matrix = torch.tensor([[0.0, 0.0, 0.0], [3e30, -3e30, 0.0], [-448.0, 1.0, 2**-9]])
    assert torch.allclose(restored(matrix), matrix, rtol=1e-6)
    assert torch.equal(restored(restored(matrix)), restored(matrix))


def test_every_code_is_decoded() -> None:
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)[None]
    out = torch.empty(1, 256)
    dequantise(codes, torch.ones(1), out=out)
    assert torch.equal(out.nan_to_num(), codes.float().nan_to_num())


@pytest.mark.parametrize("config", [SMALL_3B, SMALL_7B], ids=["3b", "7b"])
def test_the_fast_path_computes_the_same_and_keeps_bytes(config: DitConfig) -> None:
    model, exact = network(config), network(config)
    given = inputs(config, (5, 12, 20))
    fast = FastDit(model, fp8_weights=True)
    round_matrices(model)
    rounded = model(*given)
    assert error(fast(*given), rounded) < 3e-6
    assert error(fast(*given), rounded) < 0.01 * error(exact(*given), rounded)
    resident = FastDit(exact)
    assert isinstance(resident._store, ResidentMatrices)
    whole = max(block.flat.nbytes for block in resident._store._blocks)  # one block is as products take it
    assert 4 * (fast.weight_bytes - whole) == resident.weight_bytes


def test_the_bytes_are_counted_as_they_are() -> None:
    config = MODELS["seedvr2-nano"].dit
    fast = FastDit(NaDiT(config).bfloat16(), fp8_weights=True)
    work = replace(load(), dit=config, fp8_weights=True)
    assert dit_weights(work, DitKnobs()) == pytest.approx(fast.weight_bytes, rel=0.1)
    released = load(model="seedvr2-7b")
    saved = estimate(released, Knobs()).peak - estimate(replace(released, fp8_weights=True), Knobs()).peak
    assert saved > 0.45 * dit_weights(released, DitKnobs())


@pytest.mark.parametrize("path", ["plain", "fast"])
def test_the_fingerprint_names_it(path: str) -> None:
    import restoration_runner

    folder = Path(restoration_runner.__file__).parent / "nano"
    restorer = load_restorer(folder, device="cpu", precision="FP8", path=path)
    assert restorer.environment()["precision"] == "FP8"
