"""`request.json`: what the operator asks of the runner, fully resolved.

The operator merges the VideoRestoration, the profile's defaults and the model's defaults (`defaults.py`) once, and
writes the result here. The runner decides nothing that this file could have said: the same request means the same
work, whatever the operator's or the profile's defaults become later. What differs from execution to execution (its
number, a memory hint, a subset of segments) is not in here but travels as arguments of the Job.

`video-restoration restore` builds the same request for local files, with `file://` URIs.
"""

from enum import StrEnum

from pydantic import Field, model_validator

from restoration_api.base import Contract, VersionedContract


class Overwrite(StrEnum):
    NEVER = "Never"
    IF_DIFFERENT = "IfDifferent"
    ALWAYS = "Always"


class Container(StrEnum):
    MP4 = "MP4"
    MKV = "MKV"
    MOV = "MOV"


class Codec(StrEnum):
    H264 = "H264"
    HEVC = "HEVC"
    AV1 = "AV1"
    PRORES = "ProRes"
    FFV1 = "FFV1"


class AudioMode(StrEnum):
    AUTO = "Auto"
    COPY = "Copy"
    DROP = "Drop"


class ColorCorrection(StrEnum):
    NONE = "None"
    WAVELET = "Wavelet"
    LAB = "LAB"
    ADAIN = "AdaIN"


class Precision(StrEnum):
    BF16 = "BF16"
    FP16 = "FP16"
    FP32 = "FP32"
    FP8 = "FP8"


class ExecutionMode(StrEnum):
    AUTO = "Auto"
    SINGLE = "Single"
    PARALLEL = "Parallel"


class Addressing(StrEnum):
    AUTO = "Auto"
    PATH = "Path"
    VIRTUAL = "Virtual"


class CacheMode(StrEnum):
    USE = "Use"
    BYPASS = "Bypass"


class SegmentCleanup(StrEnum):
    DELETE = "Delete"
    RETAIN = "Retain"


class CredentialSource(StrEnum):
    """Where the runner finds the credentials of a storage entry."""

    FILES = "Files"
    """A Secret mounted at `/var/run/vr/storage/<name>/` with `access-key`, `secret-key`, optional `session-token`."""
    WORKLOAD_IDENTITY = "WorkloadIdentity"
    """The web identity token that the platform projects into the pod's service account."""
    ANONYMOUS = "Anonymous"
    """No credentials: a bucket that allows it."""


class Clip(Contract):
    start_milliseconds: int | None = Field(default=None, ge=0)
    duration_milliseconds: int | None = Field(default=None, ge=1)


class InputRequest(Contract):
    uri: str
    storage: str | None = None
    """Name of an entry of `Request.storage`; unset for `https://` and `file://`."""
    version_id: str | None = None
    etag: str | None = None
    sha256: str | None = None
    clip: Clip | None = None


class OutputRequest(Contract):
    uri: str
    storage: str | None = None
    overwrite: Overwrite = Overwrite.IF_DIFFERENT
    container: Container = Container.MP4
    codec: Codec = Codec.HEVC
    crf: int | None = None
    """Unset where the codec has none (ProRes, FFV1)."""
    preset: str | None = None
    pixel_format: str | None = None
    audio: AudioMode = AudioMode.AUTO


class Target(Contract):
    """The output's size: exactly one of `short_side`, `scale_factor`, or `width` with `height`; even pixels."""

    short_side: int | None = Field(default=None, ge=64, le=4320, multiple_of=2)
    scale_factor: int | None = Field(default=None, ge=1, le=8)
    width: int | None = Field(default=None, ge=64, le=8192, multiple_of=2)
    height: int | None = Field(default=None, ge=64, le=8192, multiple_of=2)

    @model_validator(mode="after")
    def _exactly_one(self) -> "Target":
        if (self.width is None) != (self.height is None):
            raise ValueError("width and height go together")
        if sum(value is not None for value in (self.short_side, self.scale_factor, self.width)) != 1:
            raise ValueError("set exactly one of shortSide, scaleFactor, or width with height")
        return self


class Chunk(Contract):
    """A window of the model in frames: `4n+1`, and how many frames neighbouring windows share."""

    frames: int = Field(ge=1, le=1025)
    overlap_frames: int = Field(ge=0, le=512, multiple_of=4)

    @model_validator(mode="after")
    def _shape(self) -> "Chunk":
        if self.frames % 4 != 1:
            raise ValueError("chunk.frames must be 4n+1 (5, 9, 13, ...), the temporal stride of the model")
        if self.overlap_frames * 2 >= self.frames:
            raise ValueError("chunk.overlapFrames must be less than half of chunk.frames")
        return self


class ResolvedRestoration(Contract):
    """`restoration.*` with every default applied. All of it is in the cache key."""

    target: Target
    chunk: Chunk
    seed: int = Field(default=0, ge=0, le=4294967295)
    color_correction: ColorCorrection = ColorCorrection.WAVELET
    denoise_strength: float = Field(default=0.0, ge=0, le=1)
    strength: float = Field(default=1.0, ge=0, le=1)


class ResolvedExecution(Contract):
    mode: ExecutionMode = ExecutionMode.AUTO
    parallelism: int = Field(default=1, ge=1, le=256)
    segment_frames: int = Field(ge=1, le=100000)


class ModelDownload(Contract):
    """Weights that the runner fetches to `ModelRequest.path` itself."""

    uri: str
    """`s3://bucket/folder` or `hf://owner/name[/folder]`; the folder holds a SHA256SUMS."""
    storage: str | None = None
    """Name of an entry of `Request.storage`, for `s3://`."""
    revision: str | None = None
    endpoint: str | None = None
    token: bool = False
    """A token lies at `/var/run/vr/model-token/token`."""
    max_bytes: int | None = Field(default=None, ge=0)
    shared: bool = False
    """The folder lies on a volume that outlives the pod and that other runners write to, too."""


class ModelRequest(Contract):
    name: str
    precision: Precision
    path: str
    """Folder in the runner's container that holds `model.json` and the weights, or will."""
    digest: str | None = None
    """`sha256:…` that the folder must have, if the profile pins it; a download must be pinned."""
    download: ModelDownload | None = None


class StorageRequest(Contract):
    name: str
    endpoint: str | None = None
    """`http(s)://host[:port]`; unset means AWS in `region`."""
    region: str | None = None
    addressing: Addressing = Addressing.AUTO
    credentials: CredentialSource = CredentialSource.FILES
    custom_ca: bool = False
    """A bundle lies at `/var/run/vr/storage-ca/<name>/ca.crt` (the profile's `caConfigMapName` or `caSecretName`)."""


class Limits(Contract):
    max_output_megapixels: int | None = None
    max_input_bytes: int | None = None


class GpuRequest(Contract):
    count: int = Field(default=1, ge=0, le=16)
    min_memory_mib: int = Field(default=0, ge=0, alias="minMemoryMiB")


class Request(VersionedContract):
    input: InputRequest
    output: OutputRequest
    restoration: ResolvedRestoration
    execution: ResolvedExecution
    model: ModelRequest
    gpu: GpuRequest = GpuRequest()
    storage: tuple[StorageRequest, ...] = ()
    limits: Limits = Limits()
    allow_https: bool = Field(default=False, alias="allowHTTPS")
    cache: CacheMode = CacheMode.USE
    cleanup_segments: SegmentCleanup = SegmentCleanup.DELETE
