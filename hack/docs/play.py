"""Type a page: its shell blocks in one shell, one after the other, as a reader would, with the time that each took.

A block may use variables and files of those before it. The first command that fails ends it.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hack.docs.blocks import Block, blocks_of, commands
from hack.docs.pages import ROOT


class PlayError(Exception):
    """A block failed: which, with the end of what it said."""


@dataclass(frozen=True)
class Step:
    """A block that was run. `output` is what it wrote, both streams together."""

    block: Block
    seconds: float
    output: str

    @property
    def title(self) -> str:
        """Its first command."""
        return (commands(self.block.text) or [""])[0]


def marked(page: str, *, by: str | None = None, root: Path = ROOT) -> list[Block]:
    """The shell blocks of a page that `by` runs; without it, all that somebody runs but CI itself."""
    found = [block for block in blocks_of(root, page) if block.shell and block.marker is not None]
    if by is None:
        return [block for block in found if block.marker and block.marker.runs and block.marker.runs != ".ci/run"]
    return [block for block in found if block.marker and block.marker.runs == by]


def play(
    blocks: Sequence[Block], *, cwd: Path, environment: Mapping[str, str] = os.environ, timeout_s: float = 1800
) -> list[Step]:
    """Run blocks in one bash.

    Raises:
        PlayError: a command failed, or all of them together took longer than `timeout_s`.
    """
    with tempfile.TemporaryDirectory(prefix="play-") as name:
        folder = Path(name)
        parts = ["set -eu -o pipefail"]
        for number, block in enumerate(blocks):
            parts += [f"exec >{folder}/{number}.out 2>&1", f"date +%s.%N >{folder}/{number}.start", block.text]
        script = folder / "script"
        script.write_text("\n".join(parts) + "\n")
        began = time.time()
        try:
            code: int | None = subprocess.run(
                ["bash", script],
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                timeout=timeout_s,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = None
        steps = _steps(blocks, folder, ended=time.time())
    if code == 0 and len(steps) == len(blocks):
        return steps
    last = steps[-1] if steps else Step(blocks[0], time.time() - began, "")
    why = f"did not end within {timeout_s:.0f} s" if code is None else f"ended with {code}"
    raise PlayError(f"{last.block.place} {why}:\n{last.block.text}---\n{last.output[-3000:]}")


def _steps(blocks: Sequence[Block], folder: Path, *, ended: float) -> list[Step]:
    started = [folder / f"{number}.start" for number in range(len(blocks))]
    times = [float(path.read_text()) for path in started if path.exists()]
    return [
        Step(block, until - since, (folder / f"{number}.out").read_text(errors="replace"))
        for number, (block, since, until) in enumerate(zip(blocks, times, [*times[1:], ended], strict=False))
    ]


def times(steps: Sequence[Step]) -> str:
    """The table that `python -m hack.docs play` prints."""
    lines = [f"{step.seconds:7.1f} s  {step.block.place:28} {step.title}" for step in steps]
    return "\n".join([*lines, f"{sum(step.seconds for step in steps):7.1f} s  together"])
