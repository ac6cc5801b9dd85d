"""`restore`: the request that the operator would have written, for local files.

The same table of defaults, the same request, the same job: what is tried on a laptop is what a cluster does.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from restoration_api.defaults import Choices, model_defaults, resolve
from restoration_api.outcome import FailureReason
from restoration_api.request import (
    CacheMode,
    GpuRequest,
    InputRequest,
    ModelRequest,
    OutputRequest,
    Overwrite,
    Precision,
    Request,
    Target,
)
from restoration_runner.errors import RestorationError
from restoration_runner.weights.source import find_model


@dataclass(frozen=True, kw_only=True)
class LocalWish:
    """What was typed."""

    source: Path
    output: Path
    model: str
    choices: Choices
    precision: Precision | None = None
    overwrite: Overwrite = Overwrite.IF_DIFFERENT
    recompute: bool = False


def local_request(wish: LocalWish) -> Request:
    """Resolve a wish as the operator would.

    Raises:
        RestorationError: `InputNotFound`, or `InvalidParameters` for values that contradict each other.
    """
    if not wish.source.is_file():
        raise RestorationError(FailureReason.INPUT_NOT_FOUND, f"{wish.source} does not exist or is not a file")
    if wish.output.is_dir():
        raise RestorationError(FailureReason.INVALID_PARAMETERS, f"{wish.output} is a folder; name a file in it")
    if wish.output.suffix.lower() not in (".mp4", ".m4v"):
        raise RestorationError(
            FailureReason.INVALID_PARAMETERS, f"{wish.output}: the output is an MP4 file; end its name with .mp4"
        )
    folder = find_model(wish.model)
    name = _model_name(folder)
    try:
        resolved = resolve(name, wish.choices)
    except ValidationError as error:
        raise RestorationError(FailureReason.INVALID_PARAMETERS, validation_sentence(error)) from error
    return Request(
        input=InputRequest(uri=file_uri(wish.source)),
        output=OutputRequest(
            uri=file_uri(wish.output),
            overwrite=wish.overwrite,
            codec=resolved.codec,
            crf=resolved.crf,
            preset=resolved.preset,
        ),
        restoration=resolved.restoration,
        execution=resolved.execution(),
        model=ModelRequest(name=name, precision=wish.precision or model_defaults(name).precision, path=str(folder)),
        gpu=GpuRequest(count=0),
        cache=CacheMode.BYPASS if wish.recompute else CacheMode.USE,
    )


def local_target(scale: int | None, short_side: int | None) -> Target | None:
    if scale is None and short_side is None:
        return None
    try:
        return Target(scale_factor=scale, short_side=short_side)
    except ValidationError as error:
        message = f"--scale, --short-side: {validation_sentence(error)}"
        raise RestorationError(FailureReason.INVALID_PARAMETERS, message) from error


def file_uri(path: Path) -> str:
    return path.absolute().as_uri()


def validation_sentence(error: ValidationError) -> str:
    """The first thing that is wrong, with its field."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    what = str(first["msg"]).removeprefix("Value error, ")
    return f"{where}: {what}" if where else what


def _model_name(folder: Path) -> str:
    """As `model.json` says: it decides which row of defaults applies."""
    try:
        name = json.loads((folder / "model.json").read_bytes())["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RestorationError(
            FailureReason.MODEL_INVALID, f"{folder} is not a model folder: model.json cannot be read ({error})"
        ) from error
    return str(name)
