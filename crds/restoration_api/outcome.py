"""What the runner tells the operator: progress while it works, one outcome at its end, and exit codes.

Progress is polled from `GET /progress` on the pod's port 8080; the outcome is the container's termination message
(JSON, at most 4096 bytes: the kubelet cuts there). The failure table is part of the API: users script against the
reasons, the operator against the codes. Codes stay below 64; 137 and 143 belong to the system and mean nothing by
themselves.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from restoration_api.base import Contract, VersionedContract

HTTP_PORT = 8080
TERMINATION_MESSAGE_BYTES = 4096
EXIT_INTERRUPTED = 143
"""What the runner answers to SIGTERM, and where segments are missing that it was not asked to compute: what is finished
is kept, nothing failed."""


class FailureReason(StrEnum):
    """Classes of failure; the names are condition reasons."""

    INVALID_INPUT = "InvalidInput"
    INVALID_PARAMETERS = "InvalidParameters"
    INPUT_NOT_FOUND = "InputNotFound"
    ACCESS_DENIED = "AccessDenied"
    OUTPUT_CONFLICT = "OutputConflict"
    INSUFFICIENT_GPU_MEMORY = "InsufficientGPUMemory"
    INPUT_CHANGED = "InputChanged"
    MODEL_INVALID = "ModelInvalid"
    GPU_FAULT = "GPUFault"
    STORAGE_ERROR = "StorageError"
    MODEL_UNAVAILABLE = "ModelUnavailable"
    VERIFICATION_FAILED = "VerificationFailed"
    HOST_OUT_OF_MEMORY = "HostOutOfMemory"
    PREEMPTED = "Preempted"
    EVICTED = "Evicted"
    NODE_SHUTDOWN = "NodeShutdown"
    NODE_LOST = "NodeLost"
    POD_DELETED = "PodDeleted"
    STARTUP_FAILURE = "StartupFailure"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    SNAPSHOT_TAMPERED = "SnapshotTampered"
    UNKNOWN = "Unknown"


class Budget(StrEnum):
    """Which of `spec.retryPolicy`'s budgets another execution is taken from."""

    NONE = "None"
    RETRIES = "maxRetries"
    INFRASTRUCTURE = "maxInfrastructureRetries"
    DISRUPTIONS = "maxDisruptions"


@dataclass(frozen=True)
class FailureClass:
    """One row of the failure table.

    exit_code: the runner's own word; None where the operator decides from what it sees of pod and Job.
    permanent: no second try can help, so the Job ends at once (`FailJob`) and the restoration with it.
    remedy: what its reader can do about it.
    most_retries: a cap of its own, below the budget's.
    """

    reason: FailureReason
    exit_code: int | None
    budget: Budget
    meaning: str
    remedy: str
    most_retries: int | None = None

    @property
    def permanent(self) -> bool:
        return self.budget is Budget.NONE


FAILURES: dict[FailureReason, FailureClass] = {
    row.reason: row
    for row in (
        FailureClass(
            FailureReason.INVALID_INPUT,
            10,
            Budget.NONE,
            "unreadable, no video stream, no frames, unsupported codec",
            "give a file that ffprobe can read and that has a video stream",
        ),
        FailureClass(
            FailureReason.INVALID_PARAMETERS,
            11,
            Budget.NONE,
            "a combination the runner cannot serve exactly, or a request it must not read",
            "change what the message names, in a new VideoRestoration",
        ),
        FailureClass(
            FailureReason.INPUT_NOT_FOUND,
            12,
            Budget.NONE,
            "no such object or bucket",
            "check input.uri and the endpoint of its storage entry",
        ),
        FailureClass(
            FailureReason.ACCESS_DENIED,
            13,
            Budget.NONE,
            "the credentials may not read or write that",
            "give the storage entry's credentials that right",
        ),
        FailureClass(
            FailureReason.OUTPUT_CONFLICT,
            14,
            Budget.NONE,
            "an object that is not ours lies at the output, and overwrite forbids to replace it",
            "choose another output.uri, or another output.overwrite",
        ),
        FailureClass(
            FailureReason.INSUFFICIENT_GPU_MEMORY,
            15,
            Budget.NONE,
            "still out of memory at the smallest exact configuration",
            "use a smaller target or chunk.frames, or a profile with a larger GPU",
        ),
        FailureClass(
            FailureReason.INPUT_CHANGED,
            16,
            Budget.NONE,
            "the input is not the one that was pinned, or changed while it was read",
            "leave the input alone while it is read, or correct its pin",
        ),
        FailureClass(
            FailureReason.MODEL_INVALID,
            17,
            Budget.NONE,
            "wrong digest, missing or unknown tensors, pickle",
            "correct model.digest or model.source of the profile",
        ),
        FailureClass(
            FailureReason.GPU_FAULT,
            20,
            Budget.RETRIES,
            "the GPU or its driver failed; tried elsewhere",
            "have the node's GPU looked at",
        ),
        FailureClass(
            FailureReason.STORAGE_ERROR,
            21,
            Budget.RETRIES,
            "object storage failed or timed out after the client's own retries",
            "check endpoint, network and health of the object storage",
        ),
        FailureClass(
            FailureReason.MODEL_UNAVAILABLE,
            22,
            Budget.RETRIES,
            "hub, registry or network down",
            "check model.source of the profile and the way to it",
        ),
        FailureClass(
            FailureReason.VERIFICATION_FAILED,
            23,
            Budget.RETRIES,
            "the file is not what was planned: frames, timestamps, streams, hash",
            "report it with the manifest: twice in a row is a defect",
            1,
        ),
        FailureClass(
            FailureReason.HOST_OUT_OF_MEMORY,
            None,
            Budget.RETRIES,
            "the container was OOMKilled",
            "raise resources.limits.memory of the profile",
            1,
        ),
        FailureClass(
            FailureReason.PREEMPTED,
            None,
            Budget.DISRUPTIONS,
            "a more important pod or the queue took the place",
            "nothing; a higher priority makes it rarer",
        ),
        FailureClass(
            FailureReason.EVICTED,
            None,
            Budget.DISRUPTIONS,
            "the node evicted the pod",
            "nothing; if it goes on, see the events of the node",
        ),
        FailureClass(
            FailureReason.NODE_SHUTDOWN,
            None,
            Budget.DISRUPTIONS,
            "the node was shut down, or it or its container runtime was restarted",
            "nothing",
        ),
        FailureClass(
            FailureReason.NODE_LOST,
            None,
            Budget.DISRUPTIONS,
            "the node stopped answering",
            "repair the node, or delete its Node object",
        ),
        FailureClass(
            FailureReason.POD_DELETED,
            None,
            Budget.DISRUPTIONS,
            "the pod or its Job was deleted by somebody else",
            "nothing",
        ),
        FailureClass(
            FailureReason.STARTUP_FAILURE,
            None,
            Budget.INFRASTRUCTURE,
            "the node refused the pod before its container started",
            "look at kubelet and device plugin of the node",
        ),
        FailureClass(
            FailureReason.DEADLINE_EXCEEDED,
            None,
            Budget.NONE,
            "activeDeadlineSeconds of running time are used up",
            "a new VideoRestoration with a longer deadline goes on from the finished segments",
        ),
        FailureClass(
            FailureReason.SNAPSHOT_TAMPERED,
            None,
            Budget.NONE,
            "the profile snapshot was changed and cannot be rebuilt",
            "create the restoration again",
        ),
        FailureClass(
            FailureReason.UNKNOWN,
            None,
            Budget.RETRIES,
            "anything else; the message is the end of the log",
            "see the message and the log of the Job",
        ),
    )
}

EXIT_CODES: dict[int, FailureReason] = {
    row.exit_code: row.reason for row in FAILURES.values() if row.exit_code is not None
}
PERMANENT_EXIT_CODES: tuple[int, ...] = tuple(
    sorted(code for code, why in EXIT_CODES.items() if FAILURES[why].permanent)
)
"""The codes of the Job's `FailJob` rule."""


class Stage(StrEnum):
    FETCHING = "Fetching"
    PROBING = "Probing"
    FETCHING_MODEL = "FetchingModel"
    LOADING_MODEL = "LoadingModel"
    RESTORING = "Restoring"
    ASSEMBLING = "Assembling"
    UPLOADING = "Uploading"


LARGEST_COUNT = 2**31 - 1
"""What every reader of the status can hold; as frames, two years of 30 a second."""

LARGEST_AMOUNT = 2**53 - 1
"""Of milliseconds and bytes: what JSON's numbers hold exactly everywhere, and ten of which fit a 64-bit sum."""

Amount = Annotated[int, Field(ge=0, le=LARGEST_AMOUNT)]
Count = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]


class Progress(VersionedContract):
    """One answer of `GET /progress`."""

    execution: int = Field(ge=1)
    restoration_uid: str | None = Field(default=None, max_length=64)
    """Uid of the restoration it works on: addresses are given out again, and then another runner answers."""
    stage: Stage
    frames_done: Count = 0
    """Frames in finished segments plus those already restored of the current one."""
    frames_total: Count | None = None
    segments_done: Count = 0
    segments_total: Count | None = None
    milli_frames_per_second: Count | None = None
    remaining_milliseconds: int | None = Field(default=None, ge=0)
    model_bytes_done: int | None = Field(default=None, ge=0, le=2**63 - 1)
    """Of weights that this runner fetches itself; also while another stage is shown, since it goes on beside them."""
    model_bytes_total: int | None = Field(default=None, ge=0, le=2**63 - 1)
    gpu: str | None = Field(default=None, max_length=128)
    updated_at: datetime


class Verdict(StrEnum):
    PASSED = "Passed"
    PASSED_WITH_REPAIRS = "PassedWithRepairs"


class StreamAction(StrEnum):
    RESTORED = "Restored"
    COPIED = "Copied"
    TRANSCODED = "Transcoded"
    DROPPED = "Dropped"


class InputOutcome(Contract):
    etag: str | None = None
    version_id: str | None = None
    size_bytes: int | None = None
    width: Count | None = None
    height: Count | None = None
    frames: Count | None = None
    frame_rate: str | None = None
    duration_milliseconds: Amount | None = None
    codec: str | None = None


class Verification(Contract):
    verdict: Verdict
    expected_frames: Count
    decoded_frames: Count
    repaired_frames: Count = 0
    max_timestamp_error_microseconds: Amount = 0


class StreamOutcome(Contract):
    index: Count
    type: str
    action: StreamAction
    detail: str | None = Field(default=None, max_length=256)


class OutputOutcome(Contract):
    uri: str
    manifest_uri: str | None = None
    etag: str | None = None
    version_id: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    width: Count | None = None
    height: Count | None = None
    frames: Count | None = None
    verification: Verification | None = None
    streams: tuple[StreamOutcome, ...] = ()


class Timings(Contract):
    """Milliseconds of this execution, by the runner's clock. Stages that overlap count their own busy time."""

    fetch_milliseconds: Amount = 0
    model_fetch_milliseconds: Amount = 0
    """Waiting for weights that the runner fetches itself; what passed beside other stages is not in it."""
    model_load_milliseconds: Amount = 0
    decode_milliseconds: Amount = 0
    inference_milliseconds: Amount = 0
    encode_milliseconds: Amount = 0
    assemble_milliseconds: Amount = 0
    upload_milliseconds: Amount = 0
    run_milliseconds: Amount = 0
    """Wall time from process start to the outcome."""
    gpu_milliseconds: Amount | None = None
    peak_gpu_memory_bytes: Amount | None = Field(default=None, alias="peakGPUMemoryBytes")


class Result(StrEnum):
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    INTERRUPTED = "Interrupted"


class Outcome(VersionedContract):
    """The termination message: how the execution ended, and everything status wants to know of it."""

    result: Result
    reason: str = Field(max_length=64)
    """`Completed` or `CacheHit`; `Planned` after the role `plan`; a `FailureReason`; `Interrupted`."""
    message: str = Field(max_length=1024)
    cache_key: str | None = Field(default=None, max_length=64)
    cache_hit: bool = False
    segments_done: Count = 0
    segments_reused: Count = 0
    segments_total: Count | None = None
    frames_restored: Count = 0
    """Frames that this execution computed: 0 for a cache hit."""
    gpu: str | None = Field(default=None, max_length=128)
    input: InputOutcome | None = None
    output: OutputOutcome | None = None
    timings: Timings = Timings()

    def termination_message(self) -> str:
        """JSON of at most 4096 bytes of UTF-8; what is least missed goes first: streams from the end, then text."""
        outcome = self
        while outcome.output and outcome.output.streams and _too_long(outcome.to_json()):
            kept = outcome.output.streams[:-1]
            outcome = outcome.model_copy(update={"output": outcome.output.model_copy(update={"streams": kept})})
        while outcome.message and _too_long(outcome.to_json()):
            outcome = outcome.model_copy(update={"message": outcome.message[: len(outcome.message) * 3 // 4]})
        return outcome.to_json()


def _too_long(text: str) -> bool:
    return len(text.encode()) > TERMINATION_MESSAGE_BYTES
