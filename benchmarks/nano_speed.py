"""How fast the small model restores on this machine: `python -m benchmarks.nano_speed [--json FILE]`.

Runs the product's own streaming path over one scene and prints frames per second and the share of each network. Weights
do not change the speed, so without `--model FOLDER` they are random.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from restoration_runner.models.device import compute_dtype, prepare_device
from restoration_runner.models.seedvr2.config import MODELS
from restoration_runner.models.seedvr2.description import ModelDescription, PosteriorRule
from restoration_runner.models.seedvr2.dit import NaDiT
from restoration_runner.models.seedvr2.folder import LoadedModel, read_folder
from restoration_runner.models.seedvr2.restorer import SeedVr2Restorer
from restoration_runner.models.seedvr2.vae import VideoVae
from restoration_runner.restoration.grid import scene_segments
from restoration_runner.restoration.resize import pad_to_alignment

TEXT_TOKENS = 8


@dataclass(frozen=True)
class Row:
    """One measurement; seconds are wall time, `cpu_s` is what the process used of all cores."""

    precision: str
    device: str
    threads: int
    width: int
    height: int
    frames: int
    encode_s: float
    transformer_s: float
    decode_s: float
    total_s: float
    cpu_s: float
    frames_per_s: float


class Stopwatch:
    """Adds up the time spent in modules."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started: dict[str, float] = {}

    def watch(self, name: str, module: nn.Module) -> None:
        module.register_forward_pre_hook(lambda *_: self._started.update({name: now()}))
        module.register_forward_hook(lambda *_: self._stop(name))

    def _stop(self, name: str) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + now() - self._started[name]


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def random_model(device: torch.device, dtype: torch.dtype) -> LoadedModel:
    config = MODELS["seedvr2-nano"]
    torch.manual_seed(0)
    dit, vae = NaDiT(config.dit).eval(), VideoVae(config.vae).eval()
    text = torch.randn(TEXT_TOKENS, config.dit.text_width)
    description = ModelDescription(name=config.name, posterior=PosteriorRule.MEAN, dit=config.dit, vae=config.vae)
    return LoadedModel(description, dit.to(device, dtype), vae.to(device, dtype), text.to(device, dtype))


@contextmanager
def cpu_time(into: list[float]) -> Iterator[None]:
    start = time.process_time()
    yield
    into.append(time.process_time() - start)


def measure(model: LoadedModel, device: torch.device, precision: str, *, size: tuple[int, int], frames: int) -> Row:
    """One scene through the restorer; the first window of the same scene is run before, to warm caches up."""
    restorer = SeedVr2Restorer(model, device=device, dtype=compute_dtype(precision))
    watch = Stopwatch()
    watch.watch("encode", model.vae.encoder)
    watch.watch("transformer", model.dit)
    watch.watch("decode", model.vae.decoder)
    picture = pad_to_alignment(torch.rand(3, *size) * 2 - 1)
    run(restorer, picture, 5)
    watch.seconds.clear()
    used: list[float] = []
    with cpu_time(used):
        start = now()
        count = run(restorer, picture, frames)
        total = now() - start
    return Row(
        precision=precision,
        device=restorer.environment()["device"],
        threads=torch.get_num_threads(),
        width=size[1],
        height=size[0],
        frames=count,
        encode_s=watch.seconds["encode"],
        transformer_s=watch.seconds["transformer"],
        decode_s=watch.seconds["decode"],
        total_s=total,
        cpu_s=used[0],
        frames_per_s=count / total,
    )


def run(restorer: SeedVr2Restorer, picture: Tensor, frames: int) -> int:
    """Frames made: chunk of 21 frames, overlap of 4, one segment."""
    grid = {"window": 6, "overlap": 1, "per_segment": 1000, "encoder_warmup": 4, "decoder_warmup": 4}
    (work,) = scene_segments(start=0, frames=frames, **grid)
    moving = (picture.roll(number, dims=-1) for number in range(frames))
    return sum(1 for _ in restorer.restore(work, moving, seed=0))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nano_speed", description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, help="model folder (default: random weights of the same shape)")
    parser.add_argument("--size", default="640x360", help="WIDTHxHEIGHT of the output")
    parser.add_argument("--frames", type=int, default=21)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's choice)")
    parser.add_argument("--precision", nargs="+", default=["FP32", "BF16"])
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    device = prepare_device(options.device, threads=options.threads)
    width, height = (int(side) for side in options.size.split("x"))
    print(
        f"{'precision':9} {'threads':>7} {'encode':>8} {'DiT':>8} {'decode':>8} {'total':>8} {'cpu':>8} {'frames/s':>9}"
    )
    rows = []
    for precision in options.precision:
        dtype = compute_dtype(precision)
        model = read_folder(options.model, device=device, dtype=dtype) if options.model else random_model(device, dtype)
        row = measure(model, device, precision, size=(height, width), frames=options.frames)
        rows.append(row)
        seconds = "".join(
            f" {s:7.2f}s" for s in (row.encode_s, row.transformer_s, row.decode_s, row.total_s, row.cpu_s)
        )
        print(f"{row.precision:9} {row.threads:7}{seconds} {row.frames_per_s:9.2f}", flush=True)
    print(f"{rows[0].device}, {width}x{height}, {options.frames} frames")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
