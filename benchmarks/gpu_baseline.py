"""What the plain path costs on a GPU: `python -m benchmarks.gpu_baseline [--json FILE]`.

The 3B and the 7B network with random weights of trained scale restore one scene at 720p and at 1080p, as the product
does: frame after frame into the encoder, windows through the transformer, latent after latent out of the decoder. The
table has the time of each stage and the peak of the GPU's memory; a case that does not fit says so. It needs this
repository, torch, numpy, safetensors and pydantic:

    PYTHONPATH=crds:runner python -m benchmarks.gpu_baseline --json baseline.json

`--device cpu --tiny` goes the same way with small networks and pictures, to try the program where no GPU is.
"""

import argparse
import gc
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.nano_speed import Stopwatch, now
from restoration_runner.errors import RestorationError
from restoration_runner.models.device import compute_dtype, device_name, prepare_device
from restoration_runner.models.seedvr2.config import MODELS, ModelConfig, dit_7b_rules
from restoration_runner.models.seedvr2.description import ModelDescription, PosteriorRule
from restoration_runner.models.seedvr2.dit import Modulation, NaDiT, OutputHead
from restoration_runner.models.seedvr2.folder import LoadedModel
from restoration_runner.models.seedvr2.half import activation_dtype, parameter_dtype
from restoration_runner.models.seedvr2.restorer import SeedVr2Restorer
from restoration_runner.models.seedvr2.vae import VideoVae
from restoration_runner.restoration.grid import scene_segments
from restoration_runner.restoration.resize import pad_to_alignment

TEXT_TOKENS = 58
"""Of the released prompt."""
SIZES = ((1280, 720), (1920, 1080))
TINY = ((64, 48), (96, 64))
SEED = 666
EMBEDDING_SCALE = 0.02
"""Of the timestep's part in the modulation: small beside the learned vectors, as a trained network has it."""
GIB = 2**30


@dataclass(frozen=True)
class Row:
    """One scene. Seconds of the GPU's work in each stage; `other_s` is noise, blending and copies."""

    model: str
    precision: str
    width: int
    height: int
    frames: int
    window_frames: int
    encode_s: float | None = None
    transformer_s: float | None = None
    decode_s: float | None = None
    other_s: float | None = None
    total_s: float | None = None
    frames_per_s: float | None = None
    peak_live_gib: float | None = None
    peak_reserved_gib: float | None = None
    problem: str | None = None


def tiny(name: str) -> ModelConfig:
    """The rules of that network in the size of nano."""
    nano = MODELS["seedvr2-nano"]
    if name == "seedvr2-3b":
        return replace(nano, name=f"{name}-tiny")
    small = dit_7b_rules(width=192, heads=6, head_dim=32, layers=5, text_width=128, expand_ratio=2)
    return replace(nano, name=f"{name}-tiny", dit=small)


def build(config: ModelConfig, *, device: torch.device, dtype: torch.dtype) -> LoadedModel:
    """The networks with random weights, made on the device: nothing of this size passes through host memory."""
    generator = torch.Generator(device).manual_seed(SEED)
    with torch.device("meta"):
        dit, vae = NaDiT(config.dit), VideoVae(config.vae)
    for network in (dit, vae):
        materialise(network.eval().requires_grad_(False), device=device, dtype=dtype, generator=generator)
    text = torch.randn(TEXT_TOKENS, config.dit.text_width, generator=generator, device=device)
    description = ModelDescription(name=config.name, posterior=PosteriorRule.SAMPLE, dit=config.dit, vae=config.vae)
    return LoadedModel(description, dit, vae, text.to(activation_dtype(dtype)))


def materialise(network: nn.Module, *, device: torch.device, dtype: torch.dtype, generator: torch.Generator) -> None:
    """Weights of the scale that training leaves: a layer's output is about as large as its input.

    Vectors keep the values that their modules begin with (norms 1, biases and shifts 0, scales and gates 1).
    """
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            made = torch.empty(parameter.shape, dtype=parameter_dtype(parameter, dtype), device=device)
            if parameter.ndim > 1:
                made.normal_(0.0, 1 / math.sqrt(parameter[0].numel()), generator=generator)
            else:
                made.fill_(1.0 if starts_at_one(module, name) else 0.0)
            setattr(module, name, nn.Parameter(made, requires_grad=False))
    if isinstance(network, NaDiT):
        network.time_in.third.weight.mul_(EMBEDDING_SCALE)


def starts_at_one(module: nn.Module, name: str) -> bool:
    if isinstance(module, Modulation | OutputHead):
        return name.endswith(("scale", "gate"))
    return name == "weight"  # a norm's


def measure(model: LoadedModel, case: Row, *, device: torch.device) -> Row:
    """The same scene twice: five frames to load kernels, then all of them."""
    restorer = SeedVr2Restorer(model, device=device, dtype=compute_dtype(case.precision))
    watch = Stopwatch()
    watch.watch("encode", model.vae.encoder)
    watch.watch("transformer", model.dit)
    watch.watch("decode", model.vae.decoder)
    try:
        run(restorer, case, frames=min(5, case.frames), device=device)
        watch.seconds.clear()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        begun = now()
        run(restorer, case, frames=case.frames, device=device)
        total = now() - begun
    except RestorationError as error:
        return replace(case, problem=error.message)
    stages = [watch.seconds[name] for name in ("encode", "transformer", "decode")]
    is_gpu = device.type == "cuda"
    return replace(
        case,
        encode_s=stages[0],
        transformer_s=stages[1],
        decode_s=stages[2],
        other_s=total - sum(stages),
        total_s=total,
        frames_per_s=case.frames / total,
        peak_live_gib=torch.cuda.max_memory_allocated(device) / GIB if is_gpu else None,
        peak_reserved_gib=torch.cuda.max_memory_reserved(device) / GIB if is_gpu else None,
    )


def run(restorer: SeedVr2Restorer, case: Row, *, frames: int, device: torch.device) -> None:
    (work,) = scene_segments(
        start=0,
        frames=frames,
        window=(case.window_frames - 1) // 4 + 1,
        overlap=1,
        per_segment=10_000,
        encoder_warmup=1,
        decoder_warmup=1,
    )
    made = sum(1 for _ in restorer.restore(work, moving_picture(case, device), seed=SEED))
    assert made == frames
    if restorer.report().non_finite_values:
        raise AssertionError(f"{case.model} in {case.precision}: random weights gave values that are not numbers")


def moving_picture(case: Row, device: torch.device) -> Iterator[Tensor]:
    """Frames `[3, H, W]` in [-1, 1], padded, without end: noise that moves to the side."""
    generator = torch.Generator(device).manual_seed(SEED)
    picture = torch.rand(3, case.height, case.width, generator=generator, device=device) * 2 - 1
    padded = pad_to_alignment(picture)
    while True:
        yield padded
        padded = padded.roll(1, dims=-1)


def cases(model: str, chosen: argparse.Namespace) -> Iterator[Row]:
    for width, height in TINY if chosen.tiny else SIZES:
        for frames in chosen.frames:
            yield Row(model, chosen.precision, width, height, frames, min(chosen.window_frames, frames))


def show(row: Row) -> None:
    what = f"{row.model:16}{row.width}x{row.height:<6}{row.frames:>5}"
    if row.problem:
        print(f"{what}  {row.problem}", flush=True)
        return
    assert row.frames_per_s is not None
    numbers = (row.encode_s, row.transformer_s, row.decode_s, row.other_s, row.total_s)
    seconds = "".join(f"{value:9.3f}" for value in numbers if value is not None)
    memory = "".join(
        "        -" if gib is None else f"{gib:9.2f}" for gib in (row.peak_live_gib, row.peak_reserved_gib)
    )
    print(f"{what}{seconds}{row.frames_per_s:9.2f}{memory}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_baseline", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--models", nargs="+", choices=["seedvr2-3b", "seedvr2-7b"], default=["seedvr2-3b", "seedvr2-7b"]
    )
    parser.add_argument("--frames", nargs="+", type=int, default=[21], help="lengths of the scene")
    parser.add_argument("--window-frames", type=int, default=49, help="the product's chunk.frames, 4n+1")
    parser.add_argument("--precision", default="BF16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks and pictures, to try the program")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    chosen = parser.parse_args(arguments)
    device = prepare_device(chosen.device)
    print(
        f"{device_name(device)}, PyTorch {torch.__version__}, plain path, {chosen.precision}, "
        f"windows of {chosen.window_frames} frames"
    )
    columns = ("encode s", "DiT s", "decode s", "other s", "total s", "frames/s", "live GiB", "reserved")
    print(f"{'model':16}{'size':<11}{'fr':>4}" + "".join(f"{name:>9}" for name in columns))
    rows = []
    for name in chosen.models:
        config = tiny(name) if chosen.tiny else MODELS[name]
        begun = time.perf_counter()
        with torch.no_grad():
            model = build(config, device=device, dtype=compute_dtype(chosen.precision))
        print(f"{config.name}: random weights made in {time.perf_counter() - begun:.1f} s", flush=True)
        for case in cases(config.name, chosen):
            rows.append(measure(model, case, device=device))
            show(rows[-1])
        del model
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if chosen.json:
        found = {"device": device_name(device), "torch": torch.__version__, "rows": [asdict(row) for row in rows]}
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
