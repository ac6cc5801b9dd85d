"""What the machine's own ffprobe says: the judge that shares no code with the runner's PyAV."""

import json
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any


def _show(path: Path, *arguments: str) -> dict[str, Any]:
    command = ["ffprobe", "-v", "error", "-of", "json", *arguments, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert not done.stderr, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def streams(path: Path) -> list[dict[str, Any]]:
    return list(_show(path, "-show_streams")["streams"])


def video(path: Path) -> dict[str, Any]:
    return next(stream for stream in streams(path) if stream["codec_type"] == "video")


def chapters(path: Path) -> list[dict[str, Any]]:
    return list(_show(path, "-show_chapters")["chapters"])


def times(path: Path, stream: str = "v:0") -> list[Fraction]:
    """Exact presentation times of all decoded frames, in seconds."""
    found = _show(path, "-select_streams", stream, "-show_entries", "frame=best_effort_timestamp:stream=time_base")
    clock = Fraction(found["streams"][0]["time_base"])
    return [frame["best_effort_timestamp"] * clock for frame in found["frames"]]


def packet_hashes(path: Path, stream: str) -> list[str]:
    found = _show(path, "-select_streams", stream, "-show_packets", "-show_data_hash", "md5")
    return [packet["data_hash"] for packet in found["packets"]]


def packet_times(path: Path, stream: str) -> list[Fraction]:
    """Exact presentation times of all packets in file order, in seconds, priming included."""
    found = _show(path, "-select_streams", stream, "-show_entries", "packet=pts:stream=time_base", "-show_packets")
    clock = Fraction(found["streams"][0]["time_base"])
    return [packet["pts"] * clock for packet in found["packets"]]
