"""Measures of one enlarged clip beside its original, on 8-bit 4:2:0 planes: what PSNR does not tell.

flicker   mean change of luma from frame to frame, relative to the original's: noise and pumping raise it, smearing
          lowers it.
seam      change of the *error* at the borders of the model's windows, relative to other frames: 1 is no seam.
grid      mean step of luma between columns and rows 8 apart (the VAE's grid), relative to other ones, and that relative
          to the original's: 1 is no grid.
phase     PSNR of the best of the four frames of a latent minus that of the worst, in dB.
shift     largest difference of the mean of a plane (Y, U or V), in codes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from restoration_api.defaults import MODELS, OVERLAP_FRAMES
from restoration_runner.restoration.grid import latent_count, scene_windows

STRIDE = 4
CELL = 8
Planes = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Measures:
    flicker: float
    seam: float
    grid: float
    phase_db: float
    shift_codes: float


def read_planes(path: Path, size: tuple[int, int]) -> Planes:
    """A bare file as [frames, bytes of a frame]; size is (height, width)."""
    return np.memmap(path, np.uint8, mode="r").reshape(-1, size[0] * size[1] * 3 // 2)


def measure(found: Planes, original: Planes, size: tuple[int, int]) -> Measures:
    """Both [frames, bytes] of the same number of frames."""
    luma, reference = (_luma(planes, size) for planes in (found, original))
    return Measures(
        flicker=_change(luma) / _change(reference),
        seam=seam(luma - reference),
        grid=grid(luma) / grid(reference),
        phase_db=phase_db(luma - reference),
        shift_codes=shift(found, original, size),
    )


def _luma(planes: Planes, size: tuple[int, int]) -> NDArray[np.int16]:
    return planes[:, : size[0] * size[1]].reshape(-1, *size).astype(np.int16)


def _change(luma: NDArray[np.int16]) -> float:
    return float(np.abs(np.diff(luma, axis=0)).mean())


def window_borders(frames: int, *, model: str = "seedvr2-nano") -> list[int]:
    """Frames that are the first of a later window, with the model's default window and overlap."""
    window = (MODELS[model].chunk_frames - 1) // STRIDE + 1
    windows = scene_windows(latent_count(frames), window=window, overlap=OVERLAP_FRAMES // STRIDE)
    return [STRIDE * window.start - STRIDE + 1 for window in windows if window.start]


def seam(error: NDArray[np.int16]) -> float:
    """1 for clips of a single window."""
    jumps = np.abs(np.diff(error, axis=0)).mean((1, 2))  # jumps[i] lies between frames i and i + 1
    at = np.zeros(len(jumps), bool)
    at[[border - 1 for border in window_borders(len(error))]] = True
    return float(jumps[at].mean() / jumps[~at].mean()) if at.any() else 1.0


def grid(luma: NDArray[np.int16]) -> float:
    """Steps that begin a cell relative to steps inside, both directions."""
    on, off = [], []
    for axis in (1, 2):
        steps = np.abs(np.diff(luma, axis=axis)).mean(tuple({0, 1, 2} - {axis}))
        begins = np.arange(1, len(steps) + 1) % CELL == 0
        on.append(steps[begins].mean())
        off.append(steps[~begins].mean())
    return float(np.mean(on) / np.mean(off))


def phase_db(error: NDArray[np.int16]) -> float:
    """Of the frames after the first, which is a latent of its own; 0 for shorter clips."""
    count = (len(error) - 1) // STRIDE * STRIDE
    if not count:
        return 0.0
    squares = np.square(error[1 : count + 1].astype(np.float64)).mean((1, 2)).reshape(-1, STRIDE).mean(0)
    return float(10 * np.log10(squares.max() / squares.min()))


def shift(found: Planes, original: Planes, size: tuple[int, int]) -> float:
    luma_bytes = size[0] * size[1]
    parts = (slice(0, luma_bytes), slice(luma_bytes, luma_bytes * 5 // 4), slice(luma_bytes * 5 // 4, None))
    return max(abs(float(found[:, part].mean()) - float(original[:, part].mean())) for part in parts)
