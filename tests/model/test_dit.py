"""The transformer treats the clips of a batch alike, can be trained, and does not depend on how windows are grouped."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from restoration_runner.models.seedvr2 import attention
from restoration_runner.models.seedvr2.config import MODELS, DitConfig, dit_3b_rules, dit_7b_rules
from restoration_runner.models.seedvr2.dit import NaDiT, from_tokens, to_tokens
from restoration_runner.models.seedvr2.sampling import denoise

SMALL_3B = dit_3b_rules(width=32, heads=2, head_dim=16, layers=3, separate_layers=1, text_width=24, expand_ratio=2)
SMALL_7B = dit_7b_rules(width=32, heads=2, head_dim=16, layers=2, text_width=24, expand_ratio=2)
ALL_SEPARATE = replace(SMALL_3B, separate_layers=3)
CONFIGS = pytest.mark.parametrize("config", [SMALL_3B, SMALL_7B, ALL_SEPARATE], ids=["3b", "7b", "3b-separate"])


def network(config: DitConfig) -> NaDiT:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return NaDiT(config)


def inputs(batch: int, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A grid of 5 × 6 × 10 tokens: several windows, short ones among them."""
    generator = torch.Generator().manual_seed(seed)
    video = torch.randn(batch, 5, 12, 20, 33, generator=generator)
    text = torch.randn(batch, 7, 24, generator=generator)
    return video, text, torch.full((batch,), 1000.0)


@CONFIGS
@torch.no_grad()
def test_clips_of_a_batch_do_not_mix(config: DitConfig) -> None:
    model = network(config)
    video, text, timestep = inputs(2)
    alone = [model(video[i : i + 1], text[i : i + 1], timestep[:1]) for i in range(2)]
    assert (model(video, text, timestep) - torch.cat(alone)).abs().max() < 1e-5


@CONFIGS
def test_gradients_reach_every_weight_that_matters(config: DitConfig) -> None:
    model = network(config)
    model(*inputs(1)).square().mean().backward()
    last = f"blocks.{config.layers - 1}.text."
    unused = {f"{last}{name}" for name in ("out.weight", "out.bias")}
    unused |= {name for name, _ in model.named_parameters() if name.startswith((f"{last}mlp.",))}
    unused |= {f"{last}modulation.{name}" for name in ("attn_gate", "mlp_shift", "mlp_scale", "mlp_gate")}
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without <= unused


@torch.no_grad()
def test_text_of_the_last_layer_enters_unmodulated() -> None:
    """The released 3B rule: the last block's text is normalised only, so a shared modulation must not touch it."""
    model = network(SMALL_3B)
    last = model.blocks[-1]
    seen: list[Tensor] = []
    last.get_submodule("both").qkv.register_forward_hook(lambda _module, args, _out: seen.append(args[0]))
    model(*inputs(1))
    text = seen[1]
    assert text.shape[1] == 7
    assert torch.allclose(text.square().mean(dim=-1), torch.ones(1, 7), atol=1e-3)


@torch.no_grad()
def test_query_chunks_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (torch.randn(2, 3, 50, 16, generator=torch.Generator().manual_seed(i)) for i in range(3))
    whole = attention.attend(q, k, v)
    monkeypatch.setattr(attention, "MAX_SCORES", 2 * 3 * 50 * 7)
    assert (attention.attend(q, k, v) - whole).abs().max() < 1e-6


@torch.no_grad()
def test_a_network_used_for_inference_can_still_be_trained() -> None:
    model = network(SMALL_3B)
    with torch.inference_mode():
        model(*inputs(1))
    with torch.enable_grad():
        model(*inputs(1)).mean().backward()


@torch.no_grad()
def test_window_tables_are_built_once_per_grid() -> None:
    model = network(SMALL_3B)
    grid = model.token_grid(inputs(1)[0].shape)
    first = model.layouts(grid, 7, torch.device("cpu"))
    assert model.layouts(grid, 7, torch.device("cpu")) is first
    assert first[0] is first[2]
    assert first[0] is not first[1]


@pytest.mark.parametrize("patch", [(1, 2, 2), (1, 1, 1), (2, 2, 4)])
def test_tokens_and_back(patch: tuple[int, int, int]) -> None:
    video = torch.randn(2, 4, 8, 8, 5, generator=torch.Generator().manual_seed(0))
    grid = (4 // patch[0], 8 // patch[1], 8 // patch[2])
    assert torch.equal(from_tokens(to_tokens(video, patch), grid, patch), video)


@torch.no_grad()
def test_denoise_is_one_clip() -> None:
    model = network(SMALL_3B)
    video, text, timestep = inputs(1)
    noise, latent = video[0, ..., :16], video[0, ..., 16:32]
    expected = model(torch.cat([noise, latent, torch.ones_like(latent[..., :1])], dim=-1)[None], text, timestep)[0]
    assert torch.equal(denoise(model, noise, latent, text[0]), expected)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"layers": 4}, "one entry per layer"), ({"separate_layers": 9}, "fewer layers than separate_layers")],
)
def test_configuration_that_contradicts_itself(change: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(SMALL_3B, **change)


def test_nano_is_wide_enough_to_carry_its_noise() -> None:
    config = MODELS["seedvr2-nano"].dit
    tokens_values = 4 * config.out_channels  # 2 × 2 latents of 16 channels
    assert config.width > 2 * tokens_values
