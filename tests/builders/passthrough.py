"""The whole path of a video through the runner's video modules, with nothing restored: what goes in comes out."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from restoration_api.ledger import ColorFacts, EncoderSettings, VideoFacts
from restoration_api.outcome import StreamOutcome, Verification
from restoration_api.request import AudioMode
from restoration_runner.video import colorimetry, colour, join, probe, read, scan, streams, timeline, verify, write


@dataclass(frozen=True, kw_only=True)
class Passed:
    source: Path
    out: Path
    facts: VideoFacts
    scanned: scan.Scan
    color: ColorFacts
    streams: tuple[StreamOutcome, ...]
    timeline: timeline.Timeline
    segments: tuple[Path, ...]
    written: tuple[write.WrittenSegment, ...]

    @property
    def expected(self) -> verify.Expected:
        return verify.Expected(
            width=self.facts.width,
            height=self.facts.height,
            color=self.color,
            timeline=self.timeline,
            segments=verify.expected_segments(self.written),
            source=self.source,
            kept=streams.copied(self.streams),
        )

    def verify(self) -> Verification:
        return verify.verify(self.out, self.expected)


def encode(
    source: Path,
    out: Path,
    facts: VideoFacts,
    scanned: scan.Scan,
    *,
    first: int,
    last: int,
    preset: str = "fast",
) -> write.WrittenSegment:
    """Frames `first` to `last` as one segment."""
    color = colorimetry.output_color(facts.color)
    with write.SegmentWriter(
        out,
        settings=settings(facts, preset=preset),
        color=color,
        width=facts.width,
        height=facts.height,
        frame_rate=facts.frame_rate,
    ) as writer:
        for frame in read.read_frames(source, facts, scanned.timestamps, first=first, last=last):
            rgb = colour.to_rgb(frame.planes, frame.layout, facts.color)
            writer.write(colour.to_yuv420p10(rgb, color))
    return writer.result()


def settings(facts: VideoFacts, *, crf: int = 10, preset: str = "fast") -> EncoderSettings:
    color = colorimetry.output_color(facts.color)
    return write.encoder_settings(
        crf=crf, preset=preset, width=facts.width, height=facts.height, frame_rate=facts.frame_rate, color=color
    )


def pass_through(source: Path, folder: Path, *, segments: int = 3, audio: AudioMode = AudioMode.AUTO) -> Passed:
    """Probe, scan, and write the clip again in so many segments; joined, not yet verified."""
    facts = probe.probe(source)
    scanned = scan.scan(source, facts)
    outcomes = streams.decide(facts, audio=audio)
    times = timeline.timeline(scanned.timestamps, facts, kept=streams.copied(outcomes))
    borders = [round(Fraction(part * scanned.frames, segments)) for part in range(segments + 1)]
    paths = tuple(folder / f"{source.stem}-{part}.mkv" for part in range(segments))
    written = tuple(
        encode(source, path, facts, scanned, first=borders[part], last=borders[part + 1] - 1)
        for part, path in enumerate(paths)
    )
    passed = Passed(
        source=source,
        out=folder / f"{source.stem}-out.mp4",
        facts=facts,
        scanned=scanned,
        color=colorimetry.output_color(facts.color),
        streams=outcomes,
        timeline=times,
        segments=paths,
        written=written,
    )
    join.join(
        paths,
        passed.out,
        timeline=times,
        color=passed.color,
        facts=facts,
        source=source,
        kept=streams.copied(outcomes),
    )
    return passed
