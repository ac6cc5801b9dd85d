"""Compare the networks with stored results of the released code: `python -m tests.model.fixtures FOLDER`.

A folder holds an `index.json` with cases; each case names its kind, its tensors, its configuration and its tolerance.
`CHECKS` is the one list of the kinds that are built. A case of any other kind counts as failed here, so the program
tells how much of a folder is covered; `pytest` runs the cases of the built kinds from the folder in this repository.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from restoration_runner.models.seedvr2 import attention, dit, rope, sampling, vae
from restoration_runner.models.seedvr2.checkpoint import build_dit, build_vae
from restoration_runner.models.seedvr2.config import RopeRule, swiglu_hidden
from restoration_runner.models.seedvr2.windows import partition
from restoration_runner.restoration.resize import area_size, centre_crop
from restoration_runner.restoration.wavelet import wavelet_transfer
from tests.builders.official import dit_config, vae_config

CPU = torch.device("cpu")
NOMINAL_WINDOW = (4, 3, 3)
TABLE_TOLERANCE = 1e-3  # timesteps up to 1000 in fp32


@dataclass(frozen=True)
class Case:
    """One entry of `index.json`."""

    folder: Path
    entry: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(self.entry["kind"])

    @property
    def name(self) -> str:
        return str(self.entry["file"]).removesuffix(".safetensors").removesuffix(".json")

    @property
    def tolerance(self) -> float:
        return float(self.entry["tolerance"]["max_abs"])

    def tensors(self) -> dict[str, Tensor]:
        return load_file(self.folder / self.entry["file"])

    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads((self.folder / self.entry["file"]).read_text())
        return rows

    def weights(self, key: str = "weights") -> dict[str, Tensor]:
        return read_weights(self.folder / self.entry[key])


@dataclass(frozen=True)
class Measured:
    """One comparison: the largest absolute error beside what is allowed."""

    what: str
    error: float
    allowed: float

    @property
    def passed(self) -> bool:
        return self.error <= self.allowed  # False for NaN


@lru_cache(maxsize=8)
def read_weights(path: Path) -> dict[str, Tensor]:
    return load_file(path)


def compare(what: str, actual: Tensor, expected: Tensor, allowed: float) -> Measured:
    if actual.shape != expected.shape:
        return Measured(f"{what} (shape {list(actual.shape)} for {list(expected.shape)})", math.inf, allowed)
    if actual.numel() == 0:
        return Measured(what, 0.0, allowed)
    return Measured(what, (actual.double() - expected.double()).abs().max().item(), allowed)


def compare_stages(
    found: Mapping[str, Tensor], stored: Mapping[str, Tensor], *, output: str, tolerance: float
) -> Iterator[Measured]:
    """What is both found and stored. The tolerance is meant for outputs: larger values have larger rounding errors."""
    scale = stored[output].abs().max().item()
    for name in stored:
        if name.startswith("out") and name not in found:
            yield Measured(f"{name} is not computed", math.inf, 0)
        if name in found:
            size = stored[name].double().abs().max().item() if name.startswith("mid.") else 0.0
            yield compare(name, found[name], stored[name], tolerance * max(1.0, size / scale))


# --- the transformer ------------------------------------------------------------------------------------------


@dataclass
class AttentionLog:
    """Calls of `attend` during one forward pass, in order: q, k, v and the result, `[windows, heads, n + L, D]`."""

    calls: list[dict[str, Tensor]] = field(default_factory=list)

    @contextmanager
    def recording(self) -> Iterator[None]:
        original = attention.attend

        def recorded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out = original(q, k, v)
            self.calls.append({"q": q, "k": k, "v": v, "o": out})
            return out

        with mock.patch.object(attention, "attend", recorded):
            yield

    def packed_head0(self, layouts: dit.Layouts) -> dict[str, Tensor]:
        """Head 0 of each layer's sequences, joined in the order in which `partition` lists the windows."""
        calls = iter(self.calls)
        found: dict[str, Tensor] = {}
        for layer, layout in enumerate(layouts):
            pieces: dict[int, dict[str, Tensor]] = {}
            for group in layout.groups:
                call = next(calls)
                for row, number in enumerate(group.numbers):
                    pieces[number] = {name: tensor[row, 0] for name, tensor in call.items()}
            order = [pieces[number] for number in range(layout.count)]
            found |= {f"mid.block{layer}.attn.{x}_head0": torch.cat([p[x] for p in order]) for x in "qkvo"}
        return found


def watch_dit(model: dit.NaDiT) -> dict[str, Tensor]:
    """Intermediate results under the fixtures' names, filled by the next forward pass."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            found[name] = output if name == "mid.emb" else output[0]

        return hook

    def keep_block(layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: tuple[Tensor, Tensor]) -> None:
            found[f"mid.block{layer}.vid"] = output[0][0]
            if layer < len(model.blocks) - 1:  # nothing reads the last block's text: it is not computed
                found[f"mid.block{layer}.txt"] = output[1][0]

        return hook

    def keep_projection(layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            stream = "txt" if f"mid.block{layer}.attn.vid" in found else "vid"  # video is always projected first
            found[f"mid.block{layer}.attn.{stream}"] = output[0]

        return hook

    model.patch_in.register_forward_hook(keep("mid.vid_in"))
    model.text_in.register_forward_hook(keep("mid.txt_in"))
    model.time_in.register_forward_hook(keep("mid.emb"))
    model.patch_out.register_forward_pre_hook(
        lambda _module, inputs: found.update({"mid.before_vid_out": inputs[0][0]})
    )
    for layer, block in enumerate(model.blocks):
        block.register_forward_hook(keep_block(layer))
        for stream in block.children():
            stream.get_submodule("out").register_forward_hook(keep_projection(layer))
    return found


def check_dit(case: Case) -> Iterator[Measured]:
    """Output, and every stored intermediate result that the modules compute."""
    config = dit_config(case.kind, case.entry["config"])
    model = build_dit(config, case.weights(), device=CPU, dtype=torch.float32)
    stored = {name: tensor.float() for name, tensor in case.tensors().items()}
    video, text, timestep = stored["in.vid"], stored["in.txt"], stored["in.timestep"]
    found, log = watch_dit(model), AttentionLog()
    with torch.inference_mode(), log.recording():
        found["out"] = model(video[None], text[None], timestep)[0]
    layouts = model.layouts(model.token_grid(video[None].shape), len(text), CPU)
    found |= log.packed_head0(layouts)
    found |= packed_lengths(layouts, len(text))
    yield from compare_stages(found, stored, output="out", tolerance=case.tolerance)


def packed_lengths(layouts: dit.Layouts, text_tokens: int) -> dict[str, Tensor]:
    """Borders of the windows' sequences in the packed order."""
    found = {}
    for layer, layout in enumerate(layouts):
        lengths = [0] * (layout.count + 1)
        for group in layout.groups:
            for number in group.numbers:
                lengths[number + 1] = group.index.shape[1] + text_tokens
        found[f"mid.block{layer}.attn.cu_seqlens"] = torch.tensor(lengths).cumsum(0)
    return found


# --- the VAE --------------------------------------------------------------------------------------------------


def watch_vae(model: vae.VideoVae) -> dict[str, Tensor]:
    """Intermediate results under the fixtures' names, filled by the next passes."""
    found: dict[str, Tensor] = {}

    def watch(module: Any, name: str) -> None:
        module.register_forward_hook(lambda _module, _inputs, output: found.update({f"mid.{name}": output[0].clone()}))

    for side, half in (("enc", model.encoder), ("dec", model.decoder)):
        watch(half.conv_in, f"{side}.conv_in")
        watch(half.middle.before, f"{side}.mid.resnet0")
        watch(half.middle, f"{side}.mid")
        for i, level in enumerate(half.levels.children()):
            watch(level, f"{side}.{'down' if side == 'enc' else 'up'}{i}")
            if side == "dec":
                watch(list(level.get_submodule("blocks").children())[-1], f"dec.up{i}.resnets")
                if level.resample is not None:
                    watch(level.resample.expand, f"dec.up{i}.upscale_conv")
    return found


def streamed(run: Callable[[Tensor, vae.StreamState], Tensor], x: Tensor, chunk: int) -> Tensor:
    """`run` over chunks of 1 + chunk, chunk, chunk … frames of `x [C, T, H, W]`."""
    state, cuts = vae.StreamState(), [0, *range(1 + chunk, x.shape[1], chunk), x.shape[1]]
    return torch.cat([run(x[None, :, a:b], state)[0] for a, b in pairwise(cuts)], dim=1)


@torch.inference_mode()
def check_vae(case: Case) -> Iterator[Measured]:
    """Whole clips with every stored intermediate result, and streams."""
    config = vae_config(case.entry["config"])
    model = build_vae(config, case.weights(), device=CPU, dtype=torch.float32)
    stored = {name: tensor.float() for name, tensor in case.tensors().items()}
    video, latent = stored["in.video"], stored["in.latent"]
    found = watch_vae(model)
    found["out.moments"] = model.encode(video[None])[0]
    found["out.decoded"] = model.decode(latent[None])[0]
    # Streams are always checked; where their results are not stored, against those of the whole clip.
    expected = {
        "out.moments_sliced4": stored["out.moments"],
        "out.decoded_sliced1": stored["out.decoded"],
        **{name: tensor for name, tensor in stored.items() if "_sliced" in name},
    }
    for name in expected:
        run, x = (model.encode, video) if name.startswith("out.moments") else (model.decode, latent)
        found[name] = streamed(run, x, int(name.partition("_sliced")[2]))
    yield from compare_stages(found, {**expected, **stored}, output="out.moments", tolerance=case.tolerance)


# --- the whole pipeline ---------------------------------------------------------------------------------------


def check_pipeline(case: Case) -> Iterator[Measured]:
    entry, stored = case.entry, case.tensors()
    dit_settings = dit_config(entry["dit_kind"], entry["dit_config"])
    vae_settings = vae_config(entry["vae_config"], scaling=entry["vae_scaling_factor"])
    stages = sampling.reference_restore(
        build_dit(dit_settings, case.weights("dit_weights"), device=CPU, dtype=torch.float32),
        build_vae(vae_settings, case.weights("vae_weights"), device=CPU, dtype=torch.float32),
        stored["in.frames_u8_tchw"],
        stored["in.txt"].float(),
        target=tuple(entry["res_hw"]),
        draws=sampling.Draws(eps=stored["in.posterior_eps"].float(), noise=stored["in.noise_thwc"].float()),
        timestep=entry["timestep"],
    )
    found = {
        "mid.video_cthw": stages.video,
        "mid.latent_thwc": stages.latent,
        "mid.velocity_thwc": stages.velocity,
        "mid.x0_thwc": stages.x0,
        "mid.decoded_tchw": stages.decoded,
        "out.colorfixed_tchw": stages.restored,
        "out.frames_u8_thwc": stages.frames,
    }
    allowed = entry["tolerance"] | {"mid.x0": entry["tolerance"]["mid.velocity"]}
    for name, expected in stored.items():
        if name in found:
            yield compare(name, found[name], expected, allowed[name.rpartition("_")[0]])
        elif not name.startswith("in."):
            yield Measured(f"{name} is not computed", math.inf, 0)


# --- single rules ---------------------------------------------------------------------------------------------


def check_colorfix(case: Case) -> Iterator[Measured]:
    stored = case.tensors()
    yield compare("out", wavelet_transfer(stored["in.content"], stored["in.style"]), stored["out"], case.tolerance)


def check_resize(case: Case) -> Iterator[Measured]:
    stored = case.tensors()
    video = sampling.prepare_video(stored["in.frames_u8_tchw"], tuple(case.entry["res_hw"]))
    yield compare("out.video_cthw", video, stored["out.video_cthw"], case.tolerance)


def check_resize_crop(case: Case) -> Iterator[Measured]:
    for row in case.rows():
        resized = area_size((row["src_h"], row["src_w"]), (row["res_h"], row["res_w"]))
        top, left, height, width = centre_crop(resized)
        found = {
            "resized_h": resized[0],
            "resized_w": resized[1],
            "crop_top": top,
            "crop_left": left,
            "out_h": height,
            "out_w": width,
            "latent_h": height // 8,
            "latent_w": width // 8,
            "tokens_h": height // 16,
            "tokens_w": width // 16,
        }
        worst = max(abs(found[name] - row[name]) for name in found)
        yield Measured(f"{row['src_w']}x{row['src_h']} at {row['res_w']}x{row['res_h']}", worst, 0)


def check_timestep(case: Case) -> Iterator[Measured]:
    for row in case.rows():
        t, h, w = (row[f"latent_{axis}"] for axis in "THW")
        for name, grid in (("t_out_TxHxW", (t, h, w)), ("t_out_as_called_with_HxWxC", (h, w, 16))):
            shifted = sampling.timestep_shift(torch.tensor(row["t_in"]), grid).item()
            yield Measured(f"{row['t_in']} at {grid}", abs(shifted - row[name]), TABLE_TOLERANCE)


def check_windows(case: Case) -> Iterator[Measured]:
    for row in case.rows():
        nominal = row.get("window", NOMINAL_WINDOW)
        found = [list(window) for window in partition(tuple(row["size_thw"]), nominal, shifted=row["shifted"])]
        equal = found == row["windows"] and len(found) == row["count"]
        yield Measured(f"{row['size_thw']} {'shifted' if row['shifted'] else 'plain'}", 0.0 if equal else math.inf, 0)


def check_rope(case: Case) -> Iterator[Measured]:
    stored = case.tensors()
    specs = {"3b": case.entry["specs_3b_f_h_w_textlen"], "7b": [[*s, 0] for s in case.entry["specs_7b_f_h_w"]]}
    for name, expected in stored.items():
        match = re.fullmatch(r"(3b|7b)\.hd(\d+)\.(freqs|win(\d+)\.(vid|txt)_angles)", name)
        if match is None:
            continue
        variant, head_dim = match[1], int(match[2])
        rule: RopeRule = "multimodal" if variant == "3b" else "axial"
        rope_dim = head_dim if variant == "3b" else head_dim // 2
        if match[3] == "freqs":
            yield compare(name, rope.frequencies(rule, rope_dim), expected, case.tolerance)
            continue
        *shape, text_tokens = specs[variant][int(match[4])]
        if match[5] == "vid":
            angles = rope.video_angles(rule, rope_dim, (shape[0], shape[1], shape[2]), text_tokens)
        else:
            angles = rope.text_angles(rule, rope_dim, text_tokens)
        yield compare(name, angles.repeat_interleave(2, dim=-1), expected, case.tolerance)
    yield from check_rotation(stored, specs["3b"], case.tolerance)
    sinusoid = dit.timestep_sinusoid(stored["timestep.t"])
    yield compare("timestep.sinusoid256", sinusoid, stored["timestep.sinusoid256"], case.tolerance)


def check_rotation(stored: Mapping[str, Tensor], specs: list[list[int]], allowed: float) -> Iterator[Measured]:
    """The rotated example belongs to the first window of that many tokens."""
    q = stored["apply.in_q_hLd"]
    *shape, text_tokens = next(spec for spec in specs if math.prod(spec[:3]) == q.shape[1])
    grid = (shape[0], shape[1], shape[2])
    cos, sin = rope.rotation("multimodal", q.shape[2], q.shape[2], grid, text_tokens)
    rotated = rope.rotate(q, cos[: q.shape[1]], sin[: q.shape[1]])
    yield compare("apply.out_3b", rotated, stored["apply.out_3b"], allowed)


# --- units ----------------------------------------------------------------------------------------------------


def check_units(case: Case) -> Iterator[Measured]:
    """Single operations; errors may be relative to the largest expected value."""
    stored, limits = case.tensors(), case.entry["tolerance"]
    for actual_name, actual in unit_results(stored, case.entry.get("conv", {})):
        expected = stored[actual_name]
        largest = expected.double().abs().max().item()
        yield compare(actual_name, actual, expected, max(limits["max_abs"], limits.get("rel_to_absmax", 0) * largest))


@torch.no_grad()
def unit_results(s: Mapping[str, Tensor], convs: Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
    plain = dit.rms_norm(s["rms.x"], 1e-5)
    yield "rms.out_noaffine_eps1e-5", plain
    yield "rms.out_affine_eps1e-5", filled(dit.RmsNorm(len(s["rms.weight"]), 1e-5), weight=s["rms.weight"])(s["rms.x"])
    yield from modulation_results(s)
    yield "patch.tokens", dit.to_tokens(s["patch.in_thwc"][None], (1, 2, 2))[0]
    shuffled = vae.unfold_channels(s["shuffle3d.in_bcthw"], 2)
    yield "shuffle3d.out_later_chunk", shuffled
    yield "shuffle3d.out_first_chunk", vae.drop_second_frame(shuffled)
    yield "shuffle2d.out", vae.unfold_channels(s["shuffle2d.in_bcthw"], 1)
    for name, description in convs.items():
        yield from conv_results(s, name, description)
    channels = s["down.weight"].shape[0]
    down = vae.Downsample(channels, temporal=s["down.weight"].shape[2] == 3)
    filled(down.conv, weight=s["down.weight"], bias=torch.zeros(channels))
    yield "down.out", down(s["down.x"])
    yield "gn.out_eps1e-6", best_group_norm(s)
    yield "act.gelu_tanh", gelu(s["act.x"])
    dims = s["swiglu.hidden_dims"]
    hidden = [[width, ratio, swiglu_hidden(width, ratio)] for width, ratio, _ in dims.tolist()]
    yield "swiglu.hidden_dims", torch.tensor(hidden)


def filled(module: Any, **parameters: Tensor) -> Any:
    for name, value in parameters.items():
        getattr(module, name).data = value.float()
    return module


def modulation_results(s: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    prefix = "ada.param."
    vectors = {name.removeprefix(prefix): tensor for name, tensor in s.items() if name.startswith(prefix)}
    module = filled(dit.Modulation(s["ada.hid"].shape[1]), **vectors)
    e, x = dit.split_embedding(s["ada.emb"]), s["ada.hid"][None]
    yield "ada.out.attn.in", module.before_attention(x, e)[0]
    yield "ada.out.attn.out", module.after_attention(x, e)[0]
    yield "ada.out.mlp.in", module.before_mlp(x, e)[0]
    yield "ada.out.mlp.out", module.after_mlp(x, e)[0]


def conv_results(s: Mapping[str, Tensor], name: str, description: str) -> Iterator[tuple[str, Tensor]]:
    """`description` reads like "kernel 3,3,3 stride 1 spatial pad 1"."""
    weight = s[f"conv.{name}.weight"]
    stride_text = re.search(r"stride ([\d,]+)", description)
    steps = [int(step) for step in stride_text[1].rstrip(",").split(",")] if stride_text else [1]
    stride = (steps[0], steps[0], steps[0]) if len(steps) == 1 else (steps[0], steps[1], steps[2])
    pad = re.search(r"spatial pad (\d+)", description)
    kernel = (weight.shape[2], weight.shape[3], weight.shape[4])
    conv = vae.CausalConv3d(weight.shape[1], weight.shape[0], kernel, stride=stride, pad=int(pad[1]) if pad else 0)
    filled(conv, weight=weight, bias=s[f"conv.{name}.bias"])
    x, state = s[f"conv.{name}.x"], vae.StreamState()
    yield f"conv.{name}.whole", conv(x)
    chunks = (re.fullmatch(rf"conv\.{name}\.chunk(\d+)_frames(\d+)to(\d+)", key) for key in s)
    for chunk in sorted((c for c in chunks if c), key=lambda c: int(c[1])):
        yield chunk[0], conv(x[:, :, int(chunk[2]) : int(chunk[3]) + 1], state)


def best_group_norm(s: Mapping[str, Tensor]) -> Tensor:
    """The number of groups is not stored with this case: the best fitting divisor of the channels is meant."""
    x, expected, channels = s["gn.x"], s["gn.out_eps1e-6"], len(s["gn.weight"])
    tried = [
        filled(vae.FrameNorm(groups, channels, 1e-6), weight=s["gn.weight"], bias=s["gn.bias"])(x)
        for groups in range(1, channels + 1)
        if channels % groups == 0
    ]
    best: Tensor = min(tried, key=lambda y: (y - expected).abs().max().item())
    return best


def gelu(x: Tensor) -> Tensor:
    """The activation inside `GeluMlp`, taken out by giving it identities."""
    mlp = dit.GeluMlp(1, 1)
    for linear in (mlp.up, mlp.down):
        filled(linear, weight=torch.ones(1, 1), bias=torch.zeros(1))
    activated: Tensor = mlp(x[:, None])
    return activated[:, 0]


# --- running --------------------------------------------------------------------------------------------------

Check = Callable[[Case], Iterator[Measured]]

# The kinds that are built. A kind that is not listed here is a failure of the program below.
CHECKS: dict[str, Check] = {
    "dit3b": check_dit,
    "dit7b": check_dit,
    "vae": check_vae,
    "pipeline": check_pipeline,
    "colorfix": check_colorfix,
    "resize": check_resize,
    "rope": check_rope,
    "resize_crop": check_resize_crop,
    "timestep_transform": check_timestep,
    "windows": check_windows,
    "units": check_units,
}


def read_cases(folder: Path) -> list[Case]:
    index = json.loads((folder / "index.json").read_text())
    return [Case(folder, entry) for entry in index["cases"]]


@dataclass(frozen=True)
class Result:
    """`problem` is None for a case that passed."""

    case: Case
    worst: Measured | None
    problem: str | None


def run_case(case: Case) -> Result:
    if case.kind not in CHECKS:
        return Result(case, None, f"kind {case.kind!r} is not built")
    try:
        measured = list(CHECKS[case.kind](case))
    except Exception as error:  # one broken case must not hide the others
        return Result(case, None, f"{type(error).__name__}: {error}")
    if not measured:
        return Result(case, None, "nothing was compared")
    worst = max(measured, key=lambda m: math.inf if math.isnan(m.error) else m.error / max(m.allowed, 1e-30))
    failed = [m for m in measured if not m.passed]
    problem = "; ".join(f"{m.what}: {m.error:.3g} > {m.allowed:.3g}" for m in failed[:4])
    return Result(case, worst, problem or None)


def report(results: list[Result]) -> None:
    """The comparison nearest to its limit for each kind, then what failed, then the count."""
    print(f"{'kind':20} {'cases':>5} {'largest error':>14} {'allowed':>10}  where")
    for kind in dict.fromkeys(result.case.kind for result in results):
        of_kind = [result for result in results if result.case.kind == kind]
        measured = [(r.worst, r.case) for r in of_kind if r.worst is not None]
        if not measured:
            print(f"{kind:20} {len(of_kind):5} {'-':>14} {'-':>10}  not compared")
            continue
        worst, case = max(measured, key=lambda item: item[0].error / max(item[0].allowed, 1e-30))
        print(f"{kind:20} {len(of_kind):5} {worst.error:14.3g} {worst.allowed:10.3g}  {case.name} {worst.what}")
    failed = [result for result in results if result.problem]
    for result in failed:
        print(f"FAILED {result.case.kind} {result.case.name}: {result.problem}")
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model.fixtures", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder with index.json")
    folder: Path = parser.parse_args(arguments).folder
    try:
        cases = read_cases(folder)
    except (OSError, ValueError, KeyError) as error:
        print(f"{folder / 'index.json'} cannot be read: {error}", file=sys.stderr)
        return 2
    results = [run_case(case) for case in cases]
    report(results)
    return 1 if any(result.problem for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
