"""From a request and what probing found to `plan.json`: pure functions, no I/O.

Every number that can change a byte of the output is decided here, once, before a frame is computed. A segment is then
a pure function of the plan: it does not matter who makes it, in which order, or after how many restarts.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import isqrt

from restoration_api.base import canonical_json
from restoration_api.ledger import (
    ColorFacts,
    EncoderSettings,
    Grid,
    InputIdentity,
    Plan,
    Run,
    Scene,
    Segment,
    Timestamps,
    VideoFacts,
    cache_key,
    request_key,
)
from restoration_api.outcome import FailureReason
from restoration_api.request import Chunk, Request, Target
from restoration_runner.errors import RestorationError
from restoration_runner.models.restorer import Capabilities
from restoration_runner.restoration.grid import (
    TEMPORAL_STRIDE,
    SegmentWork,
    scene_segments,
    windows_per_segment,
)

PIPELINE = "pipeline/1"
"""Version of everything between decoder and encoder that is not the model: colour, scaling, padding, transfer. Raised
when the same plan would give other frames."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one look at the input gave: facts of the file and one decoding pass."""

    video: VideoFacts
    timestamps: Timestamps
    cuts: tuple[tuple[int, float], ...]
    """(first frame of the new scene, score), in order."""


@dataclass(frozen=True, kw_only=True)
class Keys:
    """What names a piece of work, before its input was read."""

    engine: dict[str, str]
    engine_version: str
    cache_key: str
    request_key: str


def make_grid(chunk: Chunk, segment_frames: int, capabilities: Capabilities) -> Grid:
    """Window and segment numbers in latents."""
    window = (chunk.frames - 1) // TEMPORAL_STRIDE + 1
    overlap = chunk.overlap_frames // TEMPORAL_STRIDE
    return Grid(
        window_latents=window,
        overlap_latents=overlap,
        windows_per_segment=windows_per_segment(segment_frames, window=window, overlap=overlap),
        encoder_warmup_latents=capabilities.encoder_warmup,
        decoder_warmup_latents=capabilities.decoder_warmup,
    )


def make_keys(
    request: Request,
    *,
    input_: InputIdentity,
    model_digest: str,
    capabilities: Capabilities,
    rules: dict[str, str],
    libraries: dict[str, str],
) -> Keys:
    """Keys of the work. rules: names and versions of the video code's rules; libraries: name to version.

    Nothing here depends on the input's content, so that a finished work is recognised before anything is fetched.
    """
    grid = make_grid(request.restoration.chunk, request.execution.segment_frames, capabilities)
    engine = {
        "algorithm": capabilities.algorithm,
        "pipeline": PIPELINE,
        "precision": request.model.precision.value,
        "alignment": str(capabilities.alignment),
        **{f"grid.{name}": str(value) for name, value in grid.model_dump(by_alias=True).items()},
        **{f"rule.{name}": value for name, value in rules.items()},
        **{f"library.{name}": value for name, value in libraries.items()},
    }
    version = hashlib.sha256(canonical_json(engine).encode()).hexdigest()
    return Keys(
        engine=engine,
        engine_version=version,
        cache_key=cache_key(request, input_=input_, model_digest=model_digest, engine_version=version),
        request_key=request_key(request, input_=input_),
    )


def make_plan(
    request: Request,
    *,
    keys: Keys,
    input_: InputIdentity,
    found: Found,
    model_digest: str,
    capabilities: Capabilities,
    cut_detector: str,
    color: ColorFacts,
    encoder: EncoderSettings,
) -> Plan:
    """The whole plan. color: of the output; encoder: the pinned settings for it.

    Raises:
        RestorationError: `InvalidParameters` if the output would be too small or larger than the profile allows.
    """
    width, height = plan_output_size(request, width=found.video.width, height=found.video.height)
    scenes = make_scenes(found.timestamps.frames, found.cuts)
    grid = make_grid(request.restoration.chunk, request.execution.segment_frames, capabilities)
    return Plan(
        cache_key=keys.cache_key,
        request_key=keys.request_key,
        engine_version=keys.engine_version,
        engine=keys.engine,
        input=input_,
        video=found.video,
        timestamps=found.timestamps,
        cut_detector=cut_detector,
        scenes=scenes,
        restoration=request.restoration,
        model=request.model.name,
        model_digest=model_digest,
        precision=request.model.precision,
        width=width,
        height=height,
        container=request.output.container,
        audio=request.output.audio,
        color=color,
        encoder=encoder,
        grid=grid,
        segments=make_segments(scenes, grid),
    )


def output_size(target: Target, *, width: int, height: int) -> tuple[int, int]:
    """(width, height) in pixels, even because 4:2:0 has one chroma sample for two pixels; odd results round up."""
    if target.width is not None and target.height is not None:
        return target.width, target.height
    if target.scale_factor is not None:
        return _even(Fraction(width * target.scale_factor)), _even(Fraction(height * target.scale_factor))
    assert target.short_side is not None, "a target has exactly one kind of size"
    scale = Fraction(target.short_side, min(width, height))
    return _even(width * scale), _even(height * scale)


def _even(size: Fraction) -> int:
    """The nearest even number, the larger one of two."""
    return max(2, 2 * ((size + 1) // 2))


def plan_output_size(request: Request, *, width: int, height: int) -> tuple[int, int]:
    """(width, height) of the output for an input of this size, if the profile allows it.

    Raises:
        RestorationError: `InvalidParameters`.
    """
    width, height = output_size(request.restoration.target, width=width, height=height)
    limit = request.limits.max_output_megapixels
    if limit is not None and width * height > limit * 1_000_000:
        raise RestorationError(
            FailureReason.INVALID_PARAMETERS,
            f"restoration.target: the output would have {width}x{height} pixels, more than the {limit} megapixels that "
            f"the profile's limits.maxOutputMegapixels allow; ask for at most {_side(width, height, limit)}",
        )
    return width, height


def _side(width: int, height: int, megapixels: int) -> str:
    short, long = min(width, height), max(width, height)
    return f"shortSide {isqrt(megapixels * 1_000_000 * short // long) // 2 * 2}"


def make_scenes(frames: int, cuts: Sequence[tuple[int, float]]) -> tuple[Scene, ...]:
    """Runs between cuts. cuts: (first frame of the new scene, score), increasing."""
    starts = [0, *(frame for frame, _ in cuts)]
    scores: list[float | None] = [None, *(score for _, score in cuts)]
    ends = [*starts[1:], frames]
    return tuple(
        Scene(first_frame=start, frames=end - start, score=score)
        for start, end, score in zip(starts, ends, scores, strict=True)
    )


def make_segments(scenes: Sequence[Scene], grid: Grid) -> tuple[Segment, ...]:
    """The segment table: each part of a long scene is a segment; short scenes in a row share one, as runs of their own.

    Sharing stops at the nominal length, because a segment is what a lost pod has to compute again. It saves an object,
    a marker and an encoder start for every shot of a fast montage.
    """
    nominal = grid.windows_per_segment * TEMPORAL_STRIDE * (grid.window_latents - grid.overlap_latents)
    groups: list[list[Run]] = []
    sharable = 0  # frames of the last group, if another short scene may join it
    for number, scene in enumerate(scenes):
        runs = [
            Run(scene=number, part=part, first_frame=scene.first_frame + work.first_frame, frames=work.frames)
            for part, work in enumerate(scene_works(scene, grid))
        ]
        alone = len(runs) > 1
        if not alone and sharable and sharable + scene.frames <= nominal:
            groups[-1].extend(runs)
            sharable += scene.frames
            continue
        groups.extend([run] for run in runs)
        sharable = 0 if alone else scene.frames
    return tuple(Segment(index=index, runs=tuple(runs)) for index, runs in enumerate(groups))


def scene_works(scene: Scene, grid: Grid) -> Iterator[SegmentWork]:
    """What to compute for each part of a scene, in order."""
    return scene_segments(
        start=scene.first_frame,
        frames=scene.frames,
        window=grid.window_latents,
        overlap=grid.overlap_latents,
        per_segment=grid.windows_per_segment,
        encoder_warmup=grid.encoder_warmup_latents,
        decoder_warmup=grid.decoder_warmup_latents,
    )


def segment_works(plan: Plan, segment: Segment) -> tuple[SegmentWork, ...]:
    """What to compute for one segment of the plan: one work order for each of its runs."""
    return tuple(_parts(plan.scenes[run.scene], plan.grid)[run.part] for run in segment.runs)


@lru_cache(maxsize=2)
def _parts(scene: Scene, grid: Grid) -> tuple[SegmentWork, ...]:
    """Kept, because a film without a cut has thousands of parts, and is asked for one after the other."""
    return tuple(scene_works(scene, grid))
