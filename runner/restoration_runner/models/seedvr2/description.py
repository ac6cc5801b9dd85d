"""`model.json`: what must be known of a model before its weights are loaded, and by whoever plans without them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from restoration_api.base import Contract, VersionedContract
from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError
from restoration_runner.models.restorer import Capabilities
from restoration_runner.models.seedvr2.config import DitConfig, VaeConfig

DESCRIPTION = "model.json"

ALGORITHM = "seedvr2/1"
"""Raise the number when the same plan gives other frames; it is part of the cache key."""


class PosteriorRule(StrEnum):
    """Which latent the encoder's distribution stands for."""

    MEAN = "Mean"
    SAMPLE = "Sample"


class InputBandRule(Contract):
    """The low frequencies of the input, put back into the output; see `input_band.py`.

    blurs: radii (`wavelet.low_pass`) that separate them from the detail. octaves: radii of further blurs; what lies
    between two of them is taken where it differs by more than the input's noise, what is slower than the last of them
    everywhere. caution: by how many times its noise an octave must differ for half of the difference to be taken.
    """

    blurs: tuple[Annotated[int, Field(ge=1, le=64)], ...] = Field(min_length=1, max_length=8)
    octaves: tuple[Annotated[int, Field(ge=1, le=64)], ...] = Field(default=(), max_length=8)
    caution: float = Field(default=0.0, ge=0, le=16)


class ModelDescription(VersionedContract):
    """`model.json`. At least one latent of warm-up each: the first of a stream stands for one frame, not four.

    The warm-ups that are not given are for models whose borders nobody has measured: more than `seedvr2-nano` needs,
    whose VAE has the same graph. 480-frame segments make them cheap.

    input_band: what the output takes from the input; nothing for the released networks.
    """

    architecture: Literal["seedvr2"] = "seedvr2"
    name: str
    posterior: PosteriorRule
    encoder_warmup_latents: int = Field(default=4, ge=1)
    decoder_warmup_latents: int = Field(default=8, ge=1)
    input_band: InputBandRule | None = None
    dit: DitConfig
    vae: VaeConfig

    def capabilities(self) -> Capabilities:
        """What a model of this description needs."""
        return Capabilities(
            alignment=self.vae.spatial_stride * max(self.dit.patch[1:]),
            encoder_warmup=self.encoder_warmup_latents,
            decoder_warmup=self.decoder_warmup_latents,
            algorithm=ALGORITHM,
        )


def read_description(folder: Path) -> ModelDescription:
    """`model.json` of a model folder. Raises RestorationError(ModelInvalid)."""
    return parse_description(folder / DESCRIPTION)


def parse_description(path: Path) -> ModelDescription:
    """A `model.json` wherever it lies. Raises RestorationError(ModelInvalid)."""
    try:
        return ModelDescription.from_json(path.read_bytes())
    except OSError as error:
        raise _invalid(f"{path} cannot be read ({error.strerror}): is this a model folder?") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise _invalid(f"{path.name}: {where}: {first['msg']}. It describes no model this runner knows.") from error


def _invalid(message: str) -> RestorationError:
    return RestorationError(FailureReason.MODEL_INVALID, message)
