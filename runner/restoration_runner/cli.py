"""The command `video-restoration`: `run` in a pod, `restore` on local files, `probe` for a look at a file.

Both ways of working build the same `JobContext` and end in the same place: an outcome, a sentence, an exit code.
"""

import hashlib
import json
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
from pydantic import ValidationError
from rich.console import Console

from restoration_api.defaults import Choices
from restoration_api.outcome import HTTP_PORT, FailureReason, Outcome
from restoration_api.request import ColorCorrection, Overwrite, Precision, Request, Target
from restoration_runner import logs
from restoration_runner.accept import check_request
from restoration_runner.errors import EXIT_UNKNOWN, RestorationError
from restoration_runner.local import LocalWish, local_request, validation_sentence
from restoration_runner.progress import ProgressTracker
from restoration_runner.stopping import InterruptedByRequestError, StopSignal, watching

log = structlog.get_logger()

app = typer.Typer(
    name="video-restoration",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Restore video with SeedVR2: as a Kubernetes Job, or on local files.",
)

SCRATCH = Path("/scratch")
REQUEST_SCHEMA = 1
"""The newest request this runner reads."""


@app.command()
def run(
    request: Annotated[Path, typer.Option(help="The resolved request, as the operator wrote it.")],
    request_sha256: Annotated[str | None, typer.Option(help="What the request's bytes must hash to.")] = None,
    memory_hint_mib: Annotated[
        int | None, typer.Option(min=1, help="Use less host memory than this; set after the pod ran out of it.")
    ] = None,
    segments: Annotated[str | None, typer.Option(help="Only these segments, such as 0-16,18.")] = None,
    scratch: Annotated[Path | None, typer.Option(help="Folder for large files; default /scratch.")] = None,
    http_port: Annotated[int | None, typer.Option(help="Port of /healthz, /progress and /metrics.")] = None,
    termination_log: Annotated[Path | None, typer.Option(help="File for the outcome.")] = None,
) -> None:
    """Do a request's work in a pod, and leave the outcome as termination message."""
    from restoration_runner.report import serving
    from restoration_runner.report import termination_log as find_termination_log

    logs.configure(json=True)
    tracker = ProgressTracker(execution=_execution())
    message = find_termination_log(termination_log)
    port = http_port if http_port is not None else int(os.environ.get("VR_HTTP_PORT", HTTP_PORT))

    def work(stop: StopSignal) -> Outcome:
        wanted, only = _read_request(request, request_sha256), _segments(segments)
        check_request(wanted)  # also done by the job, whose libraries take seconds to load

        from restoration_runner.job import JobContext, run_job

        context = JobContext(
            request=wanted,
            scratch=_scratch(scratch),
            stop=stop,
            progress=tracker,
            owner=os.environ.get("VR_UID") or uuid.uuid4().hex,
            execution=_execution(),
            device="cuda" if wanted.gpu.count else "cpu",
            only=only,
            memory_hint_mib=memory_hint_mib,
        )
        return run_job(context)

    with serving(tracker, port=port):
        outcome, code = _conclude(work, tracker=tracker, message=message)
    if code:
        log.error(outcome.message, reason=outcome.reason, exit_code=code)
    else:
        log.info(outcome.message, reason=outcome.reason, output=outcome.output and outcome.output.uri)
    raise typer.Exit(code)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The video to restore.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The MP4 file to write.")],
    model: Annotated[str, typer.Option(help="A model's name, or the path of its folder.")] = "seedvr2-nano",
    scale: Annotated[int | None, typer.Option(min=1, max=8, help="Enlarge so many times.")] = None,
    short_side: Annotated[int | None, typer.Option(help="Scale until the shorter side has so many pixels.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=4294967295, help="Another number, another texture.")] = None,
    chunk_frames: Annotated[int | None, typer.Option(help="Frames that the model sees at once: 4n+1.")] = None,
    overlap_frames: Annotated[int | None, typer.Option(help="Frames that neighbouring chunks share.")] = None,
    segment_frames: Annotated[int | None, typer.Option(help="About how much is lost if it is interrupted.")] = None,
    color_correction: Annotated[ColorCorrection | None, typer.Option(help="Where colours come from.")] = None,
    crf: Annotated[int | None, typer.Option(help="Quality of the encoder: lower is better and larger.")] = None,
    preset: Annotated[str | None, typer.Option(help="Effort of the encoder.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="Numbers of the network.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    overwrite: Annotated[
        Overwrite, typer.Option(help="What to do with a file that is there.")
    ] = Overwrite.IF_DIFFERENT,
    recompute: Annotated[bool, typer.Option(help="Compute again even if OUT is this result already.")] = False,
    scratch: Annotated[Path | None, typer.Option(help="Folder for temporary files.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Restore a local file, the same way as a cluster would.

    Interrupted, it goes on where it stopped when the same command is given again.
    """
    logs.configure(json=False, default_level="warning")
    tracker = ProgressTracker()
    console = Console(stderr=True)

    def work(stop: StopSignal) -> Outcome:
        from restoration_runner.weights.source import find_model

        choices = Choices(
            target=_target(scale, short_side),
            chunk_frames=chunk_frames,
            overlap_frames=overlap_frames,
            segment_frames=segment_frames,
            seed=seed,
            color_correction=color_correction,
            crf=crf,
            preset=preset,
        )
        wish = LocalWish(
            source=source,
            output=output,
            model_folder=find_model(model),
            choices=choices,
            precision=precision,
            overwrite=overwrite,
            recompute=recompute,
        )
        wanted = local_request(wish)
        check_request(wanted)

        from restoration_runner.job import JobContext, run_job
        from restoration_runner.terminal import showing

        context = JobContext(
            request=wanted,
            scratch=scratch or Path(tempfile.gettempdir()),
            stop=stop,
            progress=tracker,
            owner=uuid.uuid4().hex,
            device=device,
        )
        with showing(tracker, console):
            return run_job(context)

    outcome, code = _conclude(work, tracker=tracker, message=None)
    if as_json:
        print(outcome.to_json())
    _say(console, outcome, output)
    raise typer.Exit(code)


@app.command()
def probe(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A local video.")],
) -> None:
    """Print what the runner finds in a file, as JSON, and whether it would restore it."""
    logs.configure(json=False, default_level="warning")

    def work(stop: StopSignal) -> Outcome:
        from restoration_runner.inspect import inspect

        if not source.is_file():
            raise RestorationError(FailureReason.INPUT_NOT_FOUND, f"{source} does not exist or is not a file")
        found = inspect(source)
        print(json.dumps(found.facts, indent=2, ensure_ascii=False))
        return found.outcome

    outcome, code = _conclude(work, tracker=ProgressTracker(), message=None)
    if code:
        Console(stderr=True).print(outcome.message, style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def _conclude(
    work: Callable[[StopSignal], Outcome], *, tracker: ProgressTracker, message: Path | None
) -> tuple[Outcome, int]:
    """Do the work; whatever happens becomes an outcome, written to `message`, and an exit code."""
    from restoration_runner import faults, outcomes
    from restoration_runner.report import write_outcome

    stop = StopSignal()

    def interrupted() -> Outcome:
        now = tracker.snapshot()
        return outcomes.interrupted(
            segments_done=now.segments_done, segments_total=now.segments_total, frames_restored=tracker.restored_frames
        )

    try:
        with watching(
            stop,
            signals=(signal.SIGTERM, signal.SIGINT),
            last_words=lambda: write_outcome(interrupted(), message),
        ):
            outcome, code = work(stop), 0
    except InterruptedByRequestError:
        outcome, code = interrupted(), stop.exit_code
    except Exception as error:
        log.debug("traceback", exc_info=True)
        known = faults.as_restoration_error(error)
        outcome = outcomes.failed(known) if known else outcomes.failed_unexpectedly(faults.unexpected(error))
        code = known.exit_code if known else EXIT_UNKNOWN
    write_outcome(outcome, message)
    return outcome, code


def _read_request(path: Path, sha256: str | None) -> Request:
    """The request, if it is the one that was meant.

    Raises:
        RestorationError: `InvalidParameters`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _refused(f"the request {path} cannot be read: {error.strerror}") from error
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256.removeprefix("sha256:"):
        raise _refused(f"the request {path} does not have the sha256 that the Job promises: it was changed")
    try:
        raw: Any = json.loads(content)
        schema = raw.get("schema", REQUEST_SCHEMA) if isinstance(raw, dict) else None
    except ValueError as error:
        raise _refused(f"the request {path} is not JSON: {error}") from error
    if isinstance(schema, int) and schema > REQUEST_SCHEMA:
        raise _refused(
            f"the request has schema {schema}, this runner reads up to {REQUEST_SCHEMA}: the operator is newer than "
            "the runner's image; use an image of the operator's version"
        )
    try:
        return Request.from_json(content)
    except ValidationError as error:
        raise _refused(f"the request {path} is not valid: {validation_sentence(error)}") from error


def _refused(message: str) -> RestorationError:
    return RestorationError(FailureReason.INVALID_PARAMETERS, message)


def _execution() -> int:
    text = os.environ.get("VR_EXECUTION", "1")
    return int(text) if text.isdecimal() and int(text) > 0 else 1


def _scratch(chosen: Path | None) -> Path:
    if chosen is None and "VR_SCRATCH" in os.environ:
        chosen = Path(os.environ["VR_SCRATCH"])
    if chosen is not None:
        return chosen
    return SCRATCH if SCRATCH.is_dir() else Path(tempfile.gettempdir())


def _segments(text: str | None) -> frozenset[int] | None:
    """`0-16,18` as a set."""
    if text is None:
        return None
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise _refused(f"--segments: '{text}' is not a list such as 0-16,18")
        chosen.update(range(int(first), int(last or first) + 1))
    return frozenset(chosen)


def _target(scale: int | None, short_side: int | None) -> Target | None:
    if scale is None and short_side is None:
        return None
    try:
        return Target(scale_factor=scale, short_side=short_side)
    except ValidationError as error:
        raise _refused(f"--scale, --short-side: {validation_sentence(error)}") from error


def _say(console: Console, outcome: Outcome, output: Path) -> None:
    """The end, for a person."""
    style = "green" if outcome.result == "Succeeded" else "yellow" if outcome.result == "Interrupted" else "red"
    text = outcome.message
    if outcome.result == "Succeeded" and not outcome.cache_hit and outcome.output:
        seconds = outcome.timings.run_milliseconds / 1000
        size = f"{outcome.output.width}x{outcome.output.height}"
        text = f"{output}: {outcome.frames_restored} frames at {size} in {seconds:.1f} s"
    elif outcome.result == "Interrupted":
        text += "; give the same command again to go on"
    plain: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}
    console.print(text, style=style, **plain)
    for stream in outcome.output.streams if outcome.output else ():
        if stream.action == "Dropped":
            console.print(
                f"stream {stream.index} was left out: {stream.detail}", markup=False, highlight=False, soft_wrap=True
            )


def main() -> None:
    """Run the command; errors of its own use are one sentence, too."""
    app(prog_name="video-restoration", args=sys.argv[1:])
