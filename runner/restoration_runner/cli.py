"""The command `video-restoration`: `run` in a pod, `restore` on local files, `probe` for a look at a file.

Both ways of working build the same `JobContext` and end in the same place: an outcome, a sentence, an exit code.
"""

import json
import os
import re
import sys
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
from rich.console import Console

from restoration_api.defaults import Choices
from restoration_api.outcome import HTTP_PORT, FailureReason, Outcome
from restoration_api.request import ColorCorrection, Overwrite, Precision
from restoration_runner import logs
from restoration_runner.accept import check_request
from restoration_runner.conclude import conclude
from restoration_runner.errors import RestorationError
from restoration_runner.local import LocalWish, local_request, local_target
from restoration_runner.models_command import app as models_app
from restoration_runner.progress import ProgressTracker
from restoration_runner.request_file import parse_segments, read_request
from restoration_runner.stopping import StopSignal

log = structlog.get_logger()

app = typer.Typer(
    name="video-restoration",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Restore video with SeedVR2: as a Kubernetes Job, or on local files.",
)

app.add_typer(models_app)

SCRATCH = Path("/scratch")
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


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
        wanted, only = read_request(request, request_sha256), parse_segments(segments)
        check_request(wanted)  # also done by the job, whose libraries take seconds to load

        from restoration_runner.job import JobContext, run_job

        context = JobContext(
            request=wanted,
            scratch=_scratch(scratch, in_pod=True),
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
        outcome, code = conclude(work, tracker=tracker, message=message)
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
    strength: Annotated[
        float | None, typer.Option(help="1: the restored picture; 0: the enlarged input; between: a mix.")
    ] = None,
    denoise_strength: Annotated[
        float | None, typer.Option(help="0 to 1: noise in what the model is shown: softer, more invented.")
    ] = None,
    crf: Annotated[int | None, typer.Option(help="Quality of the encoder: lower is better and larger.")] = None,
    preset: Annotated[str | None, typer.Option(help="Effort of the encoder.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="Numbers of the network.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
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

    def wish() -> LocalWish:
        return LocalWish(
            source=source,
            output=output,
            model=model,
            choices=Choices(
                target=local_target(scale, short_side),
                chunk_frames=chunk_frames,
                overlap_frames=overlap_frames,
                segment_frames=segment_frames,
                seed=seed,
                color_correction=color_correction,
                strength=strength,
                denoise_strength=denoise_strength,
                crf=crf,
                preset=preset,
            ),
            precision=precision,
            overwrite=overwrite,
            recompute=recompute,
        )

    logs.configure(json=False, default_level="warning")
    console = Console(stderr=True)
    outcome, code = _restore(wish, device=device, scratch=_scratch(scratch, in_pod=False), console=console)
    if as_json:
        print(outcome.to_json())
    _say(console, outcome, output)
    raise typer.Exit(code)


def _restore(wish: Callable[[], LocalWish], *, device: str, scratch: Path, console: Console) -> tuple[Outcome, int]:
    tracker = ProgressTracker()

    def work(stop: StopSignal) -> Outcome:
        if not DEVICE.fullmatch(device):
            message = f"--device: '{device}' is no device; use auto, cpu, cuda or cuda:N"
            raise RestorationError(FailureReason.INVALID_PARAMETERS, message)
        wanted = local_request(wish())
        check_request(wanted)

        from restoration_runner.job import JobContext, run_job
        from restoration_runner.terminal import showing

        context = JobContext(
            request=wanted, scratch=scratch, stop=stop, progress=tracker, owner=uuid.uuid4().hex, device=device
        )
        with showing(tracker, console):
            return run_job(context)

    return conclude(work, tracker=tracker, message=None)


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

    outcome, code = conclude(work, tracker=ProgressTracker(), message=None)
    if code:
        Console(stderr=True).print(outcome.message, style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def _execution() -> int:
    text = os.environ.get("VR_EXECUTION", "1")
    return int(text) if text.isdecimal() and int(text) > 0 else 1


def _scratch(chosen: Path | None, *, in_pod: bool) -> Path:
    """Where large files go: what was said, else what the Job mounts, else where temporary files go."""
    if chosen is None and "VR_SCRATCH" in os.environ:
        chosen = Path(os.environ["VR_SCRATCH"])
    if chosen is not None:
        return chosen
    return SCRATCH if in_pod and SCRATCH.is_dir() else Path(tempfile.gettempdir())


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
