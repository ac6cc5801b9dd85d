"""`models list`: every model that can be named, with what is known of it without reading weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from restoration_api.base import Contract
from restoration_runner.errors import RestorationError
from restoration_runner.weights.catalogue import KNOWN, KnownModel
from restoration_runner.weights.inspect import inspect_folder
from restoration_runner.weights.source import SHIPPED, model_folders, shipped_folder


class Listed(Contract):
    """One line. where: a folder, or repository and commit at the hub."""

    name: str
    state: Literal["built in", "present", "broken", "known"]
    where: str
    precision: str | None = None
    size_bytes: int | None = None
    problem: str | None = None


def every_model() -> list[Listed]:
    """Built in, then present, then known and not present."""
    built_in = _look(SHIPPED, shipped_folder(), "built in")
    present = list(_present())
    names = {row.name for row in present}
    return [built_in, *present, *(_known(model) for name, model in KNOWN.items() if name not in names)]


def _present() -> Iterator[Listed]:
    for parent in model_folders():
        if not parent.is_dir():
            continue
        for folder in sorted(path for path in parent.iterdir() if (path / "model.json").is_file()):
            yield _look(folder.name, folder, "present")


def _look(name: str, folder: Path, state: Literal["built in", "present"]) -> Listed:
    try:
        facts = inspect_folder(folder)
    except RestorationError as error:
        return Listed(name=name, state="broken", where=str(folder), problem=error.message)
    kinds = dict.fromkeys(kind for part in facts.parts for kind in part.precision)
    return Listed(name=name, state=state, where=str(folder), precision=", ".join(kinds), size_bytes=facts.size_bytes)


def _known(model: KnownModel) -> Listed:
    where = f"hf://{model.dit.repository}@{model.dit.revision[:12]}/{model.dit.path}"
    precision = "FP16" if model.dit.path.endswith("_fp16.safetensors") else "FP32"
    return Listed(name=model.name, state="known", where=where, precision=precision, size_bytes=model.size_bytes)
