"""Adds up the tiers' reports, names every skipped test with its reason, and refuses skips that hide missing tools.

A test may skip for want of hardware. A test that skips because a program or a right is missing did not test anything,
and a green run would say it did: on a machine that should have run it, that is a failure.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

HARDWARE = ("needs a CUDA device", "needs an NVIDIA GPU")
"""How the reason of a legitimate skip begins."""


@dataclass(frozen=True)
class Tier:
    """What one report says. `skipped` and `known` (failures that are expected) hold (test, reason)."""

    name: str
    passed: int
    failed: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    known: tuple[tuple[str, str], ...]
    seconds: float


def read(report: Path) -> Tier:
    """One JUnit file as pytest writes it. Raises FileNotFoundError if the tier never got as far as writing it."""
    passed, seconds = 0, 0.0
    failed: list[str] = []
    skipped: list[tuple[str, str]] = []
    known: list[tuple[str, str]] = []
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        seconds += float(suite.get("time", 0))
        for case in suite.iter("testcase"):
            name = f"{case.get('classname')}::{case.get('name')}"
            if case.find("failure") is not None or case.find("error") is not None:
                failed.append(name)
            elif (skip := case.find("skipped")) is not None:
                reason = skip.get("message") or "no reason given"
                (known if skip.get("type") == "pytest.xfail" else skipped).append((name, reason))
            else:
                passed += 1
    return Tier(report.stem, passed, tuple(failed), tuple(skipped), tuple(known), seconds)


def summarise(reports: list[Path]) -> tuple[list[str], bool]:
    """The lines to print, and whether the run may count as good."""
    lines, good, tiers = [], True, []
    for report in reports:
        if report.exists():
            tiers.append(read(report))
        else:
            good = False
            lines.append(f"{report.stem}: NO REPORT, the tier ended before its first test")
    for tier in tiers:
        lines.append(
            f"{tier.name}: {tier.passed} passed, {len(tier.failed)} failed, {len(tier.skipped)} skipped"
            f" in {tier.seconds:.0f} s"
        )
        lines += [f"  failed   {name}" for name in tier.failed]
        lines += [f"  known    {name}: {reason}" for name, reason in tier.known]
        for name, reason in tier.skipped:
            allowed = reason.startswith(HARDWARE)
            lines.append(f"  skipped  {name}: {reason}" + ("" if allowed else "  <- must run here"))
            good = good and allowed
        good = good and not tier.failed and tier.passed > 0
    totals = [sum(t.passed for t in tiers), sum(len(t.failed) for t in tiers), sum(len(t.skipped) for t in tiers)]
    lines.append("{} passed, {} failed, {} skipped".format(*totals))
    return lines, good


def main() -> int:
    lines, good = summarise([Path(argument) for argument in sys.argv[1:]])
    print("\n".join(lines))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
