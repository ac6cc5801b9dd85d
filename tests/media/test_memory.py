"""Memory does not grow with the video: whole restorations in a process of their own, a short one and a long one.

`make soak` sets VR_TEST_MEMORY_FRAMES to `300,3000`. What is compared is the peak of the resident memory, and the room
that it may grow by is less than what the additional frames would take if one copy of each were held as the network's
numbers: 16 MiB here, of which the C library's own disorder was seen to take 8.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from tests.builders import clips
from tests.builders.clips import Clip
from tests.builders.jobs import make_request
from tests.builders.models import write_tiny_model

from restoration_api.defaults import Choices
from restoration_api.outcome import Outcome
from restoration_api.request import Target

FEW, MANY = (int(frames) for frames in os.environ.get("VR_TEST_MEMORY_FRAMES", "60,400").split(","))
SIZE: Final = 64
FRAME_KIB: Final = SIZE * SIZE * 3 * 4 // 1024
CHOICES: Final = Choices(target=Target(scale_factor=1), chunk_frames=9, segment_frames=40, preset="ultrafast")

PROBE = """
import contextlib, sys
from restoration_runner.cli import main
for arguments in sys.argv[1:]:
    sys.argv[1:] = arguments.split("|")
    with contextlib.suppress(SystemExit):
        main()
    # Not getrusage: its peak is the parent's where that was larger when it forked.
    [peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print("peak", peak, flush=True)
"""


def prepared(folder: Path, model: Path, *, frames: int) -> str:
    """Arguments of a runner that restores so many frames in one scene, segment after segment."""
    folder.mkdir()
    source = clips.write(folder / "in.mp4", Clip(frames=frames, width=SIZE, height=SIZE))
    request = make_request(source.as_uri(), (folder / "out.mp4").as_uri(), model, choices=CHOICES)
    (folder / "request.json").write_text(request.to_json())
    files = f"--request={folder / 'request.json'}|--termination-log={folder / 'message'}"
    return f"run|{files}|--scratch={folder}|--http-port=0"


@pytest.mark.timeout(7200)
def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    """The short one first, in the same process: what is loaded once is there already when the long one begins."""
    model = write_tiny_model(tmp_path / "model")
    works = [prepared(tmp_path / str(frames), model, frames=frames) for frames in (FEW, MANY)]
    # One thread: each further one has an arena of memory and a stack of its own, touched whenever it first runs.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-c", PROBE, *works]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    for frames in (FEW, MANY):
        outcome = Outcome.from_json((tmp_path / str(frames) / "message").read_text())
        assert (outcome.reason, outcome.frames_restored) == ("Completed", frames), done.stderr
    few, many = (int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("peak "))
    print(f"{FEW} frames {few} KiB, {MANY} frames {many} KiB: {many / few:.4f}")
    assert many <= 1.05 * few
    assert many - few < (MANY - FEW) * FRAME_KIB
