"""Turn a training checkpoint into the model folder that the runner loads.

    python -m hack.nano.export averaged.pt runner/restoration_runner/nano

Weights are the averaged ones, stored in half precision. Channels that must stay exactly zero or exactly one for the
noise to cancel are checked, so a checkpoint of another layout is refused.
"""

import argparse
from pathlib import Path

import torch

from hack.nano.network import DIT, INPUT_BAND, NAME, VAE, Nano, frozen_masks
from restoration_runner.models.seedvr2.description import ModelDescription, PosteriorRule
from restoration_runner.models.seedvr2.folder import write_folder
from restoration_runner.weights.digest import write_sums

ENCODER_WARMUP_LATENTS, DECODER_WARMUP_LATENTS = 2, 7
"""The fewest that hide a segment's border: `python -m benchmarks.nano_borders`."""


def load_averaged(path: Path) -> Nano:
    """The network with the averaged weights of a checkpoint. Raises ValueError if frozen weights have moved."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    model = Nano().eval().requires_grad_(False)
    start = {name: parameter.clone() for name, parameter in model.dit.named_parameters()}
    model.load_state_dict({name: value.float() for name, value in saved["ema"].items()})
    for name, mask in frozen_masks(model.dit).items():
        moved = ((model.dit.get_parameter(name) - start[name]) * (1 - mask)).abs().max()
        if moved > 1e-3 * start[name].abs().max():
            raise ValueError(f"{path}: frozen weights of dit.{name} have moved by {float(moved)}")
    return model


def export(checkpoint: Path, folder: Path) -> str:
    """Write the model folder with its SHA256SUMS and return its digest."""
    model = load_averaged(checkpoint)
    description = ModelDescription(
        name=NAME,
        posterior=PosteriorRule.MEAN,
        encoder_warmup_latents=ENCODER_WARMUP_LATENTS,
        decoder_warmup_latents=DECODER_WARMUP_LATENTS,
        input_band=INPUT_BAND,
        dit=DIT,
        vae=VAE,
    )
    write_folder(folder, description, model.dit, model.vae, model.text, dtype=torch.float16)
    return write_sums(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="write the model folder of a checkpoint")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    digest = export(arguments.checkpoint, arguments.folder)
    for path in sorted(arguments.folder.iterdir()):
        print(f"{path.stat().st_size:>10}  {path.name}")
    print(digest)


if __name__ == "__main__":
    main()
