"""Damaged and hostile videos: in a process of its own, with limits of memory and time, for decoders are C.

A case that kills the process, or that takes more than it may, is a failure of that case; everything else is facts, or
`InvalidInput` in one sentence.
"""

import multiprocessing
import random
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.builders import clips
from tests.builders.clips import Clip, Sound
from tests.builders.mutations import CASES, FIRST_SEED, bytes_of

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError

MOST_MEMORY_BYTES = 4 << 30
"""Of address space, libraries included: FFmpeg's threads reserve much that they never touch."""
MOST_SECONDS = 120
FEW = 12
SUFFIXES = ("mp4", "mkv", "avi", "ts")


def _probe_all(sample: bytes, path: Path, first: int, count: int, said: Any) -> None:
    """Runs in the child: says which case it is at, so that its death names it."""
    from restoration_runner.video.probe import probe
    from restoration_runner.video.scan import scan
    from restoration_runner.video.supported import check_supported

    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for seed in range(first, first + count):
        said.put(("at", seed, ""))
        path.write_bytes(bytes_of(sample, random.Random(seed)))
        try:
            facts = probe(path)
            check_supported(facts, name=path.name)
            scan(path, facts)
        except RestorationError as error:
            if error.reason is not FailureReason.INVALID_INPUT or "\n" in error.message:
                said.put(("wrong", seed, f"{error.reason}: {error.message}"))
        except BaseException as error:
            said.put(("wrong", seed, f"{type(error).__name__}: {error}"))
    said.put(("done", count, ""))


def survives(sample: bytes, path: Path, *, first: int, count: int) -> None:
    context = multiprocessing.get_context("spawn")
    said: Any = context.Queue()
    child = context.Process(target=_probe_all, args=(sample, path, first, count, said))
    child.start()
    at, wrong = first, []
    try:
        while True:
            kind, seed, text = said.get(timeout=MOST_SECONDS)
            at = seed if kind == "at" else at
            if kind == "wrong":
                wrong.append(f"seed {seed}: {text}")
            if kind == "done":
                break
            if not child.is_alive() and said.empty():
                break
    except Exception:
        wrong.append(f"seed {at}: killed the process (exit code {child.exitcode}) or took more than {MOST_SECONDS} s")
    finally:
        child.kill()
        child.join()
    assert wrong == []


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    folder = tmp_path_factory.mktemp("samples")

    def make(suffix: str) -> bytes:
        clip = Clip(frames=10, sounds=() if suffix == "avi" else (Sound(seconds=0.4),))
        if suffix == "avi":
            clip = clip.but(codec="mpeg4")
        return clips.write(folder / f"sample.{suffix}", clip).read_bytes()

    return make


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_damaged_video_is_described_or_refused(samples: Callable[[str], bytes], tmp_path: Path, suffix: str) -> None:
    survives(samples(suffix), tmp_path / f"case.{suffix}", first=FIRST_SEED, count=CASES or FEW)


def box(kind: bytes, content: bytes = b"", *, claims: int | None = None) -> bytes:
    """An MP4 box; `claims` is a size that is not its own."""
    return struct.pack(">I", 8 + len(content) if claims is None else claims) + kind + content


FTYP = box(b"ftyp", b"isom\x00\x00\x02\x00isomiso2")
BOMBS = {
    "boxes inside each other": FTYP + b"".join(box(b"moov", claims=0x7FFFFFFF) for _ in range(20_000)),
    "a box of no size": FTYP + box(b"moov", claims=0),
    "a box that is smaller than its head": FTYP + box(b"moov", claims=4) * 100,
    "a size of 64 bits": FTYP + struct.pack(">I4sQ", 1, b"mdat", 2**63 - 1),
    "a million empty boxes": FTYP + box(b"free") * 1_000_000,
    "an EBML of unknown size": bytes.fromhex("1a45dfa301ffffffffffffff1853806701ffffffffffffff") * 1000,
    "a playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "a list of files": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "nothing": b"",
    "zeros": bytes(1 << 20),
}


@pytest.mark.parametrize("name", BOMBS)
def test_containers_made_to_harm_are_refused(tmp_path: Path, name: str) -> None:
    from restoration_runner.video.probe import probe

    path = tmp_path / "bomb.mp4"
    path.write_bytes(BOMBS[name])
    with pytest.raises(RestorationError, match=r"bomb\.mp4") as caught:
        probe(path)
    assert caught.value.reason is FailureReason.INVALID_INPUT
    assert "passwd" not in caught.value.message


def with_size(sample: bytes, width: int, height: int) -> bytes:
    """An MP4 that claims another frame size in its headers (`tkhd`, `avc1`)."""
    data = bytearray(sample)
    at = data.index(b"avc1", data.index(b"stsd")) + 28
    data[at : at + 4] = struct.pack(">HH", min(width, 0xFFFF), min(height, 0xFFFF))
    at = data.index(b"tkhd") + 80
    data[at : at + 8] = struct.pack(">II", width << 16 & 0xFFFFFFFF, height << 16 & 0xFFFFFFFF)
    return bytes(data)


def test_frames_that_are_claimed_to_be_huge_cost_nothing(samples: Callable[[str], bytes], tmp_path: Path) -> None:
    survives(with_size(samples("mp4"), 65535, 65535), tmp_path / "huge.mp4", first=0, count=3)
