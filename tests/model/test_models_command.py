"""`video-restoration models`: what is printed, and the exit code and sentence where something is wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from restoration_runner.cli import app
from restoration_runner.weights.catalogue import KNOWN
from restoration_runner.weights.digest import folder_digest
from restoration_runner.weights.source import shipped_folder
from tests.builders.checkpoints import published
from tests.builders.models import write_tiny_model


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of this machine's own models is looked at."""
    folder = tmp_path / "models"
    monkeypatch.setenv("VR_MODELS_DIR", str(folder))
    return folder


def models_command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["models", *map(str, arguments)])


def converted(tmp_path: Path, models: Path, name: str = "mine") -> Path:
    model = published("dit7b")
    paths = model.write_official(tmp_path / "in")
    description = model.write_description(tmp_path / "model.json")
    options = [word for part, path in paths.items() for word in (f"--{part}", str(path))]
    done = models_command("convert", models / name, *options, "--description", description, "--precision", "BF16")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{models / name}  {folder_digest(models / name)}\n"
    return models / name


def test_list_tells_built_in_present_broken_and_known(tmp_path: Path, models: Path) -> None:
    converted(tmp_path, models)
    write_tiny_model(models / "torn")
    (models / "torn" / "vae.safetensors").write_bytes(b"half")
    rows = {row["name"]: row for row in json.loads(models_command("list", "--json").stdout)}
    assert rows["seedvr2-nano"]["state"] == "built in"
    assert rows["mine"] | {"state": "present", "precision": "BF16"} == rows["mine"]
    assert rows["torn"]["state"] == "broken"
    assert "vae.safetensors" in rows["torn"]["problem"]
    assert rows["seedvr2-7b-sharp"]["state"] == "known"
    assert rows["seedvr2-3b-fp16"]["sizeBytes"] == 6_783_018_808 + 501_324_814 + 595_100
    lines = models_command("list").stdout.splitlines()
    assert len(lines) == len(rows) + 1
    assert any(line.startswith("mine") and "present" in line for line in lines)


def test_what_is_known_is_pinned() -> None:
    for model in KNOWN.values():
        for file in model.files:
            assert len(file.revision) == 40 and len(file.sha256) == 64, model.name


def test_inspect_prints_architecture_sizes_precision_and_digest(tmp_path: Path, models: Path) -> None:
    folder = converted(tmp_path, models)
    found = json.loads(models_command("inspect", "mine", "--json").stdout)
    sizes = {part["file"]: (part["sizeBytes"], part["precision"]) for part in found["parts"]}
    assert sizes == {
        name: ((folder / name).stat().st_size, ["BF16"]) for name in ("dit.safetensors", "vae.safetensors")
    }
    assert (found["rules"], found["name"], found["digest"]) == ("7B", "mine", folder_digest(folder))
    text = models_command("inspect", folder).stdout
    assert "rules of the released 7B" in text and "BF16" in text and folder_digest(folder) in text


@pytest.mark.parametrize(
    ("source", "fits"), [("dit", "transformer of seedvr2-nano"), ("vae", "VAE of seedvr2-nano"), ("text", None)]
)
def test_inspect_recognises_files_of_known_networks(source: str, fits: str | None) -> None:
    found = json.loads(models_command("inspect", shipped_folder() / f"{source}.safetensors", "--json").stdout)
    assert found.get("fits") == fits
    assert found["part"]["precision"] == ["FP16"]


def test_the_shipped_model_verifies() -> None:
    done = models_command("verify", "seedvr2-nano")
    assert (done.exit_code, done.stderr) == (0, "")
    assert folder_digest(shipped_folder()) in done.stdout


SPOILED: list[tuple[str, Callable[[Path], object], str]] = [
    ("a bit", lambda folder: flip(folder / "dit.safetensors"), "changed: dit.safetensors"),
    ("a file less", lambda folder: (folder / "vae.safetensors").unlink(), "missing: vae.safetensors"),
    ("a file more", lambda folder: (folder / "lora.safetensors").write_bytes(b""), "not listed: lora.safetensors"),
    ("a pickle", lambda folder: (folder / "dit.pth").write_bytes(b""), "is a pickle"),
    ("no description", lambda folder: (folder / "model.json").unlink(), "no model.json"),
    ("torn sums", lambda folder: (folder / "SHA256SUMS").write_text("abc"), "no line of sha256sum"),
]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(("spoil", "says"), [row[1:] for row in SPOILED], ids=[row[0] for row in SPOILED])
def test_verify_names_what_is_wrong(spoil: Callable[[Path], object], says: str, tmp_path: Path, models: Path) -> None:
    folder = converted(tmp_path, models)
    assert models_command("verify", "mine").exit_code == 0
    spoil(folder)
    done = models_command("verify", folder)
    assert (done.exit_code, done.stdout) == (17, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_verify_compares_with_what_was_asked_for(models: Path) -> None:
    folder = write_tiny_model(models / "tiny")
    done = models_command("verify", "tiny")
    assert done.exit_code == 0
    assert "nothing to compare with" in done.stderr
    assert models_command("verify", "tiny", "--digest", folder_digest(folder)).stderr == ""
    done = models_command("verify", "tiny", "--digest", "sha256:" + "0" * 64)
    assert done.exit_code == 17
    assert "not sha256:000" in done.stderr


def test_verify_finds_weights_that_do_not_fit_their_description(models: Path) -> None:
    folder = write_tiny_model(models / "tiny")
    shutil.copy(shipped_folder() / "vae.safetensors", folder / "vae.safetensors")
    done = models_command("verify", "tiny", "--digest", folder_digest(folder))
    assert done.exit_code == 17
    assert "vae.safetensors does not hold the weights that its configuration describes" in done.stderr


WRONG: list[tuple[str, list[str], int, str]] = [
    ("no architecture", ["convert", "OUT", "--dit", "DIT", "--vae", "VAE"], 11, "--architecture or --description"),
    ("an unknown one", ["convert", "OUT", "--dit", "DIT", "--vae", "VAE", "--architecture", "x"], 11, "'x' is not"),
    (
        "another network",
        ["convert", "OUT", "--dit", "DIT", "--vae", "VAE", "--architecture", "seedvr2-7b"],
        17,
        "does not hold the weights",
    ),
    ("no such model", ["inspect", "nowhere"], 17, "there is no model 'nowhere'"),
    ("no such model", ["verify", "nowhere"], 17, "models pull"),
]


@pytest.mark.parametrize(("arguments", "code", "says"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_use_is_one_sentence(arguments: list[str], code: int, says: str, tmp_path: Path) -> None:
    places = {"OUT": str(tmp_path / "out"), "DIT": str(tmp_path / "d.pth"), "VAE": str(tmp_path / "v.pth")}
    torch.save(published().dit, places["DIT"])
    torch.save(published().vae, places["VAE"])
    done = models_command(*(places.get(word, word) for word in arguments))
    assert done.exit_code == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
