"""Training clips: stills set in motion, degraded and encoded, kept in a pool on the GPU.

Real footage with a free licence is scarce, so most clips are photographs under a moving camera: pans, zooms, rotation,
shake, shutter blur, a gentle non-rigid warp, cut-outs that move on their own. Every clip is degraded with its own
parameters and goes through libx264. Encoding runs on threads beside training and replaces old clips of the pool.
"""

import json
import math
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageSequence
from torch import Tensor

from hack.nano.codec import H264Pool
from hack.nano.colour import Yuv420, rgb_to_yuv420, yuv420_to_rgb
from hack.nano.degradation import Degradation, downscale, gaussian_blur

FRAMES = 21
HEIGHT, WIDTH = 256, 384
MATRIX = "bt601"  # both matrices differ only in where noise lands between the channels; the test clips use this one
VIDEO_SHARE = 0.25
BLURRED_SPEED = 5.0  # pixels a frame
VIDEO_HELD_OUT = 33  # frames at the end of the training clip that only evaluation sees


@dataclass(frozen=True)
class Material:
    """uint8 pictures on one device: stills [3, h, w] at full and half size, sprites [4, h, w], video [T, 3, h, w]."""

    stills: list[Tensor]
    held_out: list[Tensor]
    sprites: list[Tensor]
    videos: list[Tensor]


def load_material(folder: Path, device: torch.device) -> Material:
    """Read what `hack.nano.data` wrote."""
    files = json.loads((folder / "inventory.json").read_text())["files"]
    still_files = [entry for entry in files if entry["kind"] != "video"]
    with ThreadPoolExecutor(16) as executor:
        pictures = list(executor.map(_read_picture, [folder / entry["file"] for entry in still_files]))
    stills, held_out, sprites = [], [], []
    for entry, picture in zip(still_files, pictures, strict=True):
        tensor = torch.from_numpy(picture).permute(2, 0, 1).contiguous().to(device)
        if entry["kind"] == "sprite":
            sprites.append(tensor)
            continue
        target = held_out if entry.get("heldOut") else stills
        for shrink in (1, 2, 3):
            small = _shrunk(tensor, shrink)
            if min(small.shape[1:]) >= 200:
                target.append(small)
    videos = []
    for entry in files:
        if entry["kind"] == "video":
            video = torch.from_numpy(_read_video(folder / entry["file"])).permute(0, 3, 1, 2).to(device)
            fits = min(video.shape[-2] // HEIGHT, video.shape[-1] // WIDTH, 2)
            videos += [_shrunk(video, shrink) for shrink in range(1, fits + 1)]
    return Material(stills, held_out, sprites, videos)


def _read_picture(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.array(picture.convert("RGBA" if path.suffix == ".webp" else "RGB"))


def _read_video(path: Path) -> NDArray[np.uint8]:
    """[T, H, W, 3] of an animated picture."""
    with Image.open(path) as picture:
        return np.stack([np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)])


def _shrunk(picture: Tensor, factor: int) -> Tensor:
    if factor == 1:
        return picture
    planes = picture if picture.dim() == 4 else picture[None]
    size = (planes.shape[-2] // factor, planes.shape[-1] // factor)
    parts = [
        F.interpolate(part.float(), size=size, mode="bicubic", antialias=True).clamp(0, 255).round().to(torch.uint8)
        for part in planes.split(16)
    ]
    small = torch.cat(parts)
    return small if picture.dim() == 4 else small[0]


class Renderer:
    """Draws sharp clips [FRAMES, 3, HEIGHT, WIDTH] in [0, 1]; the generator decides everything."""

    def __init__(self, material: Material, *, seed: int, held_out: bool = False) -> None:
        self.material = material
        self.held_out = held_out
        self.rng = np.random.default_rng(seed)
        stills = material.held_out if held_out else material.stills
        self.stills = stills or material.stills
        self.device = self.stills[0].device

    def clip(self) -> Tensor:
        from_video = self.material.videos and self.rng.random() < VIDEO_SHARE
        clip = self._from_video() if from_video else self._from_still()
        return self._photometric(clip).clamp(0, 1)

    def _from_video(self) -> Tensor:
        video = self.material.videos[self.rng.integers(len(self.material.videos))]
        count = len(video)
        if self.held_out:
            start = count - VIDEO_HELD_OUT + self.rng.integers(VIDEO_HELD_OUT - FRAMES)
        else:
            start = self.rng.integers(count - VIDEO_HELD_OUT - FRAMES)
        top = self.rng.integers(video.shape[-2] - HEIGHT + 1)
        left = self.rng.integers(video.shape[-1] - WIDTH + 1)
        clip = video[start : start + FRAMES, :, top : top + HEIGHT, left : left + WIDTH].float() / 255
        if self.rng.random() < 0.5:
            clip = clip.flip(-1)
        return clip.flip(0) if self.rng.random() < 0.3 else clip

    def _from_still(self) -> Tensor:
        still = self.stills[self.rng.integers(len(self.stills))]
        clip = self._moving(still, self._camera(still.shape[1:]), warp=self.rng.random() < 0.35)
        for _ in range(self.rng.choice([0, 0, 1, 2, 3])):
            clip = self._with_sprite(clip)
        return clip

    def _camera(self, size: tuple[int, ...]) -> NDArray[np.float32]:
        """Affine maps [FRAMES, 2, 3] from clip pixels (centred) to picture pixels."""
        time = np.arange(FRAMES) - FRAMES // 2
        speed = random_speed(self.rng)
        direction = self.rng.uniform(0, 2 * math.pi)
        shake = np.cumsum(self.rng.normal(0, 0.35, (FRAMES, 2)), 0) * (self.rng.random() < 0.5)
        height, width = size
        centre = np.array([width * self.rng.uniform(0.25, 0.75), height * self.rng.uniform(0.25, 0.75)])
        bend = self.rng.normal(0, 0.06) * time**2 * (self.rng.random() < 0.4)
        path = centre + shake + np.outer(time * speed + bend, [math.cos(direction), math.sin(direction)])
        quarter = self.rng.integers(4) * math.pi / 2
        turn = quarter + self.rng.normal(0, 0.12) + time * self.rng.normal(0, 0.004) * (self.rng.random() < 0.5)
        zoom = self.rng.uniform(0.6, 1.25) * np.exp(time * self.rng.normal(0, 0.006) * (self.rng.random() < 0.5))
        flip = self.rng.choice([-1.0, 1.0])
        cos, sin = np.cos(turn) * zoom, np.sin(turn) * zoom
        rows = [np.stack([cos * flip, -sin, path[:, 0]], -1), np.stack([sin * flip, cos, path[:, 1]], -1)]
        return np.stack(rows, 1).astype(np.float32)

    def _moving(self, picture: Tensor, camera: NDArray[np.float32], *, warp: bool = False) -> Tensor:
        # What moves far while the shutter is open is blurred: a fast clip without blur would be a strobe.
        fast = float(np.abs(np.diff(camera[:, :, 2], axis=0)).mean()) > BLURRED_SPEED
        shutter = (0.0, 0.17, 0.33, 0.5) if self.rng.random() < (0.8 if fast else 0.3) else (0.0,)
        after = np.concatenate([camera[1:], 2 * camera[-1:] - camera[-2:-1]])
        bent = self._warp() if warp else None
        total = None
        for share in shutter:
            sampled = self._sample(picture, camera + share * (after - camera), bent)
            total = sampled if total is None else total + sampled
        assert total is not None
        return total / len(shutter)

    def _warp(self) -> Tensor:
        """A slowly changing displacement [FRAMES, HEIGHT, WIDTH, 2] in pixels, from a few random waves."""
        y = torch.arange(HEIGHT, device=self.device)[None, :, None]
        x = torch.arange(WIDTH, device=self.device)[None, None, :]
        t = torch.arange(FRAMES, device=self.device)[:, None, None]
        total = torch.zeros(FRAMES, HEIGHT, WIDTH, 2, device=self.device)
        for axis in (0, 1, 0, 1):
            length = self.rng.uniform(60, 240)
            angle = self.rng.uniform(0, 2 * math.pi)
            phase = (x * math.cos(angle) + y * math.sin(angle)) * (2 * math.pi / length)
            pace, start = self.rng.normal(0, 0.25), self.rng.uniform(0, 2 * math.pi)
            total[..., axis] += self.rng.uniform(0.5, 3.5) * torch.sin(phase + pace * t + start)
        return total

    def _sample(self, picture: Tensor, camera: NDArray[np.float32], bent: Tensor | None) -> Tensor:
        y = torch.arange(HEIGHT, device=self.device, dtype=torch.float32) - (HEIGHT - 1) / 2
        x = torch.arange(WIDTH, device=self.device, dtype=torch.float32) - (WIDTH - 1) / 2
        maps = torch.from_numpy(camera).to(self.device)[:, None, None]
        grid = torch.stack(torch.broadcast_tensors(x[None, None, :], y[None, :, None]), -1)
        grid = grid if bent is None else grid + bent
        columns = maps[..., 0, 0] * grid[..., 0] + maps[..., 0, 1] * grid[..., 1] + maps[..., 0, 2]
        rows = maps[..., 1, 0] * grid[..., 0] + maps[..., 1, 1] * grid[..., 1] + maps[..., 1, 2]
        height, width = picture.shape[1:]
        where = torch.stack(((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1), -1)
        planes = (picture.float() / 255)[None].expand(FRAMES, -1, -1, -1)
        # Cut-outs end in nothing; photographs continue as their mirror image.
        padding = "zeros" if picture.shape[0] == 4 else "reflection"
        return F.grid_sample(planes, where, mode="bicubic", padding_mode=padding, align_corners=False)

    def _with_sprite(self, clip: Tensor) -> Tensor:
        if not self.material.sprites:
            return clip
        sprite = self.material.sprites[self.rng.integers(len(self.material.sprites))]
        camera = self._camera(sprite.shape[1:])
        zoom = self.rng.uniform(1.0, 2.2)
        camera[:, :, :2] *= zoom
        # The cut-out passes through a random place of the frame, not always its middle.
        away = np.array([self.rng.uniform(-0.4, 0.4) * WIDTH, self.rng.uniform(-0.4, 0.4) * HEIGHT], np.float32)
        camera[:, :, 2] -= camera[:, :, :2] @ away
        layer = self._moving(_premultiplied(sprite), camera).clamp(0, 1)
        return clip * (1 - layer[:, 3:]) + layer[:, :3]

    def _photometric(self, clip: Tensor) -> Tensor:
        gain = torch.tensor(self.rng.uniform(0.85, 1.15, 3), device=self.device, dtype=torch.float32)
        contrast, lift = self.rng.uniform(0.6, 1.2), self.rng.uniform(-0.1, 0.1)
        clip = (clip.clamp(0, 1) ** self.rng.uniform(0.7, 1.4) - 0.5) * contrast + 0.5 + lift
        if self.rng.random() < 0.1:
            clip = clip.mean(1, keepdim=True).expand_as(clip)
        return clip * gain[None, :, None, None]


def _premultiplied(sprite: Tensor) -> Tensor:
    alpha = sprite[3:].float() / 255
    return torch.cat((sprite[:3].float() * alpha, sprite[3:].float()))


def random_speed(rng: np.random.Generator) -> float:
    """Pixels a frame: a fifth stands still, most moves as people and hands with cameras do, a fifth passes quickly.

    Panned footage of traffic and sport moves 5 to 20 pixels a frame at this size; without such clips the VAE learns
    that neighbouring frames are the same, and shows ghosts where they are not.
    """
    kind = rng.random()
    if kind < 0.2:
        return 0.0
    if kind < 0.55:
        return float(abs(rng.normal(0, 2.5)))
    return float(abs(rng.normal(0, 7.0)) if kind < 0.8 else rng.uniform(8.0, 20.0))


def random_degradation(rng: np.random.Generator) -> Degradation:
    """A third near `standard`, a quarter near `light`, the rest anywhere that the model should cope with.

    Lightly degraded clips teach it to leave alone what is good.
    """
    kind = rng.random()
    if kind < 0.33:
        return Degradation("near", rng.uniform(1.3, 1.9), rng.uniform(6.5, 9.5), int(rng.integers(17, 20)))
    if kind < 0.58:
        return Degradation("light", rng.uniform(0.5, 1.1), rng.uniform(0.0, 4.0), int(rng.integers(16, 26)))
    noise = 0.0 if rng.random() < 0.08 else rng.uniform(0.5, 12)
    return Degradation("any", rng.uniform(0.6, 2.4), noise, int(rng.integers(15, 31)))


def degraded_planes(clip: Tensor, degradation: Degradation) -> NDArray[np.uint8]:
    """Packed 4:2:0 [FRAMES, bytes] before the encoder; noise from the device's generator."""
    planes = rgb_to_yuv420(downscale(gaussian_blur(clip, degradation.blur_sigma)), MATRIX)
    noisy = [
        (plane + torch.randn_like(plane) * (degradation.noise_codes * share)).clamp(0, 255).round()
        for plane, share in zip(planes, (1.0, 0.5, 0.5), strict=True)
    ]
    packed = torch.cat([plane.flatten(1) for plane in noisy], dim=1).to(torch.uint8)
    return packed.cpu().numpy()


def decoded_rgb(packed: NDArray[np.uint8], device: torch.device) -> Tensor:
    """RGB [FRAMES, 3, HEIGHT/4, WIDTH/4] in [0, 1], half precision, from packed 4:2:0."""
    height, width = HEIGHT // 4, WIDTH // 4
    data = torch.from_numpy(packed).to(device).float()
    y, u, v = data.split([height * width, height * width // 4, height * width // 4], dim=1)
    half = (height // 2, width // 2)
    planes = Yuv420(y.unflatten(1, (height, width)), u.unflatten(1, half), v.unflatten(1, half))
    return yuv420_to_rgb(planes, MATRIX).clamp(0, 1).half()


class ClipPool:
    """Sharp and degraded clips on the device, replaced while training runs.

    sharp uint8 [size, FRAMES, 3, HEIGHT, WIDTH]; degraded half [size, FRAMES, 3, HEIGHT/4, WIDTH/4] in [0, 1].
    """

    def __init__(self, renderer: Renderer, codec: H264Pool, *, size: int, fixed: Degradation | None = None) -> None:
        self.renderer, self.codec, self.size, self.fixed = renderer, codec, size, fixed
        device = renderer.device
        self.sharp = torch.empty(size, FRAMES, 3, HEIGHT, WIDTH, dtype=torch.uint8, device=device)
        self.degraded = torch.empty(size, FRAMES, 3, HEIGHT // 4, WIDTH // 4, dtype=torch.half, device=device)
        self._pending: list[tuple[Tensor, Future[NDArray[np.uint8]]]] = []
        self._next = 0
        while self._next < size:
            self.request(min(128, size - self._next))
            self.collect(wait=True)

    def request(self, count: int) -> None:
        """Render and degrade `count` new clips and hand them to the encoder."""
        for _ in range(count):
            sharp = self.renderer.clip().mul(255).round().to(torch.uint8)
            degradation = self.fixed or random_degradation(self.renderer.rng)
            packed = degraded_planes(sharp.float() / 255, degradation)
            future = self.codec.submit(packed, width=WIDTH // 4, height=HEIGHT // 4, crf=degradation.crf)
            self._pending.append((sharp, future))

    def collect(self, *, wait: bool = False) -> None:
        """Put finished clips in the place of the oldest ones."""
        waiting = []
        for sharp, future in self._pending:
            if not (wait or future.done()):
                waiting.append((sharp, future))
                continue
            slot = self._next % self.size
            self.sharp[slot] = sharp
            self.degraded[slot] = decoded_rgb(future.result(), self.renderer.device)
            self._next += 1
        self._pending = waiting

    def batch(self, count: int, *, frames: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Random crops: sharp and bicubically enlarged degraded, both [count, 3, frames, height, width] in [-1, 1]."""
        rng = self.renderer.rng
        sharp, degraded = [], []
        for clip in rng.integers(self.size, size=count):
            top = int(rng.integers((HEIGHT - height) // 4 + 1))
            left = int(rng.integers((WIDTH - width) // 4 + 1))
            start = int(rng.integers(FRAMES - frames + 1))
            time = slice(start, start + frames)
            sharp.append(self.sharp[clip, time, :, 4 * top : 4 * top + height, 4 * left : 4 * left + width])
            degraded.append(self.degraded[clip, time, :, top : top + height // 4, left : left + width // 4])
        return _pair(torch.stack(sharp), torch.stack(degraded))

    def single(self, clip: int) -> tuple[Tensor, Tensor]:
        """One whole clip as `batch` gives crops."""
        return _pair(self.sharp[clip : clip + 1], self.degraded[clip : clip + 1])


def _pair(sharp: Tensor, degraded: Tensor) -> tuple[Tensor, Tensor]:
    small = degraded.float().flatten(0, 1)
    large = F.interpolate(small, scale_factor=4, mode="bicubic", align_corners=False).clamp(0, 1)
    target = sharp.float() / 255
    return _to_network(target), _to_network(large.view_as(target))


def _to_network(clips: Tensor) -> Tensor:
    """[B, T, 3, H, W] in [0, 1] to [B, 3, T, H, W] in [-1, 1], channels last in memory."""
    return (clips * 2 - 1).transpose(1, 2).contiguous(memory_format=torch.channels_last_3d)
