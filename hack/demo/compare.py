"""Input, bicubic and restored side by side, measured against the original.

Everything is compared in RGB that FFmpeg made from the files' own colour tags, so that a wrong matrix or range in the
output costs PSNR here, as it would cost the eye. The measure is taken on luma, over all frames of the clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from hack.demo.kubectl import DemoError

Frames = npt.NDArray[np.uint8]  # [T, H, W, 3], RGB

# Weights of ITU-R BT.601, on the scale of limited-range codes: the numbers are then those of ffmpeg's `psnr` filter,
# which most others quote. On the scale of full-range RGB they would all be 1.3 dB lower.
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32) * np.float32(219 / 255)
DETAIL = 0.4
"""Side of the enlarged detail as a part of the frame's."""
MARGIN, CAPTION = 8, 26


@dataclass(frozen=True)
class Comparison:
    """PSNR in dB of the luma over the whole clip, against the original."""

    frames: int
    bicubic_db: float
    restored_db: float


def compare(*, original: Path, degraded: Path, restored: Path, picture: Path) -> Comparison:
    """Measure both and draw the picture. Raises DemoError if the clips do not belong together."""
    truth, low, high = read_rgb(original), read_rgb(degraded), read_rgb(restored)
    if not len(truth) == len(low) == len(high):
        raise DemoError(f"The clips have {len(truth)}, {len(low)} and {len(high)} frames; {restored} is not complete.")
    if high.shape != truth.shape:
        raise DemoError(f"{restored} is {_size(high)}, the original is {_size(truth)}; they cannot be compared.")
    plain = np.stack([_bicubic(frame, (truth.shape[2], truth.shape[1])) for frame in low])
    result = Comparison(len(truth), psnr_db(plain, truth), psnr_db(high, truth))
    draw(low=low, plain=plain, high=high, result=result, picture=picture)
    return result


def read_rgb(path: Path) -> Frames:
    """All frames of the first video stream, [T, H, W, 3]."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def psnr_db(frames: Frames, truth: Frames) -> float:
    """PSNR of the luma in dB, from the mean squared error of the whole clip."""
    errors = [float(np.mean(((a.astype(np.float32) - b) @ LUMA) ** 2)) for a, b in zip(frames, truth, strict=True)]
    return float(10 * np.log10(255**2 / max(float(np.mean(errors)), 1e-10)))


def _bicubic(frame: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))


def _size(frames: Frames) -> str:
    return f"{frames.shape[2]}x{frames.shape[1]}"


def draw(*, low: Frames, plain: Frames, high: Frames, result: Comparison, picture: Path) -> None:
    """Three columns, the middle frame above and its most detailed part, enlarged twice, below."""
    index = result.frames // 2
    width, height = high.shape[2], high.shape[1]
    pixels = Image.fromarray(low[index]).resize((width, height), Image.Resampling.NEAREST)
    columns = (
        (f"input, {_size(low)}", pixels),
        (f"bicubic, {result.bicubic_db:.2f} dB", Image.fromarray(plain[index])),
        (f"restored, {result.restored_db:.2f} dB", Image.fromarray(high[index])),
    )
    box = _most_detailed(high[index])
    detail_height = round(width * (box[3] - box[1]) / (box[2] - box[0]))
    sheet = Image.new("RGB", (3 * width + 4 * MARGIN, CAPTION + height + detail_height + 3 * MARGIN), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=18)
    for number, (caption, image) in enumerate(columns):
        left = MARGIN + number * (width + MARGIN)
        pen.text((left, 4), caption, fill="black", font=font)
        sheet.paste(image, (left, CAPTION + MARGIN))
        detail = image.crop(box).resize((width, detail_height), Image.Resampling.NEAREST)
        sheet.paste(detail, (left, CAPTION + height + 2 * MARGIN))
    picture.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(picture, optimize=True)


def _most_detailed(frame: npt.NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) whose luma changes most from pixel to pixel."""
    luma = frame.astype(np.float32) @ LUMA
    height, width = int(luma.shape[0] * DETAIL), int(luma.shape[1] * DETAIL)
    energy = np.zeros_like(luma)
    energy[:, 1:] = np.abs(np.diff(luma, axis=1))
    total = energy.cumsum(0).cumsum(1)
    total = np.pad(total, ((1, 0), (1, 0)))
    sums = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return int(left), int(top), int(left) + width, int(top) + height
