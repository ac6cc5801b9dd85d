"""Checkpoints as others publish them, into the folder that this runner reads.

Every key is accounted for before a byte is written, one tensor at a time is in memory, and the folder appears complete
or not at all. Values are kept as they are stored unless a precision is asked for; derived tables are left out, so the
digest depends on the weights alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from restoration_api.outcome import FailureReason
from restoration_api.request import Precision
from restoration_runner.errors import RestorationError
from restoration_runner.models.seedvr2.checkpoint import Layout, dit_layout, modern_vae_name, vae_layout
from restoration_runner.models.seedvr2.description import DESCRIPTION, ModelDescription
from restoration_runner.models.seedvr2.folder import DIT, PROMPT, TEXT, VAE
from restoration_runner.weights.checkpoint_file import CheckpointFile, open_checkpoint, open_tensor
from restoration_runner.weights.digest import check_digest, write_sums
from restoration_runner.weights.write import appearing, write_safetensors

STORED = {Precision.FP32: torch.float32, Precision.FP16: torch.float16, Precision.BF16: torch.bfloat16}
EMBEDDED = "positive_conditioning"
"""Some redistributions carry the embedded prompts beside the transformer's weights, under these two names."""
EMBEDDED_ALL = (EMBEDDED, "negative_conditioning")
CARD = "README.md"

OnTensor = Callable[[int, int], None]
"""Called with the number of tensors written so far, and of all."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Files of one model. text may be unset where the transformer's file carries the prompt."""

    dit: Path
    vae: Path
    text: Path | None = None


@dataclass(frozen=True)
class _Part:
    """One file to write: official name to shape, and where each value comes from."""

    name: str
    layout: Layout
    file: CheckpointFile
    stored_names: dict[str, str]


def convert(
    sources: Sources,
    description: ModelDescription,
    target: Path,
    *,
    precision: Precision | None = None,
    digest: str | None = None,
    card: str | None = None,
    on_tensor: OnTensor | None = None,
) -> str:
    """Write the model folder `target`, which must not exist, and return its digest.

    precision: how weights are stored; unset keeps FP32, FP16 and BF16 as they are and widens 8-bit floats to FP16.
    digest: what the folder must have. card: text of the folder's README.md: where the weights are from.

    Raises:
        RestorationError: `ModelInvalid` naming the file and the keys, shapes or values that do not fit;
            `InvalidParameters` if `target` exists.
    """
    dit, text = _without_prompts(open_checkpoint(sources.dit))
    parts = (
        _fitting(DIT, dit, dit_layout(description.dit), lambda name: name),
        _fitting(VAE, open_checkpoint(sources.vae), vae_layout(description.vae), modern_vae_name),
    )
    prompt = _prompt(sources, text, description.dit.text_width)
    kept = {part.name: _dtype(part, precision) for part in parts}
    progress = _Progress(sum(len(part.layout.shapes) for part in parts), on_tensor)
    with appearing(target) as folder:
        for part in parts:
            _write(folder / part.name, part, kept[part.name], progress)
        # The prompt is small and its type tells nothing: it is stored as it was published.
        save_file({PROMPT: prompt.contiguous()}, folder / TEXT)
        (folder / DESCRIPTION).write_text(description.model_dump_json(by_alias=True, indent=2) + "\n")
        if card:
            (folder / CARD).write_text(card)
        for path in folder.iterdir():
            path.chmod(0o644)
        check_digest(folder, expected=digest, field="--digest")
        return write_sums(folder)


def _without_prompts(file: CheckpointFile) -> tuple[CheckpointFile, Tensor | None]:
    if EMBEDDED not in file.looks:
        return file, None
    looks = {name: look for name, look in file.looks.items() if name not in EMBEDDED_ALL}
    return CheckpointFile(file.path, looks, file.read), file.read(EMBEDDED)


def _fitting(name: str, file: CheckpointFile, layout: Layout, modern: Callable[[str], str]) -> _Part:
    stored_names = {modern(stored): stored for stored in file.looks}
    layout.check({new: file.looks[stored] for new, stored in stored_names.items()}, source=str(file.path))
    return _Part(name, layout, file, stored_names)


def _prompt(sources: Sources, embedded: Tensor | None, width: int) -> Tensor:
    if sources.text is None and embedded is None:
        raise RestorationError(
            FailureReason.INVALID_PARAMETERS,
            f"--text is needed: {sources.dit} does not carry the embedded prompt (pos_emb.pt of the released models)",
        )
    prompt = open_tensor(sources.text) if sources.text is not None else embedded
    assert prompt is not None
    where = sources.text or sources.dit
    if prompt.ndim != 2 or prompt.shape[1] != width or not len(prompt) or not prompt.is_floating_point():
        raise _invalid(f"{where}: the embedded prompt must be [L, {width}] floats; it is {list(prompt.shape)}")
    if not bool(torch.isfinite(prompt).all()):
        raise _invalid(f"{where}: the embedded prompt holds values that are not finite")
    return prompt


def _dtype(part: _Part, precision: Precision | None) -> torch.dtype:
    if precision is not None:
        if precision not in STORED:
            offered = ", ".join(STORED)
            raise RestorationError(
                FailureReason.INVALID_PARAMETERS, f"--precision: weights are not stored as {precision}; use {offered}"
            )
        return STORED[precision]
    found = {part.file.looks[part.stored_names[name]].dtype for name in part.layout.shapes}
    widened = {kind if kind in STORED.values() else _holding(kind) for kind in found}
    # A file of several kinds is stored in the one that holds them all.
    return widened.pop() if len(widened) == 1 else torch.float32


def _holding(kind: torch.dtype) -> torch.dtype:
    return torch.float16 if kind.itemsize == 1 else torch.float32


class _Progress:
    def __init__(self, total: int, report: OnTensor | None) -> None:
        self.done, self.total, self.report = 0, total, report

    def advance(self) -> None:
        self.done += 1
        if self.report:
            self.report(self.done, self.total)


def _write(path: Path, part: _Part, dtype: torch.dtype, progress: _Progress) -> None:
    def read(name: str) -> Tensor:
        stored = part.file.read(part.stored_names[name])
        value = stored.to(dtype)
        if not bool(torch.isfinite(value).all()):
            raise _invalid(_not_finite(part.file.path, name, stored, dtype))
        progress.advance()
        return value

    write_safetensors(path, part.layout.shapes, dtype, read)


def _not_finite(path: Path, name: str, stored: Tensor, dtype: torch.dtype) -> str:
    if not bool(torch.isfinite(stored.float()).all()):
        return f"{path}: {name} holds values that are not finite; the file is damaged"
    largest = stored.float().abs().max().item()
    kind = next(precision.value for precision, known in STORED.items() if known is dtype)
    return f"{path}: {name} reaches {largest:.3g}, which {kind} cannot hold; use --precision BF16 or FP32"


def _invalid(message: str) -> RestorationError:
    return RestorationError(FailureReason.MODEL_INVALID, message)
