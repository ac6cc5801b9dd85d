"""How much warm-up hides a segment's border: `python -m benchmarks.nano_borders [--json FILE]`.

Real clips that no training saw (see `nano_quality`) are restored once as one segment and again as two, with E latents
of warm-up for the encoder and D for the decoder; all that differs is the border. A border counts as invisible if 99.9 %
of the values of the eight frames behind it differ by at most one level of 255, and if the picture changes there by at
most 5 % more than without a border (`flicker`). E is measured with a D that is more than enough, D with such an E; the
pair of the smallest is then measured together, also on a grid of windows that leaves nothing to luck. Exit code 1 if
the model's own numbers are not enough.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from hack.nano.degradation import DEGRADATIONS
from hack.nano.degrade import degrade_file, read_rgb
from torch import Tensor

from benchmarks.nano_quality import find_clips
from restoration_runner.models import load_restorer
from restoration_runner.models.restorer import Restorer
from restoration_runner.restoration.grid import SegmentWork, scene_segments
from restoration_runner.restoration.resize import resize
from restoration_runner.restoration.wavelet import wavelet_transfer
from restoration_runner.weights.source import SHIPPED, find_model

DEFAULT_GRID = (6, 1, 3)
"""Window, overlap and windows of a segment, in latents."""
HARDEST_GRID = (7, 0, 2)
"""With seven latents of warm-up for the decoder a window begins just where decoding does: nothing but E precedes it."""
FRAMES = 85
"""The shortest scene that both grids cut, at frame 57 and 53, with room for the longest warm-up before it."""
NEAR_FRAMES = 8
ENOUGH = 9
TRIED = (1, 2, 3, 4, 5, 6, 7)
LARGEST_LEVELS, LARGEST_FLICKER = 1.0, 1.05


@dataclass(frozen=True)
class Sample:
    """A part of a clip: degraded by name, from this frame on, the middle of it at most this large (of the output)."""

    clip: str
    degradation: str
    start: int
    height: int
    width: int


SAMPLES = (
    Sample("bikes", "standard", 0, 160, 256),
    Sample("carphone", "standard", 0, 144, 176),
    Sample("bikes", "light", 60, 160, 256),
    Sample("carphone", "light", 30, 144, 176),
    Sample("bikes", "heavy", 140, 160, 256),
)


@dataclass(frozen=True)
class Row:
    """Levels of 255 after the colour transfer; flicker relative to the same frames without a border."""

    encoder_warmup: int
    decoder_warmup: int
    mean: float
    p999_near: float
    p999_segment: float
    largest: float
    flicker: float

    @property
    def invisible(self) -> bool:
        return self.p999_near <= LARGEST_LEVELS and self.flicker <= LARGEST_FLICKER


class Measuring:
    """The samples on one grid, each with its restoration in one piece."""

    def __init__(self, restorer: Restorer, clips: Sequence[list[Tensor]], grid: tuple[int, int, int]) -> None:
        self._restorer = restorer
        self._clips = clips
        self._grid = grid
        (whole,) = works((*grid[:2], 10_000), 1, 1)
        self._whole = [self._restored(whole, clip) for clip in clips]

    def row(self, e: int, d: int) -> Row:
        """The worst of all samples in every column."""
        _, behind = works(self._grid, e, d)
        found = []
        for clip, whole in zip(self._clips, self._whole, strict=True):
            pieces, first = self._restored(behind, clip), behind.first_frame
            levels = (pieces - whole[first:]).abs() * 127.5
            jump = [(x - whole[first - 1]).abs().mean() for x in (pieces[0], whole[first])]
            found.append(
                torch.stack(
                    [
                        levels.mean(),
                        percentile(levels[:NEAR_FRAMES]),
                        percentile(levels),
                        levels.max(),
                        jump[0] / jump[1],
                    ]
                )
            )
        return Row(e, d, *torch.stack(found).max(0).values.tolist())

    def _restored(self, work: SegmentWork, clip: list[Tensor]) -> Tensor:
        """`[F, 3, H, W]` in [-1, 1], the frames that `work` owns."""
        given = iter(clip[work.encode_from : work.encode_to + 1])
        made = self._restorer.restore(work, given, seed=0)
        owned = clip[work.first_frame : work.last_frame + 1]
        return torch.stack([wavelet_transfer(new, old) for new, old in zip(made, owned, strict=True)]).clamp(-1, 1)


def works(grid: tuple[int, int, int], e: int, d: int) -> list[SegmentWork]:
    return list(
        scene_segments(
            start=0,
            frames=FRAMES,
            window=grid[0],
            overlap=grid[1],
            per_segment=grid[2],
            encoder_warmup=e,
            decoder_warmup=d,
        )
    )


def percentile(levels: Tensor) -> Tensor:
    """99.9 %; `quantile` has a limit of 16 million values, and GPUs no reproducible `kthvalue`."""
    flat = levels.flatten().cpu()
    return flat.kthvalue(max(1, round(0.999 * len(flat)))).values


def read_sample(sample: Sample, clips: dict[str, Path], folder: Path) -> list[Tensor]:
    """The degraded clip at output size, `[3, H, W]` in [-1, 1], multiples of 16."""
    degraded = folder / f"{sample.clip}-{sample.degradation}-{sample.start}.mp4"
    degrade_file(clips[sample.clip], degraded, DEGRADATIONS[sample.degradation], frames=sample.start + FRAMES)
    frames = []
    for frame in islice(read_rgb(degraded), sample.start, sample.start + FRAMES):
        height, width = (
            min(side, wanted // 4) // 4 * 4
            for side, wanted in zip(frame.shape[1:], (sample.height, sample.width), strict=True)
        )
        top, left = (frame.shape[1] - height) // 2, (frame.shape[2] - width) // 2
        cut = frame[:, top : top + height, left : left + width]
        frames.append(resize(cut, (4 * height, 4 * width)) * 2 - 1)
    return frames


def worse(one: Row, other: Row) -> Row:
    """Of the same warm-ups on two grids, column by column."""
    return Row(**{name: max(value, getattr(other, name)) for name, value in asdict(one).items()})


def search(measuring: Measuring, hardest: Measuring) -> Iterator[tuple[str, Row]]:
    """Rows with what they are for; the last one is the answer, measured on both grids."""
    smallest = {}
    for what in ("encoder", "decoder"):
        for latents in TRIED:
            row = measuring.row(*((latents, ENOUGH) if what == "encoder" else (ENOUGH, latents)))
            yield what, row
            if row.invisible:
                smallest[what] = latents
                break
    e, d = smallest.get("encoder", ENOUGH), smallest.get("decoder", ENOUGH)
    while True:
        usual, hard = measuring.row(e, d), hardest.row(e, d)
        yield "both", worse(usual, hard)
        if (usual.invisible and hard.invisible) or max(e, d) > ENOUGH:
            return
        e, d = e + 1, d if usual.invisible else d + 1


def show(what: str, row: Row) -> None:
    numbers = f"{row.mean:8.3f}{row.p999_near:9.2f}{row.p999_segment:9.2f}{row.largest:9.2f}{row.flicker:9.3f}"
    print(
        f"{what:10}{row.encoder_warmup:4}{row.decoder_warmup:4}{numbers}  {'yes' if row.invisible else 'no'}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nano_borders", description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=SHIPPED, help="a model's name or folder")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="FP32")
    parser.add_argument("--downloads", type=Path, default=Path(".dev/nano-downloads"))
    parser.add_argument("--samples", type=int, default=len(SAMPLES), help="how many of the samples to use")
    parser.add_argument("--only-model", action="store_true", help="measure the model's own numbers, do not search")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    chosen = parser.parse_args()
    restorer = load_restorer(find_model(chosen.model), device=chosen.device, precision=chosen.precision, threads=None)
    own = restorer.capabilities
    rows = []
    print(
        f"{'measured':10}{'E':>4}{'D':>4}{'mean':>8}{'99.9 %':>9}{'segment':>9}{'largest':>9}{'flicker':>9}  invisible"
    )
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        clips = find_clips(chosen.downloads.resolve())
        samples = [read_sample(sample, clips, Path(folder)) for sample in SAMPLES[: chosen.samples]]
        measuring, hardest = (Measuring(restorer, samples, grid) for grid in (DEFAULT_GRID, HARDEST_GRID))
        for what, row in () if chosen.only_model else search(measuring, hardest):
            rows.append({"measured": what, **asdict(row)})
            show(what, row)
        warmups = own.encoder_warmup, own.decoder_warmup
        last = worse(measuring.row(*warmups), hardest.row(*warmups))
    rows.append({"measured": "model", **asdict(last)})
    show("model", last)
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if last.invisible else 1


if __name__ == "__main__":
    sys.exit(main())
