"""What a stream remembers between calls of the fast VAE, and the exact knobs it runs with."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from restoration_runner.models.kernels import winograd


@dataclass(frozen=True)
class VaeKnobs:
    """How much is held at once. No knob changes what is computed: results are equal up to rounding.

    frames_at_once: frames that go through the full-resolution stages together (before the encoder's first and after
        the decoder's last temporal step, which hold nearly all memory); None: all of a call. With 1, each
        causal convolution there keeps a ring of three frames and moves none.
    winograd: residual blocks take four frames a time by Winograd's transform over time, half of the multiplications
        (`vae_winograd.py`). Needs four frames at once.
    strip_rows: rows of a frame for which a full-resolution convolution's input exists at one time; None: all. Needs
        frames_at_once = 1. Norms see whole frames, so strips leave no seams.
    strip_levels: full-resolution levels of the decoder that work in strips, counted from its end; None: all.
    encoder_strips: False for strips in the decoder only, which needs twice as much memory.
    past_on_host: the two earlier frames of each convolution that works in strips wait in the host's memory. Needs
        strip_rows.
    second_level: the level next to the full-resolution stages goes frame by frame and in strips as well, and upsampling
        over time makes one frame a call. Needs strip_rows. With past_on_host, 3840×2160 fits 24 GB.
    upsample_frames: output frames of one call of a merged upsampling, which needs as much memory again.
    attention_scores: scores of the middle attention that exist at one time (fp32).
    """

    frames_at_once: int | None = 1
    winograd: bool = False
    strip_rows: int | None = None
    strip_levels: int | None = None
    encoder_strips: bool = True
    past_on_host: bool = False
    second_level: bool = False
    upsample_frames: int = 8
    attention_scores: int = 2**28

    def __post_init__(self) -> None:
        for name in ("frames_at_once", "strip_rows", "strip_levels", "upsample_frames", "attention_scores"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if self.strip_rows is not None and self.frames_at_once != 1:
            raise ValueError("strip_rows needs frames_at_once = 1")
        if self.winograd and self.frames_at_once is not None and self.frames_at_once < winograd.FRAMES:
            raise ValueError(f"winograd needs frames_at_once of at least {winograd.FRAMES}")
        for name in ("past_on_host", "second_level"):
            if getattr(self, name) and self.strip_rows is None:
                raise ValueError(f"{name} needs strip_rows")
            if getattr(self, name) and not (self.encoder_strips and self.strip_levels is None):
                raise ValueError(f"{name} needs strips everywhere")

    @property
    def of_encoder(self) -> "VaeKnobs":
        """What the encoder makes of them."""
        return self if self.encoder_strips else replace(self, strip_rows=None)

    def of_decoder(self, levels_from_end: int) -> "VaeKnobs":
        """What a level of the decoder makes of them: 0 for the last one."""
        is_outside = self.strip_levels is not None and levels_from_end >= self.strip_levels
        return replace(self, strip_rows=None) if is_outside else self


@dataclass(frozen=True)
class Past:
    """Earlier input of one layer: `frames [n, H, W, C]`, and how many the layer has seen in all.

    norm: scale and shift `[n, C]`, where the frames are kept as they were before their norm and SiLU.
    """

    frames: Tensor
    seen: int
    norm: tuple[Tensor, Tensor] | None = None


class FastState:
    """The past of one stream. A new stream, a new state; a call that failed leaves a state that must not be used."""

    def __init__(self) -> None:
        self._pasts: dict[object, Past] = {}

    def past(self, layer: object) -> Past | None:
        return self._pasts.get(layer)

    def remember(self, layer: object, frames: Tensor, *, seen: int, norm: tuple[Tensor, Tensor] | None = None) -> None:
        self._pasts[layer] = Past(frames, seen, norm)

    @property
    def size_bytes(self) -> int:
        """What the past keeps alive: of a view all that it is a view of."""
        return sum(past.frames.untyped_storage().nbytes() for past in self._pasts.values())


def with_two_before(x: Tensor, layer: object, state: FastState | None) -> Tensor:
    """`x [T, H, W, C]` behind the two frames before it, which are copies of its first one where a clip begins.

    The state keeps the last two for this layer's next call.
    """
    past = past_of(state, layer)
    known = torch.cat([x[:1], x[:1], x] if past is None else [past.frames, x])
    if state is not None:
        state.remember(layer, known[-2:].clone(), seen=x.shape[0] + (past.seen if past else 0))
    return known


def past_of(state: FastState | None, layer: object) -> Past | None:
    return None if state is None else state.past(layer)
