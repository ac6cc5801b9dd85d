"""What `probe` shows: facts of a file, its frames and cuts, and whether it would be restored."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from restoration_api.outcome import Outcome, Result
from restoration_runner.video.probe import probe
from restoration_runner.video.scan import scan
from restoration_runner.video.supported import check_supported


@dataclass(frozen=True)
class Inspected:
    facts: dict[str, Any]
    outcome: Outcome


def inspect(path: Path) -> Inspected:
    """Probe and decode a whole file.

    Raises:
        RestorationError: `InvalidInput`, with what is wrong with the file.
    """
    facts = probe(path)
    check_supported(facts, name=path.name)
    seen = scan(path, facts)
    check_supported(facts, seen, name=path.name)
    stamps = seen.timestamps
    ticks = sum(delta * count for delta, count in stamps.deltas) + stamps.last_duration
    found = {
        "video": facts.model_dump(mode="json", by_alias=True, exclude_none=True),
        "frames": seen.frames,
        "durationMilliseconds": round(ticks * Fraction(stamps.time_base) * 1000),
        "constantFrameRate": len({delta for delta, _ in stamps.deltas}) <= 1,
        "cuts": [{"frame": cut.frame, "score": round(cut.score, 4)} for cut in seen.cuts],
    }
    return Inspected(found, Outcome(result=Result.SUCCEEDED, reason="Completed", message=f"{path} can be restored"))
