"""What stands around the networks, one frame at a time: noise, upload, scaling, colour, download.

The host's column is the time until the call returns, which is what the thread that feeds the GPU pays; the GPU's is its
own. Beside the noise of the device stands that of the host with an ordinary copy, beside page-locked copies ordinary
ones, and beside work that is started kernel by kernel the same replayed as one.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.gpu.machine import begin, save, synchronize
from benchmarks.gpu.stages import SIZES, TINY
from restoration_api.ledger import ColorFacts, ColorRange
from restoration_api.request import ColorCorrection
from restoration_runner.restoration.copies import Downloads, pinned
from restoration_runner.restoration.noise import Normals, Purpose, normal
from restoration_runner.restoration.replay import Replayed
from restoration_runner.restoration.resize import resize
from restoration_runner.restoration.stopwatch import stopwatch
from restoration_runner.restoration.transfer import TRANSFERS
from restoration_runner.restoration.wavelet import wavelet_transfer
from restoration_runner.video.colour import to_rgb, to_yuv420p10
from restoration_runner.video.pixels import LAYOUTS

ROUNDS = 100
SCALE = 2
COLOR = ColorFacts(
    matrix="bt709", primaries="bt709", transfer="bt709", range=ColorRange.LIMITED, chroma_location="left"
)
Planes = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Row:
    """Milliseconds of one call, mean of many: until it returned, and of the device."""

    what: str
    width: int
    height: int
    host_ms: float
    device_ms: float


def rows_of(width: int, height: int, device: torch.device) -> list[Row]:
    latent = (-(-height // 16) * 2, -(-width // 16) * 2, 16)
    small = planes(width // SCALE, height // SCALE)
    ready = on_host(small, device)
    picture, other = (torch.rand(3, height, width, device=device) for _ in range(2))
    made = to_yuv420p10(picture, COLOR)
    downloads = Downloads(device)
    layout = LAYOUTS["yuv420p"]
    normals, replayed = Normals(device), Replayed(colors_of(ColorCorrection.WAVELET), device)
    cases: dict[str, Callable[[], object]] = {
        "noise of a latent, on the device": lambda: normal(0, Purpose.NOISE, 4, latent, device),
        "noise of a latent, replayed": lambda: normals.draw(0, Purpose.NOISE, 4, latent),
        "noise of a latent, on the host": lambda: normal(0, Purpose.NOISE, 4, latent).to(device),
        "to page-locked memory": lambda: on_host(small, device),
        "upload and RGB, page-locked": lambda: to_rgb(ready, layout, COLOR, device=device),
        "upload and RGB, ordinary memory": lambda: to_rgb(small, layout, COLOR, device=device),
        "scaling to the output size": lambda: resize(picture[:, ::SCALE, ::SCALE], (height, width)),
        "wavelet colour transfer": lambda: wavelet_transfer(picture, other),
        "RGB to 10-bit planes": lambda: to_yuv420p10(picture, COLOR),
        "wavelet and planes, replayed": lambda: replayed(picture, other),
        "download, page-locked, queued": lambda: downloads.start(made),
        "download, ordinary memory": lambda: [plane.to("cpu") for plane in made],
    }
    return [timed(what, width, height, call, device) for what, call in cases.items()]


def colors_of(correction: ColorCorrection) -> Callable[[Tensor, Tensor], Planes]:
    return lambda restored, resized: to_yuv420p10(TRANSFERS[correction](restored, resized), COLOR)


def planes(width: int, height: int) -> Planes:
    y, u, v = (
        torch.randint(16, 236, size, dtype=torch.uint8)
        for size in ((height, width), (height // 2, width // 2), (height // 2, width // 2))
    )
    return y, u, v


def on_host(some: Planes, device: torch.device) -> Planes:
    y, u, v = (pinned(plane, device) for plane in some)
    return y, u, v


def timed(what: str, width: int, height: int, call: Callable[[], object], device: torch.device) -> Row:
    call()
    synchronize(device)
    watch, host = stopwatch(device), 0.0
    for _ in range(ROUNDS):
        with watch:
            begun = time.perf_counter()
            call()
            host += time.perf_counter() - begun
    synchronize(device)
    return Row(what, width, height, 1000 * host / ROUNDS, watch.milliseconds / ROUNDS)


def bits_are_equal(device: torch.device) -> bool:
    """Whether the device makes the host's noise, bit for bit."""
    draws = ((seed, purpose, frame) for seed in (0, 2**63 - 1) for purpose in Purpose for frame in (0, 4, 10**6))
    return all(torch.equal(normal(*draw, (46, 80, 16), device).cpu(), normal(*draw, (46, 80, 16))) for draw in draws)


def replays_are_equal(device: torch.device) -> bool:
    """Whether what is replayed makes the bits of what is started kernel by kernel, for every colour transfer."""
    pictures = [[torch.rand(3, 360, 640, device=device) for _ in range(2)] for _ in range(4)]
    for work in map(colors_of, ColorCorrection):
        replayed = Replayed(work, device)
        for given in pictures:
            made, expected = replayed(*given), work(*given)
            if not all(map(torch.equal, made, expected)):
                return False
    normals, shape = Normals(device), (46, 80, 16)
    return all(
        torch.equal(normals.draw(1, Purpose.NOISE, frame, shape), normal(1, Purpose.NOISE, frame, shape, device))
        for frame in range(4)
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["720p", "1080p", "2160p"])


def main(chosen: argparse.Namespace) -> None:
    device, machine = begin(chosen)
    equal = bits_are_equal(device)
    print(f"noise of the device equals the host's bit for bit: {'yes' if equal else 'NO'}")
    same = replays_are_equal(device)
    print(f"what is replayed equals what is started kernel by kernel, bit for bit: {'yes' if same else 'NO'}")
    print(f"{'what':36}{'size':<11}{'host ms':>9}{'device ms':>11}")
    rows = []
    for size in chosen.sizes:
        for row in rows_of(*(TINY if chosen.tiny else SIZES)[size], device):
            rows.append(row)
            print(f"{row.what:36}{row.width}x{row.height:<6}{row.host_ms:9.3f}{row.device_ms:11.3f}", flush=True)
    save(chosen.json, machine, noiseIsEqual=equal, replaysAreEqual=same, rows=rows)
    if not (equal and same):
        raise SystemExit(1)
