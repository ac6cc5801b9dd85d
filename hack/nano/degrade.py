"""The degradation that the shipped model is trained to undo and measured on.

`standard`, `light` and `heavy` are fixed up to the encoder: blur, downscale by 4,
8-bit 4:2:0, sensor-like noise from a counter-based generator, H.264. Codec noise alone would leave little to restore
(a high CRF has already smoothed the picture); visible noise kept by a good encode is what a restorer can remove.
"""

import argparse
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from hack.nano.colour import Matrix, Yuv420, matrix_for_height, rgb_to_yuv420, yuv420_to_rgb
from hack.nano.degradation import DEGRADATIONS, STANDARD, Degradation, downscale, gaussian_blur

_NOISE_KEY = 1234
# ITU-T H.273 code points written into the stream: primaries, transfer, matrix.
_TAGS: dict[Matrix, tuple[int, int, int]] = {"bt601": (6, 6, 6), "bt709": (1, 1, 1)}


def low_resolution(rgb: Tensor, degradation: Degradation, *, first_frame: int = 0) -> Yuv420:
    """The uint8 planes that go to the encoder, for `rgb` [T, 3, H, W] in [0, 1].

    Frame t draws its noise from Philox(key=[1234, first_frame + t]): Y, then U, then V. The result does not depend on
    how a clip is split into calls.
    """
    height, width = rgb.shape[-2] // 8 * 8, rgb.shape[-1] // 8 * 8
    # fp64: in fp32 the order of summation, which depends on the thread count, moves some codes by one.
    small = downscale(gaussian_blur(rgb[..., :height, :width].double(), degradation.blur_sigma))
    planes = rgb_to_yuv420(small, matrix_for_height(height))
    noisy = [_add_noise(planes, t, degradation, first_frame + t) for t in range(rgb.shape[0])]
    return Yuv420(*(torch.stack(plane) for plane in zip(*noisy, strict=True)))


def _add_noise(planes: Yuv420, index: int, degradation: Degradation, frame: int) -> list[Tensor]:
    generator = np.random.Generator(np.random.Philox(key=[_NOISE_KEY, frame]))
    result = []
    for plane, share in zip(planes, (1.0, 0.5, 0.5), strict=True):
        noise = generator.standard_normal(tuple(plane.shape[1:]), dtype=np.float32)
        noise *= degradation.noise_codes * share
        noisy = plane[index] + torch.from_numpy(noise).to(plane.device)
        result.append(noisy.clamp(0, 255).round().to(torch.uint8))
    return result


def read_rgb(path: Path, *, frames: int | None = None, first: int = 0) -> Iterator[Tensor]:
    """Frames [3, H, W] fp32 in [0, 1] of an 8-bit 4:2:0 file of limited range, in display order."""
    for yuv in read_yuv(path, frames=frames, first=first):
        matrix = matrix_for_height(yuv.y.shape[-2])
        yield yuv420_to_rgb(Yuv420(*(plane.float()[None] for plane in yuv)), matrix)[0].clamp(0, 1)


def read_yuv(path: Path, *, frames: int | None = None, first: int = 0) -> Iterator[Yuv420]:
    """Planes as uint8 tensors: y [H, W], u and v [H/2, W/2]."""
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index < first:
                continue
            if frames is not None and index >= first + frames:
                return
            if frame.format.name != "yuv420p":
                raise ValueError(f"{path} has pixel format {frame.format.name}; only yuv420p is handled here")
            yield Yuv420(*(_plane(frame, i) for i in range(3)))


def _plane(frame: av.VideoFrame, index: int) -> Tensor:
    plane = frame.planes[index]
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return torch.from_numpy(rows[:, : plane.width].copy())


def write_h264(path: Path, clip: Yuv420, *, rate: Fraction, crf: int, matrix: Matrix) -> None:
    """Write uint8 planes [T, ...] as tagged H.264.

    The planes are reproducible; the stream nearly so: libx264 was seen to make other choices for equal planes of
    160×68 in another process, at the same size and quality. Compare pictures, not files.
    """
    frames, height, width = clip.y.shape
    with av.open(str(path), "w", options={"fflags": "+bitexact", "movflags": "+faststart"}) as container:
        parameters = "threads=1:lookahead-threads=1:sliced-threads=0"
        options = {"crf": str(crf), "preset": "medium", "x264-params": parameters}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = _TAGS[matrix]
        context.color_range = 1  # limited
        for index in range(frames):
            frame = av.VideoFrame(width, height, "yuv420p")
            for target, source in zip(frame.planes, clip, strict=True):
                rows = np.frombuffer(memoryview(target), np.uint8).reshape(target.height, target.line_size)
                rows[:, : target.width] = source[index].numpy()
            frame.pts, frame.duration, frame.time_base = index, 1, 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def degrade_file(source: Path, target: Path, degradation: Degradation, *, first: int = 0, frames: int = 100) -> None:
    """Write the degraded copy of `frames` frames of `source`; noise is indexed from the first frame taken."""
    with av.open(str(source)) as container:
        rate = container.streams.video[0].average_rate
    rgb = torch.stack(list(read_rgb(source, frames=frames, first=first)))
    clip = low_resolution(rgb, degradation)
    # The tags say what a player will assume for the small picture too, so both agree.
    matrix = matrix_for_height(rgb.shape[-2])
    write_h264(target, clip, rate=Fraction(rate), crf=degradation.crf, matrix=matrix)


def main() -> None:
    parser = argparse.ArgumentParser(description="write the degraded copy of a clip")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--degradation", choices=sorted(DEGRADATIONS), default=STANDARD.name)
    parser.add_argument("--first", type=int, default=0, help="index of the first frame taken")
    parser.add_argument("--frames", type=int, default=100)
    arguments = parser.parse_args()
    degradation = DEGRADATIONS[arguments.degradation]
    degrade_file(arguments.source, arguments.target, degradation, first=arguments.first, frames=arguments.frames)


if __name__ == "__main__":
    main()
