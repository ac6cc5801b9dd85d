"""The seam between the runner and a restoration model: what any model must be able to do, and nothing about how.

SeedVR2 is one implementation. A model knows nothing of storage, video files or Kubernetes: it turns frames into
frames, by the segment's work order, and says what it needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from restoration_runner.restoration.grid import SegmentWork

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """alignment: width and height of the frames must be multiples of it.

    encoder_warmup, decoder_warmup: latents before the first one that counts, so that segment borders do not show.
    algorithm: name and version of the computation; part of the cache key.
    """

    alignment: int
    encoder_warmup: int
    decoder_warmup: int
    algorithm: str


@dataclass(frozen=True, kw_only=True)
class WorkReport:
    """What one call of `Restorer.restore` cost: filled in as it goes on, read when it is through."""

    peak_gpu_memory_bytes: int | None
    non_finite_values: int


@dataclass(frozen=True, kw_only=True)
class ConditionNoise:
    """How much of the picture that the model is shown is replaced by noise (`restoration.denoiseStrength`).

    strength: 0 to 1, before it is shifted by the size of what the model sees at once.
    window_latents: the plan's window, 1 for a single image; also used for the shorter windows of short scenes, so that
        they look like the rest.
    """

    strength: float
    window_latents: int


class Restorer(Protocol):
    """A loaded model on its device."""

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def device(self) -> torch.device: ...

    def prepare(self, *, width: int, height: int, window_latents: int, overlap_latents: int, scene_frames: int) -> None:
        """Choose what depends on the plan and the device: called once, before `environment` and the first `restore`.

        overlap_latents: that two windows share. scene_frames: of the longest scene, which may be shorter than a window.

        Raises:
            RestorationError: `InsufficientGPUMemory`, with numbers, for what cannot fit.
        """
        ...

    def rehearse(self, work: SegmentWork, frames: Iterator[torch.Tensor]) -> Iterator[None]:
        """Make ready what is made at its first use, by doing once, part by part, what `restore` will do.

        work: of one window; frames: as for `restore`. Nothing that `restore` or `report` gives depends on it, and it
        takes no more memory than `restore` does. It may be given up after every part.

        Raises:
            RestorationError: as `restore`.
        """
        ...

    def step_down(self) -> bool:
        """Go over to the next slower configuration that takes less memory, after `restore` ran out of it. The result
        stays the same in mathematics, `environment` does not. False if there is none.
        """
        ...

    def environment(self) -> dict[str, str]:
        """What besides the plan decides the bytes: device model, precision, exact knobs, instruction set."""
        ...

    def restore(
        self,
        work: SegmentWork,
        frames: Iterator[torch.Tensor],
        *,
        seed: int,
        condition_noise: ConditionNoise | None = None,
    ) -> Iterator[torch.Tensor]:
        """Restore the frames that `work` owns.

        frames: `[3, H, W]` float32 in [-1, 1], the scene's frames `work.encode_from` to `work.encode_to` in order;
            taken one by one, no more than are needed, so that memory does not grow with the segment.
        Yields `[3, H, W]` float32 on the model's device, not clamped, before colour transfer: the frames
        `work.first_frame` to `work.last_frame`.

        Raises:
            RestorationError: `InsufficientGPUMemory` if no exact configuration fits, `GPUFault` if the device fails.
        """
        ...

    def report(self) -> WorkReport:
        """Of the last `restore`."""
        ...
