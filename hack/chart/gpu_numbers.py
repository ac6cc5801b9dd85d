"""Numbers that NVIDIA's DCGM exporter would have exported during a recording, for machines without a GPU.

They are invented: use and memory of one GPU for each pod that restored, with the exporter's names and labels, busy
while its frames went up. So the dashboard's GPU panels are tried with something; the recording itself has only what was
measured.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import Final

_FRAMES: Final = re.compile(r"^vr_runner_restored_frames_total\{([^}]*)\} (\S+) (\S+)$", re.MULTILINE)
BUSY_SECONDS: Final = 40.0
"""After a frame: several of them are finished at a time."""
TOTAL_MIB: Final = 81_559
"""An H100's."""
IDLE_MIB: Final = 1_200
BUSY_MIB: Final = 62_000


def with_gpu_numbers(recording: str) -> str:
    """The recording, and these."""
    added: dict[str, list[str]] = defaultdict(list)
    moved: dict[str, tuple[float, float]] = {}
    for labels, frames, at in _FRAMES.findall(recording):
        if float(frames) > moved.get(labels, (0.0, 0.0))[0]:
            moved[labels] = float(frames), float(at)
        busy = float(at) - moved.get(labels, (0.0, 0.0))[1] < BUSY_SECONDS
        used = BUSY_MIB if busy else IDLE_MIB
        # Not a straight line: queries that smooth or take a maximum shall have something to do.
        percent = round(93 + 5 * math.sin(float(at) / 20)) if busy else 0
        owner = re.sub(r'job="[^"]*"', 'Hostname="node-1",container="runner",gpu="0",job="dcgm"', labels)
        for name, value in (("GPU_UTIL", percent), ("FB_USED", used), ("FB_FREE", TOTAL_MIB - used)):
            added[name].append(f"DCGM_FI_DEV_{name}{{{owner}}} {value} {at}")
    lines = [line for name in sorted(added) for line in added[name]]
    return recording.removesuffix("# EOF\n") + "\n".join([*lines, "# EOF", ""])
