"""The network in training is the runner's: same numbers in every form, noise that cancels, an exact start."""

from pathlib import Path

import pytest
import torch
from hack.nano.colour import rgb_to_yuv420, yuv420_to_rgb
from hack.nano.degradation import HEAVY, LIGHT, STANDARD, Degradation, gaussian_blur
from hack.nano.degrade import low_resolution
from hack.nano.export import export, load_averaged
from hack.nano.fast_layers import forms, frame_norm, install
from hack.nano.losses import ssim
from hack.nano.network import Nano, frozen_masks
from hack.nano.resume import averaged_weights
from torch import Tensor

from restoration_runner.models.seedvr2.vae import CausalConv3d, FrameNorm
from restoration_runner.weights.digest import folder_digest
from restoration_runner.weights.source import SHIPPED, find_model


def draw(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def fresh() -> Nano:
    torch.set_num_threads(1)
    torch.manual_seed(5)
    return Nano().eval().requires_grad_(False)


@pytest.fixture
def moved() -> Nano:
    """A network as training may leave it: every weight that may move has moved."""
    torch.manual_seed(6)
    model = Nano().eval().requires_grad_(False)
    masks = frozen_masks(model.dit)
    for name, parameter in model.dit.named_parameters():
        change = 0.002 * torch.randn_like(parameter)
        parameter.add_(change * masks[name] if name in masks else change)
    return model


def test_training_starts_from_the_condition_itself(fresh: Nano) -> None:
    condition = draw(2, 16, 2, 6, 8)
    restored = fresh.restore(condition, draw(2, 16, 2, 6, 8, seed=4))
    assert (restored - condition).abs().max() < 2e-3


def test_noise_cancels_whatever_training_did(moved: Nano) -> None:
    condition = draw(1, 16, 2, 6, 8)
    results = torch.stack([moved.restore(condition, draw(1, 16, 2, 6, 8, seed=seed)) for seed in range(4)])
    assert (results[0] - condition).std() > 0.05, "the weights were to have an effect"
    assert results.std(0).max() < 4e-3


def test_a_checkpoint_whose_frozen_weights_moved_is_refused(moved: Nano, tmp_path: Path) -> None:
    path = tmp_path / "averaged.pt"
    torch.save({"ema": moved.state_dict()}, path)
    load_averaged(path)
    moved.dit.patch_out.weight[0, 0] += 0.5
    torch.save({"ema": moved.state_dict()}, path)
    with pytest.raises(ValueError, match=r"patch_out\.weight"):
        load_averaged(path)


@pytest.mark.parametrize(("kernel", "stride"), [((3, 3, 3), (1, 1, 1)), ((3, 3, 3), (2, 2, 2)), ((1, 3, 3), (1, 2, 2))])
def test_fast_convolutions_compute_the_runners(kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
    conv = CausalConv3d(4, 6, kernel, stride=stride).requires_grad_(False)
    x = draw(2, 4, 5, 9, 11)
    expected = conv(x)
    for name, form in forms(conv).items():
        torch.testing.assert_close(form(conv, x), expected, rtol=1e-5, atol=1e-5, msg=name)


def test_fast_norm_computes_the_runners() -> None:
    norm = FrameNorm(4, 8, 1e-6).requires_grad_(False)
    norm.weight.copy_(draw(8))
    norm.bias.copy_(draw(8, seed=9))
    x = 3 + 2 * draw(2, 8, 3, 7, 5)
    torch.testing.assert_close(frame_norm(norm, x), norm(x), rtol=1e-4, atol=1e-5)


def test_a_vae_with_fast_layers_is_the_same_vae(fresh: Nano) -> None:
    torch.manual_seed(5)
    fast = Nano().eval().requires_grad_(False)
    clip = draw(1, 3, 5, 32, 48).contiguous(memory_format=torch.channels_last_3d)
    install(fast.vae, clip)
    torch.testing.assert_close(fast.vae.encode(clip), fresh.vae.encode(clip), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("degradation", [STANDARD, LIGHT, HEAVY], ids=lambda d: d.name)
def test_degraded_planes_do_not_depend_on_how_a_clip_is_split(degradation: Degradation) -> None:
    clip = torch.rand(4, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    whole = low_resolution(clip, degradation)
    halves = [low_resolution(clip[i : i + 2], degradation, first_frame=i) for i in (0, 2)]
    for plane, parts in zip(whole, zip(*halves, strict=True), strict=True):
        assert torch.equal(plane, torch.cat(parts))
    assert whole.y.shape == (4, 8, 12)
    assert whole.u.shape == (4, 4, 6)
    noise = whole.y.float() - low_resolution(clip, Degradation("clean", degradation.blur_sigma, 0, 18)).y.float()
    assert noise.std() == pytest.approx(degradation.noise_codes, rel=0.25)


def test_colours_survive_the_way_to_codes_and_back() -> None:
    smooth = gaussian_blur(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2)), 2.4)
    for matrix in ("bt601", "bt709"):
        planes = rgb_to_yuv420(smooth, matrix)
        assert planes.y.min() >= 16
        assert planes.y.max() <= 235
        assert (yuv420_to_rgb(planes, matrix) - smooth).abs().max() < 0.03


def test_ssim_is_one_for_equal_pictures_and_falls_with_noise() -> None:
    picture = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(3))
    assert ssim(picture, picture) == pytest.approx(1.0, abs=1e-5)
    scores = [float(ssim(picture, picture + level * draw(1, 1, 32, 32))) for level in (0.02, 0.1, 0.3)]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.8


def test_the_shipped_weights_become_a_checkpoint_and_the_same_folder_again(tmp_path: Path) -> None:
    shipped = find_model(SHIPPED)
    torch.save({"ema": averaged_weights(shipped)}, tmp_path / "averaged.pt")
    assert export(tmp_path / "averaged.pt", tmp_path / "again") == folder_digest(shipped)
