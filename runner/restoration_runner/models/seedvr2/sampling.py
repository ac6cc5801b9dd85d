"""One denoising step, and the released pipeline around it as the numeric fixtures know it.

The network predicts the velocity v = x_T - x0 of a straight line from picture to noise, so one evaluation at timestep
1000 gives the result: x0 = x_T - v. `reference_restore` follows the released program step by step (its size rules, its
order of random draws); the product's own way through the same networks is `restorer.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from restoration_runner.models.seedvr2.dit import NaDiT
from restoration_runner.models.seedvr2.vae import VideoVae, posterior
from restoration_runner.restoration.grid import latent_count, padded_frames
from restoration_runner.restoration.resize import area_size, centre_crop, resize
from restoration_runner.restoration.wavelet import wavelet_transfer

TIMESTEP = 1000.0


def dit_input(noise: Tensor, latent: Tensor) -> Tensor:
    """Noise, condition and a channel of ones, `[..., 16]` each, to `[..., 33]`."""
    return torch.cat([noise, latent, torch.ones_like(latent[..., :1])], dim=-1)


def euler_endpoint(noise: Tensor, velocity: Tensor) -> Tensor:
    """The clean latent, in fp32 whatever the network computes in."""
    return noise.float() - velocity.float()


def timestep_shift(timestep: float, grid: tuple[int, int, int]) -> float:
    """Timestep of the condition noise, moved towards 1000 for larger clips; `grid` is (t, h, w) in latents.

    Identity at 0, the level of the released one-step pipeline; the slopes are straight lines through the training
    sizes, 256² to 1024² for images and 2,424,832 to 133,632,000 pixels for clips.
    """
    frames, pixels = 4 * (grid[0] - 1) + 1, 64 * grid[1] * grid[2]
    if frames == 1:
        shift = 1 + (3.2 - 1) * (pixels - 256**2) / (1024**2 - 256**2)
    else:
        shift = 1 + (5 - 1) * (pixels * frames - 2_424_832) / (133_632_000 - 2_424_832)
    u = timestep / 1000
    return 1000 * (shift * u / (1 + (shift - 1) * u))


def noise_level(strength: float, grid: tuple[int, int, int]) -> float:
    """How much of the condition becomes noise, 0 to 1: `strength` shifted by the clip's size; `grid` in latents."""
    return timestep_shift(1000 * strength, grid) / 1000


def add_condition_noise(latent: Tensor, noise: Tensor, level: float) -> Tensor:
    """Step 10 of the released pipeline, in fp32: a point on the straight line from the latent to the noise."""
    return (1 - level) * latent.float() + level * noise.float()


def denoise(
    dit: Callable[[Tensor, Tensor, Tensor], Tensor],
    noise: Tensor,
    latent: Tensor,
    text: Tensor,
    timestep: float = TIMESTEP,
) -> Tensor:
    """Velocity `[t, h, w, 16]` of one window; noise and scaled latent `[t, h, w, 16]`, text `[L, width]`."""
    at = torch.full((1,), timestep, dtype=torch.float32, device=noise.device)
    velocity: Tensor = dit(dit_input(noise, latent)[None], text[None], at)[0]
    return velocity


def to_uint8(frames: Tensor) -> Tensor:
    """[-1, 1] to 0..255, clipped, rounded half to even."""
    return frames.clamp(-1, 1).mul(0.5).add(0.5).mul(255).round().to(torch.uint8)


@dataclass(frozen=True)
class Draws:
    """The random numbers of the released pipeline, in their order: eps `[16, t, h, w]`, noise `[t, h, w, 16]`."""

    eps: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Stages:
    """What the released pipeline holds after its steps.

    video `[3, T, H, W]`, latent, velocity, x0 `[t, h, w, 16]`, decoded `[Tp, 3, H, W]`, restored `[T, 3, H, W]`,
    frames `[T, H, W, 3]` uint8.
    """

    video: Tensor
    latent: Tensor
    velocity: Tensor
    x0: Tensor
    decoded: Tensor
    restored: Tensor
    frames: Tensor


def prepare_video(frames: Tensor, target: tuple[int, int]) -> Tensor:
    """Released steps 1 to 5: `[T, 3, H0, W0]` uint8 to `[3, T, H, W]` in [-1, 1] at about the area of `target`."""
    size = area_size((frames.shape[-2], frames.shape[-1]), target)
    scaled = resize(frames.float() / 255, size)
    top, left, height, width = centre_crop(size)
    cropped = scaled[..., top : top + height, left : left + width]
    return ((cropped - 0.5) / 0.5).transpose(0, 1)


@torch.inference_mode()
def reference_restore(
    dit: NaDiT,
    vae: VideoVae,
    frames: Tensor,
    text: Tensor,
    *,
    target: tuple[int, int],
    draws: Draws,
    timestep: float = TIMESTEP,
    scaling: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> Stages:
    """The released pipeline: `frames [T, 3, H0, W0]` uint8, `text [L, width]`, `target` (height, width) area.

    dtype: of the networks' activations; what lies between the networks is fp32.
    """
    scaling = vae.config.scaling if scaling is None else scaling
    video = prepare_video(frames, target)
    count = video.shape[1]
    missing = padded_frames(latent_count(count)) - count
    clip = torch.cat([video, video[:, -1:].expand(-1, missing, -1, -1)], dim=1)
    mean, std = posterior(vae.encode(clip[None].to(dtype)).float())
    latent = ((mean + std * draws.eps) * scaling)[0].permute(1, 2, 3, 0)
    noise = draws.noise.to(dtype)
    velocity = denoise(dit, noise, latent.to(dtype), text.to(dtype), timestep)
    x0 = euler_endpoint(noise, velocity)
    decoded = vae.decode((x0 / scaling).permute(3, 0, 1, 2)[None].to(dtype))[0].transpose(0, 1)
    restored = wavelet_transfer(decoded[:count], video.transpose(0, 1))
    return Stages(video, latent, velocity, x0, decoded, restored, to_uint8(restored).permute(0, 2, 3, 1))
