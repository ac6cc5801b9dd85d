"""What joining and verifying a finished output costs: `python -m benchmarks.assembling [--json FILE]`.

A drifting texture with grain is encoded by the product's segment writer and joined twice: as one segment, and as many
(the same one so many times). Each file is decoded by one decoder from its first frame to its last, without and with the
hash, and then by several decoders at once; `chosen` is what the product does. Everything that is hashed is compared.
"""

import argparse
import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from restoration_api.ledger import ColorFacts
from restoration_runner.video import colorimetry, join, probe, recheck, verify, write
from restoration_runner.video.frame_hash import FrameHash, decode_all
from restoration_runner.video.recheck import Run, Share
from restoration_runner.video.source import open_media
from restoration_runner.video.timeline import Timeline

RATE = 24
GRAINS = 64
"""In each direction, so many pieces of a larger field of grain."""


@dataclass(frozen=True)
class Row:
    file: str
    way: str
    frames: int
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Joined:
    name: str
    path: Path
    expected: verify.Expected
    segments: list[Run]

    @property
    def frames(self) -> int:
        return self.segments[-1].end


def encode(path: Path, color: ColorFacts, chosen: argparse.Namespace) -> write.WrittenSegment:
    """A texture that moves by two rows and a column a frame, under grain that is new in each."""
    import torch

    random = np.random.default_rng(0)
    high, wide, frames = chosen.height, chosen.height * 16 // 9 // 2 * 2, chosen.frames
    rows, columns = np.mgrid[0 : high + 2 * frames, 0 : wide + frames].astype(np.float32)
    texture = (500 + 150 * np.sin(rows / 9 + columns / 31) * np.cos(columns / 13 - rows / 47)).astype(np.int16)
    grain = random.normal(0, chosen.grain, (high + GRAINS, wide + GRAINS)).astype(np.int16)
    chroma = torch.full((high // 2, wide // 2), 512, dtype=torch.int16)
    settings = write.encoder_settings(
        crf=18, preset=chosen.preset, width=wide, height=high, frame_rate=f"{RATE}/1", color=color
    )
    with write.SegmentWriter(
        path, settings=settings, color=color, width=wide, height=high, frame_rate=f"{RATE}/1"
    ) as writer:
        for frame in range(frames):
            down, right = random.integers(GRAINS, size=2)
            luma = texture[2 * frame : 2 * frame + high, frame : frame + wide] + grain[down:, right:][:high, :wide]
            writer.write((torch.from_numpy(np.clip(luma, 64, 940)), chroma, chroma))
    return writer.result()


def joined(segment: Path, written: write.WrittenSegment, color: ColorFacts, *, copies: int) -> Joined:
    path, facts = segment.with_name(f"{copies}.mp4"), probe.probe(segment)
    clock, total = 1000 * RATE, copies * written.frames
    times = Timeline(
        ticks_per_second=clock,
        ticks=tuple(range(0, 1000 * total, 1000)),
        last_duration=1000,
        origin=Fraction(0),
        rate=Fraction(RATE),
    )
    join.join([segment] * copies, path, timeline=times, color=color, facts=facts, source=segment, kept=())
    expected = verify.Expected(
        width=facts.width,
        height=facts.height,
        color=color,
        timeline=times,
        segments=((written.frames, written.frames_sha256),) * copies,
        source=segment,
        kept=(),
    )
    runs = [Run(first, first + written.frames) for first in range(0, total, written.frames)]
    return Joined("one segment" if copies == 1 else f"{copies} segments", path, expected, runs)


def one_pass(file: Joined, *, hashing: bool) -> None:
    """As a player does: from the first frame to the last."""
    with open_media(file.path) as container:
        frames, hashed = decode_all(container), FrameHash()
        for rank, frame in enumerate(frames, 1):
            if hashing:
                hashed.update(frame)
                if rank in {run.end for run in file.segments}:
                    assert hashed.hexdigest() == file.expected.segments[0][1]
                    hashed = FrameHash()
        assert rank == file.frames


def many_decoders(file: Joined, share: Share) -> None:
    found = recheck.decode_segments(file.path, file.segments, share=share, check=lambda frame, rank: None)
    assert [segment.sha256 for segment in found] == [sha256 for _, sha256 in file.expected.segments]


def ways(file: Joined, decoders: list[int]) -> Iterator[tuple[str, Callable[[], object]]]:
    cores, many = len(os.sched_getaffinity(0)), len(file.segments)
    yield "one decoder, no hash", lambda: one_pass(file, hashing=False)
    yield "one decoder", lambda: one_pass(file, hashing=True)
    for count in (count for count in decoders if count <= many):
        share = Share(decoders=count, threads=max(1, cores // count))
        yield told(share), lambda share=share: many_decoders(file, share)  # type: ignore[misc]
    size = file.expected.width * file.expected.height * 3
    share = recheck.share(many, frame_bytes=size)
    yield f"chosen: {told(share)}, whole verification", lambda: verify.verify(file.path, file.expected)


def told(share: Share) -> str:
    return f"{share.decoders} decoders x {share.threads} threads"


def hashing_speed() -> float:
    """MB/s of SHA-256 on one core."""
    data = bytes(64 << 20)
    begun = time.perf_counter()
    hashlib.sha256(data).digest()
    return len(data) / 1e6 / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10 * RATE)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--grain", type=float, default=11, help="standard deviation in levels of 10 bits")
    parser.add_argument("--preset", default="medium")
    parser.add_argument("--copies", type=int, default=8, help="segments of the longer file")
    parser.add_argument("--decoders", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    color = colorimetry.output_color(
        colorimetry.complete(
            matrix="bt709", primaries="bt709", transfer="bt709", full_range=False, chroma_location="left", height=720
        )
    )
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, {platform.machine()}, PyAV {av.__version__}, SHA-256 {hashing_speed():.0f} MB/s", flush=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        segment = Path(folder) / "segment.mkv"
        begun = time.perf_counter()
        written = encode(segment, color, chosen)
        rate = written.size_bytes * 8 * RATE / written.frames / 1e6
        print(f"{written.frames} frames, {rate:.1f} Mbit/s, encoded in {time.perf_counter() - begun:.1f} s", flush=True)
        for copies in (1, chosen.copies):
            begun = time.perf_counter()
            file = joined(segment, written, color, copies=copies)
            print(f"{file.name}: joined in {time.perf_counter() - begun:.2f} s", flush=True)
            for way, run in ways(file, chosen.decoders):
                rows.append(timed(file, way, run))
                show(rows[-1])
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def timed(file: Joined, way: str, run: Callable[[], object]) -> Row:
    begun, cpu = time.perf_counter(), time.process_time()
    run()
    return Row(file.name, way, file.frames, time.perf_counter() - begun, time.process_time() - cpu)


def show(row: Row) -> None:
    print(
        f"{row.file:12} {row.way:60} {row.seconds:6.2f} s {row.frames / row.seconds:7.1f} frames/s"
        f" {row.cpu_seconds / row.seconds:5.1f} cores {row.cpu_seconds / row.frames * 1000:5.1f} ms of CPU a frame",
        flush=True,
    )


if __name__ == "__main__":
    main()
