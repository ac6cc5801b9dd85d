"""What every role does in a pod: read the request, serve progress, leave the outcome as termination message."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, assert_never

import structlog

from restoration_api.outcome import HTTP_PORT, Outcome
from restoration_runner import logs
from restoration_runner.accept import check_request
from restoration_runner.conclude import conclude
from restoration_runner.progress import ProgressTracker
from restoration_runner.report import serving, termination_log
from restoration_runner.request_file import parse_segments, read_request
from restoration_runner.stopping import StopSignal
from restoration_runner.tracing import StageSpans, tracing

if TYPE_CHECKING:
    from restoration_runner.task import JobContext

log = structlog.get_logger()

Role = Literal["plan", "run", "assemble"]
SCRATCH = Path("/scratch")


@dataclass(frozen=True, kw_only=True)
class PodOptions:
    """The command line of a role; None where nothing was said. Only `run` is told segments and a memory hint."""

    request: Path
    request_sha256: str | None
    scratch: Path | None
    http_port: int | None
    termination_log: Path | None
    segments: str | None = None
    memory_hint_mib: int | None = None


def work_in_pod(role: Role, options: PodOptions) -> int:
    """Do a role's work; returns the exit code."""
    logs.configure(json=True)
    message = termination_log(options.termination_log)
    port = options.http_port if options.http_port is not None else int(os.environ.get("VR_HTTP_PORT", HTTP_PORT))
    uid = os.environ.get("VR_UID") or None
    with tracing(role) as spans:
        tracker = ProgressTracker(execution=_execution(), restoration_uid=uid, on_stage=spans.enter)
        with serving(tracker, port=port):
            work = partial(_work, role, options, tracker, spans)
            outcome, code = conclude(work, tracker=tracker, message=message)
            spans.conclude(outcome)
    if code:
        log.error(outcome.message, reason=outcome.reason, exit_code=code)
    else:
        log.info(outcome.message, reason=outcome.reason, output=outcome.output and outcome.output.uri)
    return code


def scratch_root(chosen: Path | None, *, in_pod: bool) -> Path:
    """Where large files go: what was said, else what the Job mounts, else where temporary files go."""
    if chosen is None and "VR_SCRATCH" in os.environ:
        chosen = Path(os.environ["VR_SCRATCH"])
    if chosen is not None:
        return chosen
    return SCRATCH if in_pod and SCRATCH.is_dir() else Path(tempfile.gettempdir())


def _work(role: Role, options: PodOptions, tracker: ProgressTracker, spans: StageSpans, stop: StopSignal) -> Outcome:
    wanted, only = read_request(options.request, options.request_sha256), parse_segments(options.segments)
    check_request(wanted)  # also done by the role, whose libraries take a moment to load

    from restoration_runner.task import JobContext

    return _begin(role)(
        JobContext(
            request=wanted,
            scratch=scratch_root(options.scratch, in_pod=True),
            stop=stop,
            progress=tracker,
            owner=os.environ.get("VR_UID") or uuid.uuid4().hex,
            execution=_execution(),
            device="cuda" if wanted.gpu.count else "cpu",
            only=only,
            memory_hint_mib=options.memory_hint_mib,
            spans=spans,
        )
    )


def _begin(role: Role) -> Callable[[JobContext], Outcome]:
    match role:
        case "plan":
            from restoration_runner.prepare import plan_job

            return plan_job
        case "run":
            from restoration_runner.job import run_job

            return run_job
        case "assemble":
            from restoration_runner.settle import assemble_job

            return assemble_job
        case _:
            assert_never(role)


def _execution() -> int:
    text = os.environ.get("VR_EXECUTION", "1")
    return int(text) if text.isdecimal() and int(text) > 0 else 1
