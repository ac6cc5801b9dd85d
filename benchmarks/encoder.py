"""What the HEVC encoder's threads and presets cost and give: `python -m benchmarks.encoder CLIP… [--json FILE]`.

Every row encodes the same frames with the segment writer of the product, alone and in a process of its own: frames a
second, busy cores, what is left to do when the last frame was given, bits, and the most memory that the encoder took.
PSNR and SSIM of luma come from ffmpeg, VMAF too where an ffmpeg has libvmaf (`--ffmpeg`; PyPI's imageio-ffmpeg is found
if it is installed), against the frames that were given. `--pools` encodes again with so many threads, as a machine with
so many cores would, and says whether the bytes are the same. `--also` encodes again with another option of x265
(`ctu=32`); at the end stands what each of them costs beside the product's, with four or more `--crf` for the same
quality, too (Bjøntegaard).
"""

import argparse
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import av
import numpy as np
from numpy.typing import NDArray

from restoration_runner.video.rules import PINNED

FRAME_THREADS = re.compile(r"frame-threads=\d+")
RATE = 24
FITTED = 3
"""Degree of the curves of Bjøntegaard's measure; it wants more points than that."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One way of encoding. rest_s: from the last frame to the closed file. memory_mib: beside the frames themselves."""

    frames: int
    seconds: float
    cpu_seconds: float
    rest_s: float
    size_bytes: int
    sha256: str
    memory_mib: float


def read_planes(clip: Path, height: int | None, frames: int) -> list[tuple[NDArray[np.int16], ...]]:
    """The first frames as planes of 10 bits `[h, w]`; scaled to a height if one is given."""
    found: list[tuple[NDArray[np.int16], ...]] = []
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        tall = height or stream.height // 2 * 2
        wide = round(stream.width * tall / stream.height / 2) * 2
        for frame in container.decode(stream):
            if len(found) == frames:
                break
            picture = frame.reformat(width=wide, height=tall, format="yuv420p10le", interpolation="LANCZOS")
            planes = (np.from_dlpack(plane).view(np.int16).copy() for plane in picture.planes)
            found.append(tuple(planes))
    return found


def encode(clip: Path, out: Path, chosen: argparse.Namespace) -> Encoded:
    """In a process that does nothing else, so that its peak of memory is the encoder's."""
    import torch

    from restoration_runner.video import colorimetry, threads, write

    planes = read_planes(clip, chosen.height, chosen.frames)
    tall, wide = planes[0][0].shape
    color = colorimetry.output_color(
        colorimetry.complete(
            matrix="bt709", primaries="bt709", transfer="bt709", full_range=False, chroma_location="left", height=tall
        )
    )
    rate = f"{RATE}/1"
    settings = write.encoder_settings(
        crf=chosen.crf[0], preset=chosen.preset, width=wide, height=tall, frame_rate=rate, color=color
    )
    parameters = FRAME_THREADS.sub(f"frame-threads={chosen.threads}", settings.parameters)
    parameters += f":{chosen.option}" if chosen.option else ""
    settings = settings.model_copy(update={"parameters": parameters})
    before = memory_kib("VmRSS")
    begun, cpu = time.perf_counter(), time.process_time()
    pool = chosen.pool or threads.pool_size()
    # Sparing: without the check that decodes beside the encoder; that would make the pool small, too.
    with threads.sparing(True), mock.patch.object(write, "pool_size", lambda: pool):
        writer = write.SegmentWriter(out, settings=settings, color=color, width=wide, height=tall, frame_rate=rate)
        for y, u, v in planes:
            writer.write((torch.from_numpy(y), torch.from_numpy(u), torch.from_numpy(v)))
        fed = time.perf_counter()
        writer.close()
    ended = time.perf_counter()
    return Encoded(
        frames=len(planes),
        seconds=ended - begun,
        cpu_seconds=time.process_time() - cpu,
        rest_s=ended - fed,
        size_bytes=out.stat().st_size,
        sha256=hashlib.sha256(out.read_bytes()).hexdigest(),
        memory_mib=(memory_kib("VmHWM") - before) / 1024,
    )


def memory_kib(name: str) -> int:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1])


def reference(clip: Path, target: Path, chosen: argparse.Namespace) -> tuple[int, int]:
    """The given frames as bare planes; returns (width, height)."""
    planes = read_planes(clip, chosen.height, chosen.frames)
    with target.open("wb") as file:
        for frame in planes:
            file.writelines(np.ascontiguousarray(plane).tobytes() for plane in frame)
    tall, wide = planes[0][0].shape
    return wide, tall


def quality(ffmpeg: str, encoded: Path, bare: Path, size: tuple[int, int]) -> dict[str, float]:
    """PSNR and SSIM of luma in dB, VMAF and VMAF NEG, as far as this ffmpeg measures them."""
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p10le", "-s", f"{size[0]}x{size[1]}", "-r", str(RATE), "-i", str(bare)]
    inputs = [ffmpeg, "-hide_banner", "-r", str(RATE), "-i", str(encoded), *raw, "-lavfi"]
    wanted = {"psnr_y_db": ("psnr", r"PSNR y:([\d.]+)"), "ssim_y": ("ssim", r"SSIM Y:([\d.]+)")}
    listing = subprocess.run([ffmpeg, "-hide_banner", "-filters"], capture_output=True, text=True, check=True).stdout
    if " libvmaf " in listing:
        for name, model in (("vmaf", "vmaf_v0.6.1"), ("vmaf_neg", "vmaf_v0.6.1neg")):
            wanted[name] = (f"libvmaf=model=version={model}:n_threads=2", r"VMAF score: ([\d.]+)")
    found = {}
    for name, (filter_, pattern) in wanted.items():
        # Said of both, or a filter is put in that takes bare planes for BT.601's and converts them.
        said = "setpts=N,setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
        chain = f"[0]{said}[a];[1]{said}[b];[a][b]{filter_}"
        command = [*inputs, chain, "-f", "null", "-"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        matched = re.search(pattern, done.stderr)
        if matched is None:
            raise SystemExit(f"{filter_}: {done.stderr.strip()[-400:]}")
        found[name] = float(matched.group(1))
    found["ssim_y_db"] = -10 * math.log10(max(1 - found.pop("ssim_y"), 1e-9))
    return found


def again(chosen: argparse.Namespace, clip: Path, out: Path, *, pool: int = 0, **of_row: object) -> Encoded:
    """This program in a fresh process, for one row."""
    command = [sys.executable, "-m", "benchmarks.encoder", str(clip), "--out", str(out), "--pool", str(pool)]
    command += [word for name, value in of_row.items() for word in (f"--{name}", str(value))]
    command += ["--frames", str(chosen.frames), *(["--height", str(chosen.height)] if chosen.height else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.strip()[-2000:])
    return Encoded(**json.loads(done.stdout.splitlines()[-1]))


def rows(chosen: argparse.Namespace, folder: Path) -> Iterator[dict[str, object]]:
    for clip in chosen.clips:
        bare, out = folder / "given.yuv", folder / "out.mkv"
        size = reference(clip, bare, chosen)
        # The options innermost, one after the other, so that what else the machine does meets them alike.
        for preset, threads, crf, option in product(
            chosen.presets, chosen.frame_threads, chosen.crf, ["", *chosen.also]
        ):
            of_row = {"preset": preset, "threads": threads, "option": option, "crf": crf}
            encoded = again(chosen, clip, out, **of_row)
            measured = {} if chosen.speed_only else quality(chosen.ffmpeg, out, bare, size)
            others = [again(chosen, clip, out, pool=pool, **of_row).sha256 for pool in chosen.pools]
            same = {"same_bytes": all(other == encoded.sha256 for other in others)} if others else {}
            yield {
                "clip": clip.stem,
                "size": f"{size[0]}x{size[1]}",
                "preset": preset,
                "frame_threads": threads,
                "option": option,
                "crf": crf,
                **asdict(encoded),
                **measured,
                **same,
            }


def compare(found: Sequence[dict[str, Any]]) -> Iterator[dict[str, object]]:
    """For rows that differ only in an option and in CRF: each option beside the product's, over all CRFs."""
    curves: dict[tuple[str, ...], dict[str, list[dict[str, Any]]]] = {}
    for row in found:
        key = tuple(str(row[name]) for name in ("clip", "size", "preset", "frame_threads"))
        curves.setdefault(key, {}).setdefault(row["option"], []).append(row)
    for key, options in curves.items():
        (_, plain), *others = options.items()
        for option, curve in others:
            spent = [sum(row["cpu_seconds"] for row in rows) for rows in (plain, curve)]
            figures = {"CPU": spent[1] / spent[0] - 1}
            figures["bits at the same CRF"] = math.exp(np.mean(log_bits(curve) - log_bits(plain))) - 1
            measures = [name for name in ("psnr_y_db", "ssim_y_db", "vmaf", "vmaf_neg") if name in plain[0]]
            if len(plain) > FITTED:
                figures |= {f"bits for the same {name}": bd_rate(plain, curve, name) for name in measures}
            yield {"what": f"{' '.join(key)} frame threads, {option}", **figures}


def log_bits(rows: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    return np.log([row["size_bytes"] for row in rows])


def bd_rate(plain: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]], measure: str) -> float:
    """Share of bits that `other` takes more for the same quality (G. Bjøntegaard, VCEG-M33): mean distance of two
    cubics through the logarithms of the bits, over the qualities that both have."""
    qualities = [[row[measure] for row in rows] for rows in (plain, other)]
    low, high = max(map(min, qualities)), min(map(max, qualities))
    if low >= high:
        return math.nan
    whole = [
        np.polynomial.Polynomial.fit(quality, log_bits(rows), FITTED).integ()
        for quality, rows in zip(qualities, (plain, other), strict=True)
    ]
    areas = [integral(high) - integral(low) for integral in whole]
    return math.exp((areas[1] - areas[0]) / (high - low)) - 1


def show(row: dict[str, object]) -> None:
    figures = {name: value for name, value in row.items() if isinstance(value, int | float)}
    frames, seconds = figures["frames"], figures["seconds"]
    parts = [
        f"{row['clip']} {row['size']} {row['preset']:9} {figures['frame_threads']} frame threads,",
        *([f"{row['option']},"] if row["option"] else []),
        f"CRF {row['crf']}:",
        f"{frames / seconds:6.1f} frames/s, {figures['cpu_seconds'] / seconds:4.1f} cores,",
        f"{figures['cpu_seconds'] / frames * 1000:.0f} ms of CPU a frame, rest {figures['rest_s']:.2f} s,",
        f"{figures['size_bytes'] * 8 * RATE / frames / 1e6:.3f} Mbit/s, {figures['memory_mib']:.0f} MiB",
    ]
    parts += [
        f"{name} {figures[name]:.3f}" for name in ("psnr_y_db", "ssim_y_db", "vmaf", "vmaf_neg") if name in figures
    ]
    parts += [("the same" if row["same_bytes"] else "OTHER") + " bytes"] if "same_bytes" in row else []
    print(" ".join(parts), flush=True)


def find_ffmpeg() -> str:
    try:
        from imageio_ffmpeg import get_ffmpeg_exe  # type: ignore[import-not-found]
    except ImportError:
        return shutil.which("ffmpeg") or "ffmpeg"
    return str(get_ffmpeg_exe())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--presets", nargs="+", default=["medium", "fast"])
    parser.add_argument("--frame-threads", nargs="+", type=int, default=sorted({3, 5, 8, pinned_threads()}))
    parser.add_argument("--pools", nargs="*", type=int, default=[], help="threads of machines with so many cores")
    parser.add_argument("--height", type=int, help="scale the clip to it first")
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--crf", nargs="+", type=int, default=[18])
    parser.add_argument(
        "--also", nargs="+", default=[], metavar="NAME=VALUE", help="once more with this option of x265"
    )
    parser.add_argument("--speed-only", action="store_true")
    parser.add_argument("--ffmpeg", default=find_ffmpeg())
    parser.add_argument("--json", type=Path)
    for name in ("--out", "--preset", "--option"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name in ("--threads", "--pool"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.out:
        print(json.dumps(asdict(encode(chosen.clips[0], Path(chosen.out), chosen))))
        return
    print(f"{os.cpu_count()} cores, PyAV {av.__version__}", flush=True)
    found = []
    with tempfile.TemporaryDirectory() as name:
        for row in rows(chosen, Path(name)):
            found.append(row)
            show(row)
            if chosen.json:
                chosen.json.write_text(json.dumps(found, indent=1) + "\n")
    for line in compare(found):
        shares = [f"{name} {share:+.1%}" for name, share in line.items() if isinstance(share, float)]
        print(f"{line['what']}: {', '.join(shares)}")


def pinned_threads() -> int:
    """What the product uses."""
    matched = FRAME_THREADS.search(PINNED)
    assert matched is not None
    return int(matched.group().partition("=")[2])


if __name__ == "__main__":
    main()
