"""What is in an input file, before anything is planned: streams, geometry, colour, and a first decoded frame.

ffprobe says what the container and the codec's headers claim; PyAV decodes one frame to see what is really there.
Where both speak of colour, the frame wins: container tags are often copied from somewhere else.
"""

from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
from av.video.frame import VideoFrame

from restoration_api.ledger import ColorFacts, StreamFacts, VideoFacts
from restoration_runner.video import colorimetry, ffmpeg_cli, tags
from restoration_runner.video.source import (
    MOST_PIXELS,
    display_name,
    invalid,
    media_errors,
    open_media,
    packets,
    video_stream,
)
from restoration_runner.video.streams import CHAPTER_TITLES, CLOSED_CAPTIONS

ONE: Final = 1 << 16
"""1.0 in a display matrix, which is in 16.16 fixed point (ISO/IEC 14496-12)."""
TRAITS_OF_SIDE_DATA: Final = {
    "DOVI configuration record": "dolby-vision",
    "Spherical Mapping": "spherical",
    "Stereo 3D": "stereo3d",
    "Encryption initialization data": "encrypted",
}


def probe(path: Path, *, name: str | None = None) -> VideoFacts:
    """Describe a local file.

    Args:
        path: the file.
        name: what messages call it (its URI); the file's own name if not given.

    Raises:
        RestorationError: `InvalidInput`: not a video, no video stream, no frame that can be decoded.
    """
    called = display_name(path, name)
    found = ffmpeg_cli.probe(path, name=name)
    streams = found.get("streams", [])
    chosen = _choose(streams, called)
    frame = _first_frame(path, chosen["index"], called)
    rate = _rate(chosen)
    return VideoFacts(
        container=found["format"]["format_name"],
        stream_index=chosen["index"],
        codec=chosen.get("codec_name", tags.UNSPECIFIED),
        pixel_format=frame.format.name,
        bit_depth=max(component.bits for component in frame.format.components),
        width=frame.width,
        height=frame.height,
        sample_aspect_ratio=_aspect(chosen),
        rotation_degrees=_rotation(chosen),
        field_order=chosen.get("field_order", tags.UNSPECIFIED),
        frame_rate=f"{rate.numerator}/{rate.denominator}" if rate else None,
        traits=tuple(sorted(_traits(chosen, frame))),
        color=_color(chosen, frame),
        streams=tuple(_stream_facts(stream) for stream in streams),
    )


def _choose(streams: list[dict[str, Any]], called: str) -> dict[str, Any]:
    """The stream to restore: a real video (no cover art, no stills), default before others, then the largest."""
    videos = [stream for stream in streams if stream.get("codec_type") == "video"]
    moving = [stream for stream in videos if not _is_picture(stream)]
    if not moving:
        if videos:
            raise invalid(called, "has no video stream, only an attached picture (cover art).")
        kinds = ", ".join(sorted({f"{stream.get('codec_type', 'unknown')}" for stream in streams})) or "no streams"
        raise invalid(called, f"has no video stream, only {kinds}.")
    best = max(
        moving,
        key=lambda stream: (
            stream["disposition"]["default"],
            stream.get("width", 0) * stream.get("height", 0),
            -stream["index"],
        ),
    )
    width, height = best.get("width", 0), best.get("height", 0)
    if width < 1 or height < 1:
        raise invalid(called, "has a video stream without a frame size; the file is cut off or damaged.")
    if width * height > MOST_PIXELS:
        raise invalid(called, f"claims frames of {width}x{height}, larger than any video codec allows.")
    return best


def _is_picture(stream: dict[str, Any]) -> bool:
    disposition = stream.get("disposition", {})
    return any(disposition.get(kind) for kind in ("attached_pic", "timed_thumbnails", "still_image"))


def _first_frame(path: Path, index: int, called: str) -> VideoFrame:
    with open_media(path, name=called) as container:
        if index >= len(container.streams):
            raise invalid(called, "changes its streams while it is read; remux it into MP4 or MKV.")
        if container.streams[index].codec_context is None:
            raise invalid(called, "has a video codec that this runner cannot decode; transcode it to H.264 first.")
        stream = video_stream(container, index)
        with media_errors(called):
            for packet in packets(container, stream):
                try:
                    frames = stream.decode(packet)
                except av.error.InvalidDataError:
                    continue  # `scan` counts the damage; here one good frame is enough
                if frames:
                    return frames[0]
    raise invalid(called, "has a video stream without a single frame that can be decoded.")


def _rate(stream: dict[str, Any]) -> Fraction | None:
    for key in ("avg_frame_rate", "r_frame_rate"):
        numerator, _, denominator = stream.get(key, "0/0").partition("/")
        if int(numerator) > 0 and int(denominator or 1) > 0:
            return Fraction(int(numerator), int(denominator or 1))
    return None


def _aspect(stream: dict[str, Any]) -> str:
    said = str(stream.get("sample_aspect_ratio", "1:1"))
    return "1:1" if said.startswith("0:") or ":" not in said else said


def _display_matrix(stream: dict[str, Any]) -> list[int] | None:
    for item in stream.get("side_data_list", []):
        if "displaymatrix" in item:
            rows = [line.partition(":")[2].split() for line in item["displaymatrix"].splitlines() if ":" in line]
            return [int(number) for row in rows for number in row]
    return None


def _only_turns(matrix: list[int]) -> bool:
    """False if a display matrix also mirrors, scales or shears, which `rotation` does not tell."""
    a, b, _, c, d = matrix[:5]
    return (a, b) == (d, -c) and abs(a * a + b * b - ONE * ONE) <= ONE


def _rotation(stream: dict[str, Any]) -> int:
    for item in stream.get("side_data_list", []):
        if "rotation" in item:
            return int(item["rotation"])
    return 0


def _traits(stream: dict[str, Any], frame: VideoFrame) -> set[str]:
    items = stream.get("side_data_list", [])
    traits = {
        TRAITS_OF_SIDE_DATA[kind] for item in items if (kind := item.get("side_data_type")) in TRAITS_OF_SIDE_DATA
    }
    matrix = _display_matrix(stream)
    if matrix and not _only_turns(matrix):
        traits.add("mirrored")
    said = {key.lower(): value for key, value in stream.get("tags", {}).items()}
    if any(component.is_alpha for component in frame.format.components) or said.get("alpha_mode") == "1":
        traits.add("alpha")
    if stream.get("closed_captions"):
        traits.add(CLOSED_CAPTIONS)
    if said.get("stereo_mode", "mono") != "mono":
        traits.add("stereo3d")
    return traits


def _color(stream: dict[str, Any], frame: VideoFrame) -> ColorFacts:
    """Each field from the frame, else from the stream, else by rule (`colorimetry.complete`)."""

    def said(table: dict[int, str], code: int, key: str) -> str:
        return table.get(int(code), tags.normal(stream.get(key)))

    full_range = {tags.LIMITED: False, tags.FULL: True}.get(int(frame.color_range))
    if full_range is None:
        full_range = {"tv": False, "pc": True}.get(stream.get("color_range", ""))
    return colorimetry.complete(
        matrix=said(tags.MATRICES, frame.colorspace, "color_space"),
        primaries=said(tags.PRIMARIES, frame.color_primaries, "color_primaries"),
        transfer=said(tags.TRANSFERS, frame.color_trc, "color_transfer"),
        full_range=full_range,
        chroma_location=tags.normal(stream.get("chroma_location")),
        height=frame.height,
    )


def _stream_facts(stream: dict[str, Any]) -> StreamFacts:
    said = {key.lower(): value for key, value in stream.get("tags", {}).items()}
    return StreamFacts(
        index=stream["index"],
        type=stream.get("codec_type", tags.UNSPECIFIED),
        codec=_codec(stream),
        language=said.get("language"),
        title=said.get("title"),
        default=bool(stream.get("disposition", {}).get("default")),
        attached_picture=bool(stream.get("disposition", {}).get("attached_pic")),
        start=_start(stream),
    )


def _codec(stream: dict[str, Any]) -> str:
    if _is_chapter_track(stream):
        return CHAPTER_TITLES
    if stream.get("codec_type") == "audio" and not (int(stream.get("sample_rate", 0)) and stream.get("channels")):
        return tags.UNSPECIFIED  # a damaged header: without rate or channels no container takes it
    return str(stream.get("codec_name", tags.UNSPECIFIED))


def _is_chapter_track(stream: dict[str, Any]) -> bool:
    """QuickTime's text track that holds the names of chapters: written by every MP4 muxer that writes chapters."""
    return stream.get("codec_type") == "data" and stream.get("codec_tag_string") == "text"


def _start(stream: dict[str, Any]) -> str | None:
    if "start_pts" not in stream or "time_base" not in stream:
        return None
    seconds = stream["start_pts"] * Fraction(stream["time_base"])
    return f"{seconds.numerator}/{seconds.denominator}"
