"""What the HEVC encoder's threads and presets cost and give: `python -m benchmarks.encoder CLIP… [--json FILE]`.

Every row encodes the same frames with the segment writer of the product, alone and in a process of its own: frames a
second, busy cores, what is left to do when the last frame was given, bits, and the most memory that the encoder took.
PSNR of luma comes from ffmpeg, VMAF too where an ffmpeg has libvmaf (`--ffmpeg`; PyPI's imageio-ffmpeg is found if it
is installed), against the frames that were given. `--pools` encodes again with so many threads, as a machine with so
many cores would, and says whether the bytes are the same.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from restoration_runner.video.rules import PINNED

FRAME_THREADS = re.compile(r"frame-threads=\d+")


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
    found = []
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
    rate = "24/1"
    settings = write.encoder_settings(crf=chosen.crf, preset=chosen.preset, frame_rate=rate, color=color)
    parameters = FRAME_THREADS.sub(f"frame-threads={chosen.threads}", settings.parameters)
    parameters += f":pools={chosen.pool}" if chosen.pool else ""
    settings = settings.model_copy(update={"parameters": parameters})
    before = memory_kib("VmRSS")
    begun, cpu = time.perf_counter(), time.process_time()
    with threads.sparing(True):  # without the check that decodes beside the encoder
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
    """PSNR of luma in dB, VMAF and VMAF NEG, as far as this ffmpeg measures them."""
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p10le", "-s", f"{size[0]}x{size[1]}", "-r", "24", "-i", str(bare)]
    inputs = [ffmpeg, "-hide_banner", "-r", "24", "-i", str(encoded), *raw, "-lavfi"]
    wanted = {"psnr_y_db": ("psnr", r"PSNR y:([\d.]+)")}
    listing = subprocess.run([ffmpeg, "-hide_banner", "-filters"], capture_output=True, text=True, check=True).stdout
    if " libvmaf " in listing:
        for name, model in (("vmaf", "vmaf_v0.6.1"), ("vmaf_neg", "vmaf_v0.6.1neg")):
            wanted[name] = (f"libvmaf=model=version={model}:n_threads=2", r"VMAF score: ([\d.]+)")
    found = {}
    for name, (filter_, pattern) in wanted.items():
        chain = f"[0]setpts=N[a];[1]setpts=N[b];[a][b]{filter_}"
        command = [*inputs, chain, "-f", "null", "-"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        matched = re.search(pattern, done.stderr)
        if matched is None:
            raise SystemExit(f"{filter_}: {done.stderr.strip()[-400:]}")
        found[name] = float(matched.group(1))
    return found


def again(chosen: argparse.Namespace, clip: Path, out: Path, *, preset: str, threads: int, pool: int) -> Encoded:
    """This program in a fresh process, for one row."""
    command = [sys.executable, "-m", "benchmarks.encoder", str(clip), "--out", str(out), "--preset", preset]
    command += ["--threads", str(threads), "--pool", str(pool), "--crf", str(chosen.crf)]
    command += ["--frames", str(chosen.frames), *(["--height", str(chosen.height)] if chosen.height else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.strip()[-2000:])
    return Encoded(**json.loads(done.stdout.splitlines()[-1]))


def rows(chosen: argparse.Namespace, folder: Path) -> Iterator[dict[str, object]]:
    for clip in chosen.clips:
        bare, out = folder / "given.yuv", folder / "out.mkv"
        size = reference(clip, bare, chosen)
        for preset in chosen.presets:
            for threads in chosen.frame_threads:
                encoded = again(chosen, clip, out, preset=preset, threads=threads, pool=0)
                measured = {} if chosen.speed_only else quality(chosen.ffmpeg, out, bare, size)
                others = [
                    again(chosen, clip, out, preset=preset, threads=threads, pool=pool).sha256 for pool in chosen.pools
                ]
                same = {"same_bytes": all(other == encoded.sha256 for other in others)} if others else {}
                yield {
                    "clip": clip.stem,
                    "size": f"{size[0]}x{size[1]}",
                    "preset": preset,
                    "frame_threads": threads,
                    **asdict(encoded),
                    **measured,
                    **same,
                }


def show(row: dict[str, object]) -> None:
    figures = {name: value for name, value in row.items() if isinstance(value, int | float)}
    frames, seconds = figures["frames"], figures["seconds"]
    parts = [
        f"{row['clip']} {row['size']} {row['preset']:9} {figures['frame_threads']} frame threads:",
        f"{frames / seconds:6.1f} frames/s, {figures['cpu_seconds'] / seconds:4.1f} cores,",
        f"{figures['cpu_seconds'] / frames * 1000:.0f} ms of CPU a frame, rest {figures['rest_s']:.2f} s,",
        f"{figures['size_bytes'] * 8 * 24 / frames / 1e6:.3f} Mbit/s, {figures['memory_mib']:.0f} MiB",
    ]
    parts += [f"{name} {figures[name]:.3f}" for name in ("psnr_y_db", "vmaf", "vmaf_neg") if name in figures]
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
    parser.add_argument("--crf", type=int, default=18)
    parser.add_argument("--speed-only", action="store_true")
    parser.add_argument("--ffmpeg", default=find_ffmpeg())
    parser.add_argument("--json", type=Path)
    for name in ("--out", "--preset"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name in ("--threads", "--pool"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.out:
        print(json.dumps(asdict(encode(chosen.clips[0], Path(chosen.out), chosen))))
        return
    print(f"{os.cpu_count()} cores, PyAV {av.__version__}, CRF {chosen.crf}", flush=True)
    found = []
    with tempfile.TemporaryDirectory() as name:
        for row in rows(chosen, Path(name)):
            found.append(row)
            show(row)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")


def pinned_threads() -> int:
    """What the product uses."""
    matched = FRAME_THREADS.search(PINNED)
    assert matched is not None
    return int(matched.group().partition("=")[2])


if __name__ == "__main__":
    main()
