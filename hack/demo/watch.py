"""Following a VideoRestoration by its status, the way any user or program can: no logs, no access to the pod."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from hack.demo.kubectl import DemoError, Kubectl
from restoration_api.resources.status import ConditionType, Phase, VideoRestorationStatus

POLL_S = 0.5
BAR_CHARACTERS = 24


def status_of(kubectl: Kubectl, name: str) -> VideoRestorationStatus:
    """The status as the API has it. Raises DemoError if the VideoRestoration is gone."""
    found = kubectl.get("videorestoration", name)
    if found is None:
        raise DemoError(f"VideoRestoration {kubectl.namespace}/{name} does not exist; somebody deleted it.")
    return VideoRestorationStatus.model_validate(found.get("status", {}))


def states(kubectl: Kubectl, name: str, *, timeout_s: float) -> Iterator[VideoRestorationStatus]:
    """Every observed status until `Finished`, the last one included. Raises DemoError at the timeout."""
    deadline = time.monotonic() + timeout_s
    while True:
        status = status_of(kubectl, name)
        yield status
        if status.condition(ConditionType.FINISHED) == "True":
            return
        if time.monotonic() > deadline:
            raise DemoError(f"{name} did not finish within {timeout_s:.0f} s; it says: {why(status)}")
        time.sleep(POLL_S)


def why(status: VideoRestorationStatus) -> str:
    """The most telling condition in one line: what it waits for, or how it ended."""
    order = (ConditionType.SUCCEEDED, ConditionType.ACCEPTED, ConditionType.SCHEDULED)
    for wanted in order:
        for condition in status.conditions:
            telling = condition.status == "False" or (wanted is ConditionType.SUCCEEDED and condition.status == "True")
            if condition.type == wanted and telling:
                return f"{condition.type}={condition.status} {condition.reason}: {condition.message}"
    return str(status.phase or "no status yet")


def line(status: VideoRestorationStatus, *, now: datetime) -> str:
    """One line: phase, bar, frames, speed, time left."""
    progress = status.progress
    phase = str(status.phase or Phase.PENDING)
    if progress is None or progress.frames_total is None or status.phase in (Phase.PENDING, Phase.QUEUED):
        detail = "" if status.phase is Phase.RUNNING else why(status).removeprefix(phase)
        return f"{phase:<11} {progress.stage if progress and progress.stage else ''} {detail}".rstrip()
    done, total = progress.frames_done or 0, progress.frames_total
    filled = BAR_CHARACTERS * done // max(total, 1)
    bar = "#" * filled + "." * (BAR_CHARACTERS - filled)
    text = f"{phase:<11} {progress.stage or '':<12} [{bar}] {progress.percent or 0:3d}%  {done}/{total} frames"
    if progress.milli_frames_per_second:
        text += f"  {progress.milli_frames_per_second / 1000:.2f} frames/s"
    if progress.estimated_completion_time is not None and done < total:
        left_s = max(0, round((progress.estimated_completion_time - now).total_seconds()))
        text += f"  {left_s // 60}:{left_s % 60:02d} left"
    return text


@dataclass
class Display:
    """A line that is redrawn on a terminal; where there is none (logs, CI), a new line whenever something happened."""

    started_at: float
    _happened: object = None

    def show(self, text: str, *, happened: object) -> None:
        """Show `text` with the seconds since the beginning. `happened` tells news from a clock that ticked on."""
        stamp = f"{time.monotonic() - self.started_at:8.1f} s  "
        if sys.stderr.isatty():
            print(f"\r\x1b[K{stamp}{text}", end="", file=sys.stderr, flush=True)
        elif happened != self._happened:
            print(f"{stamp}{text}", file=sys.stderr, flush=True)
        self._happened = happened

    def end(self) -> None:
        """Leave the last line standing."""
        if sys.stderr.isatty():
            print(file=sys.stderr, flush=True)


def follow(kubectl: Kubectl, name: str, *, display: Display, timeout_s: float) -> VideoRestorationStatus:
    """Show the progress until the end and return the final status, whatever it says."""
    status = VideoRestorationStatus()
    for status in states(kubectl, name, timeout_s=timeout_s):
        progress = status.progress
        happened = (status.phase, progress and (progress.stage, progress.frames_done), why(status))
        display.show(line(status, now=datetime.now(UTC)), happened=happened)
    display.end()
    return status
