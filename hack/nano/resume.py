"""Turn a model folder back into a checkpoint, so that training goes on from the shipped weights.

    python -m hack.nano.resume runner/restoration_runner/nano averaged.pt
    python -m hack.nano.train --resume averaged.pt ...

Only the averaged weights exist there: the optimizer starts anew, so the learning rate should start low.
"""

import argparse
from pathlib import Path

import torch

from hack.nano.network import Nano
from restoration_runner.models.seedvr2.folder import read_folder


def averaged_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The folder's weights under the names of `Nano`, half precision."""
    loaded = read_folder(folder, device=torch.device("cpu"), dtype=torch.float16)
    parts = {"vae": loaded.vae.state_dict(), "dit": loaded.dit.state_dict()}
    weights = {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}
    weights["text"] = loaded.text
    missing = {name for name, _ in Nano().named_parameters()} ^ weights.keys()
    if missing:
        raise ValueError(f"{folder} and the network in training differ in {sorted(missing)[:4]}")
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(description="write a checkpoint of a model folder's weights")
    parser.add_argument("folder", type=Path)
    parser.add_argument("checkpoint", type=Path)
    arguments = parser.parse_args()
    torch.save({"step": 0, "trained_s": 0.0, "ema": averaged_weights(arguments.folder)}, arguments.checkpoint)


if __name__ == "__main__":
    main()
