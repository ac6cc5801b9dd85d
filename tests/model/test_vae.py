"""The VAE in a stream gives what it gives on the whole clip, remembers a bounded past and never looks ahead."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from restoration_runner.models.seedvr2 import vae as vae_module
from restoration_runner.models.seedvr2.config import VaeConfig
from restoration_runner.models.seedvr2.vae import StreamState, VideoVae

CONFIG = VaeConfig(channels=(8, 8, 16, 16), groups=4)


@pytest.fixture(scope="module")
def vae() -> VideoVae:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return VideoVae(CONFIG).eval().requires_grad_(False)


def clip(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def cuts(total: int, first: int, rest: int) -> list[tuple[int, int]]:
    return list(pairwise([0, *range(first, total, rest), total]))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize(("first", "rest"), [(1, 4), (5, 4), (1, 8), (9, 12)])
def test_streamed_encoding_equals_whole(
    vae: VideoVae, first: int, rest: int, memory_format: torch.memory_format
) -> None:
    video, state = clip(1, 3, 21, 32, 48).contiguous(memory_format=memory_format), StreamState()
    parts = [vae.encode(video[:, :, a:b], state) for a, b in cuts(21, first, rest)]
    assert (torch.cat(parts, dim=2) - vae.encode(video)).abs().max() < 1e-5


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize(("first", "rest"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_streamed_decoding_equals_whole(
    vae: VideoVae, first: int, rest: int, memory_format: torch.memory_format
) -> None:
    latent, state = clip(1, 16, 6, 4, 6).contiguous(memory_format=memory_format), StreamState()
    parts = [vae.decode(latent[:, :, a:b], state) for a, b in cuts(6, first, rest)]
    assert (torch.cat(parts, dim=2) - vae.decode(latent)).abs().max() < 1e-5


def test_paths_of_cpu_and_gpu_agree(vae: VideoVae, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU runs, PyTorch's own convolutions in NCDHW, run here beside what a CPU runs."""
    video, latent = clip(1, 3, 9, 16, 24), clip(1, 16, 3, 2, 3)
    images_last = torch.channels_last_3d
    on_cpu = vae.encode(video.contiguous(memory_format=images_last)), vae.decode(latent)
    monkeypatch.setattr(vae_module, "prefers_onednn", lambda _x: False)
    for fast, plain in zip(on_cpu, (vae.encode(video), vae.decode(latent)), strict=True):
        assert (fast - plain).abs().max() < 1e-5


def test_clips_of_a_batch_do_not_mix(vae: VideoVae) -> None:
    video = clip(2, 3, 5, 16, 16)
    alone = torch.cat([vae.encode(video[:1]), vae.encode(video[1:])])
    assert (vae.encode(video) - alone).abs().max() < 1e-5


def test_no_frame_sees_the_future(vae: VideoVae) -> None:
    video = clip(1, 3, 13, 16, 16)
    changed = video.clone()
    changed[:, :, 9:] += 1
    before, after = vae.encode(video), vae.encode(changed)
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert not torch.equal(before[:, :, 3], after[:, :, 3])


def test_the_remembered_past_does_not_grow(vae: VideoVae) -> None:
    state, sizes = StreamState(), []
    for start in range(6):
        vae.decode(clip(1, 16, 1, 4, 4) + start, state)
        sizes.append(state.size_bytes)
    assert sizes[0] > 0
    assert len(set(sizes)) == 1


def test_gradients_reach_every_weight() -> None:
    vae = VideoVae(CONFIG)
    mean = vae.encode(clip(1, 3, 5, 16, 16))[:, :16]
    vae.decode(mean).square().mean().backward()
    without = [name for name, p in vae.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []
