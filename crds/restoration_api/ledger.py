"""The work prefix in the bucket: what a runner tells its own later self, and every other runner of the same work.

    <directory of the output>/.vr/<cacheKey[:16]>-<sha256(output key)[:8]>/
        plan.json               what the work is; written once, losers read it back
        seg/00017-<sha8>.mkv    an encoded segment
        seg/00017.json          its marker, written after it: the segment counts only if both agree
        final.json              the manifest of the finished work; outlives segments and the resource

A segment is a pure function of the plan: it does not matter who made it, in which order, or after how many restarts.
A file of another schema is treated as absent.
"""

import hashlib
import itertools
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from pathlib import PurePosixPath

from pydantic import Field

from restoration_api.base import Contract, VersionedContract, canonical_json
from restoration_api.outcome import StreamOutcome, Timings, Verification
from restoration_api.request import AudioMode, Codec, Container, Precision, Request, ResolvedRestoration


class ColorRange(StrEnum):
    LIMITED = "Limited"
    FULL = "Full"


class ColorFacts(Contract):
    """How the numbers of a frame mean colour. Names are FFmpeg's (`bt709`, `smpte170m`, `bt470bg`, `bt2020nc` …)."""

    matrix: str
    primaries: str
    transfer: str
    range: ColorRange
    chroma_location: str
    """`left`, `center`, `topleft` …"""
    assumed: tuple[str, ...] = ()
    """Which of these fields the file does not say, so that they were filled by rule."""


class StreamFacts(Contract):
    """One stream of the input, as found."""

    index: int
    type: str
    """`video`, `audio`, `subtitle`, `data`, `attachment`."""
    codec: str
    language: str | None = None
    title: str | None = None
    default: bool = False
    attached_picture: bool = False
    start: str | None = None
    """Seconds of the first presentation as a fraction, `1/24`; unset where the file does not say."""


class VideoFacts(Contract):
    """The input's file and its video stream, as found by probing."""

    container: str
    stream_index: int
    codec: str
    pixel_format: str
    bit_depth: int
    width: int
    height: int
    sample_aspect_ratio: str = "1:1"
    rotation_degrees: int = 0
    field_order: str = "progressive"
    frame_rate: str | None = None
    """`24000/1001`; what the file says, for people. Timestamps are what counts."""
    traits: tuple[str, ...] = ()
    """What else changes how the picture is to be shown: `alpha`, `closed-captions`, `dolby-vision`, `encrypted`,
    `mirrored`, `spherical`, `stereo3d`."""
    color: ColorFacts
    streams: tuple[StreamFacts, ...] = ()


class Timestamps(Contract):
    """Presentation times of all frames by rank: exact integers in `time_base`, run-length coded as differences."""

    time_base: str
    """Seconds of one tick as a fraction, `1/24000`."""
    first: int
    deltas: tuple[tuple[int, int], ...] = ()
    """`(difference, how often in a row)`; all differences are positive."""
    last_duration: int = Field(ge=1)

    @classmethod
    def of(cls, pts: list[int], *, time_base: Fraction, last_duration: int) -> "Timestamps":
        """Code a list of increasing times."""
        runs = itertools.groupby(after - before for before, after in itertools.pairwise(pts))
        return cls(
            time_base=f"{time_base.numerator}/{time_base.denominator}",
            first=pts[0],
            deltas=tuple((delta, len(list(same))) for delta, same in runs),
            last_duration=last_duration,
        )

    @property
    def frames(self) -> int:
        return 1 + sum(count for _, count in self.deltas)

    @property
    def seconds(self) -> Fraction:
        """From the first frame's beginning to the last one's end."""
        ticks = sum(delta * count for delta, count in self.deltas) + self.last_duration
        return ticks * Fraction(self.time_base)

    def __len__(self) -> int:
        return self.frames

    def pts(self) -> Iterator[int]:
        """Ticks of every frame, in order."""
        now = self.first
        yield now
        for delta, count in self.deltas:
            for _ in range(count):
                now += delta
                yield now


class Scene(Contract):
    """A run of frames without a cut. No window, state or context crosses its ends."""

    first_frame: int = Field(ge=0)
    frames: int = Field(ge=1)
    score: float | None = None
    """The detector's measure at the cut that begins it; none for the first."""


class Grid(Contract):
    """Window and segment numbers, in latents (one latent is four frames, the first of a scene is one)."""

    window_latents: int = Field(ge=1)
    overlap_latents: int = Field(ge=0)
    windows_per_segment: int = Field(ge=1)
    encoder_warmup_latents: int = Field(ge=0)
    decoder_warmup_latents: int = Field(ge=0)


class Run(Contract):
    """A part of one scene inside a segment: the `part`-th of the scene's grid."""

    scene: int
    part: int
    first_frame: int
    """Absolute, in the input."""
    frames: int = Field(ge=1)


class Segment(Contract):
    """The grain of commit and resume: usually one run; several short scenes share one segment as runs of their own."""

    index: int = Field(ge=0)
    runs: tuple[Run, ...] = Field(min_length=1)

    @property
    def frames(self) -> int:
        return sum(run.frames for run in self.runs)

    @property
    def first_frame(self) -> int:
        return self.runs[0].first_frame


class EncoderSettings(Contract):
    """Everything that decides an encoder's bytes; thread counts are pinned because they change them."""

    codec: Codec
    crf: int | None = None
    preset: str | None = None
    pixel_format: str
    gop_frames: int = Field(ge=1)
    parameters: str
    """The codec library's own option string."""


class InputIdentity(Contract):
    """Which bytes were read."""

    uri: str
    size_bytes: int
    etag: str | None = None
    version_id: str | None = None
    sha256: str | None = None


class Plan(VersionedContract):
    """`plan.json`: written once with `If-None-Match: *`; whoever loses reads it back and works by it."""

    cache_key: str
    request_key: str
    """The cache key without versions and with the model's name for its digest: the same wish, whoever serves it."""
    engine_version: str
    engine: dict[str, str]
    """What `engine_version` is the hash of: algorithm version, libraries and their versions."""
    input: InputIdentity
    video: VideoFacts
    timestamps: Timestamps
    cut_detector: str
    """Name and version of the scene-cut measure."""
    scenes: tuple[Scene, ...]
    restoration: ResolvedRestoration
    model: str
    model_digest: str
    precision: Precision
    width: int
    height: int
    container: Container
    audio: AudioMode
    color: ColorFacts
    """Of the output."""
    encoder: EncoderSettings
    grid: Grid
    segments: tuple[Segment, ...]

    @property
    def frames(self) -> int:
        return self.timestamps.frames


class Marker(VersionedContract):
    """`seg/NNNNN.json`: this object is that segment. The first marker wins; a 412 means somebody finished it."""

    segment: int
    cache_key: str
    object_key: str
    etag: str
    size_bytes: int
    frames: int
    sha256: str
    frames_sha256: str
    """Of the decoded planes: what is compared where bytes may differ (another GPU model)."""
    fingerprint: str
    """Hash of `environment`: same fingerprint, same bytes."""
    environment: dict[str, str]
    """Runner image, GPU model and partition, CPU instruction set, exact knobs."""
    execution: int = Field(ge=1)
    timings: Timings = Timings()
    peak_gpu_memory_bytes: int | None = Field(default=None, alias="peakGPUMemoryBytes")
    non_finite_values: int = 0


class Manifest(VersionedContract):
    """`final.json`: proof of what was published, kept after segments and resource are gone."""

    cache_key: str
    output_uri: str
    etag: str
    version_id: str | None = None
    size_bytes: int
    sha256: str
    verification: Verification
    streams: tuple[StreamOutcome, ...]
    markers: tuple[Marker, ...]
    plan: Plan
    timings: Timings = Timings()
    finished_at: datetime


def cache_key(request: Request, *, input_: InputIdentity, model_digest: str, engine_version: str) -> str:
    """Hex sha256 of everything that decides the output's content, and of nothing else.

    Not in it: names of storage entries, resources, retries, parallelism, the output's URI, the input's URI (the same
    bytes under another name are the same work).
    """
    return _key(request, input_, {"modelDigest": model_digest, "engineVersion": engine_version})


def request_key(request: Request, *, input_: InputIdentity) -> str:
    """The same wish, whichever runner serves it: recognises an older one's output under `overwrite: Never`."""
    return _key(request, input_, {"model": request.model.name})


def _key(request: Request, input_: InputIdentity, who: dict[str, str]) -> str:
    output = request.output.model_dump(mode="json", by_alias=True, exclude={"uri", "storage", "overwrite"})
    material = {
        **who,
        "input": input_.model_dump(mode="json", by_alias=True, exclude={"uri"}, exclude_none=True),
        "clip": request.input.clip.model_dump(mode="json", by_alias=True) if request.input.clip else None,
        "restoration": request.restoration.model_dump(mode="json", by_alias=True, exclude_none=True),
        "precision": request.model.precision,
        "output": output,
        "segmentFrames": request.execution.segment_frames,
    }
    return hashlib.sha256(canonical_json(material).encode()).hexdigest()


def work_prefix(output_key: str, key: str) -> str:
    """Where the work of `key` for the object `output_key` lies, with a trailing slash.

    The output's key is part of it: two outputs with equal parameters in one folder must not delete each other's
    segments.
    """
    parent = str(PurePosixPath(output_key).parent)
    folder = "" if parent == "." else f"{parent}/"
    return f"{folder}.vr/{key[:16]}-{hashlib.sha256(output_key.encode()).hexdigest()[:8]}/"


def plan_key(prefix: str) -> str:
    return f"{prefix}plan.json"


def marker_key(prefix: str, segment: int) -> str:
    return f"{prefix}seg/{segment:05d}.json"


def segment_key(prefix: str, segment: int, sha256: str) -> str:
    return f"{prefix}seg/{segment:05d}-{sha256[:8]}.mkv"


def manifest_key(prefix: str) -> str:
    return f"{prefix}final.json"
