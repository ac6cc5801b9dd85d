"""The status of a `VideoRestoration`: where it is, how long each stage took, and if it failed, whose fault it was.

The operator writes it whole, by server-side apply, and computes it from facts each time. Conditions are what programs
should look at; `phase` and `progress.summary` are derived for people, and nothing of ours reads them back.

A status may have been written by a newer operator, before somebody rolled back: words of an enumeration that this
program does not know read as unset, so that one word for people never hides a whole restoration.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from restoration_api.outcome import Stage, StreamAction, Verdict
from restoration_api.resources.common import Boolean, Condition, Int32, Int64, ObjectName, Part, Time
from restoration_api.resources.rules import ListMap, ListSet


class ConditionType(StrEnum):
    """Conditions of a VideoRestoration; all of them are present from the operator's first visit."""

    ACCEPTED = "Accepted"
    SCHEDULED = "Scheduled"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FINISHED = "Finished"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class Phase(StrEnum):
    """One word for people."""

    PENDING = "Pending"
    QUEUED = "Queued"
    STARTING = "Starting"
    RUNNING = "Running"
    ASSEMBLING = "Assembling"
    SUSPENDED = "Suspended"
    RETRYING = "Retrying"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


def _known(words: Iterable[str]) -> Callable[[Any], Any]:
    """Reads a word that is not among `words` as unset."""
    known = tuple(words)
    return lambda value: value if value in known else None


def _known_streams(value: Any) -> Any:
    """Streams without those of which something unheard-of became."""
    if not isinstance(value, list | tuple):
        return value
    actions = tuple(StreamAction)
    return [item for item in value if not isinstance(item, Mapping) or item.get("action") in actions]


ProfileKind = Literal["ClusterRestorationProfile", "RestorationProfile", "Builtin"]
Hash = Annotated[str, Field(max_length=64)]
NameText = Annotated[str, Field(max_length=253)]
JobName = Annotated[str, Field(max_length=63)]
DeviceName = Annotated[str, Field(max_length=128)]
ETag = Annotated[str, Field(max_length=256)]
VersionId = Annotated[str, Field(max_length=1024)]
UriText = Annotated[str, Field(max_length=2048)]
ATOMIC = Field(json_schema_extra={"x-kubernetes-list-type": "atomic"})
Count32 = Annotated[Int32, Field(ge=0)]
Count64 = Annotated[Int64, Field(ge=0)]


class ProfileSnapshot(Part):
    """The profile as it was when the restoration was accepted."""

    kind: Annotated[ProfileKind | None, BeforeValidator(_known(get_args(ProfileKind)))] = Field(
        default=None, description="Builtin is the operator's own default profile."
    )
    name: NameText | None = Field(default=None, description="Name of the profile.")
    generation: Int64 | None = Field(default=None, description="metadata.generation of the profile.")
    hash: Hash | None = Field(
        default=None, description="sha256 of the snapshot; the snapshot counts only if it has it."
    )
    snapshot_name: NameText | None = Field(default=None, description="ConfigMap that holds request and snapshot.")


class Worker(Part):
    """The pod that works now, or worked last."""

    pod_name: NameText | None = Field(default=None, description="Name of the pod.")
    node_name: NameText | None = Field(default=None, description="Node it runs on.")
    gpu: DeviceName | None = Field(default=None, description="Device as the runner reports it.")


class Attempts(Part):
    """How often, and counted against which budget. `executions` is never reused, whatever becomes of the Jobs."""

    executions: Count32 = Field(default_factory=int, description="Number of the last execution.")
    retries: Count32 = Field(default_factory=int, description="Counted against maxRetries.")
    infrastructure_retries: Count32 = Field(
        default_factory=int, description="Counted against maxInfrastructureRetries."
    )
    disruptions: Count32 = Field(default_factory=int, description="Counted against maxDisruptions.")
    failures_in_a_row: Count32 = Field(
        default_factory=int,
        description="Failures since the last execution that ran for longer than maxBackoffSeconds, that one included: "
        "each doubles the wait before the next.",
    )
    running_seconds: Count64 = Field(
        default_factory=int, description="Running time of all ended executions, counted against activeDeadlineSeconds."
    )


class Attempt(Part):
    """One execution: the record of what differed from the others and of how it ended."""

    execution: Int32 = Field(ge=1, description="Number of the execution.")
    job_name: JobName | None = Field(default=None, description="Its Job.")
    pod_name: NameText | None = Field(default=None, description="Its last pod.")
    node_name: NameText | None = Field(default=None, description="Node of that pod.")
    gpu: DeviceName | None = Field(default=None, description="Device as the runner reported it.")
    start_time: Time | None = Field(default=None, description="When a kubelet took the pod.")
    end_time: Time | None = Field(default=None, description="When it ended.")
    exit_code: Int32 | None = Field(default=None, description="Exit code of the runner, where one was seen.")
    reason: str | None = Field(default=None, max_length=64, description="Completed, CacheHit, or the class of failure.")
    message: str | None = Field(default=None, max_length=1024, description="One sentence: what, where, what to do.")
    segments_done: Int32 | None = Field(default=None, description="Segments that were finished at its end.")
    active_deadline_seconds: Int64 | None = Field(
        default=None, ge=1, description="What was left of the running time when it began."
    )
    memory_hint_mib: Int64 | None = Field(
        default=None, ge=1, description="Memory that the runner was told to stay below."
    )
    excluded_nodes: Annotated[tuple[ObjectName, ...], Field(max_length=16), ListSet()] | None = Field(
        default=None, description="Nodes it was kept away from."
    )
    segments: str | None = Field(default=None, max_length=1024, description="Segments it was asked for: 0-16,18.")


class ProgressStatus(Part):
    """How far the running execution is; a recent copy of what the runner says."""

    stage: Annotated[Stage | None, BeforeValidator(_known(Stage))] = Field(
        default=None, description="What the runner does now."
    )
    summary: str | None = Field(default=None, max_length=32, description="Ready to print: 41% 9840/24000.")
    percent: Int32 | None = Field(default=None, ge=0, le=100, description="Of all frames.")
    frames_done: Count64 | None = Field(default=None, description="Frames restored, by all executions.")
    frames_total: Count64 | None = Field(default=None, description="Frames to restore.")
    segments_done: Count32 | None = Field(default=None, description="Segments committed.")
    segments_total: Count32 | None = Field(default=None, description="Segments of the plan.")
    milli_frames_per_second: Count64 | None = Field(default=None, description="Recent speed, times 1000.")
    estimated_completion_time: Time | None = Field(default=None, description="At that speed.")
    last_update_time: Time | None = Field(default=None, description="When the runner said so.")


class InputStatus(Part):
    """What the runner found at `spec.input`."""

    etag: ETag | None = Field(default=None, description="ETag that was read.")
    version_id: VersionId | None = Field(default=None, description="Version that was read.")
    size_bytes: Int64 | None = Field(default=None, description="Size of the object.")
    width: Int32 | None = Field(default=None, description="Pixels.")
    height: Int32 | None = Field(default=None, description="Pixels.")
    frames: Int64 | None = Field(default=None, description="Frames of the video stream.")
    frame_rate: str | None = Field(default=None, max_length=32, description="As a fraction: 24000/1001.")
    duration_milliseconds: Int64 | None = Field(default=None, description="Length of the video stream.")
    codec: str | None = Field(default=None, max_length=32, description="FFmpeg's name of the codec.")


class VerificationStatus(Part):
    """What the check of the finished file found; a file that fails it is never published."""

    verdict: Annotated[Verdict | None, BeforeValidator(_known(Verdict))] = Field(
        default=None, description="PassedWithRepairs: some frames were repaired and counted."
    )
    expected_frames: Int64 | None = Field(default=None, description="Frames of the plan.")
    decoded_frames: Int64 | None = Field(default=None, description="Frames that the file decodes to.")
    repaired_frames: Int64 | None = Field(default=None, description="Frames that had to be repaired.")
    max_timestamp_error_microseconds: Int64 | None = Field(
        default=None, description="Largest distance of a timestamp from the plan's."
    )


class StreamStatus(Part):
    """What became of one stream of the input."""

    index: Int32 = Field(description="Index in the input.")
    type: str = Field(max_length=32, description="video, audio, subtitle, data, attachment.")
    action: StreamAction = Field(description="What became of it.")
    detail: str | None = Field(default=None, max_length=256, description="Codec and language, or why it was dropped.")


class OutputStatus(Part):
    """What lies at `spec.output` now."""

    uri: UriText | None = Field(default=None, description="Where the result is.")
    manifest_uri: UriText | None = Field(default=None, description="Its manifest: plan, hashes, timings.")
    etag: ETag | None = Field(default=None, description="ETag of the result.")
    version_id: VersionId | None = Field(default=None, description="Version of the result, in a versioned bucket.")
    sha256: Hash | None = Field(default=None, description="Hash of the whole file.")
    size_bytes: Int64 | None = Field(default=None, description="Size of the file.")
    width: Int32 | None = Field(default=None, description="Pixels.")
    height: Int32 | None = Field(default=None, description="Pixels.")
    frames: Int64 | None = Field(default=None, description="Frames of the video stream.")
    verification: VerificationStatus | None = Field(default=None, description="Result of the check before publishing.")
    streams: Annotated[
        Annotated[tuple[StreamStatus, ...], Field(max_length=64), ATOMIC] | None, BeforeValidator(_known_streams)
    ] = Field(default=None, description="What became of each stream of the input.")


class TimingsStatus(Part):
    """Integer milliseconds, summed over executions. total = queued + startup + run + gaps."""

    queued_milliseconds: Int64 | None = Field(default=None, description="Waiting for a place, by the operator's clock.")
    startup_milliseconds: Int64 | None = Field(default=None, description="From the pod's placing to a ready runner.")
    fetch_milliseconds: Int64 | None = Field(default=None, description="Reading from object storage.")
    model_fetch_milliseconds: Int64 | None = Field(
        default=None, description="Waiting for weights that the runner fetches itself."
    )
    model_load_milliseconds: Int64 | None = Field(default=None, description="Loading weights.")
    decode_milliseconds: Int64 | None = Field(default=None, description="Decoding video; overlaps other stages.")
    inference_milliseconds: Int64 | None = Field(default=None, description="The network; overlaps other stages.")
    encode_milliseconds: Int64 | None = Field(default=None, description="Encoding video; overlaps other stages.")
    assemble_milliseconds: Int64 | None = Field(default=None, description="Joining segments and checking the file.")
    upload_milliseconds: Int64 | None = Field(default=None, description="Writing to object storage.")
    total_milliseconds: Int64 | None = Field(default=None, description="Wall time from creation to the end.")
    gpu_milliseconds: Int64 | None = Field(default=None, description="Time in which a GPU was busy with this.")
    peak_gpu_memory_bytes: Int64 | None = Field(default=None, description="Largest GPU memory of any execution.")


class VideoRestorationStatus(Part):
    """What the operator answers."""

    observed_generation: Int64 | None = Field(
        default=None, ge=-1, description="metadata.generation that was looked at; -1 before the first visit."
    )
    phase: Annotated[Phase | None, BeforeValidator(_known(Phase))] = Field(
        default=None, description="One word for people; programs should look at conditions."
    )
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16), ListMap("type")] = Field(
        default_factory=tuple,
        description="Accepted, Scheduled, Suspended, Succeeded, Finished, Reconciling, Stalled.",
    )
    start_time: Time | None = Field(default=None, description="When the first pod ran.")
    completion_time: Time | None = Field(default=None, description="When Finished became True.")
    profile: ProfileSnapshot | None = Field(default=None, description="The profile that serves this, as it was then.")
    job_name: JobName | None = Field(default=None, description="Job of the last execution.")
    worker: Worker | None = Field(default=None, description="The pod that works now, or worked last.")
    attempts: Attempts = Field(default_factory=Attempts, description="How often it was tried.")
    attempt_history: Annotated[tuple[Attempt, ...], Field(max_length=10), ListMap("execution")] = Field(
        default_factory=tuple,
        description="The last ten executions; one that ended with a class that is tried again only once stays.",
    )
    progress: ProgressStatus | None = Field(default=None, description="How far it is.")
    input: InputStatus | None = Field(default=None, description="What the runner found at spec.input.")
    output: OutputStatus | None = Field(default=None, description="What lies at spec.output now.")
    timings: TimingsStatus | None = Field(default=None, description="How long each stage took.")
    cache_key: Hash | None = Field(default=None, description="Hash of everything that decides the result.")
    cache_hit: Boolean | None = Field(default=None, description="true: the result had been computed before.")

    def condition(self, kind: ConditionType) -> str | None:
        """`True`, `False` or `Unknown`; None before the operator's first visit."""
        return next((item.status for item in self.conditions if item.type == kind), None)
