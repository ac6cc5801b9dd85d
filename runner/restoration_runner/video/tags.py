"""Names of colour tags: the numbers of ISO/IEC 23091-2 (H.273) that files carry, and FFmpeg's names for them.

PyAV hands out numbers, ffprobe and the contracts use names; this is the one table between them.
"""

from typing import Final

UNSPECIFIED: Final = "unknown"

MATRICES: Final = {
    0: "gbr",
    1: "bt709",
    4: "fcc",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "ycgco",
    9: "bt2020nc",
    10: "bt2020c",
    11: "smpte2085",
    12: "chroma-derived-nc",
    13: "chroma-derived-c",
    14: "ictcp",
}
PRIMARIES: Final = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "film",
    9: "bt2020",
    10: "smpte428",
    11: "smpte431",
    12: "smpte432",
    22: "ebu3213",
}
TRANSFERS: Final = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "linear",
    9: "log100",
    10: "log316",
    11: "iec61966-2-4",
    12: "bt1361e",
    13: "iec61966-2-1",
    14: "bt2020-10",
    15: "bt2020-12",
    16: "smpte2084",
    17: "smpte428",
    18: "arib-std-b67",
}
CHROMA_LOCATIONS: Final = {
    0: "left",
    1: "center",
    2: "topleft",
    3: "top",
    4: "bottomleft",
    5: "bottom",
}
"""Keys are the VUI's `chroma_sample_loc_type` (what x265's `chromaloc` takes), one less than FFmpeg's enum."""

LIMITED: Final = 1
FULL: Final = 2
"""FFmpeg's `AVCOL_RANGE_MPEG` and `AVCOL_RANGE_JPEG`."""

_ALIASES: Final = {"reserved": UNSPECIFIED, "unspecified": UNSPECIFIED, "jedec-p22": "ebu3213", "": UNSPECIFIED}


def normal(name: str | None) -> str:
    """One spelling of a tag that ffprobe printed; absent, reserved and unspecified are all `unknown`."""
    name = name or UNSPECIFIED
    return _ALIASES.get(name, name)


def number(table: dict[int, str], name: str) -> int:
    """The H.273 number of a tag's name; 2 is "unspecified".

    Raises:
        KeyError: the table has no such name.
    """
    if name == UNSPECIFIED:
        return 2
    return {text: code for code, text in table.items()}[name]
