"""Inputs that this runner does not restore exactly yet, refused before a GPU works on them.

A property that is ignored is worse than one that is refused: the result looks finished and is wrong. Every row says
what was found and what to do instead. What the request asks for is checked elsewhere; this is about the file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from restoration_api.ledger import VideoFacts
from restoration_runner.video import colorimetry, pixels
from restoration_runner.video.scan import Scan
from restoration_runner.video.source import invalid
from restoration_runner.video.timeline import MOST_TICKS_PER_SECOND

DECODERS: Final = frozenset(
    {
        "av1",
        "dnxhd",
        "dvvideo",
        "ffv1",
        "flv1",
        "h263",
        "h264",
        "hevc",
        "huffyuv",
        "mjpeg",
        "mpeg1video",
        "mpeg2video",
        "mpeg4",
        "msmpeg4v2",
        "msmpeg4v3",
        "prores",
        "rawvideo",
        "theora",
        "utvideo",
        "vc1",
        "vp8",
        "vp9",
        "wmv1",
        "wmv2",
        "wmv3",
    }
)
"""Video codecs that are read. FFmpeg has some 200 more, rare and little tested: each is a door for hostile files."""

HDR_TRANSFERS: Final = {"smpte2084": "HDR10 (PQ)", "arib-std-b67": "HLG"}
SDR_TRANSFERS: Final = frozenset(
    {
        "bt709",
        "bt470m",
        "bt470bg",
        "smpte170m",
        "smpte240m",
        "iec61966-2-1",
        "iec61966-2-4",
        "bt2020-10",
        "bt2020-12",
    }
)
"""Display-coded transfer curves, near enough to the footage the model was trained on; carried as tags."""
PROGRESSIVE: Final = frozenset({"progressive", "unknown"})
"""`unknown` is decided by `scan`, frame by frame."""


@dataclass(frozen=True)
class Refusal:
    """One property that is not handled. `found` says what it is in this file, `remedy` what the user can do now."""

    name: str
    applies: Callable[[VideoFacts], bool]
    found: Callable[[VideoFacts], str]
    remedy: str


@dataclass(frozen=True)
class ScanRefusal:
    """A property that only decoding shows."""

    name: str
    applies: Callable[[Scan], bool]
    found: Callable[[Scan], str]
    remedy: str


DEINTERLACE: Final = "deinterlace it first (for example with ffmpeg -vf bwdif)"
TONE_MAP: Final = "convert it to SDR (BT.709) first"

REFUSALS: Final = (
    Refusal(
        "codec",
        lambda facts: facts.codec not in DECODERS,
        lambda facts: f"its video codec is {facts.codec}",
        "transcode it to H.264 or FFV1 first",
    ),
    Refusal(
        "alpha",
        lambda facts: "alpha" in facts.traits,
        lambda facts: "it has an alpha channel",
        "restore the colour and the alpha channel as two opaque videos",
    ),
    Refusal(
        "pixel format",
        lambda facts: facts.pixel_format not in pixels.LAYOUTS,
        lambda facts: f"its pixel format is {facts.pixel_format}",
        "convert it to planar YUV 4:2:0, 4:2:2 or 4:4:4 of 8, 10 or 12 bit first",
    ),
    Refusal(
        "Dolby Vision",
        lambda facts: "dolby-vision" in facts.traits,
        lambda facts: "it is Dolby Vision, whose metadata would no longer fit the picture",
        TONE_MAP,
    ),
    Refusal(
        "HDR",
        lambda facts: facts.color.transfer in HDR_TRANSFERS,
        lambda facts: f"it is {HDR_TRANSFERS[facts.color.transfer]}",
        TONE_MAP,
    ),
    Refusal(
        "transfer",
        lambda facts: facts.color.transfer not in SDR_TRANSFERS,
        lambda facts: f"its transfer curve is {facts.color.transfer}",
        TONE_MAP,
    ),
    Refusal(
        "matrix",
        lambda facts: facts.color.matrix not in colorimetry.LUMA_WEIGHTS,
        lambda facts: f"its colour matrix is {facts.color.matrix}",
        "convert it to the BT.709 matrix first",
    ),
    Refusal(
        "chroma location",
        lambda facts: facts.color.chroma_location not in colorimetry.CHROMA_OFFSETS,
        lambda facts: f"its chroma samples lie at {facts.color.chroma_location}",
        "convert it to chroma at the left first",
    ),
    Refusal(
        "mirrored",
        lambda facts: "mirrored" in facts.traits,
        lambda facts: "it is to be shown mirrored or scaled by its display matrix",
        "apply the display matrix first (ffmpeg does so when it transcodes)",
    ),
    Refusal(
        "rotation",
        lambda facts: facts.rotation_degrees != 0,
        lambda facts: f"it is to be shown rotated by {facts.rotation_degrees} degrees",
        "rotate its pixels first (ffmpeg does so when it transcodes)",
    ),
    Refusal(
        "pixel aspect",
        lambda facts: facts.sample_aspect_ratio != "1:1",
        lambda facts: f"its pixels are not square ({facts.sample_aspect_ratio})",
        "scale it to square pixels first",
    ),
    Refusal(
        "interlaced",
        lambda facts: facts.field_order not in PROGRESSIVE,
        lambda facts: f"it is interlaced (field order {facts.field_order})",
        DEINTERLACE,
    ),
    Refusal(
        "spherical",
        lambda facts: "spherical" in facts.traits,
        lambda facts: "it is a 360° video, whose projection would be lost",
        "remove the spherical metadata first, if it is to be shown flat",
    ),
    Refusal(
        "stereo",
        lambda facts: "stereo3d" in facts.traits,
        lambda facts: "it is stereoscopic (3D), whose layout would be lost",
        "restore the two views as two videos",
    ),
    Refusal(
        "encrypted",
        lambda facts: "encrypted" in facts.traits,
        lambda facts: "it is encrypted",
        "decrypt it first",
    ),
)
SCAN_REFUSALS: Final = (
    ScanRefusal(
        "interlaced frames",
        lambda scan: scan.interlaced_frames > 0,
        lambda scan: f"{scan.interlaced_frames} of its {scan.frames} frames are interlaced",
        DEINTERLACE,
    ),
    ScanRefusal(
        "damage",
        lambda scan: scan.damaged_packets > 0,
        lambda scan: f"{scan.damaged_packets} of its packets are damaged (first near frame {scan.first_damage_frame})",
        "upload it again, or repair it (for example by transcoding it with ffmpeg)",
    ),
    ScanRefusal(
        "sound",
        lambda scan: bool(scan.unusable_sound),
        lambda scan: (
            f"its sound (stream {scan.unusable_sound[0]}) is empty, or its time stamps are missing or step back"
        ),
        "remux it (for example with ffmpeg -fflags +genpts), or remove that track",
    ),
    ScanRefusal(
        "clock",
        lambda scan: Fraction(scan.timestamps.time_base).denominator > MOST_TICKS_PER_SECOND,
        lambda scan: f"its clock has {Fraction(scan.timestamps.time_base).denominator} ticks per second",
        "remux it into MP4 or MKV first",
    ),
)


def check_supported(facts: VideoFacts, scan: Scan | None = None, *, name: str) -> None:
    """Refuse a file that would not be restored exactly.

    Call it with `facts` alone before the file is scanned, and with both after.

    Args:
        facts: from `probe`.
        scan: from `scan`, once it is there.
        name: what messages call the input.

    Raises:
        RestorationError: `InvalidInput`, for the first row that applies.
    """
    found = [(row.found(facts), row.remedy) for row in REFUSALS if row.applies(facts)]
    if scan is not None:
        found += [(late.found(scan), late.remedy) for late in SCAN_REFUSALS if late.applies(scan)]
    for what, remedy in found[:1]:
        raise invalid(name, f"{what}, which is not supported by this version; {remedy}.")
