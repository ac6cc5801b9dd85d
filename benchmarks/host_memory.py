"""What a second try after `OOMKilled` takes of the host's memory: `python -m benchmarks.host_memory [--json FILE]`.

The same restorations by runners of their own, on a CPU with `seedvr2-nano`, without a memory hint and with one. The
peak of anonymous memory is what a container is killed for; that of the resident set holds torch's own libraries, too,
which the kernel may drop. The outputs have to be the same, byte for byte.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests.builders import clips
from tests.builders.clips import Clip
from tests.builders.jobs import make_request

from restoration_api.defaults import Choices
from restoration_api.request import Target

NANO: Final = Path(__file__).parents[1] / "runner/restoration_runner/nano"
HINT_MIB: Final = 512
LOOK_SECONDS: Final = 0.02
UHD: Final = Clip(frames=48, width=3840, height=2160, codec="libx265", pixel_format="yuv420p10le")
CASES: Final = {
    "320x180 to 640x360": (
        Clip(frames=25, width=320, height=180),
        Choices(target=Target(scale_factor=2), chunk_frames=13),
    ),
    "3840x2160, 10 bits, to 320x180": (
        UHD.but(options={"preset": "ultrafast", "x265-params": "log-level=error"}),
        Choices(target=Target(width=320, height=180), chunk_frames=13),
    ),
}


@dataclass(frozen=True)
class Row:
    """One runner. MiB; CPU seconds of the whole process."""

    case: str
    hinted: bool
    anonymous_mib: int
    resident_mib: int
    cpu_seconds: float
    sha256: str


def measure(name: str, source: Path, choices: Choices, folder: Path, *, hinted: bool) -> Row:
    """Restore once in a process of its own, and look at it until it is over."""
    folder.mkdir()
    output = folder / "out.mp4"
    (folder / "request.json").write_text(
        make_request(source.as_uri(), output.as_uri(), NANO, choices=choices).to_json()
    )
    files = [f"--request={folder / 'request.json'}", f"--termination-log={folder / 'message'}", f"--scratch={folder}"]
    hint = [f"--memory-hint-mib={HINT_MIB}"] if hinted else []
    command = [sys.executable, "-m", "restoration_runner", "run", *files, "--http-port=0", *hint]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    anonymous = resident = 0
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as runner:
        while runner.poll() is None:
            anonymous = max(anonymous, _kib(runner.pid, "RssAnon"))
            resident = max(resident, _kib(runner.pid, "VmHWM"))
            time.sleep(LOOK_SECONDS)
    if runner.returncode:
        raise SystemExit(f"the runner failed:\n{(folder / 'log').read_text()[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Row(
        case=name,
        hinted=hinted,
        anonymous_mib=anonymous // 1024,
        resident_mib=resident // 1024,
        cpu_seconds=round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        sha256=hashlib.sha256(output.read_bytes()).hexdigest(),
    )


def _kib(pid: int, name: str) -> int:
    """A line of `/proc/PID/status`; 0 for a process that has none any more."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.host_memory", description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="write the rows to this file, too")
    options = parser.parse_args()
    rows = []
    print("| restoration | hint | anonymous MiB | resident MiB | CPU s |", "| --- | --- | --- | --- | --- |", sep="\n")
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, (clip, choices)) in enumerate(CASES.items()):
            source = clips.write(Path(scratch) / f"in-{number}.mp4", clip)
            for hinted in (False, True):
                row = measure(name, source, choices, Path(scratch) / f"{number}-{hinted}", hinted=hinted)
                rows.append(row)
                hint = "with" if hinted else "without"
                print(f"| {name} | {hint} | {row.anonymous_mib} | {row.resident_mib} | {row.cpu_seconds} |", flush=True)
            if rows[-1].sha256 != rows[-2].sha256:
                raise SystemExit(f"{name}: with the hint the output has other bytes")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
