"""What a model folder or a checkpoint file is, from headers alone: nothing large is read."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from restoration_api.base import Contract
from restoration_runner.errors import RestorationError
from restoration_runner.models.seedvr2.checkpoint import Layout, dit_layout, modern_vae_name, vae_layout
from restoration_runner.models.seedvr2.config import MODELS, DitConfig
from restoration_runner.models.seedvr2.description import ModelDescription, read_description
from restoration_runner.models.seedvr2.folder import DIT, VAE, read_text
from restoration_runner.weights.checkpoint_file import open_checkpoint
from restoration_runner.weights.digest import digest_of, read_sums

NAMES = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16", "float8_e4m3fn": "FP8", "float8_e5m2": "FP8"}


class PartFacts(Contract):
    """One file of weights. precision: the kinds of its tensors, most frequent first."""

    file: str
    size_bytes: int
    tensors: int
    parameters: int
    precision: tuple[str, ...]


class FolderFacts(Contract):
    """A model folder. digest: as its SHA256SUMS states; unset without that file (`verify` computes it)."""

    folder: str
    name: str
    architecture: str
    rules: str
    width: int
    layers: int
    heads: int
    text_tokens: int
    vae_channels: tuple[int, ...]
    posterior: str
    encoder_warmup_latents: int
    decoder_warmup_latents: int
    parts: tuple[PartFacts, ...]
    digest: str | None = None

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    @property
    def size_bytes(self) -> int:
        return sum(part.size_bytes for part in self.parts)


class FileFacts(Contract):
    """A checkpoint file of somebody else. fits: the network that it holds all weights of; unset if none is known."""

    part: PartFacts
    fits: str | None = None


def inspect_folder(folder: Path) -> FolderFacts:
    """Read descriptions and headers, and compare the keys with the description.

    Raises:
        RestorationError: `ModelInvalid`, with what is wrong.
    """
    description = read_description(folder)
    parts = []
    for name, layout in ((DIT, dit_layout(description.dit)), (VAE, vae_layout(description.vae))):
        file = open_checkpoint(folder / name)
        looks = {modern_vae_name(key): look for key, look in file.looks.items()}
        layout.check(looks, source=name)
        parts.append(_part(folder / name, looks, layout))
    text = read_text(folder, description.dit.text_width)
    return _facts(folder, description, tuple(parts), len(text))


def _facts(folder: Path, description: ModelDescription, parts: tuple[PartFacts, ...], tokens: int) -> FolderFacts:
    sums = read_sums(folder)
    return FolderFacts(
        folder=str(folder),
        name=description.name,
        architecture=description.architecture,
        rules=rules(description.dit),
        width=description.dit.width,
        layers=description.dit.layers,
        heads=description.dit.heads,
        text_tokens=tokens,
        vae_channels=description.vae.channels,
        posterior=description.posterior.value,
        encoder_warmup_latents=description.encoder_warmup_latents,
        decoder_warmup_latents=description.decoder_warmup_latents,
        parts=parts,
        digest=digest_of(sums) if sums is not None else None,
    )


def rules(config: DitConfig) -> str:
    """Which released network's rules a transformer follows."""
    return {"multimodal": "3B", "axial": "7B"}[config.rope]


def inspect_file(path: Path) -> FileFacts:
    """What a `.pth` or `.safetensors` file holds, and whether it is one of the released networks.

    Raises:
        RestorationError: `ModelInvalid` if it cannot be read, or holds code.
    """
    looks = open_checkpoint(path).looks
    for name, layout in _known_layouts():
        if _fits(looks, layout):
            return FileFacts(part=_part(path, looks, layout), fits=name)
    return FileFacts(part=_part(path, looks, None))


def _known_layouts() -> Iterable[tuple[str, Layout]]:
    for name, config in MODELS.items():
        yield f"transformer of {name}", dit_layout(config.dit)
        yield f"VAE of {name}", vae_layout(config.vae)


def _fits(looks: Mapping[str, Tensor], layout: Layout) -> bool:
    try:
        layout.check({modern_vae_name(name): look for name, look in looks.items()}, source="")
    except RestorationError:
        return False
    return True


def _part(path: Path, looks: Mapping[str, Tensor], layout: Layout | None) -> PartFacts:
    weights = {name: look for name, look in looks.items() if layout is None or modern_vae_name(name) in layout.shapes}
    kinds = Counter(str(look.dtype).removeprefix("torch.") for look in weights.values())
    return PartFacts(
        file=path.name,
        size_bytes=path.stat().st_size,
        tensors=len(looks),
        parameters=sum(look.numel() for look in weights.values()),
        precision=tuple(NAMES.get(kind, kind) for kind, _ in kinds.most_common()),
    )
