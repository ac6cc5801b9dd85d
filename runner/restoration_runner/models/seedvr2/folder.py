"""A model folder: everything a restoration needs, in files that cannot run code.

model.json           dimensions and rules (`ModelDescription`)
dit.safetensors      transformer weights, official key names
vae.safetensors      VAE weights, official key names
text.safetensors     one tensor `positive [L, text_width]`: the embedded prompt
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.models.seedvr2.checkpoint import (
    build_dit,
    build_vae,
    dit_tensors,
    read_tensors,
    vae_tensors,
)
from restoration_runner.models.seedvr2.description import DESCRIPTION, ModelDescription, read_description
from restoration_runner.models.seedvr2.dit import NaDiT
from restoration_runner.models.seedvr2.half import activation_dtype
from restoration_runner.models.seedvr2.vae import VideoVae
from restoration_runner.restoration.copies import is_gpu

DIT, VAE, TEXT = "dit.safetensors", "vae.safetensors", "text.safetensors"
PROMPT = "positive"


@dataclass(frozen=True)
class LoadedModel:
    """The networks on their device; `text [L, text_width]`."""

    description: ModelDescription
    dit: NaDiT
    vae: VideoVae
    text: Tensor
    fp8_weights: bool = False
    """The transformer's matrices are to be rounded to 8 bits by whatever computes with them (`fp8.py`)."""


def read_folder(folder: Path, *, device: torch.device, dtype: torch.dtype, fp8_weights: bool = False) -> LoadedModel:
    """The model with its weights as `dtype`; see `half.py` for fp16. Where the transformer would fill the GPU it stays
    on the host (`place_of_transformer`), for the networks that are made of it to fetch or to stream.

    Raises RestorationError(ModelInvalid) naming the file and what is wrong with it.
    """
    description = read_description(folder)
    place = place_of_transformer(folder / DIT, device)
    dit = build_dit(description.dit, read_tensors(folder / DIT, device=place), device=place, dtype=dtype, source=DIT)
    vae = build_vae(description.vae, read_tensors(folder / VAE, device=device), device=device, dtype=dtype, source=VAE)
    text = read_text(folder, description.dit.text_width)
    text = text.to(device=device, dtype=activation_dtype(dtype))
    return LoadedModel(description, dit, vae, text, fp8_weights)


MOST_OF_A_GPU = 0.4
"""Share of the GPU's memory up to which the transformer's file is read straight onto it: the 3B network on 24 GB."""


def place_of_transformer(file: Path, device: torch.device) -> torch.device:
    """Where to read it to. A file that cannot be read is refused by whoever reads it."""
    if not is_gpu(device) or not file.is_file():
        return device
    total = torch.cuda.get_device_properties(device).total_memory
    return torch.device("cpu") if file.stat().st_size > MOST_OF_A_GPU * total else device


def write_folder(
    folder: Path, description: ModelDescription, dit: NaDiT, vae: VideoVae, text: Tensor, *, dtype: torch.dtype
) -> None:
    """Write a model folder with weights stored as `dtype`; existing files are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESCRIPTION).write_text(description.model_dump_json(by_alias=True, indent=2) + "\n")
    files = ((DIT, dit_tensors(dit)), (VAE, vae_tensors(vae)), (TEXT, {PROMPT: text}))
    for name, tensors in files:
        save_file({key: tensor.to(dtype=dtype, device="cpu") for key, tensor in tensors.items()}, folder / name)
        (folder / name).chmod(0o644)  # the image's user is not the one who writes the folder


def read_text(folder: Path, width: int) -> Tensor:
    """The embedded prompt `[L, width]`. Raises RestorationError(ModelInvalid)."""
    tensors = read_tensors(folder / TEXT)
    text = tensors.get(PROMPT)
    if text is None or len(tensors) != 1 or text.ndim != 2 or text.shape[1] != width or not len(text):
        found = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items()) or "nothing"
        raise _invalid(f"{TEXT} must hold exactly one tensor, {PROMPT} [L, {width}]; it holds {found}.")
    return text


def _invalid(message: str) -> RestorationError:
    return RestorationError(FailureReason.MODEL_INVALID, message)
