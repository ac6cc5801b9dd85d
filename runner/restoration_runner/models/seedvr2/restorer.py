"""SeedVR2 as the runner uses it: three streams in a row, encode, denoise in windows, decode.

Each stage takes what it needs from the one before and keeps a bounded past: the VAE's tails, the latents of one
window. Noise is indexed by the input's frame numbers, blending happens on clean latents in fp32, and encoder and
decoder start a few latents early, so the result does not depend on where segments begin.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from restoration_api.request import Precision
from restoration_runner.models.device import (
    DTYPES,
    FRAMES_DO_NOT_FIT,
    device_faults,
    device_name,
    host_memory_bytes,
)
from restoration_runner.models.restorer import Capabilities, ConditionNoise, WorkReport
from restoration_runner.models.seedvr2.description import PosteriorRule
from restoration_runner.models.seedvr2.fitted import FittedNetworks
from restoration_runner.models.seedvr2.folder import LoadedModel
from restoration_runner.models.seedvr2.half import activation_dtype
from restoration_runner.models.seedvr2.input_band import InputBand
from restoration_runner.models.seedvr2.knobs import Knobs
from restoration_runner.models.seedvr2.networks import NetworkPath, Networks
from restoration_runner.models.seedvr2.sampling import add_condition_noise, denoise, euler_endpoint, noise_level
from restoration_runner.models.seedvr2.vae import posterior
from restoration_runner.restoration.blend import WindowBlend
from restoration_runner.restoration.grid import TEMPORAL_STRIDE, SegmentWork, latent_count
from restoration_runner.restoration.noise import Normals, Purpose

T = TypeVar("T")
PRECISION_NAMES = {dtype: precision.value for precision, dtype in DTYPES.items()}


class SeedVr2Restorer:
    """Implements `models.restorer.Restorer`."""

    def __init__(
        self,
        model: LoadedModel,
        *,
        device: torch.device,
        dtype: torch.dtype,
        path: NetworkPath | None = None,
        knobs: Knobs | None = None,
        reload: Callable[[], LoadedModel] | None = None,
        spare_host: bool = False,
    ) -> None:
        """spare_host: on a CPU one stage after the other, so that encoder and decoder do not hold their pasts at once.
        dtype: of the model's weights. path: which implementation of the networks, where the machine's choice is not
        wanted. knobs: of the fast one, where the memory plan's choice is not. reload: reads the model once more.

        Raises:
            RestorationError: `InvalidParameters` for a path that does not take this model.
        """
        self._description, self._text = model.description, model.text
        self._device, self._precision = device, PRECISION_NAMES[dtype]
        if model.fp8_weights:
            self._precision = Precision.FP8.value
        self._dtype = activation_dtype(dtype)
        self._fitted = FittedNetworks(model, device, path=path, knobs=knobs, reload=reload)
        if spare_host and device.type == "cpu":
            self.networks = replace(self.networks, stage_by_stage=True)
        self._non_finite = torch.zeros((), dtype=torch.int64, device=device)
        self._normals = Normals(device)

    @property
    def capabilities(self) -> Capabilities:
        return self._description.capabilities()

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def networks(self) -> Networks:
        """What computes; a benchmark may put the same with clocks around it in its place."""
        return self._fitted.networks

    @networks.setter
    def networks(self, networks: Networks) -> None:
        self._fitted.networks = networks

    def prepare(self, *, width: int, height: int, window_latents: int, overlap_latents: int, scene_frames: int) -> None:
        """See `Restorer.prepare`."""
        if self._device.type == "cuda":
            alignment, scene_latents = self.capabilities.alignment, latent_count(scene_frames)
            self._fitted.fit(
                width=-(-width // alignment) * alignment,
                height=-(-height // alignment) * alignment,
                window_latents=min(window_latents, scene_latents),
                overlap_latents=overlap_latents,
                scene_latents=scene_latents,
                total_bytes=torch.cuda.get_device_properties(self._device).total_memory,
                host_total_bytes=host_memory_bytes(),
            )

    def step_down(self) -> bool:
        """See `Restorer.step_down`."""
        return self._fitted.step_down()

    def environment(self) -> dict[str, str]:
        found = {"device": device_name(self._device), "precision": self._precision, **self.networks.settings}
        if self._device.type == "cpu":
            found["threads"] = str(torch.get_num_threads())
        return found

    @torch.no_grad()
    def restore(
        self,
        work: SegmentWork,
        frames: Iterator[Tensor],
        *,
        seed: int,
        condition_noise: ConditionNoise | None = None,
    ) -> Iterator[Tensor]:
        """See `Restorer.restore`. Holds one chunk of frames, one window of latents and the VAE's tails."""
        self._non_finite.zero_()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        band = InputBand(work, rule) if (rule := self._description.input_band) else None
        with device_faults(FRAMES_DO_NOT_FIT):
            latents = self._encode(work, band.watched(frames) if band else frames, seed)
            if condition_noise is not None and condition_noise.strength > 0:
                latents = self._noised(work, latents, seed, condition_noise)
            clean = self._denoise(work, self._finished(latents), seed)
            decoded = self._decode(work, self._finished(clean))
            yield from band.applied(decoded) if band else decoded

    @torch.no_grad()
    def rehearse(self, work: SegmentWork, frames: Iterator[Tensor]) -> Iterator[None]:
        """See `Restorer.rehearse`: in the order of a scene that is one window, which no scene needs less memory for."""
        with device_faults(FRAMES_DO_NOT_FIT):
            latents: list[Tensor] = []
            for _, latent in self._encode(work, frames, seed=0):
                latents.append(latent)
                yield
            clean = self._window(latents, work, 0, seed=0).unbind(0)
            yield
            state = self._state(work)
            for some in self._together(iter(clean)):
                for _ in self._decode_latents(some, state):
                    yield

    def report(self) -> WorkReport:
        is_gpu = self._device.type == "cuda"
        return WorkReport(
            peak_gpu_memory_bytes=torch.cuda.max_memory_allocated(self._device) if is_gpu else None,
            non_finite_values=int(self._non_finite.item()),
        )

    def _finished(self, results: Iterator[T]) -> Iterator[T]:
        """What a stage gives, one by one; or all of it, and the stage's memory is free."""
        return iter(list(results)) if self.networks.stage_by_stage else results

    def _encode(self, work: SegmentWork, frames: Iterator[Tensor], seed: int) -> Iterator[tuple[int, Tensor]]:
        """Latent numbers and scaled latents `[h, w, 16]` fp32, the encoder's warm-up included."""
        state = self._state(work)
        clip = _padded(work, frames)
        first, end = work.encode_latent, work.windows[-1].stop
        for start in range(first, end, self.networks.latents_at_once):
            stop = min(start + self.networks.latents_at_once, end)
            count = TEMPORAL_STRIDE * (stop - start) - (TEMPORAL_STRIDE - 1 if start == first else 0)
            chunk = torch.stack(list(itertools.islice(clip, count)), dim=1)[None].to(self._device, self._dtype)
            moments = self.networks.encode(chunk.contiguous(memory_format=self.networks.memory_format), state)
            for number, part in enumerate(moments[0].float().unbind(1), start):
                yield number, self._condition(part, work.scene_start + TEMPORAL_STRIDE * number, seed)

    def _state(self, work: SegmentWork) -> object:
        """A stream's; a single image needs none, which saves most of the memory."""
        return None if work.scene_frames == 1 else self.networks.new_state()

    def _condition(self, moments: Tensor, frame: int, seed: int) -> Tensor:
        """The scaled latent `[h, w, 16]` of moments `[32, h, w]`."""
        mean, std = (part[0].permute(1, 2, 0) for part in posterior(moments[None]))
        if self._description.posterior is PosteriorRule.SAMPLE:
            mean = mean + std * self._normal(seed, Purpose.POSTERIOR, frame, mean.shape)
        return mean * self._description.vae.scaling

    def _noised(
        self, work: SegmentWork, latents: Iterator[tuple[int, Tensor]], seed: int, noise: ConditionNoise
    ) -> Iterator[tuple[int, Tensor]]:
        """The latents with noise mixed in; like every draw, it depends on the frame, not on the window."""
        for number, latent in latents:
            height, width, _ = latent.shape
            level = noise_level(noise.strength, (noise.window_latents, height, width))
            frame = work.scene_start + TEMPORAL_STRIDE * number
            yield (
                number,
                add_condition_noise(latent, self._normal(seed, Purpose.AUGMENTATION, frame, latent.shape), level),
            )

    def _denoise(self, work: SegmentWork, latents: Iterator[tuple[int, Tensor]], seed: int) -> Iterator[Tensor]:
        """Clean latents `[h, w, 16]` fp32, from `work.decode_from` to the segment's end."""
        blend = WindowBlend(work)
        held: dict[int, Tensor] = {}
        pending = list(work.needed)
        for number, latent in latents:
            held[number] = latent
            while pending and work.scene_windows[pending[0]].stop == number + 1:
                index = pending.pop(0)
                window = work.scene_windows[index]
                x0 = self._window([held[i] for i in range(window.start, window.stop)], work, window.start, seed)
                yield from blend.add(index, x0)
            first_needed = work.scene_windows[pending[0]].start if pending else number + 1
            held = {i: value for i, value in held.items() if i >= first_needed}

    def _window(self, latents: list[Tensor], work: SegmentWork, first: int, seed: int) -> Tensor:
        """One evaluation of the transformer: clean latents `[W, h, w, 16]` fp32."""
        condition = torch.stack(latents).to(self._dtype)
        frames = (work.scene_start + TEMPORAL_STRIDE * (first + i) for i in range(len(latents)))
        draws = [self._normal(seed, Purpose.NOISE, frame, condition.shape[1:]) for frame in frames]
        # The noise that is subtracted must be the noise the network saw, rounding included.
        noise = torch.stack(draws).to(self._dtype)
        return euler_endpoint(noise, denoise(self.networks.velocity, noise, condition, self._text))

    def _decode(self, work: SegmentWork, latents: Iterator[Tensor]) -> Iterator[Tensor]:
        state = self._state(work)
        decoded = (frame for some in self._together(latents) for frame in self._decode_latents(some, state))
        for frame in itertools.islice(decoded, work.drop_frames, work.drop_frames + work.frames):
            self._non_finite += frame.isfinite().logical_not().sum()
            yield frame

    def _together(self, latents: Iterator[Tensor]) -> Iterator[list[Tensor]]:
        """As many as one call may get."""
        while some := list(itertools.islice(latents, self.networks.latents_at_once)):
            yield some

    def _decode_latents(self, latents: list[Tensor], state: object) -> Iterator[Tensor]:
        """Frames `[3, H, W]` fp32: one for the first latent of a stream, four for each later one."""
        z = (torch.stack(latents) / self._description.vae.scaling).permute(3, 0, 1, 2)[None].to(self._dtype)
        for video in self.networks.decode(z.contiguous(memory_format=self.networks.memory_format), state):
            yield from video[0].transpose(0, 1).float().contiguous().unbind(0)

    def _normal(self, seed: int, purpose: Purpose, frame: int, shape: torch.Size) -> Tensor:
        return self._normals.draw(seed, purpose, frame, tuple(shape))


def _padded(work: SegmentWork, frames: Iterator[Tensor]) -> Iterator[Tensor]:
    """The frames of the work order, then copies of the last one: only the end of a scene is padded.

    Raises ValueError if the frames end early: the caller broke the contract.
    """
    expected = work.encode_to - work.encode_from + 1
    last: Tensor | None = None
    received = 0
    for last in itertools.islice(frames, expected):
        received += 1
        yield last
    if last is None or received < expected:
        raise ValueError(f"got {received} of {expected} frames from frame {work.encode_from} of the scene")
    yield from itertools.repeat(last)
