"""Getting a model by name: fetch its files from the hub, check them, and make the folder that this runner reads."""

import re
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from restoration_api.outcome import FailureReason
from restoration_api.request import Precision
from restoration_runner.errors import RestorationError
from restoration_runner.models.seedvr2.description import DESCRIPTION
from restoration_runner.models.seedvr2.folder import DIT, TEXT, VAE
from restoration_runner.weights.catalogue import KNOWN, HubFile, KnownModel, released_description
from restoration_runner.weights.convert import CARD, OnTensor, Sources, convert
from restoration_runner.weights.digest import SUMS, check_digest, check_sums, file_sha256, write_sums
from restoration_runner.weights.hub import Hub, fetch
from restoration_runner.weights.inspect import inspect_folder
from restoration_runner.weights.write import appearing

FOLDER_FILES = (DESCRIPTION, DIT, VAE, TEXT)
EXTRAS = (SUMS, CARD, "LICENSE")


@dataclass(frozen=True)
class Wish:
    """What `models pull MODEL` names: a model of the catalogue, or a repository that is a model folder."""

    name: str
    repository: str
    revision: str
    known: KnownModel | None = None


def parse_wish(text: str, *, revision: str | None, precision: Precision | None) -> Wish:
    """`seedvr2-3b`, `owner/name`, `hf://owner/name`, either with `@revision`.

    Raises:
        RestorationError: `InvalidParameters` for anything else, and for options that do not go with it.
    """
    given = text.removeprefix("hf://")
    repository, _, inside = given.partition("@")
    if known := KNOWN.get(given):
        if revision is not None:
            message = f"--revision: '{given}' means commit {known.dit.revision}; name a repository to choose another"
            raise RestorationError(FailureReason.INVALID_PARAMETERS, message)
        return Wish(given, known.dit.repository, known.dit.revision, known)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or (inside and revision):
        message = f"'{text}' is no model that is known here ({', '.join(KNOWN)}) and no OWNER/NAME of a repository"
        raise RestorationError(FailureReason.INVALID_PARAMETERS, message)
    if precision is not None:
        message = "--precision: a repository that is a model folder is copied as it is; convert it afterwards"
        raise RestorationError(FailureReason.INVALID_PARAMETERS, message)
    return Wish(repository.split("/")[1], repository, inside or revision or "main")


def pull_known(
    hub: Hub,
    model: KnownModel,
    target: Path,
    *,
    precision: Precision | None = None,
    digest: str | None = None,
    on_tensor: OnTensor | None = None,
) -> str:
    """Fetch a model of the catalogue and convert it to the folder `target`; returns the folder's digest.

    Raises:
        RestorationError: see `fetch` and `convert`; `ModelInvalid` for a file with other bytes than the catalogue's,
            or a folder with another digest than asked for.
    """
    places = _fetched(hub, model.files)
    sources = Sources(dit=places[model.dit], vae=places[model.vae], text=places[model.text])
    description = released_description(model.name, model.architecture)
    return convert(
        sources,
        description,
        target,
        precision=precision,
        digest=digest,
        card=_card(model, precision),
        on_tensor=on_tensor,
    )


def pull_folder(hub: Hub, repository: str, revision: str, target: Path, *, digest: str | None = None) -> str:
    """Copy a repository that is a model folder already to `target`; returns the folder's digest.

    Raises:
        RestorationError: see `fetch`; `ModelInvalid` if it is no model folder or another one than asked for;
            `InvalidParameters` if `target` exists.
    """
    found = fetch(hub, repository, revision, (*FOLDER_FILES, *EXTRAS))
    missing = [name for name in FOLDER_FILES if not (found / name).is_file()]
    if missing:
        raise RestorationError(
            FailureReason.MODEL_INVALID,
            f"hf://{repository}@{found.name} is no model folder: it has no {', '.join(missing)}; for published "
            "checkpoints see 'models list' and 'models convert'",
        )
    with appearing(target) as folder:
        for name in (*FOLDER_FILES, *EXTRAS):
            if (found / name).is_file():
                shutil.copyfile(found / name, folder / name)
                (folder / name).chmod(0o644)
        check_sums(folder)
        inspect_folder(folder)
        check_digest(folder, expected=digest, field="--digest")
        return write_sums(folder)


def _fetched(hub: Hub, files: tuple[HubFile, ...]) -> dict[HubFile, Path]:
    """One request for each repository; every file hashed against the catalogue."""
    by_repository: dict[tuple[str, str], list[HubFile]] = defaultdict(list)
    for file in files:
        by_repository[file.repository, file.revision].append(file)
    places = {}
    for (repository, revision), wanted in by_repository.items():
        folder = fetch(hub, repository, revision, [file.path for file in wanted])
        for file in wanted:
            places[file] = folder / file.path
            _check(places[file], file)
    return places


def _check(path: Path, file: HubFile) -> None:
    where = f"hf://{file.repository}@{file.revision}/{file.path}"
    if not path.is_file():
        raise RestorationError(FailureReason.MODEL_INVALID, f"{where} does not exist")
    # `fetch` has hashed the bytes against the name under which the cache holds them.
    found = path.resolve().name if len(path.resolve().name) == len(file.sha256) else file_sha256(path)
    if found != file.sha256:
        raise RestorationError(
            FailureReason.MODEL_INVALID,
            f"{where} has the digest {found}, not {file.sha256} as released; check the mirror that served it",
        )


def _card(model: KnownModel, precision: Precision | None) -> str:
    rows = "".join(
        f"* `{file.path}` of `{file.repository}` at `{file.revision}`, SHA-256 `{file.sha256}`\n"
        for file in model.files
    )
    stored = f"stored as {precision.value}" if precision else "values as published"
    return (
        f"# {model.name}\n\n{model.summary}. Licence of the weights: {model.licence}.\n\n"
        f"Made by `video-restoration models pull {model.name}` ({stored}) from:\n\n{rows}"
    )
