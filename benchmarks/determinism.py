"""Do two processes make the same bytes? `python -m benchmarks.determinism [--device cuda] [--path fast] [--json FILE]`.

The shipped model restores a synthetic scene twice, in two processes, for each precision; the restored frames in 10 bit
must be equal bit for bit. Beside it stands how far the device is from the CPU's FP32 on the plain path (another
fingerprint: at least 50 dB is promised, on the fast path in BF16 too). Exit code 1 if a promise is broken. Like
`benchmarks.gpu` it needs this repository, torch, numpy, safetensors and pydantic only:

    PYTHONPATH=crds:runner python -m benchmarks.determinism --device cuda
"""

import argparse
import hashlib
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from restoration_runner.models import load_restorer
from restoration_runner.restoration.grid import scene_segments
from restoration_runner.restoration.resize import resize
from restoration_runner.restoration.wavelet import wavelet_transfer
from restoration_runner.weights.source import SHIPPED, find_model

HEIGHT, WIDTH, SCALE, FRAMES = 36, 64, 4, 50
WINDOW, OVERLAP, PER_SEGMENT = 6, 1, 1
PROMISED_DB = 50.0
THREADS = 4


@dataclass(frozen=True)
class Row:
    """One precision on the device. sha256 is of all frames; db is the distance from FP32 on the CPU."""

    precision: str
    path: str
    device: str
    sha256: str
    again: str
    db: float

    @property
    def kept(self) -> bool:
        is_promised = self.precision == "FP32" or (self.precision == "BF16" and self.path == "fast")
        return self.sha256 == self.again and self.db >= (PROMISED_DB if is_promised else 0)


def scene() -> Iterator[Tensor]:
    """Frames `[3, H, W]` in [-1, 1] at output size: stripes and grain that move, the same on every machine."""
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    for number in range(FRAMES):
        stripes = ((x + 2 * number) % 16 < 8).float() * 0.5 + ((y + number) % 12 < 6).float() * 0.25
        grain = ((x * 7919 + y * 104729 + number * 1299709) % 251).float() / 251 * 0.1
        frame = torch.stack([stripes, 0.9 - stripes, (x / WIDTH + y / HEIGHT) / 2]) * 0.8 + grain
        yield resize(frame.clamp(0, 1), (HEIGHT * SCALE // 16 * 16, WIDTH * SCALE)) * 2 - 1


def restore(device: str, precision: str, path: str) -> tuple[str, Tensor]:
    """Name of the device, and frames `[F, 3, H, W]` as 10-bit numbers, made in segments as a job makes them."""
    restorer = load_restorer(find_model(SHIPPED), device=device, precision=precision, threads=THREADS, path=path)
    own, frames, made = restorer.capabilities, list(scene()), []
    for work in scene_segments(
        start=0,
        frames=FRAMES,
        window=WINDOW,
        overlap=OVERLAP,
        per_segment=PER_SEGMENT,
        encoder_warmup=own.encoder_warmup,
        decoder_warmup=own.decoder_warmup,
    ):
        given = (frame.to(restorer.device) for frame in frames[work.encode_from : work.encode_to + 1])
        owned = frames[work.first_frame : work.last_frame + 1]
        for new, old in zip(restorer.restore(work, given, seed=1), owned, strict=True):
            picture = (wavelet_transfer(new, old.to(new.device)).clamp(-1, 1) + 1) / 2
            made.append((picture * 1023).round().to(torch.int16).cpu())
    return restorer.environment()["device"], torch.stack(made)


def in_another_process(device: str, precision: str, path: str, folder: Path) -> tuple[str, Tensor]:
    file = folder / f"{device.replace(':', '')}-{precision}.safetensors"
    command = [
        sys.executable,
        "-m",
        "benchmarks.determinism",
        "--device",
        device,
        "--path",
        path,
        "--once",
        precision,
        str(file),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.strip() or f"the process for {precision} on {device} failed")
    return done.stdout.strip(), load_file(file)["frames"]


def digest(frames: Tensor) -> str:
    return hashlib.sha256(frames.numpy().tobytes()).hexdigest()


def distance_db(frames: Tensor, reference: Tensor) -> float:
    error = (frames.double() - reference.double()).square().mean().item()
    return math.inf if error == 0 else 10 * math.log10(1023**2 / error)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.determinism", description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", nargs="+", default=["FP32", "BF16", "FP16"])
    parser.add_argument("--path", choices=["plain", "fast"], default="plain", help="implementation of the networks")
    parser.add_argument("--once", nargs=2, metavar=("PRECISION", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    chosen = parser.parse_args()
    if chosen.once:
        name, frames = restore(chosen.device, chosen.once[0], chosen.path)
        save_file({"frames": frames}, chosen.once[1])
        print(name)
        return 0
    rows = []
    print(f"{'precision':10}{'first process':>18}{'second':>18}{'dB from CPU FP32':>18}")
    with tempfile.TemporaryDirectory() as folder:
        _, reference = in_another_process("cpu", "FP32", "plain", Path(folder))
        for precision in chosen.precision:
            (name, first), (_, second) = (
                in_another_process(chosen.device, precision, chosen.path, Path(folder)) for _ in range(2)
            )
            row = Row(precision, chosen.path, name, digest(first), digest(second), distance_db(first, reference))
            rows.append(row)
            print(f"{precision:10}{row.sha256[:16]:>18}{row.again[:16]:>18}{row.db:18.1f}", flush=True)
    kept = all(row.kept for row in rows)
    print(f"{rows[0].device}: {'the same bytes in both processes' if kept else 'A PROMISE IS BROKEN'}")
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
