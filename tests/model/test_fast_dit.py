"""The transformer prepared for a GPU equals the plain one, whatever the network's rules, the grid and the knobs."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from restoration_runner.models.seedvr2.attention import RopeSpec
from restoration_runner.models.seedvr2.config import MODELS, DitConfig, dit_3b_rules, dit_7b_rules
from restoration_runner.models.seedvr2.dit import NaDiT
from restoration_runner.models.seedvr2.fast import dit_attention
from restoration_runner.models.seedvr2.fast.dit import KEPT_GRIDS, FastDit
from restoration_runner.models.seedvr2.fast.dit_knobs import DitKnobs
from restoration_runner.models.seedvr2.fast.dit_windows import WindowRun, pack_windows
from restoration_runner.models.seedvr2.sampling import denoise
from tests.model import fixtures
from tests.model.comparing import Place
from tests.model.dit_kernels import cases
from tests.model.kernel_cases import errors_in_interpreter
from tests.model.test_fixtures import FOLDER

CPU = torch.device("cpu")
SMALL_3B = dit_3b_rules(width=32, heads=2, head_dim=16, layers=3, separate_layers=1, text_width=24, expand_ratio=2)
SMALL_7B = dit_7b_rules(width=32, heads=2, head_dim=16, layers=2, text_width=24, expand_ratio=2)
CONFIGS = {
    "3b": SMALL_3B,
    "7b": SMALL_7B,
    "nano": replace(MODELS["seedvr2-nano"].dit, text_width=24),
    "one layer": dit_3b_rules(
        width=24, heads=1, head_dim=32, layers=1, separate_layers=0, text_width=24, expand_ratio=2
    ),
    "all separate, biased": replace(SMALL_3B, separate_layers=3, qkv_bias=True),
    "head of no power of two": replace(SMALL_7B, heads=3, head_dim=24, rope_dim=12),
    "inner width is not width": replace(SMALL_3B, heads=3, separate_layers=0),
    "wide head": replace(SMALL_7B, heads=1, head_dim=128, rope_dim=64),
    "other windows, text to the end": replace(SMALL_3B, text_ends_early=False, window=((2, 2, 5),) * 3),
    "larger patch": replace(SMALL_3B, patch=(1, 1, 2), in_channels=9, out_channels=4),
}
# Latents: several windows of several lengths, one picture, a strip, a picture smaller than one window.
GRIDS = {"clip": (5, 12, 20), "picture": (1, 18, 22), "strip": (2, 34, 6), "tiny": (1, 2, 2)}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def network(config: DitConfig) -> NaDiT:
    """Random weights in every parameter: vectors that are left at zero or one would hide a swapped stream."""
    torch.manual_seed(0)
    model = NaDiT(config).requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def inputs(config: DitConfig, grid: tuple[int, int, int], batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    video = torch.randn(batch, *grid, config.in_channels, generator=generator)
    return video, torch.randn(batch, 7, config.text_width, generator=generator), torch.linspace(1000.0, 250.0, batch)


def error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return ((found.double() - expected.double()).abs().max() / expected.double().abs().max()).item()


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_equals_the_plain_network(config: DitConfig, grid: tuple[int, int, int]) -> None:
    model = network(config)
    given = inputs(config, grid)
    assert error(FastDit(model)(*given), model(*given)) < 3e-6


@pytest.mark.parametrize("config", [SMALL_3B, SMALL_7B], ids=["3b", "7b"])
@pytest.mark.parametrize(
    "knobs",
    [
        DitKnobs(mlp_rows=1),
        DitKnobs(mlp_rows=100),
        DitKnobs(attention_rows=1),
        DitKnobs(attention_rows=40),
        DitKnobs(mlp_rows=64, attention_rows=90, streamed_weights=True),
    ],
    ids=str,
)
def test_knobs_do_not_change_the_result(config: DitConfig, knobs: DitKnobs) -> None:
    model, given = network(config), inputs(config, GRIDS["clip"])
    assert error(FastDit(model, knobs=knobs)(*given), FastDit(model)(*given)) < 2e-6


@pytest.mark.parametrize("rows", [None, 100])
def test_windows_of_all_lengths_in_one_call(monkeypatch: pytest.MonkeyPatch, rows: int | None) -> None:
    """The rule for short runs, with an attention in place of the one that a GPU has."""
    calls = []

    def flash(q: Tensor, k: Tensor, v: Tensor, borders: Tensor, longest: int) -> Tensor:
        ends = borders.tolist()
        assert ends[0] == 0
        assert ends[-1] == len(q)
        assert max(b - a for a, b in pairwise(ends)) == longest
        calls.append(len(ends) - 1)
        pieces = [tuple(x[a:b].transpose(0, 1) for x in (q, k, v)) for a, b in pairwise(ends)]
        return torch.cat([scaled_dot_product_attention(*piece).transpose(0, 1) for piece in pieces])

    monkeypatch.setattr(dit_attention, "_flash", flash)
    monkeypatch.setattr(dit_attention, "_is_fast", lambda _q, capability: capability == dit_attention.FLASH)
    model, given = network(SMALL_3B), inputs(SMALL_3B, GRIDS["clip"])
    assert error(FastDit(model, knobs=DitKnobs(attention_rows=rows))(*given), model(*given)) < 3e-6
    assert calls


@pytest.mark.parametrize(
    ("grid", "shifted", "expected"),
    [
        ((6, 45, 80), False, True),
        ((6, 45, 80), True, False),
        ((21, 45, 80), True, True),
        ((6, 68, 120), True, True),
        ((1, 45, 80), False, False),
    ],
)
def test_runs_are_attended_one_by_one_where_that_was_measured_to_pay(
    grid: tuple[int, int, int], shifted: bool, expected: bool
) -> None:
    rope = RopeSpec("multimodal", 128, 128, 58)
    windows = pack_windows(grid, (4, 3, 3), shifted=shifted, rope=rope, device=CPU)
    assert dit_attention._runs_are_long(windows, 2560) is expected


def test_clips_of_a_batch_and_their_timesteps() -> None:
    model, given = network(SMALL_3B), inputs(SMALL_3B, GRIDS["clip"], batch=3)
    assert error(FastDit(model)(*given), model(*given)) < 3e-6


def test_denoise_takes_it() -> None:
    model, (video, text, _) = network(SMALL_7B), inputs(SMALL_7B, GRIDS["clip"])
    noise, latent = video[0, ..., :16], video[0, ..., 16:32]
    assert error(denoise(FastDit(model), noise, latent, text[0]), denoise(model, noise, latent, text[0])) < 3e-6


def test_bf16_is_as_near_to_fp32_as_the_plain_network() -> None:
    exact, given = network(CONFIGS["nano"]), inputs(CONFIGS["nano"], GRIDS["clip"])
    expected = exact(*given)
    rounded = network(CONFIGS["nano"]).to(torch.bfloat16)
    plain = rounded(given[0].bfloat16(), given[1].bfloat16(), given[2])
    fast = FastDit(rounded)(given[0].bfloat16(), given[1].bfloat16(), given[2])
    assert fast.dtype is torch.float32
    assert (fast - expected).norm() < 1.1 * (plain.float() - expected).norm()


def test_the_plain_network_is_not_needed_afterwards() -> None:
    model, given = network(SMALL_3B), inputs(SMALL_3B, GRIDS["clip"])
    expected = model(*given)
    fast = FastDit(model, release=True)
    assert sum(parameter.numel() for parameter in model.parameters()) == 0
    assert error(fast(*given), expected) < 3e-6


def test_same_input_same_bytes() -> None:
    model, given = FastDit(network(SMALL_3B)), inputs(SMALL_3B, GRIDS["clip"])
    assert torch.equal(model(*given), model(*given))


def test_tables_are_kept_for_the_last_grids_only() -> None:
    model = FastDit(network(SMALL_3B))
    first = model.windows((1, 2, 2), 7)
    assert model.windows((1, 2, 2), 7) is first
    assert first[0] is first[2]
    for t in range(2, KEPT_GRIDS + 2):
        model.windows((t, 2, 2), 7)
    assert model.windows((1, 2, 2), 7) is not first


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("rows", [None, 1, 30, 64, 10_000])
def test_batches_hold_every_window_once(shifted: bool, rows: int | None) -> None:
    text = 7
    rope = RopeSpec("multimodal", 16, 16, text)
    packed = pack_windows((5, 6, 10), (4, 3, 3), shifted=shifted, rope=rope, device=CPU)
    batches = packed.batches(rows)
    runs = [run for batch in batches for run in batch]
    ends = [0, *(run.first + run.rows for run in runs)]
    assert [run.first for run in runs] == ends[:-1]
    assert ends[-1] == 5 * 6 * 10 + packed.count * text == len(packed.target)
    assert sorted(packed.target.tolist()) == list(range(ends[-1]))
    for batch in batches:
        assert rows is None or sum(run.rows for run in batch) <= max(rows, batch[0].length)


def test_runs_are_as_few_as_there_are_lengths() -> None:
    rope = RopeSpec("multimodal", 16, 16, 2)
    packed = pack_windows((1, 45, 80), (4, 3, 3), shifted=False, rope=rope, device=CPU)
    assert packed.runs == (WindowRun(0, 0, 6, 15 * 27 + 2), WindowRun(6 * 407, 6, 3, 15 * 26 + 2))
    assert packed.borders.tolist() == [*range(0, 6 * 407 + 1, 407), *(6 * 407 + 392 * i for i in (1, 2, 3))]


@pytest.mark.parametrize(
    ("dtype", "device", "expected"),
    [
        (torch.float32, "cpu", True),
        (torch.bfloat16, "cuda", True),
        (torch.float16, "cuda", False),
        (torch.bfloat16, "mps", False),
    ],
)
def test_what_is_supported(dtype: torch.dtype, device: str, expected: bool) -> None:
    assert FastDit.supports(SMALL_3B, dtype, torch.device(device)) is expected


def test_half_precision_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not in torch\.float16"):
        FastDit(network(SMALL_3B).to(torch.float16))


@pytest.mark.parametrize("name", ["mlp_rows", "attention_rows"])
def test_knobs_that_make_no_sense(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        DitKnobs(**{name: 0})


def test_where_weights_are_cannot_change_later() -> None:
    model = FastDit(network(SMALL_3B))
    model.set_knobs(DitKnobs(mlp_rows=5))
    with pytest.raises(ValueError, match="make another"):
        model.set_knobs(DitKnobs(streamed_weights=True))


@pytest.mark.parametrize(
    "case", [case for case in fixtures.read_cases(FOLDER) if case.kind.startswith("dit")], ids=lambda case: case.name
)
def test_reproduces_the_released_code(case: fixtures.Case) -> None:
    assert fixtures.run_case(case, Place(path="fast")).problem is None


@pytest.fixture(scope="module")
def kernel_errors() -> dict[str, float]:
    """Every kernel in Triton's interpreter, in a process of its own."""
    return errors_in_interpreter("tests.model.dit_kernels")


@pytest.mark.parametrize("name", [name for name, _, _ in cases()])
def test_kernel_equals_its_plain_expression(kernel_errors: dict[str, float], name: str) -> None:
    """In units of the last place of the largest value."""
    assert kernel_errors[name] < (16 if name.startswith("network") else 4)
