"""The commands of `kubectl vr`. Each connects, asks or changes one thing, and says what came of it, with 0, 1 or 2.

What the user asked for goes to standard output, everything said on the way to standard error.
"""

import sys
import webbrowser
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console

from restoration_cli import again, explain, store, submission, uploads, watching
from restoration_cli.access import Restorations
from restoration_cli.errors import DONE, FAILED, INTERRUPTED, REFUSED, CommandError
from restoration_cli.options import (
    Access,
    AwsProfile,
    CaFile,
    Context,
    Endpoint,
    Everywhere,
    Kubeconfig,
    Name,
    Names,
    Namespace,
    Region,
    Selector,
)
from restoration_cli.rows import row
from restoration_cli.tables import plain_table
from restoration_cli.view import Restoration

app = typer.Typer(
    name="kubectl-vr",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Restore videos on a cluster: submit them, see how far they are, and why they wait or failed.",
    epilog="Ends with 0 if all went well, 1 if a restoration failed, 2 if the command could not do its work.",
)

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is over, and show how far it is.")]


def main() -> None:
    """Run the command; whatever the user has to know is one sentence on standard error."""
    try:
        app(standalone_mode=True)
    except CommandError as error:
        _say(f"error: {error}", style="red")
        sys.exit(REFUSED)
    except BrokenPipeError:  # `kubectl vr logs clip | head`
        sys.stderr.close()
        sys.exit(DONE)


@app.command()
def submit(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="A local file, or s3://BUCKET/KEY.")],
    output: Annotated[
        str | None, typer.Option(help="s3://BUCKET/KEY of the result; default beside the input, as NAME-restored.mp4.")
    ] = None,
    upload_to: Annotated[
        str | None, typer.Option(envvar="VR_UPLOAD_TO", help="s3://BUCKET/FOLDER/ where a local file goes.")
    ] = None,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    ca_file: CaFile = None,
    name: Annotated[str | None, typer.Option(help="Name of the VideoRestoration; default from the input's.")] = None,
    profile: Annotated[str | None, typer.Option(help="Name of the profile; default 'default'.")] = None,
    namespaced_profile: Annotated[
        bool, typer.Option("--namespaced-profile", help="The profile is a RestorationProfile of the namespace.")
    ] = False,
    storage: Annotated[str | None, typer.Option(help="Entry of the profile's storage; default the first one.")] = None,
    scale: Annotated[int | None, typer.Option(help="Enlarge so many times.")] = None,
    short_side: Annotated[int | None, typer.Option(help="Scale until the shorter side has so many pixels.")] = None,
    strength: Annotated[float | None, typer.Option(help="1: the restored picture; 0: the enlarged input.")] = None,
    denoise_strength: Annotated[float | None, typer.Option(help="0 to 1: the model sees less, invents more.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another number, another texture.")] = None,
    recompute: Annotated[bool, typer.Option("--recompute", help="Compute again what has been computed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the object; upload and create nothing.")] = False,
    wait: Wait = True,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Restore a video: upload it if it is a local file, create the VideoRestoration, and wait for it."""
    remote, digest = source, None
    if not submission.is_remote(source):
        remote = _destination(Path(source), upload_to)
    elif upload_to is not None and endpoint is not None:
        raise CommandError("--endpoint is for uploads, and an input in object storage is not uploaded; leave it out")
    restorations = Access(kubeconfig, context, namespace).connect()
    place = store.Place(endpoint=endpoint, region=region, aws_profile=aws_profile, ca_file=ca_file)

    def body(sha256: str | None) -> dict[str, object]:
        wish = submission.Wish(
            input_uri=remote,
            input_sha256=sha256,
            output_uri=output or submission.default_output(remote),
            name=name,
            profile=profile,
            namespaced_profile=namespaced_profile,
            storage=storage,
            scale=scale,
            short_side=short_side,
            strength=strength,
            denoise_strength=denoise_strength,
            seed=seed,
            recompute=recompute,
        )
        return submission.submission(wish, restorations.namespace)

    if dry_run:
        print(yaml.safe_dump(body(None), sort_keys=False), end="")
        return
    # What the API server would refuse is refused before gigabytes are uploaded.
    restorations.create(body(None), dry_run=True)
    if remote is not source:
        digest = uploads.upload(Path(source), remote, place, _errors())
    _created(restorations, restorations.create(body(digest)), wait=wait)


@app.command("open")
def open_result(
    name: Name,
    output: Annotated[Path | None, typer.Option(help="Folder for the files; default ./NAME-before-after.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of the excerpt that the page plays.")] = 10,
    at: Annotated[float | None, typer.Option(min=0, help="Its first second; default so that it is the middle.")] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page; else only say where.")] = True,
    endpoint: Endpoint = None,
    region: Region = None,
    aws_profile: AwsProfile = None,
    ca_file: CaFile = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show a finished restoration before and after: a picture, and a page with a slider. Ends with 1 if it failed."""
    it = Access(kubeconfig, context, namespace).connect().get(name)
    if it.finished and not it.succeeded:
        _print_explanation(it, explain.explain(it, datetime.now(UTC)), to=_errors())
        raise typer.Exit(FAILED)
    from restoration_cli import beforeafter  # decoders take half a second to load, and no other command needs them

    place = store.Place(endpoint=endpoint, region=region, aws_profile=aws_profile, ca_file=ca_file)
    choice = beforeafter.Choice(seconds=seconds, at_s=at)
    page = beforeafter.make(it, place, output or Path(f"{name}-before-after"), choice, _errors())
    print(page)
    print(page.with_name("before-after.png"))
    if browser and not webbrowser.open(page.resolve().as_uri()):
        _say("no browser was found; open the first of these files yourself")


@app.command("list")
def list_restorations(
    selector: Selector = None,
    phase: Annotated[str | None, typer.Option(help="Only those in this phase, such as Failed.")] = None,
    everywhere: Everywhere = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List restorations: phase, progress, and why those wait that wait."""
    restorations = Access(kubeconfig, context, namespace).connect(everywhere=everywhere)
    fields = f"status.phase={phase}" if phase else None
    found = restorations.list(selector=selector, fields=fields).items
    if not found:
        _say("no restorations in " + ("any namespace" if everywhere else f"namespace {restorations.namespace}"))
        return
    now = datetime.now(UTC)
    _wide().print(plain_table((row(it, now) for it in found), with_namespace=everywhere))


@app.command()
def watch(
    names: Names = None,
    selector: Selector = None,
    everywhere: Everywhere = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Watch restorations until they are over; without names, all that are not."""
    if everywhere and names:
        raise CommandError("a name says nothing without a namespace: leave out --all-namespaces, or the names")
    restorations = Access(kubeconfig, context, namespace).connect(everywhere=everywhere)
    for name in names or ():
        restorations.get(name)
    raise typer.Exit(_watch(restorations, tuple(names or ()), selector=selector, with_namespace=everywhere))


@app.command("explain")
def explain_restoration(
    name: Name, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Say in plain words why a restoration waits, where it is, or why it failed. Ends with 1 if it failed."""
    it = Access(kubeconfig, context, namespace).connect().get(name)
    said = explain.explain(it, datetime.now(UTC))
    _print_explanation(it, said, to=_wide())
    if said.failed:
        raise typer.Exit(FAILED)


@app.command()
def logs(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the pod ends.")] = False,
    execution: Annotated[int | None, typer.Option(help="Of this execution; default the last one.")] = None,
    tail: Annotated[int | None, typer.Option(min=0, help="Only so many lines of the end.")] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print the runner's log. It is there while the Job is: spec.cleanup.jobTTLSeconds after its end."""
    restorations = Access(kubeconfig, context, namespace).connect()
    job = _job(restorations.get(name), execution)
    pods = restorations.pods(job)
    if not pods:
        raise CommandError(
            f"there is no pod of Job {job}: it has none yet, or they are deleted; 'kubectl vr explain {name}' keeps "
            "what each execution said last"
        )
    for piece in restorations.log(pods[-1], follow=follow, tail=tail):
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


@app.command()
def retry(
    name: Name,
    new_name: Annotated[str | None, typer.Option("--name", help="Name of the new one; default NAME-r2, -r3, …")] = None,
    active_deadline_seconds: Annotated[
        int | None, typer.Option(min=1, help="Another limit of running time, after DeadlineExceeded.")
    ] = None,
    wait: Wait = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Try a failed restoration again: a new one with the same spec, which goes on from the finished segments."""
    restorations = Access(kubeconfig, context, namespace).connect()
    it = restorations.get(name)
    if it.succeeded:
        raise CommandError(f"{name} succeeded; to compute it once more: kubectl vr submit --recompute")
    if not it.finished:
        raise CommandError(f"{name} is not over; the operator tries again by itself (kubectl vr explain {name})")
    taken = {other.name for other in restorations.list().items}
    wanted = new_name or again.next_name(name)
    while new_name is None and wanted in taken:
        wanted = again.next_name(wanted)
    made = again.again(it.body, wanted, active_deadline_seconds=active_deadline_seconds)
    _created(restorations, restorations.create(made), wait=wait)


@app.command()
def suspend(name: Name, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None) -> None:
    """Stop a restoration for now: its Job ends, finished segments stay."""
    _set_suspend(Access(kubeconfig, context, namespace).connect(), name, value=True)


@app.command()
def resume(name: Name, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None) -> None:
    """Let a suspended restoration go on from its finished segments."""
    _set_suspend(Access(kubeconfig, context, namespace).connect(), name, value=False)


@app.command()
def cancel(name: Name, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None) -> None:
    """Give an unfinished restoration up: it is deleted with its Job. Finished segments stay in the bucket."""
    restorations = Access(kubeconfig, context, namespace).connect()
    it = restorations.get(name)
    if it.finished:
        raise CommandError(f"{name} is over already; to remove its record: kubectl delete vr {name}")
    restorations.delete(it)
    print(f"videorestoration/{name} cancelled")


def _destination(path: Path, upload_to: str | None) -> str:
    if not path.is_file():
        raise CommandError(f"there is no file {path}; an input in object storage begins with s3://")
    if upload_to is None:
        raise CommandError(f"say where {path} is to be uploaded: --upload-to s3://BUCKET/FOLDER/ (or VR_UPLOAD_TO)")
    return submission.upload_uri(upload_to, path.name)


def _created(restorations: Restorations, made: Restoration, *, wait: bool) -> None:
    print(f"videorestoration/{made.name} created", flush=True)
    if wait:
        raise typer.Exit(_watch(restorations, (made.name,)))


def _watch(
    restorations: Restorations, names: tuple[str, ...], *, selector: str | None = None, with_namespace: bool = False
) -> int:
    try:
        latest, followed = watching.follow(
            restorations, _wide(), names=names, selector=selector, with_namespace=with_namespace
        )
    except KeyboardInterrupt:
        _say("it goes on in the cluster; to look again: kubectl vr watch " + " ".join(names))
        return INTERRUPTED
    if not followed:
        _say("nothing is under way")
    gone = sorted(key for key in followed if key not in latest)
    for _, name in gone:
        _say(f"{name} was deleted before it was over", style="red")
    failed = [latest[key] for key in sorted(followed) if key in latest and not latest[key].succeeded]
    for it in failed:
        _print_explanation(it, explain.explain(it, datetime.now(UTC)), to=_errors())
    return FAILED if gone or failed else DONE


def _set_suspend(restorations: Restorations, name: str, *, value: bool) -> None:
    it = restorations.get(name)
    if it.finished:
        raise CommandError(f"{name} is over; there is nothing to {'suspend' if value else 'resume'}")
    restorations.set_suspend(it, value)
    print(f"videorestoration/{name} {'suspended' if value else 'resumed'}")


def _job(it: Restoration, execution: int | None) -> str:
    if execution is None:
        if it.status.job_name is None:
            raise CommandError(f"{it.name} has no Job yet: kubectl vr explain {it.name}")
        return it.status.job_name
    for attempt in it.status.attempt_history:
        if attempt.execution == execution and attempt.job_name is not None:
            return attempt.job_name
    known = ", ".join(str(attempt.execution) for attempt in it.status.attempt_history) or "none"
    raise CommandError(f"{it.name} has no execution {execution} on record; there are: {known}")


def _print_explanation(it: Restoration, said: explain.Explanation, *, to: Console) -> None:
    to.print(said.headline, style="bold", soft_wrap=True)
    lines: Iterable[tuple[str, str]] = (
        ("The operator says", said.message),
        ("What to do", said.remedy),
        ("Output", (it.status.output.uri or "") if it.status.output and it.succeeded else ""),
    )
    for label, text in lines:
        if text:
            to.print(f"{label}: {text}", soft_wrap=True)
    if said.failed or len(it.status.attempt_history) > 1:
        for attempt in it.status.attempt_history:
            to.print(f"  {explain.attempt_line(attempt)}", soft_wrap=True)


def _say(sentence: str, *, style: str = "") -> None:
    _errors().print(sentence, style=style, soft_wrap=True)


def _errors() -> Console:
    return Console(stderr=True, highlight=False, markup=False)


def _wide() -> Console:
    """Tables are cut on a terminal only: what reads a pipe wants whole lines."""
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 250)
