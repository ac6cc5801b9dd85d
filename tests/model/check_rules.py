"""Checks of single rules against stored results: sizes, positions, windows, colour transfer, and small operations.

None of them depends on the precision: the product computes them in fp32, or the case is about fp32 itself.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from restoration_runner.models.seedvr2 import dit, rope, sampling, vae
from restoration_runner.models.seedvr2.config import RopeRule, swiglu_hidden
from restoration_runner.models.seedvr2.windows import partition
from restoration_runner.restoration.resize import area_size, centre_crop
from restoration_runner.restoration.wavelet import wavelet_transfer
from tests.model.comparing import Case, Measured, Place, compare

NOMINAL_WINDOW = (4, 3, 3)
TABLE_TOLERANCE = 1e-3  # timesteps up to 1000 in fp32


def check_colorfix(case: Case, place: Place) -> Iterator[Measured]:
    stored = case.tensors(place)
    yield compare("out", wavelet_transfer(stored["in.content"], stored["in.style"]), stored["out"], case.tolerance)


def check_resize(case: Case, place: Place) -> Iterator[Measured]:
    stored = case.tensors(place)
    video = sampling.prepare_video(stored["in.frames_u8_tchw"], tuple(case.entry["res_hw"]))
    yield compare("out.video_cthw", video, stored["out.video_cthw"], case.tolerance)


def check_resize_crop(case: Case, _place: Place) -> Iterator[Measured]:
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


def check_timestep(case: Case, _place: Place) -> Iterator[Measured]:
    for row in case.rows():
        t, h, w = (row[f"latent_{axis}"] for axis in "THW")
        for name, grid in (("t_out_TxHxW", (t, h, w)), ("t_out_as_called_with_HxWxC", (h, w, 16))):
            shifted = sampling.timestep_shift(row["t_in"], grid)
            yield Measured(f"{row['t_in']} at {grid}", abs(shifted - row[name]), TABLE_TOLERANCE)


def check_windows(case: Case, _place: Place) -> Iterator[Measured]:
    for row in case.rows():
        nominal = row.get("window", NOMINAL_WINDOW)
        found = [list(window) for window in partition(tuple(row["size_thw"]), nominal, shifted=row["shifted"])]
        equal = found == row["windows"] and len(found) == row["count"]
        yield Measured(f"{row['size_thw']} {'shifted' if row['shifted'] else 'plain'}", 0.0 if equal else math.inf, 0)


def check_rope(case: Case, place: Place) -> Iterator[Measured]:
    stored = case.tensors(place)
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
    rotated = rope.rotate(q, cos[: q.shape[1]].to(q.device), sin[: q.shape[1]].to(q.device))
    yield compare("apply.out_3b", rotated, stored["apply.out_3b"], allowed)


def check_units(case: Case, place: Place) -> Iterator[Measured]:
    """Single operations; errors may be relative to the largest expected value."""
    stored, limits = case.tensors(place), case.entry["tolerance"]
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
    filled(down.conv, weight=s["down.weight"], bias=s["down.weight"].new_zeros(channels))
    yield "down.out", down(s["down.x"])
    yield "gn.out_eps1e-6", best_group_norm(s)
    yield "act.gelu_tanh", gelu(s["act.x"])
    dims = s["swiglu.hidden_dims"]
    hidden = [[width, ratio, swiglu_hidden(width, ratio)] for width, ratio, _ in dims.tolist()]
    yield "swiglu.hidden_dims", torch.tensor(hidden)


def filled(module: Any, **parameters: Tensor) -> Any:
    for name, value in parameters.items():
        setattr(module, name, nn.Parameter(value.float(), requires_grad=False))
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
        filled(linear, weight=x.new_ones(1, 1), bias=x.new_zeros(1))
    activated: Tensor = mlp(x[:, None])
    return activated[:, 0]
