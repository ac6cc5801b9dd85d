"""`VideoRestoration`: one video to restore. What the user writes; what the operator answers is in `status.py`.

A field that a profile may default has no default here: with one, the operator could not tell "unset" from "chosen".
Model, image and GPU are chosen through the profile only, so a restoration stays short, and quota and caching stay
meaningful.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from restoration_api.request import (
    AudioMode,
    CacheMode,
    Codec,
    ColorCorrection,
    Container,
    ExecutionMode,
    Overwrite,
    SegmentCleanup,
)
from restoration_api.resources.common import (
    API_VERSION,
    CRF_NEEDS_CODEC,
    CRF_RANGE,
    NOT_LOOKED_AT,
    Boolean,
    Crf,
    Int32,
    Int64,
    Metadata,
    ObjectName,
    OverlapFrames,
    Part,
    ScaleFactor,
    Seed,
    SegmentFrames,
    ShortSide,
    StorageName,
    Strength,
)
from restoration_api.resources.rules import Rule, immutable
from restoration_api.resources.status import VideoRestorationStatus

# One year: longer than any restoration, short enough to catch milliseconds given as seconds.
DeadlineSeconds = Annotated[Int64, Field(ge=1, le=31536000)]
EvenPixels = Annotated[Int32, Field(ge=64, le=8192, multiple_of=2)]


class ProfileRef(Part):
    """Which profile serves a restoration."""

    kind: Literal["ClusterRestorationProfile", "RestorationProfile"] = Field(
        default="ClusterRestorationProfile",
        description="RestorationProfile is looked up in the object's own namespace.",
    )
    name: ObjectName = Field(
        default="default",
        description="Its name. Where no ClusterRestorationProfile/default exists, the operator's built-in one serves.",
    )


class Clip(Part):
    """A part of the input, in milliseconds of its timeline."""

    start_milliseconds: Int64 | None = Field(default=None, ge=0, description="First moment to restore; default 0.")
    duration_milliseconds: Int64 | None = Field(default=None, ge=1, description="Length; default to the end.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        # The twin of minProperties: an empty clip is a forgotten value, not a wish for everything.
        if self.start_milliseconds is None and self.duration_milliseconds is None:
            raise ValueError("clip needs startMilliseconds, durationMilliseconds or both")
        return self


class Input(Part):
    """What to restore, and which exact version of it."""

    uri: str = Field(
        min_length=8,
        max_length=2048,
        pattern=r"^(s3|https)://[^/\s]+/\S.*$",
        description="s3://bucket/key, or https:// where the profile allows it.",
    )
    storage: StorageName | None = Field(
        default=None, description="Entry of the profile's storage list; default the first one."
    )
    version_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=1024,
        description="Version that must be read; another fails with InputChanged.",
    )
    etag: str | None = Field(
        default=None, min_length=1, max_length=256, description="ETag that must match, else InputChanged."
    )
    sha256: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="Hash of the whole object that must match, else InputChanged.",
    )
    clip: Clip | None = Field(
        default=None,
        json_schema_extra={"minProperties": 1},
        description="Restore only this part, for instance as a preview.",
    )


class Output(Part):
    """Where the result goes and how it is encoded."""

    rules = (
        Rule(
            cel='!has(self.codec) || self.codec != "ProRes" || self.container == "MOV"',
            field_path=".container",
            message="ProRes needs container MOV",
            holds=lambda it: it.codec != Codec.PRORES or it.container == Container.MOV,
        ),
        Rule(
            cel='!has(self.codec) || self.codec != "FFV1" || self.container == "MKV"',
            field_path=".container",
            message="FFV1 needs container MKV",
            holds=lambda it: it.codec != Codec.FFV1 or it.container == Container.MKV,
        ),
        Rule(
            cel='!has(self.codec) || self.codec != "AV1" || self.container != "MOV"',
            field_path=".container",
            message="AV1 needs container MP4 or MKV",
            holds=lambda it: it.codec != Codec.AV1 or it.container != Container.MOV,
        ),
        CRF_NEEDS_CODEC,
        CRF_RANGE,
    )

    uri: str = Field(
        min_length=8,
        max_length=2048,
        pattern=r"^s3://[^/\s]+/(\S.*)?[^/\s]$",
        description="s3://bucket/key of the result; nothing is visible there before it is complete and verified.",
    )
    storage: StorageName | None = Field(
        default=None, description="Entry of the profile's storage list; default the first one."
    )
    overwrite: Overwrite = Field(
        default=Overwrite.IF_DIFFERENT,
        description="What happens to an object that lies there. IfDifferent keeps it if it is this very result.",
    )
    container: Container = Field(default=Container.MP4, description="File format of the result.")
    codec: Codec | None = Field(default=None, description="Video codec; default the profile's, else HEVC (10 bit).")
    crf: Crf | None = Field(
        default=None, description="Constant rate factor, smaller is better: 0-51 for H264 and HEVC, 0-63 for AV1."
    )
    preset: str | None = Field(
        default=None,
        pattern="^[a-z0-9]+$",
        max_length=20,
        description="The encoder's own name for its effort: medium, 6.",
    )
    pixel_format: str | None = Field(
        default=None, pattern="^[a-z0-9]{3,20}$", max_length=20, description="FFmpeg's name, such as yuv420p10le."
    )
    audio: AudioMode = Field(
        default=AudioMode.AUTO,
        description="Auto copies what the container holds and transcodes the rest; Copy fails rather than transcode.",
    )


class Target(Part):
    """The output's size; integers only, even numbers of pixels."""

    rules = (
        Rule(
            cel="[has(self.shortSide), has(self.scaleFactor), has(self.width)].filter(x, x).size() == 1",
            message="set exactly one of shortSide, scaleFactor, or width with height",
            holds=lambda it: [it.short_side, it.scale_factor, it.width].count(None) == 2,
        ),
        Rule(
            cel="has(self.width) == has(self.height)",
            message="width and height go together",
            holds=lambda it: (it.width is None) == (it.height is None),
        ),
    )

    short_side: ShortSide | None = Field(
        default=None, description="Pixels of the shorter side; the aspect ratio is kept."
    )
    scale_factor: ScaleFactor | None = Field(default=None, description="Both sides times this.")
    width: EvenPixels | None = Field(default=None, description="Exact width in pixels, with height.")
    height: EvenPixels | None = Field(default=None, description="Exact height in pixels, with width.")


class Chunk(Part):
    """The model's window in time."""

    rules = (
        Rule(
            cel="self.frames % 4 == 1",
            field_path=".frames",
            message="chunk.frames must be 4n+1 (5, 9, 13, ...), the temporal stride of the model",
            holds=lambda it: it.frames % 4 == 1,
        ),
        Rule(
            cel="!has(self.overlapFrames) || self.overlapFrames * 2 < self.frames",
            field_path=".overlapFrames",
            message="overlapFrames must be less than half of frames",
            holds=lambda it: it.overlap_frames is None or it.overlap_frames * 2 < it.frames,
        ),
    )

    frames: Int32 = Field(ge=1, le=1025, description="Frames that the network sees at once: 4n+1.")
    overlap_frames: OverlapFrames | None = Field(
        default=None, description="Frames shared by neighbouring windows: a multiple of 4, less than half of frames."
    )


class Restoration(Part):
    """What the network does. All of it is part of the cache key."""

    seed: Seed | None = Field(default=None, description="Start of every random number; default 0, never random.")
    color_correction: ColorCorrection | None = Field(
        default=None, description="How the input's colours are transferred to the result; default Wavelet."
    )
    denoise_strength: Strength | None = Field(
        default=None,
        description="Noise mixed into the conditioning latent, 0 to 1; default 0, the released model's behaviour.",
    )
    strength: Strength | None = Field(
        default=None, description="Blend of the restored (1) with the merely resized (0) picture; default 1."
    )
    target: Target | None = Field(
        default=None, description="Size of the output; default the profile's, else the model's."
    )
    chunk: Chunk | None = Field(default=None, description="Window in time; default the profile's, else the model's.")


class Execution(Part):
    """How the work is spread over Jobs and pods."""

    rules = (
        Rule(
            cel='!has(self.parallelism) || self.parallelism == 1 || self.mode != "Single"',
            field_path=".parallelism",
            message="mode Single allows parallelism 1 only",
            holds=lambda it: it.parallelism in (None, 1) or it.mode != ExecutionMode.SINGLE,
        ),
    )

    mode: ExecutionMode = Field(
        default=ExecutionMode.AUTO, description="Auto is Parallel for parallelism above 1 and more than one segment."
    )
    parallelism: Int32 | None = Field(
        default=None, ge=1, le=256, description="Workers at once, capped by the profile's limits.maxParallelism."
    )
    segment_frames: SegmentFrames | None = Field(
        default=None, description="Frames per segment, the grain of commit and resume; part of the cache key."
    )


class RetryPolicy(Part):
    """Separate budgets for failures of the work, of the infrastructure, and for disruptions."""

    max_retries: Int32 = Field(
        default=3, ge=0, le=20, description="Executions after failures that another try may cure."
    )
    max_infrastructure_retries: Int32 = Field(
        default=5, ge=0, le=100, description="Executions after pods that a node refused to start."
    )
    max_disruptions: Int32 | None = Field(
        default=None,
        ge=0,
        le=10000,
        description="Executions after preemption, eviction or a lost node; default unlimited.",
    )
    backoff_seconds: Int32 = Field(
        default=10, ge=1, le=3600, description="First wait before a retry; doubles each time."
    )
    max_backoff_seconds: Int32 = Field(default=300, ge=1, le=86400, description="Longest wait before a retry.")


class Cleanup(Part):
    """What is left behind after the end."""

    job_ttl_seconds: Int32 = Field(default=3600, ge=0, description="How long Job and logs stay after their end.")
    segments: SegmentCleanup = Field(
        default=SegmentCleanup.DELETE,
        description="What happens to finished segments after success; kept after a failure.",
    )


class VideoRestorationSpec(Part):
    """What the user asks for. Everything that decides the result is immutable: another wish is another object."""

    rules = (
        immutable("input", optional=False, remedy="create a new VideoRestoration"),
        immutable("output", optional=False, remedy="create a new VideoRestoration"),
        immutable("profileRef", optional=False),
        immutable("restoration", optional=True, remedy="create a new VideoRestoration"),
        immutable("execution", optional=True),
        immutable("managedBy", optional=True),
        Rule(
            cel="self.input.uri != self.output.uri",
            field_path=".output.uri",
            message="output.uri must differ from input.uri",
            holds=lambda it: it.input.uri != it.output.uri,
        ),
    )

    profile_ref: ProfileRef = Field(
        default=ProfileRef(), description="Who serves this: image, model, GPU, storage. Immutable."
    )
    input: Input = Field(description="The video to restore. Immutable.")
    output: Output = Field(description="Where the result goes and how it is encoded. Immutable.")
    restoration: Restoration | None = Field(default=None, description="What the network does. Immutable.")
    execution: Execution | None = Field(default=None, description="How the work is spread over pods. Immutable.")
    suspend: Boolean = Field(
        default=False, description="true deletes the Job and keeps finished segments; false goes on from them."
    )
    retry_policy: RetryPolicy = Field(default=RetryPolicy(), description="How often and when the work is tried again.")
    start_deadline_seconds: DeadlineSeconds | None = Field(
        default=None,
        description="From acceptance to the first running pod; suspension and waiting in a queue do not count.",
    )
    active_deadline_seconds: DeadlineSeconds | None = Field(
        default=None, description="Running time of all executions together; waiting for a GPU is free."
    )
    ttl_seconds_after_finished: Int32 | None = Field(
        default=None, ge=0, description="Delete this object so long after its end; default never."
    )
    cleanup: Cleanup = Field(default=Cleanup(), description="What is left behind after the end.")
    cache: CacheMode = Field(default=CacheMode.USE, description="Bypass computes again what has been computed already.")
    managed_by: str | None = Field(
        default=None,
        min_length=1,
        max_length=63,
        pattern="^[a-z0-9.-]+/[a-z0-9.-]+$",
        description="Controller that acts on this object instead of the operator. Immutable.",
    )


class VideoRestoration(Part):
    """VideoRestoration restores one video: a Job reads the input, restores it and publishes a verified output."""

    api_version: Literal["videorestoration.dev/v1alpha1"] = API_VERSION
    kind: Literal["VideoRestoration"] = "VideoRestoration"
    metadata: Metadata = Field(default_factory=Metadata)
    spec: VideoRestorationSpec = Field(description="What the user asks for.")
    status: VideoRestorationStatus = Field(
        default_factory=VideoRestorationStatus,
        description="What the operator answers; it is the only writer.",
        json_schema_extra=NOT_LOOKED_AT,
    )
