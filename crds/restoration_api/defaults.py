"""What is used where neither the VideoRestoration nor the profile says anything: one table.

The operator (for Jobs) and `video-restoration restore` (for local files) resolve through the same function, so the
same wishes give the same frames in both. Order: what the user chose, the profile's `defaults`, the model's row here.
"""

from dataclasses import dataclass
from typing import TypeVar

from restoration_api.base import Contract
from restoration_api.request import (
    Chunk,
    Codec,
    ColorCorrection,
    Precision,
    ResolvedExecution,
    ResolvedRestoration,
    Target,
)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ModelDefaults:
    target: Target
    chunk_frames: int
    segment_frames: int
    precision: Precision


MODELS: dict[str, ModelDefaults] = {
    # Trained for x4 on small footage; short segments because a CPU makes about one frame a second.
    "seedvr2-nano": ModelDefaults(
        target=Target(scale_factor=4), chunk_frames=21, segment_frames=60, precision=Precision.FP32
    ),
}

RELEASED_MODEL = ModelDefaults(
    target=Target(short_side=1080), chunk_frames=49, segment_frames=480, precision=Precision.BF16
)
"""SeedVR2 3B, 7B, and any model that has no row of its own: 480 frames keep the border overhead near 7 %."""

OVERLAP_FRAMES = 4
"""One latent: longer overlaps average two samples for longer and look softer than the rest."""
SEED = 0
"""Never random: the same request twice is the same video."""

CODECS: dict[Codec, tuple[int | None, str | None]] = {
    Codec.H264: (18, "medium"),
    Codec.HEVC: (18, "medium"),
    Codec.AV1: (24, "6"),
    Codec.PRORES: (None, None),
    Codec.FFV1: (None, None),
}
"""(crf, preset) for each codec; none for the two that have no constant-quality scale."""


class Choices(Contract):
    """What somebody chose, and nothing where nothing was chosen. A user makes one, a profile's `defaults` another."""

    target: Target | None = None
    chunk_frames: int | None = None
    overlap_frames: int | None = None
    segment_frames: int | None = None
    seed: int | None = None
    color_correction: ColorCorrection | None = None
    denoise_strength: float | None = None
    strength: float | None = None
    codec: Codec | None = None
    crf: int | None = None
    preset: str | None = None


@dataclass(frozen=True, kw_only=True)
class Resolved:
    restoration: ResolvedRestoration
    segment_frames: int
    codec: Codec
    crf: int | None
    preset: str | None

    def execution(self) -> ResolvedExecution:
        """One worker, this segment length: what a single Job does."""
        return ResolvedExecution(segment_frames=self.segment_frames)


def model_defaults(model: str) -> ModelDefaults:
    return MODELS.get(model, RELEASED_MODEL)


def resolve(model: str, chosen: Choices, profile: Choices | None = None) -> Resolved:
    """Fill every gap of `chosen` from `profile`, then from the model's row.

    Raises:
        pydantic.ValidationError: the merged values contradict each other (an overlap of half a chunk, say).
    """
    row, profile = model_defaults(model), profile or Choices()
    chunk_frames = _first(chosen.chunk_frames, profile.chunk_frames, row.chunk_frames)
    # A profile's overlap belongs to the profile's chunk; a user who chose a tiny chunk did not choose that overlap.
    fallback = OVERLAP_FRAMES if chunk_frames > OVERLAP_FRAMES * 2 else 0
    inherited = profile.overlap_frames if chosen.chunk_frames is None else None
    codec = _first(chosen.codec, profile.codec, Codec.HEVC)
    codec_crf, codec_preset = CODECS[codec]
    # A profile's crf means its own codec's scale; for ProRes and FFV1 it would mean nothing.
    profile_crf = profile.crf if codec == (profile.codec or Codec.HEVC) else None
    return Resolved(
        restoration=ResolvedRestoration(
            target=_first(chosen.target, profile.target, row.target),
            chunk=Chunk(frames=chunk_frames, overlap_frames=_first(chosen.overlap_frames, inherited, fallback)),
            seed=_first(chosen.seed, profile.seed, SEED),
            color_correction=_first(chosen.color_correction, profile.color_correction, ColorCorrection.WAVELET),
            denoise_strength=_first(chosen.denoise_strength, profile.denoise_strength, 0.0),
            strength=_first(chosen.strength, profile.strength, 1.0),
        ),
        segment_frames=_first(chosen.segment_frames, profile.segment_frames, row.segment_frames),
        codec=codec,
        crf=chosen.crf if chosen.crf is not None else (codec_crf if profile_crf is None else profile_crf),
        preset=chosen.preset or profile.preset or codec_preset,
    )


def _first(chosen: T | None, profile: T | None, fallback: T) -> T:
    if chosen is not None:
        return chosen
    return fallback if profile is None else profile
