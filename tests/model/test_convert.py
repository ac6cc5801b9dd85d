"""Published checkpoints become model folders: the same values, complete or not at all, and nothing in them runs."""

import os
import pickle
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from restoration_api.outcome import FailureReason
from restoration_api.request import Precision
from restoration_runner.errors import RestorationError
from restoration_runner.models.seedvr2.checkpoint import dit_layout, dit_tensors, vae_tensors
from restoration_runner.models.seedvr2.config import dit_3b_rules
from restoration_runner.models.seedvr2.folder import read_folder
from restoration_runner.weights.convert import Sources, convert
from restoration_runner.weights.digest import check_sums, folder_digest
from tests.builders.checkpoints import KINDS, Published, Tensors, published

CPU = torch.device("cpu")


def sources(paths: dict[str, Path], **changed: Path | None) -> Sources:
    return Sources(**{**paths, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("community", [False, True])
def test_every_value_arrives(kind: str, community: bool, tmp_path: Path) -> None:
    model = published(kind)
    paths = model.write_community(tmp_path / "in") if community else model.write_official(tmp_path / "in")
    digest = convert(sources(paths), model.description, tmp_path / "out")
    loaded = read_folder(tmp_path / "out", device=CPU, dtype=torch.float32)
    assert loaded.description == model.description
    assert torch.equal(loaded.text, model.text.bfloat16().float())
    for found, expected in ((dit_tensors(loaded.dit), model.dit), (vae_tensors(loaded.vae), model.vae)):
        weights = {name: tensor for name, tensor in expected.items() if not name.endswith("rope.freqs")}
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[name], weights[name].float()) for name in weights)
    stored = torch.float16 if community else torch.float32
    assert {t.dtype for t in load_file(tmp_path / "out" / "dit.safetensors").values()} == {stored}
    assert digest == folder_digest(tmp_path / "out")


def test_an_independent_program_agrees_with_the_sums(tmp_path: Path) -> None:
    model = published()
    convert(sources(model.write_official(tmp_path / "in")), model.description, tmp_path / "out")
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path / "out", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": OK") == 4


def test_rounded_here_or_by_the_community_the_folder_is_the_same(tmp_path: Path) -> None:
    """Official fp32 stored as FP16, and files that somebody rounded: one digest, which a profile can pin."""
    model = published()
    official = convert(
        sources(model.write_official(tmp_path / "a")), model.description, tmp_path / "x", precision=Precision.FP16
    )
    community = convert(sources(model.write_community(tmp_path / "b")), model.description, tmp_path / "y")
    assert official == community


def test_eight_bit_floats_are_widened_exactly(tmp_path: Path) -> None:
    model = published()
    paths = model.write_community(tmp_path / "in", torch.float8_e4m3fn)
    convert(sources(paths), model.description, tmp_path / "out")
    found = load_file(tmp_path / "out" / "dit.safetensors")
    name = "blocks.0.attn.proj_qkv.vid.weight"
    assert found[name].dtype == torch.float16
    assert torch.equal(found[name], model.dit[name].to(torch.float8_e4m3fn).half())


def test_older_attention_names_and_an_embedded_prompt(tmp_path: Path) -> None:
    model = published()
    paths = model.write_community(tmp_path / "in")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    vae = {}
    for name, tensor in model.vae.items():
        for new, former in old.items():
            name = name.replace(f".attentions.0.{new}.", f".attentions.0.{former}.")
        vae[name] = tensor
    save_file(vae, paths["vae"])
    prompts = {"positive_conditioning": model.text.bfloat16(), "negative_conditioning": model.text.bfloat16()}
    save_file({**model.dit, **prompts}, paths["dit"])
    convert(sources(paths, text=None), model.description, tmp_path / "out")
    assert set(load_file(tmp_path / "out" / "vae.safetensors")) == set(model.vae)
    assert torch.equal(load_file(tmp_path / "out" / "text.safetensors")["positive"], model.text.bfloat16())


class Malicious:
    """Runs a command where it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, (f"touch {self.proof}",)


def test_code_in_a_pickle_does_not_run(tmp_path: Path) -> None:
    model = published()
    paths = model.write_official(tmp_path / "in")
    proof = tmp_path / "ran"
    torch.save({**model.dit, "extra": Malicious(proof)}, paths["dit"])
    with pytest.raises(RestorationError) as caught:
        convert(sources(paths), model.description, tmp_path / "out")
    assert not proof.exists()
    assert caught.value.reason is FailureReason.MODEL_INVALID
    assert "could run code" in caught.value.message
    assert "system" in caught.value.message  # what it wanted, by name
    assert "weights_only" not in caught.value.message  # no advice to switch the check off


def dit_with(change: Callable[[Tensors], object]) -> Callable[[Published, dict[str, Path]], object]:
    def spoil(model: Published, paths: dict[str, Path]) -> None:
        torch.save(change({name: tensor.float() for name, tensor in model.dit.items()}), paths["dit"])

    return spoil


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda weights: {key: tensor for key, tensor in weights.items() if key != name}


def with_value(name: str, value: object) -> Callable[[Tensors], dict[str, object]]:
    return lambda weights: {**weights, name: value}


def bytes_of(which: str, change: Callable[[bytes], bytes]) -> Callable[[Published, dict[str, Path]], object]:
    return lambda _, paths: paths[which].write_bytes(change(paths[which].read_bytes()))


def rename(which: str, suffix: str) -> Callable[[Published, dict[str, Path]], object]:
    def spoil(_: Published, paths: dict[str, Path]) -> None:
        paths[which] = paths[which].rename(paths[which].with_suffix(suffix))

    return spoil


REFUSED: list[tuple[str, Callable[[Published, dict[str, Path]], object], str]] = [
    ("missing key", dit_with(without("txt_in.bias")), "missing tensors: txt_in.bias"),
    ("unknown key", dit_with(with_value("blocks.9.bias", torch.zeros(3))), "unknown tensors: blocks.9.bias"),
    ("wrong shape", dit_with(with_value("txt_in.bias", torch.zeros(65))), "txt_in.bias is [65] instead of [64]"),
    ("integers", dit_with(with_value("txt_in.bias", torch.zeros(64, dtype=torch.int64))), "not floating point"),
    ("a wrapper", dit_with(lambda weights: {"state_dict": weights}), "no flat list of tensors: 'state_dict' is a dict"),
    ("a list", dit_with(lambda weights: list(weights.values())), "holds a list, not tensors by name"),
    ("not a number", dit_with(with_value("txt_in.bias", torch.full((64,), float("nan")))), "not finite"),
    ("half of the file", bytes_of("dit", lambda data: data[: len(data) // 2]), "damaged or no PyTorch file"),
    ("an empty file", bytes_of("vae", lambda _: b""), "damaged or no PyTorch file"),
    ("a bare pickle", bytes_of("text", lambda _: pickle.dumps([1, 2])), "pos_emb.pt"),
    ("no such file", lambda _, paths: paths["vae"].unlink(), "does not exist"),
    ("another format", rename("dit", ".gguf"), "GGUF"),
    ("another prompt", lambda _, paths: torch.save(torch.zeros(5, 7), paths["text"]), "must be [L, 48] floats"),
    ("several prompts", lambda m, paths: torch.save({"a": m.text, "b": m.text}, paths["text"]), "exactly one"),
]


@pytest.mark.parametrize(("spoil", "says"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_does_not_fit_is_named_and_nothing_is_left(
    spoil: Callable[[Published, dict[str, Path]], object], says: str, tmp_path: Path
) -> None:
    model = published()
    paths = model.write_official(tmp_path / "in")
    spoil(model, paths)
    (tmp_path / "models").mkdir()
    with pytest.raises(RestorationError) as caught:
        convert(sources(paths), model.description, tmp_path / "models" / "out")
    assert caught.value.reason is FailureReason.MODEL_INVALID
    assert says in caught.value.message
    assert not list((tmp_path / "models").iterdir())


def test_values_beyond_fp16_are_refused_with_the_way_out(tmp_path: Path) -> None:
    model = published()
    model.dit["txt_in.bias"] = torch.full((64,), 1e6)
    paths = model.write_official(tmp_path / "in")
    with pytest.raises(RestorationError, match=r"txt_in\.bias reaches 1e\+06, which FP16 cannot hold; use .*BF16"):
        convert(sources(paths), model.description, tmp_path / "out", precision=Precision.FP16)
    assert convert(sources(paths), model.description, tmp_path / "out", precision=Precision.BF16)


def test_an_existing_folder_is_not_touched(tmp_path: Path) -> None:
    model = published()
    paths = model.write_official(tmp_path / "in")
    (tmp_path / "out").mkdir()
    with pytest.raises(RestorationError, match="exists already") as caught:
        convert(sources(paths), model.description, tmp_path / "out")
    assert caught.value.reason is FailureReason.INVALID_PARAMETERS
    assert not list((tmp_path / "out").iterdir())


class KilledError(BaseException):
    """Ctrl-C, for one."""


def test_nothing_half_written_is_seen_and_leftovers_go(tmp_path: Path) -> None:
    model = published()
    paths = model.write_official(tmp_path / "in")
    left = tmp_path / "models" / ".out.abc.partial"
    left.mkdir(parents=True)
    (left / "dit.safetensors").write_bytes(b"half")

    def stop(done: int, total: int) -> None:
        assert (tmp_path / "models").is_dir()
        assert not (tmp_path / "models" / "out").exists()
        if done == total // 2:
            raise KilledError

    with pytest.raises(KilledError):
        convert(sources(paths), model.description, tmp_path / "models" / "out", on_tensor=stop)
    assert not left.exists()
    convert(sources(paths), model.description, tmp_path / "models" / "out")
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["out"]
    check_sums(tmp_path / "models" / "out")


def test_one_tensor_at_a_time_is_in_memory(tmp_path: Path) -> None:
    """30 MB of weights in a file; what the conversion allocates stays a fraction of it."""
    config = dit_3b_rules(width=384, heads=6, head_dim=64, layers=6, separate_layers=1, text_width=48, expand_ratio=3)
    layout, tiny = dit_layout(config), published()
    random = torch.Generator().manual_seed(1)
    weights: dict[str, Tensor] = {name: torch.randn(s, generator=random) for name, s in layout.shapes.items()}
    paths = replace(tiny, dit=weights).write_official(tmp_path / "in")
    file_bytes = paths["dit"].stat().st_size
    assert file_bytes > 30e6
    del weights
    description = tiny.description.model_copy(update={"dit": config})
    before, seen = _anonymous_bytes(), list[int]()
    convert(
        sources(paths),
        description,
        tmp_path / "out",
        precision=Precision.BF16,
        on_tensor=lambda done, total: seen.append(_anonymous_bytes()),
    )
    assert max(seen) - before < 0.4 * file_bytes


def _anonymous_bytes() -> int:
    """Memory of this process that is no file's: what has to fit."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])
