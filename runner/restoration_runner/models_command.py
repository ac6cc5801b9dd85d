"""`video-restoration models`: which models there are, and getting, converting, looking at and checking them.

Nothing here loads a network; what is heavy is imported by the command that needs it.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from restoration_api.outcome import FailureReason
from restoration_api.request import Precision
from restoration_runner import faults, logs
from restoration_runner.errors import EXIT_UNKNOWN, RestorationError

if TYPE_CHECKING:
    from restoration_runner.models.seedvr2.description import ModelDescription
    from restoration_runner.weights.convert import OnTensor
    from restoration_runner.weights.inspect import FileFacts, FolderFacts, PartFacts

app = typer.Typer(name="models", no_args_is_help=True, help="List, get, convert, look at and check model weights.")

INTERRUPTED = 130
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StoredAs = Annotated[
    Precision | None, typer.Option(help="How weights are stored: FP32, FP16 or BF16; unset keeps the file's own.")
]


def _do(work: Callable[[], None]) -> None:
    """Do it; whatever goes wrong is one sentence and the exit code of its class."""
    logs.configure(json=False, default_level="warning")
    try:
        work()
    except KeyboardInterrupt:
        _complain("interrupted; give the same command again to go on")
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        known = faults.as_restoration_error(error)
        _complain(known.message if known else faults.unexpected(error))
        raise typer.Exit(known.exit_code if known else EXIT_UNKNOWN) from None


def _complain(sentence: str) -> None:
    Console(stderr=True).print(sentence, style="red", markup=False, highlight=False, soft_wrap=True)


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """What is built in, what is present on this machine, and what `pull` knows by name."""

    def work() -> None:
        from restoration_runner.weights.listing import every_model

        rows = every_model()
        if as_json:
            print(json.dumps([row.model_dump(mode="json", by_alias=True, exclude_none=True) for row in rows], indent=2))
            return
        table = _table("MODEL", "STATE", "PRECISION", "SIZE", "WHERE")
        for row in rows:
            size = _size(row.size_bytes) if row.size_bytes else ""
            table.add_row(row.name, row.state, row.precision or "", size, row.where)
        _wide().print(table)

    _do(work)


@app.command()
def pull(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A known name, or OWNER/NAME of a repository.")],
    to: Annotated[
        Path | None, typer.Option(help="Folder to make; default the model's name below VR_MODELS_DIR.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit, tag or branch; known names have their own.")] = None,
    precision: StoredAs = None,
    digest: Annotated[str | None, typer.Option(help="sha256:… that the folder must get.")] = None,
    endpoint: Annotated[str | None, typer.Option(envvar="HF_ENDPOINT", help="A mirror of the hub.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with a token; default HF_TOKEN or the login.")] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Cache of downloads; default the hub's own.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use what the cache holds, fetch nothing.")] = False,
) -> None:
    """Get a model from Hugging Face and make its folder.

    Interrupted, it goes on where it stopped when the same command is given again. Every byte is checked, and the folder
    appears complete or not at all.
    """

    def work() -> None:
        from restoration_runner.weights.hub import Hub, read_token
        from restoration_runner.weights.pull import parse_wish, pull_folder, pull_known
        from restoration_runner.weights.source import model_folders

        wish = parse_wish(model, revision=revision, precision=precision)
        target = to or model_folders()[-1] / wish.name
        if _there_already(target, digest):
            return
        hub = Hub(endpoint=endpoint, token=read_token(token_file), cache=cache_dir, offline=offline)
        if wish.known is None:
            found = pull_folder(hub, wish.repository, wish.revision, target, digest=digest)
        else:
            with _counting("converting") as count:
                found = pull_known(hub, wish.known, target, precision=precision, digest=digest, on_tensor=count)
        print(f"{target}  {found}")

    _do(work)


def _there_already(target: Path, digest: str | None) -> bool:
    """Pulling twice is no error, if what is there is whole and what was asked for."""
    from restoration_runner.weights.digest import check_sums

    if not target.exists():
        return False
    found, _ = check_sums(target)
    if digest is not None and digest != found:
        raise RestorationError(
            FailureReason.MODEL_INVALID, f"{target} is there with the digest {found}, not {digest}; remove it first"
        )
    print(f"{target}  {found}")
    _complain("it was there already; nothing was fetched")
    return True


@app.command()
def convert(
    target: Annotated[Path, typer.Argument(metavar="FOLDER", help="The model folder to write; it must not exist.")],
    dit: Annotated[Path, typer.Option(help="The transformer: .pth or .safetensors.")],
    vae: Annotated[Path, typer.Option(help="The VAE: .pth or .safetensors.")],
    text: Annotated[Path | None, typer.Option(help="The embedded prompt, pos_emb.pt of the released models.")] = None,
    architecture: Annotated[str | None, typer.Option(help="seedvr2-3b, seedvr2-7b or seedvr2-nano.")] = None,
    description: Annotated[Path | None, typer.Option(help="A model.json instead of a known architecture.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; default the folder's.")] = None,
    precision: StoredAs = None,
) -> None:
    """Turn published checkpoints into a folder that this runner reads.

    Files are read without running code, every key is accounted for, and the folder appears complete or not at all.
    """

    def work() -> None:
        from restoration_runner.weights.convert import Sources
        from restoration_runner.weights.convert import convert as write

        wanted = _description(architecture, description, name or target.absolute().name)
        sources = Sources(dit=dit, vae=vae, text=text)
        with _counting("converting") as count:
            digest = write(sources, wanted, target, precision=precision, on_tensor=count)
        print(f"{target}  {digest}")

    _do(work)


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name or folder, or a checkpoint file.")],
    as_json: AsJson = False,
) -> None:
    """Print architecture, sizes, precision and digest, from headers alone."""

    def work() -> None:
        from restoration_runner.weights.inspect import inspect_file, inspect_folder
        from restoration_runner.weights.source import find_model

        found = inspect_file(Path(model)) if Path(model).is_file() else inspect_folder(find_model(model))
        if as_json:
            print(json.dumps(found.model_dump(mode="json", by_alias=True, exclude_none=True), indent=2))
        else:
            _show(found)

    _do(work)


@app.command()
def verify(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name or folder.")],
    digest: Annotated[str | None, typer.Option(help="sha256:… that the folder must have.")] = None,
) -> None:
    """Read every byte: names and shapes as described, digests as in SHA256SUMS and as asked for."""

    def work() -> None:
        from restoration_runner.weights.digest import check_sums
        from restoration_runner.weights.inspect import inspect_folder
        from restoration_runner.weights.source import find_model

        folder = find_model(model)
        found, listed = check_sums(folder)
        if digest is not None and found != digest:
            message = f"{folder} has the digest {found}, not {digest} as asked for"
            raise RestorationError(FailureReason.MODEL_INVALID, message)
        inspect_folder(folder)
        print(f"{folder}  {found}")
        if not listed and digest is None:
            _complain("nothing to compare with: the folder has no SHA256SUMS, and no --digest was given")

    _do(work)


def _description(architecture: str | None, description: Path | None, name: str) -> "ModelDescription":
    from restoration_runner.models.seedvr2.config import MODELS
    from restoration_runner.models.seedvr2.description import parse_description
    from restoration_runner.weights.catalogue import released_description

    if (architecture is None) == (description is None):
        raise _wrong("say either --architecture or --description")
    if description is not None:
        return parse_description(description).model_copy(update={"name": name})
    if architecture not in MODELS:
        raise _wrong(f"--architecture: '{architecture}' is not known; use one of {', '.join(MODELS)}")
    return released_description(name, architecture)


def _wrong(sentence: str) -> RestorationError:
    return RestorationError(FailureReason.INVALID_PARAMETERS, sentence)


@contextlib.contextmanager
def _counting(what: str) -> Iterator["OnTensor"]:
    """A bar on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("tensors"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show(found: "FolderFacts | FileFacts") -> None:
    from restoration_runner.weights.inspect import FileFacts

    table = Table(box=None, show_header=False, pad_edge=False)
    if isinstance(found, FileFacts):
        table.add_row("holds", found.fits or "no network that is known here")
        _show_parts(table, (found.part,))
    else:
        rows: Sequence[tuple[str, object]] = (
            ("name", found.name),
            ("folder", found.folder),
            ("architecture", f"{found.architecture}, rules of the released {found.rules}"),
            ("transformer", f"{found.layers} layers, width {found.width}, {found.heads} heads"),
            ("prompt", f"{found.text_tokens} tokens"),
            ("VAE", f"channels {', '.join(map(str, found.vae_channels))}; posterior {found.posterior}"),
            ("warm-up", f"{found.encoder_warmup_latents} and {found.decoder_warmup_latents} latents"),
            ("parameters", f"{found.parameters:,}"),
            ("size", _size(found.size_bytes)),
            ("digest", found.digest or "not recorded; 'models verify' computes it"),
        )
        for what, value in rows:
            table.add_row(what, str(value))
        _show_parts(table, found.parts)
    _wide().print(table)


def _show_parts(table: Table, parts: "Sequence[PartFacts]") -> None:
    for part in parts:
        kinds = ", ".join(part.precision)
        facts = f"{part.tensors} tensors, {part.parameters:,} parameters, {kinds}, {_size(part.size_bytes)}"
        table.add_row(part.file, facts)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="")
    for column in columns:
        table.add_column(column, no_wrap=True, justify="right" if column == "SIZE" else "left")
    return table


def _wide() -> Console:
    """Tables are cut on a terminal only: what reads a pipe wants whole lines."""
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200)


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"
