"""The networks with knobs that fit the GPU; made anew with leaner ones when they did not after all."""

import gc
from collections.abc import Callable

import torch

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.models.device import WEIGHTS_DO_NOT_FIT, device_faults
from restoration_runner.models.seedvr2 import memory_plan
from restoration_runner.models.seedvr2.folder import LoadedModel
from restoration_runner.models.seedvr2.knobs import Knobs
from restoration_runner.models.seedvr2.memory_model import Load, estimate
from restoration_runner.models.seedvr2.memory_plan import GIB
from restoration_runner.models.seedvr2.networks import NetworkPath, Networks, choose_path, fast_networks, plain_networks


class FittedNetworks:
    """Of one model on one device. The fast ones take the model's weights when they are made, so another pair of them
    needs the model again: `reload` reads it."""

    def __init__(
        self,
        model: LoadedModel,
        device: torch.device,
        *,
        path: NetworkPath | None = None,
        knobs: Knobs | None = None,
        reload: Callable[[], LoadedModel] | None = None,
    ) -> None:
        """knobs: fixed ones, for benchmarks; none are chosen then.

        Raises:
            RestorationError: `InvalidParameters` for a path that does not take this model.
        """
        self._path = choose_path(model, device, path)
        self._model: LoadedModel | None = model
        self._text_tokens = len(model.text)
        self._config = model.description
        self._element_bytes = model.vae.encoder.conv_in.weight.element_size()
        self._fp8_weights = model.fp8_weights
        self._device, self._reload = device, reload
        self._is_fixed, self._knobs = knobs is not None, knobs or Knobs()
        self._leaner: list[Knobs] = []
        self._made: Networks | None = None

    @property
    def networks(self) -> Networks:
        """Made when they are first asked for."""
        if self._made is None:
            if self._model is None:
                assert self._reload is not None
                with device_faults(WEIGHTS_DO_NOT_FIT):
                    self._model = self._reload()
            if self._path is NetworkPath.FAST:
                self._made = fast_networks(self._model, self._device, self._knobs)
                self._model = None
            else:
                self._made = plain_networks(self._model, self._device)
        return self._made

    @networks.setter
    def networks(self, networks: Networks) -> None:
        self._made = networks

    def fit(
        self,
        *,
        width: int,
        height: int,
        window_latents: int,
        overlap_latents: int,
        scene_latents: int,
        total_bytes: int,
        host_total_bytes: int = 0,
    ) -> None:
        """Choose the fastest knobs that fit frames of that (aligned) size; nothing on the plain path.

        scene_latents: of the longest scene. total_bytes: of the GPU. host_total_bytes: what the process may use of the
        host's memory.

        Raises:
            RestorationError: `InsufficientGPUMemory` if there are none, with what it would take.
        """
        if self._path is NetworkPath.PLAIN or self._is_fixed:
            return
        load = Load(
            dit=self._config.dit,
            vae=self._config.vae,
            width=width,
            height=height,
            window_latents=window_latents,
            overlap_latents=overlap_latents,
            scene_latents=scene_latents,
            fp8_weights=self._fp8_weights,
            text_tokens=self._text_tokens,
            element_bytes=self._element_bytes,
        )
        found = memory_plan.fitting(load, total_bytes, host_total_bytes)
        if not found:
            message = refusal(load, total_bytes, host_total_bytes)
            raise RestorationError(FailureReason.INSUFFICIENT_GPU_MEMORY, message)
        self._leaner = found[1:]
        self._use(found[0])

    def step_down(self) -> bool:
        """After the GPU's memory was too small: go over to the next leaner knobs. False if there are none."""
        if not self._leaner or self._reload is None:
            return False
        self._use(self._leaner.pop(0))
        return True

    def _use(self, knobs: Knobs) -> None:
        if knobs == self._knobs:
            return
        self._knobs = knobs
        if self._made is not None:
            self._made = None
            gc.collect()  # the networks hold themselves in circles
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def refusal(load: Load, total_bytes: int, host_total_bytes: int = 0) -> str:
    """Why it does not fit, and what would."""
    least = min(estimate(load, knobs).peak for knobs in memory_plan.ladder(load))
    window, frames = memory_plan.largest_window(load, total_bytes, host_total_bytes), 4 * load.window_latents - 3
    remedies = [
        f"windows of up to {4 * window - 3} frames (restoration.chunk.frames) would fit"
        if window is not None
        else "no window fits: choose a smaller target"
    ]
    host = memory_plan.host_bytes_needed(load, total_bytes)
    if host is not None and host > host_total_bytes:
        remedies.append(
            f"give the pod {host / GIB:.0f} GiB of memory, where frames can wait (it may use "
            f"{host_total_bytes / GIB:.0f})"
        )
    return (
        f"{load.width}x{load.height} in windows of {frames} frames takes {least / GIB:.1f} GiB of GPU memory at least, "
        f"and {memory_plan.usable_bytes(total_bytes) / GIB:.1f} of this GPU's {total_bytes / GIB:.1f} GiB can be used; "
        f"{', '.join(remedies)}, or use a larger GPU"
    )
