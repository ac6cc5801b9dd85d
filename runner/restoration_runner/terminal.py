"""The progress bar of `restore`: the same counters as in a cluster, drawn."""

import contextlib
import threading
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from restoration_api.outcome import Stage
from restoration_runner.progress import ProgressTracker

REFRESH_SECONDS = 0.25
NAMES = {
    Stage.FETCHING: "reading",
    Stage.PROBING: "looking at every frame",
    Stage.LOADING_MODEL: "loading the model",
    Stage.RESTORING: "restoring",
    Stage.ASSEMBLING: "joining and checking",
    Stage.UPLOADING: "writing",
}


@contextlib.contextmanager
def showing(tracker: ProgressTracker, console: Console) -> Iterator[None]:
    """Draw while the body runs; nothing if nobody looks."""
    if not console.is_terminal:
        yield
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    stop = threading.Event()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(NAMES[Stage.FETCHING], total=None, rate="", left="")

        def draw() -> None:
            while not stop.wait(REFRESH_SECONDS):
                _update(bar, task, tracker)

        thread = threading.Thread(target=draw, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _update(bar: Progress, task: TaskID, tracker: ProgressTracker) -> None:
    now = tracker.snapshot()
    rate = now.milli_frames_per_second
    bar.update(
        task,
        description=NAMES[now.stage],
        total=now.frames_total,
        completed=now.frames_done,
        rate=f"{rate / 1000:.2f} frames/s" if rate else "",
        left=_left(now.remaining_milliseconds),
    )


def _left(milliseconds: int | None) -> str:
    if milliseconds is None:
        return ""
    seconds = milliseconds // 1000
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"about {hours}:{minutes:02}:{seconds % 60:02} left" if hours else f"about {minutes}:{seconds % 60:02} left"
