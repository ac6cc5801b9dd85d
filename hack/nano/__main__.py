"""From nothing to a trained model folder: `python -m hack.nano [FOLDER] [--minutes M] [options of hack.nano.train]`.

Collects the material, compiles the codec, trains and exports, all in FOLDER. What is there already is not made again,
and training goes on from its last saved state, so the same command continues after an interruption. Nothing of the
repository is touched: whether the result replaces the shipped model is decided by `benchmarks.nano_quality`.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch

from hack.nano.codec import build_library

LEAST_S = 60
"""Less than this is not worth loading material and compiling for."""


def announce(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)


def module(name: str, *arguments: str | Path) -> None:
    """Run a step in its own process: its memory, on host and device, is gone afterwards. Ends the program with it."""
    ended = subprocess.run([sys.executable, "-m", name, *map(str, arguments)], check=False).returncode
    if ended:
        raise SystemExit(f"{name} ended with status {ended}; the same command goes on from what is finished.")


def library(target: Path) -> None:
    try:
        build_library(target)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit("The codec was not compiled: install gcc and libx264-dev, then try again.") from error


def trained_s(state: Path) -> float:
    """Seconds of training that a saved state holds; 0 without one."""
    if not state.exists():
        return 0.0
    return float(torch.load(state, map_location="cpu", weights_only=True)["trained_s"])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m hack.nano",
        description="train seedvr2-nano and export it",
        epilog="Other options go to hack.nano.train.",
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path(".dev/nano-training"))
    parser.add_argument("--minutes", type=float, default=20, help="of training, compilation included")
    chosen, of_train = parser.parse_known_args()
    folder: Path = chosen.folder
    data, codec, state = folder / "data", folder / "nano-roundtrip.so", folder / "run" / "state.pt"
    if not (data / "inventory.json").exists():
        announce(f"collecting the material in {data} (425 MB of packages)")
        module("hack.nano.data", data, "--downloads", folder / "downloads")
    if not codec.exists():
        announce(f"compiling {codec}")
        library(codec)
    left_s = 60 * chosen.minutes - trained_s(state)
    if left_s > LEAST_S or not state.exists():
        resume = ["--resume", state] if state.exists() else []
        announce(f"training for {left_s:.0f} s" + (", going on from a saved state" if resume else ""))
        run = ["--data", data, "--library", codec, "--output", state.parent, "--deadline", str(left_s), "--finish"]
        module("hack.nano.train", *run, *of_train, *resume)  # a state of our own goes before weights to begin with
    module("hack.nano.export", state.with_name("averaged.pt"), folder / "model")
    announce(f"judge it: python -m benchmarks.nano_quality --model {folder / 'model'}")


if __name__ == "__main__":
    main()
