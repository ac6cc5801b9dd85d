"""Final frames: the fast path in BF16 and FP8, and the plain one, beside the plain path in FP32; the same bytes again.

`nano` restores a real clip (`--clip`, the degraded one of the first example) with its trained weights; 3B restores a
moving picture at 480p with random ones of trained scale, three seeds. dB are below the range of the FP32 frames, before
any colour transfer, so nothing of the input hides an error.
"""

import argparse
import copy
import gc
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.gpu.machine import begin, save
from benchmarks.gpu.networks import build, config_of
from benchmarks.gpu.stages import Row as Case
from benchmarks.gpu.stages import moving_picture
from restoration_api.request import Precision
from restoration_runner.models.seedvr2.fast.vae_state import VaeKnobs
from restoration_runner.models.seedvr2.folder import LoadedModel, read_folder
from restoration_runner.models.seedvr2.half import parameter_dtype
from restoration_runner.models.seedvr2.knobs import Knobs
from restoration_runner.models.seedvr2.networks import NetworkPath
from restoration_runner.models.seedvr2.restorer import SeedVr2Restorer
from restoration_runner.restoration.grid import latent_count, scene_segments
from restoration_runner.restoration.resize import pad_to_alignment, resize
from restoration_runner.weights.source import SHIPPED, find_model

CLIP = Path(__file__).parents[2] / "examples/01-first-restoration/clip/degraded.mp4"
FRAMES = {"seedvr2-nano": 21, "seedvr2-3b": 5}
SCALE = 2
WINDOW_LATENTS = 4


@dataclass(frozen=True)
class Row:
    """One run beside that of the plain path in FP32. path: also in which form, see `LOWER`."""

    model: str
    path: str
    precision: str
    seed: int
    db: float
    same_bytes: bool


def restored(restorer: SeedVr2Restorer, frames: list[Tensor], seed: int) -> Tensor:
    """`[F, 3, H, W]` in windows that overlap, as a job makes them."""
    own = restorer.capabilities
    (work,) = scene_segments(
        start=0,
        frames=len(frames),
        window=min(WINDOW_LATENTS, latent_count(len(frames))),
        overlap=1,
        per_segment=10_000,
        encoder_warmup=own.encoder_warmup,
        decoder_warmup=own.decoder_warmup,
    )
    return torch.stack([frame.cpu() for frame in restorer.restore(work, iter(frames), seed=seed)])


def below_range_db(found: Tensor, expected: Tensor) -> float:
    error = (found.double() - expected.double()).square().mean().item()
    largest = (expected.max() - expected.min()).double().item()
    return math.inf if error == 0 else 10 * math.log10(largest**2 / error)


@torch.no_grad()
def rows_of(exact: LoadedModel, frames: list[Tensor], seeds: int, device: torch.device) -> Iterator[Row]:
    """FP32 first; then the same numbers, which are BF16 numbers, in BF16."""
    for network in (exact.dit, exact.vae):
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.bfloat16())
    name = exact.description.name
    restorer = SeedVr2Restorer(exact, device=device, dtype=torch.float32, path=NetworkPath.PLAIN)
    expected = [restored(restorer, frames, seed) for seed in range(seeds)]
    low = in_bf16(exact)
    for form, (path, precision, knobs) in LOWER.items():
        model = replace(low, dit=copy.deepcopy(low.dit), fp8_weights=precision is Precision.FP8)
        restorer = SeedVr2Restorer(model, device=device, dtype=torch.bfloat16, path=path, knobs=knobs)
        for seed, wanted in enumerate(expected):
            found, again = (restored(restorer, frames, seed) for _ in range(2))
            same_bytes = torch.equal(found, again)
            yield Row(name, form, precision.value, seed, below_range_db(found, wanted), same_bytes)


WINOGRAD = Knobs(latents_at_once=2, vae=VaeKnobs(frames_at_once=4, winograd=True))
LOWER = {
    "plain": (NetworkPath.PLAIN, Precision.BF16, None),
    "fast, rings": (NetworkPath.FAST, Precision.BF16, Knobs()),
    "fast, Winograd": (NetworkPath.FAST, Precision.BF16, WINOGRAD),
    "fast, Winograd, FP8": (NetworkPath.FAST, Precision.FP8, WINOGRAD),
}


def in_bf16(model: LoadedModel) -> LoadedModel:
    """The same modules, changed in place."""
    for network in (model.dit, model.vae):
        for parameter in network.parameters():
            parameter.data = parameter.data.to(parameter_dtype(parameter, torch.bfloat16))
    return replace(model, text=model.text.bfloat16())


def clip_frames(path: Path, count: int, device: torch.device) -> list[Tensor]:
    """First frames `[3, H, W]` in [-1, 1], enlarged and padded as the product does it."""
    import av  # the other benchmarks do without

    frames = []
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number == count:
                break
            picture = torch.from_numpy(frame.to_ndarray(format="rgb24")).to(device).permute(2, 0, 1).float() / 255
            size = (picture.shape[1] * SCALE, picture.shape[2] * SCALE)
            frames.append(pad_to_alignment(resize(picture, size).clamp(0, 1) * 2 - 1))
    return frames


def scene(name: str, chosen: argparse.Namespace, device: torch.device) -> list[Tensor]:
    if name == "seedvr2-nano":
        return clip_frames(chosen.clip, 5 if chosen.tiny else FRAMES[name], device)
    width, height = (64, 48) if chosen.tiny else (854, 480)
    case = Case("plain", name, "FP32", width, height, FRAMES[name], FRAMES[name])
    picture = moving_picture(case, device)
    return [next(picture) for _ in range(FRAMES[name])]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", choices=list(FRAMES), default=list(FRAMES))
    parser.add_argument("--clip", type=Path, default=CLIP)
    parser.add_argument("--seeds", type=int, default=3)


def main(chosen: argparse.Namespace) -> None:
    device, machine = begin(chosen)
    print(f"{'model':20}{'path':21}{'precision':11}{'seed':>4}{'dB':>8}  twice")
    rows = []
    for name in chosen.models:
        if name == "seedvr2-nano":
            model = read_folder(find_model(SHIPPED), device=device, dtype=torch.float32)
        else:
            model = build(config_of(name, tiny=chosen.tiny), device=device, dtype=torch.float32)
        for row in rows_of(model, scene(name, chosen, device), chosen.seeds, device):
            rows.append(row)
            same = "the same bytes" if row.same_bytes else "OTHER BYTES"
            print(f"{row.model:20}{row.path:21}{row.precision:11}{row.seed:4}{row.db:8.1f}  {same}", flush=True)
        del model
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    save(chosen.json, machine, rows=rows)
