"""Any range of frames, read by seeking, is the same as when the file is decoded from its start."""

import hashlib
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from tests.builders import clips, ffprobe
from tests.builders.clips import Clip, Sound

from restoration_runner.errors import RestorationError
from restoration_runner.video.probe import probe
from restoration_runner.video.read import read_frames, tensors
from restoration_runner.video.scan import scan

LONG = Clip(frames=60, gop=10)
FILES: dict[str, tuple[str, Clip]] = {
    "H.264 in MP4": ("mp4", LONG),
    "H.264 in MKV": ("mkv", LONG),
    "H.264 in MPEG-TS": ("ts", LONG.but(sounds=(Sound(codec="mp2", sample_format="s16", seconds=2.4),))),
    "H.264 in AVI": ("avi", LONG.but(options={"bf": "0"})),
    "H.264 with B-frames in AVI": ("avi", LONG.but(options={"bf": "2"})),
    "FLV": ("flv", LONG),
    "MPEG-4 with B-frames in AVI": ("avi", LONG.but(codec="mpeg4", options={"bf": "2"})),
    "MPEG-2 in a program stream": ("mpg", LONG.but(codec="mpeg2video", options={"bf": "2"})),
    "open groups of pictures": ("mkv", LONG.but(codec="libx265", pixel_format="yuv420p10le")),
    "open groups in H.264": ("mp4", LONG.but(options={"x264-params": "open-gop=1:scenecut=0"})),
    "gradual refresh": ("mp4", LONG.but(options={"x264-params": "intra-refresh=1"})),
    "one keyframe": ("mp4", LONG.but(gop=1000)),
    "only keyframes": ("mov", LONG.but(codec="prores_ks", pixel_format="yuv422p10le")),
    "VP9": ("webm", LONG.but(codec="libvpx-vp9")),
    "AV1": ("mkv", LONG.but(codec="libsvtav1", frames=40)),
    "variable rate": ("mp4", LONG.but(stamps=[n * n + n for n in range(60)], time_base=Fraction(1, 600))),
    "raw H.264": ("h264", LONG),
    "starting late": ("mp4", LONG.but(start=Fraction(3))),
}


def digests(frames: list[tuple[torch.Tensor, ...]]) -> list[str]:
    return [
        hashlib.md5(b"".join(plane.contiguous().numpy().tobytes() for plane in planes)).hexdigest() for planes in frames
    ]


def from_the_start(path: Path) -> list[str]:
    with av.open(str(path)) as container:
        return digests([tensors(frame) for frame in container.decode(video=0)])


@pytest.mark.parametrize("case", FILES)
def test_a_range_is_the_same_as_in_a_decode_from_the_start(tmp_path: Path, case: str) -> None:
    suffix, clip = FILES[case]
    path = clips.write(tmp_path / f"in.{suffix}", clip)
    facts = probe(path)
    found = scan(path, facts)
    whole = from_the_start(path)
    assert found.frames == len(whole) == clip.frames
    assert found.damaged_packets == 0
    for first, last in ((0, 5), (9, 12), (10, 10), (19, 31), (clip.frames - 1, clip.frames - 1)):
        frames = list(read_frames(path, facts, found.timestamps, first=first, last=last))
        assert [frame.index for frame in frames] == list(range(first, last + 1))
        assert digests([frame.planes for frame in frames]) == whole[first : last + 1]


def test_an_edit_list_hides_frames_and_the_header_lies(tmp_path: Path) -> None:
    """`ffmpeg -ss -c copy` keeps the frames before the cut and tells players not to show them."""
    plain = clips.write(tmp_path / "plain.mp4", Clip(frames=202, gop=250))
    path = tmp_path / "in.mp4"
    clips.ffmpeg("-ss", "3.2", "-i", plain, "-c", "copy", path)
    facts = probe(path)
    found = scan(path, facts)
    assert int(ffprobe.video(path)["nb_frames"]) == 202
    assert found.frames == len(ffprobe.times(path)) == 122
    whole = from_the_start(path)
    frames = list(read_frames(path, facts, found.timestamps, first=50, last=60))
    assert digests([frame.planes for frame in frames]) == whole[50:61]


def test_times_that_do_not_increase_are_refused(tmp_path: Path) -> None:
    """Matroska rounds to 1 ms: 2,000 frames a second collide."""
    path = clips.write(tmp_path / "in.mkv", Clip(frames=8, rate=Fraction(2000), options={"bf": "0"}))
    with pytest.raises(RestorationError, match=r"in\.mkv: shows frame 2 at tick 1, not after frame 1 .*genpts"):
        scan(path, probe(path))


def test_the_file_changing_after_the_scan_is_noticed(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "in.mp4", LONG)
    facts = probe(path)
    stamps = scan(path, facts).timestamps
    clips.write(path, LONG.but(frames=30))
    with pytest.raises(RestorationError, match=r"in\.mp4: ends before frame 30"):
        list(read_frames(path, facts, stamps, first=20, last=40))
    with pytest.raises(RestorationError, match=r"in\.mp4: does not give frame 45 again"):
        list(read_frames(path, facts, stamps, first=45, last=50))
    clips.write(path, LONG.but(stamps=[2 * n for n in range(60)]))
    with pytest.raises(RestorationError, match="it was changed meanwhile"):
        list(read_frames(path, facts, stamps, first=20, last=40))


def test_planes_outlive_the_reader(tmp_path: Path) -> None:
    path = clips.write(tmp_path / "in.mp4", Clip(frames=6))
    facts = probe(path)
    frames = list(read_frames(path, facts, scan(path, facts).timestamps, first=0, last=5))
    assert digests([frame.planes for frame in frames]) == from_the_start(path)


MEMORY = """
import resource, sys
from pathlib import Path
from restoration_runner.video.probe import probe
from restoration_runner.video.read import read_frames, tensors
from restoration_runner.video.scan import scan
path = Path(sys.argv[1])
facts = probe(path)
stamps = scan(path, facts).timestamps
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def read(last):
    for _ in read_frames(path, facts, stamps, first=0, last=last): pass
read(40)
before = peak()
read(stamps.frames - 1)
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_range(tmp_path: Path) -> None:
    clip = Clip(frames=400, width=320, height=240, codec="mpeg4", gop=10)
    path = clips.write(tmp_path / "in.mp4", clip)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], check=True, capture_output=True, text=True, timeout=120
    )
    all_frames_kib = 400 * 320 * 240 * 3 // 2 // 1024
    assert int(done.stdout) < all_frames_kib // 8
