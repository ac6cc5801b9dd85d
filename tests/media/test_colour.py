"""Colour, against formulas written down once more in float64 and against FFmpeg's own accurate conversion."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.builders import clips
from tests.builders.clips import Clip

from restoration_api.ledger import ColorFacts, ColorRange
from restoration_runner.video import colorimetry, colour, pixels, tags

Plane = NDArray[np.float64]
WEIGHTS = {
    "bt709": (0.2126, 0.7152, 0.0722),
    "smpte170m": (0.299, 0.587, 0.114),
    "bt470bg": (0.299, 0.587, 0.114),
    "smpte240m": (0.212, 0.701, 0.087),
    "fcc": (0.30, 0.59, 0.11),
    "bt2020nc": (0.2627, 0.6780, 0.0593),
}


def facts(*, matrix: str = "bt709", full: bool = False, location: str = "left") -> ColorFacts:
    return ColorFacts(
        matrix=matrix,
        primaries="bt709",
        transfer="bt709",
        range=ColorRange.FULL if full else ColorRange.LIMITED,
        chroma_location=location,
    )


def psnr(a: Plane, b: Plane, *, peak: float = 1.0) -> float:
    error = float(np.mean((a - b) ** 2))
    return 200.0 if error == 0 else 10 * np.log10(peak**2 / error)


def smooth_rgb(height: int = 48, width: int = 64) -> Plane:
    """Colours in every direction, smooth enough for 4:2:0 to carry them."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    red = 0.5 + 0.4 * np.sin(2 * np.pi * x / width)
    green = 0.5 + 0.4 * np.cos(2 * np.pi * y / height)
    blue = 0.5 + 0.4 * np.sin(2 * np.pi * (x + y) / (width + height))
    return np.stack((red, green, blue))


def reference_planes(rgb: Plane, *, matrix: str, full: bool, depth: int, location: str) -> tuple[Plane, Plane, Plane]:
    """RGB to 4:2:0 code values, not rounded; chroma by averaging over the tent around each sample's true position."""
    kr, kg, kb = WEIGHTS[matrix]
    y = kr * rgb[0] + kg * rgb[1] + kb * rgb[2]
    cb, cr = (rgb[2] - y) / (2 * (1 - kb)), (rgb[0] - y) / (2 * (1 - kr))
    offset_x, offset_y = {"left": (0, 0.5), "center": (0.5, 0.5), "topleft": (0, 0)}[location]
    cb, cr = (resample(resample(c, offset_y, 0), offset_x, 1) for c in (cb, cr))
    top = 2**depth - 1
    step = 2 ** (depth - 8)
    if full:
        return y * top, cb * top + (top + 1) / 2, cr * top + (top + 1) / 2
    return 16 * step + y * 219 * step, 128 * step + cb * 224 * step, 128 * step + cr * 224 * step


def resample(plane: Plane, offset: float, axis: int) -> Plane:
    moved = np.moveaxis(plane, axis, 0)
    padded = np.concatenate((moved[:1], moved, moved[-1:]))
    starts = np.arange(0, moved.shape[0], 2) + 1
    if offset == 0.5:
        result = (padded[starts] + padded[starts + 1]) / 2
    else:
        result = padded[starts - 1] / 4 + padded[starts] / 2 + padded[starts + 1] / 4
    return np.moveaxis(result, 0, axis)


def tensors(planes: tuple[Plane, Plane, Plane], depth: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    dtype = np.uint8 if depth == 8 else np.uint16
    y, u, v = (torch.from_numpy(np.round(plane).astype(dtype)) for plane in planes)
    return y, u, v


@pytest.mark.parametrize("matrix", sorted(WEIGHTS))
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("location", ["left", "center", "topleft"])
def test_rgb_to_10_bit_is_the_formula_to_a_rounding(matrix: str, full: bool, location: str) -> None:
    rgb = smooth_rgb()
    planes = colour.to_yuv420p10(torch.from_numpy(rgb).float(), facts(matrix=matrix, full=full, location=location))
    expected = reference_planes(rgb, matrix=matrix, full=full, depth=10, location=location)
    for found, exact in zip(planes, expected, strict=True):
        assert found.dtype == torch.int16
        assert np.abs(found.numpy() - exact).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("matrix", sorted(WEIGHTS))
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("location", ["left", "center", "topleft"])
def test_a_round_trip_in_10_bit_loses_nothing_but_the_rounding(matrix: str, full: bool, location: str) -> None:
    rgb = smooth_rgb(192, 256)
    color = facts(matrix=matrix, full=full, location=location)
    planes = tensors(reference_planes(rgb, matrix=matrix, full=full, depth=10, location=location), 10)
    back = colour.to_rgb(planes, pixels.LAYOUTS["yuv420p10le"], color).double().numpy()
    inner = (slice(None), slice(4, -4), slice(4, -4))
    # Rounding Y, Cb and Cr to 10 bit is itself 66.7 dB away from the picture; there is nothing else.
    assert psnr(back[inner], rgb[inner]) > 66
    again = colour.to_yuv420p10(torch.from_numpy(back).float(), color)
    for found, given in zip(again, planes, strict=True):
        inside = (slice(4, -4), slice(4, -4))
        value = found.numpy().astype(np.float64)[inside]
        assert psnr(value, given.numpy().astype(np.float64)[inside], peak=1023) > 70


def test_a_wrong_matrix_range_or_location_is_far_off() -> None:
    """What the round trip would miss if both ways made the same mistake: the tags must change the values."""
    rgb = smooth_rgb(192, 256)
    right = facts()
    planes = tensors(reference_planes(rgb, matrix="bt709", full=False, depth=10, location="left"), 10)
    layout = pixels.LAYOUTS["yuv420p10le"]
    good = psnr(colour.to_rgb(planes, layout, right).double().numpy(), rgb)
    for wrong in (facts(matrix="smpte170m"), facts(full=True)):
        assert psnr(colour.to_rgb(planes, layout, wrong).double().numpy(), rgb) < 40 < good
    # Half a sample to the side: small in a smooth picture, yet far more than rounding.
    assert psnr(colour.to_rgb(planes, layout, facts(location="center")).double().numpy(), rgb) < good - 6


@pytest.mark.parametrize("depth", [8, 10, 12])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
def test_black_white_and_grey_are_exact(depth: int, full: bool) -> None:
    step = 2 ** (depth - 8)
    black, white = (0, 2**depth - 1) if full else (16 * step, 235 * step)
    suffix = {8: "", 10: "10le", 12: "12le"}[depth]
    layout = pixels.LAYOUTS[f"yuv444p{suffix}"]
    luma = np.array([[black, white, (black + white) / 2]])
    neutral = np.full((1, 3), 128.0 * step)
    rgb = colour.to_rgb(tensors((luma, neutral, neutral), depth), layout, facts(full=full))
    assert torch.allclose(rgb[:, 0, :2], torch.tensor([0.0, 1.0]).expand(3, 2), atol=1e-6)
    assert (rgb[0] == rgb[1]).all() and (rgb[1] == rgb[2]).all()


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p"])
@pytest.mark.parametrize("size", [(853, 479), (64, 48), (33, 35), (2, 2), (1, 1)])
def test_any_size_and_sampling_gives_a_picture_of_that_size(pixel_format: str, size: tuple[int, int]) -> None:
    width, height = size
    clip = Clip(width=width, height=height, pixel_format=pixel_format)
    planes = tensors(tuple(plane.astype(np.float64) for plane in clips.picture(clip, 0)), 8)  # type: ignore[arg-type]
    rgb = colour.to_rgb(planes, pixels.LAYOUTS[pixel_format], facts())
    assert rgb.shape == (3, height, width)
    assert rgb.dtype == torch.float32 and rgb.min() >= 0 and rgb.max() <= 1


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m", "bt2020nc"])
def test_luma_and_chroma_agree_with_ffmpegs_accurate_conversion(tmp_path: Path, matrix: str) -> None:
    """zimg (FFmpeg's `zscale`), a colour library with no line in common with ours: 4:4:4 YUV to RGB of 16 bit."""
    rng = np.random.default_rng(7)
    height, width = 32, 48
    rgb = 0.1 + 0.8 * rng.random((3, height, width))
    kr, kg, kb = WEIGHTS[matrix]
    y = kr * rgb[0] + kg * rgb[1] + kb * rgb[2]
    codes = np.stack((y, (rgb[2] - y) / (2 * (1 - kb)), (rgb[0] - y) / (2 * (1 - kr))))
    codes = np.round(codes * np.array([876, 896, 896])[:, None, None] + np.array([64, 512, 512])[:, None, None])
    raw = tmp_path / "in.yuv"
    raw.write_bytes(codes.astype("<u2").tobytes())
    name = {"bt709": "709", "smpte170m": "170m", "bt2020nc": "2020_ncl"}[matrix]
    change = f"zscale=matrixin={name}:rangein=limited:matrix=gbr:range=full,format=gbrp16le"
    frame = ("-f", "rawvideo", "-pix_fmt", "yuv444p10le", "-s", f"{width}x{height}", "-i", str(raw))
    done = subprocess.run(
        ["ffmpeg", "-nostdin", "-v", "error", *frame, "-vf", change, "-f", "rawvideo", "-pix_fmt", "gbrp16le", "-"],
        check=True,
        capture_output=True,
        timeout=60,
    )
    green, blue, red = np.frombuffer(done.stdout, "<u2").reshape(3, height, width) / 65535
    planes = tensors((codes[0], codes[1], codes[2]), 10)
    found = colour.to_rgb(planes, pixels.LAYOUTS["yuv444p10le"], facts(matrix=matrix)).double().numpy()
    assert psnr(found, np.stack((red, green, blue))) > 90


@pytest.mark.parametrize(
    ("height", "said", "expected"),
    [
        (480, {}, ("smpte170m", "smpte170m", "smpte170m")),
        (576, {}, ("bt470bg", "bt470bg", "smpte170m")),
        (577, {}, ("bt709", "bt709", "bt709")),
        (1080, {}, ("bt709", "bt709", "bt709")),
        (480, {"matrix": "bt709"}, ("bt709", "smpte170m", "smpte170m")),
        (2160, {"primaries": "bt2020"}, ("bt709", "bt2020", "bt709")),
    ],
)
def test_unknown_tags_are_filled_by_height_and_said(
    height: int, said: dict[str, str], expected: tuple[str, str, str]
) -> None:
    unknown = dict.fromkeys(("matrix", "primaries", "transfer", "chroma_location"), tags.UNSPECIFIED)
    found = colorimetry.complete(**{**unknown, **said}, full_range=None, height=height)
    assert (found.matrix, found.primaries, found.transfer) == expected
    assert found.range is ColorRange.LIMITED and found.chroma_location == "left"
    assert set(found.assumed) == {*unknown, "range"} - set(said)


def test_values_outside_the_gamut_are_clamped() -> None:
    rgb = torch.tensor([[[-0.5, 1.5], [-0.5, 1.5]]] * 3)
    y, u, v = colour.to_yuv420p10(rgb, facts())
    assert y.tolist() == [[64, 940], [64, 940]]
    assert u.tolist() == v.tolist() == [[512]]
