"""The command `video-restoration`: `plan`, `run` and `assemble` in a pod, `restore` and `probe` on local files.

All ways of working build the same `JobContext` and end in the same place: an outcome, a sentence, an exit code.
"""

import json
import re
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from restoration_api.defaults import Choices
from restoration_api.outcome import FailureReason, Outcome
from restoration_api.request import ColorCorrection, Overwrite, Precision
from restoration_runner import logs
from restoration_runner.accept import check_request
from restoration_runner.conclude import conclude
from restoration_runner.errors import RestorationError
from restoration_runner.local import LocalWish, local_request, local_target
from restoration_runner.models_command import app as models_app
from restoration_runner.pod import PodOptions, Role, scratch_root, work_in_pod
from restoration_runner.progress import ProgressTracker
from restoration_runner.stopping import StopSignal

app = typer.Typer(
    name="video-restoration",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Restore video with SeedVR2: as a Kubernetes Job, or on local files.",
)

app.add_typer(models_app)

DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


RequestOption = Annotated[Path, typer.Option(help="The resolved request, as the operator wrote it.")]
HashOption = Annotated[str | None, typer.Option(help="What the request's bytes must hash to.")]
ScratchOption = Annotated[Path | None, typer.Option(help="Folder for large files; default /scratch.")]
PortOption = Annotated[int | None, typer.Option(help="Port of /healthz, /progress and /metrics.")]
MessageOption = Annotated[Path | None, typer.Option(help="File for the outcome.")]
StrengthOption = Annotated[
    float | None, typer.Option(help="1: the restored picture; 0: the enlarged input; between: a mix.")
]
PathOption = Annotated[
    str | None, typer.Option(hidden=True, help="Networks: plain or fast; the machine's choice if not given.")
]
OverwriteOption = Annotated[Overwrite, typer.Option(help="What to do with a file that is there.")]
DenoiseOption = Annotated[
    float | None, typer.Option(help="0 to 1: noise in what the model is shown: softer, more invented.")
]


def _add_light_role(role: Role, text: str) -> None:
    """A command for a pod without a GPU: the roles differ in what is done, not in what they are told."""

    @app.command(role, help=text)
    def command(
        request: RequestOption,
        request_sha256: HashOption = None,
        scratch: ScratchOption = None,
        http_port: PortOption = None,
        termination_log: MessageOption = None,
    ) -> None:
        options = PodOptions(
            request=request,
            request_sha256=request_sha256,
            scratch=scratch,
            http_port=http_port,
            termination_log=termination_log,
        )
        raise typer.Exit(work_in_pod(role, options))


_add_light_role("plan", "Find out in a pod, without a GPU, whether a request can be served, and write its plan.")


@app.command()
def run(
    request: RequestOption,
    request_sha256: HashOption = None,
    memory_hint_mib: Annotated[
        int | None, typer.Option(min=1, help="Use less host memory than this; set after the pod ran out of it.")
    ] = None,
    segments: Annotated[str | None, typer.Option(help="Only these segments, such as 0-16,18.")] = None,
    scratch: ScratchOption = None,
    http_port: PortOption = None,
    termination_log: MessageOption = None,
) -> None:
    """Do a request's work in a pod, and leave the outcome as termination message."""
    options = PodOptions(
        request=request,
        request_sha256=request_sha256,
        scratch=scratch,
        http_port=http_port,
        termination_log=termination_log,
        segments=segments,
        memory_hint_mib=memory_hint_mib,
    )
    raise typer.Exit(work_in_pod("run", options))


_add_light_role("assemble", "Publish in a pod, without a GPU, what is finished, or report what is published already.")


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
    strength: StrengthOption = None,
    denoise_strength: DenoiseOption = None,
    crf: Annotated[int | None, typer.Option(help="Quality of the encoder: lower is better and larger.")] = None,
    preset: Annotated[str | None, typer.Option(help="Effort of the encoder.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="Numbers of the network.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    path: PathOption = None,
    overwrite: OverwriteOption = Overwrite.IF_DIFFERENT,
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
    folder = scratch_root(scratch, in_pod=False)
    outcome, code = _restore(wish, device=device, path=path, scratch=folder, console=console)
    if as_json:
        print(outcome.to_json())
    _say(console, outcome, output)
    raise typer.Exit(code)


def _restore(
    wish: Callable[[], LocalWish], *, device: str, path: str | None, scratch: Path, console: Console
) -> tuple[Outcome, int]:
    tracker = ProgressTracker()

    def work(stop: StopSignal) -> Outcome:
        if not DEVICE.fullmatch(device):
            message = f"--device: '{device}' is no device; use auto, cpu, cuda or cuda:N"
            raise RestorationError(FailureReason.INVALID_PARAMETERS, message)
        wanted = local_request(wish())
        check_request(wanted)

        from restoration_runner.job import run_job
        from restoration_runner.task import JobContext
        from restoration_runner.terminal import showing

        context = JobContext(
            request=wanted,
            scratch=scratch,
            stop=stop,
            progress=tracker,
            owner=uuid.uuid4().hex,
            device=device,
            path=path,
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
