"""What colour numbers mean: the matrices and chroma positions that are known, what a file leaves unsaid, and the tags
of the output. The arithmetic is in `colour`; here are facts only, for whoever looks at a video without computing.
"""

from typing import Final

from restoration_api.ledger import ColorFacts, ColorRange
from restoration_runner.video import tags

LUMA_WEIGHTS: Final = {
    "bt709": (0.2126, 0.0722),
    "fcc": (0.30, 0.11),
    "bt470bg": (0.299, 0.114),
    "smpte170m": (0.299, 0.114),
    "smpte240m": (0.212, 0.087),
    "bt2020nc": (0.2627, 0.0593),
}
"""(Kr, Kb) of each matrix that is a plain linear one (H.273 table 4)."""

CHROMA_OFFSETS: Final = {
    "left": (0.0, 0.5),
    "center": (0.5, 0.5),
    "topleft": (0.0, 0.0),
    "top": (0.5, 0.0),
    "bottomleft": (0.0, 1.0),
    "bottom": (0.5, 1.0),
}
"""Where the first chroma sample lies, in luma samples right of and below the first luma sample (H.273 figure 1)."""

SMALL_PICTURE_LINES: Final = 576


def complete(
    *, matrix: str, primaries: str, transfer: str, full_range: bool | None, chroma_location: str, height: int
) -> ColorFacts:
    """Fill what a file does not say by the rule players follow, and record in `assumed` what was filled.

    Up to 576 lines: BT.601 (625-line primaries at exactly 576 lines, else 525-line); above: BT.709. Range: limited.
    Chroma: left, the position of MPEG-2 and the default of H.264 and HEVC.
    """
    if height <= SMALL_PICTURE_LINES:
        standard = "bt470bg" if height == SMALL_PICTURE_LINES else "smpte170m"
        rule = {"matrix": standard, "primaries": standard, "transfer": "smpte170m"}
    else:
        rule = {"matrix": "bt709", "primaries": "bt709", "transfer": "bt709"}
    rule["chroma_location"] = "left"
    said = {"matrix": matrix, "primaries": primaries, "transfer": transfer, "chroma_location": chroma_location}
    assumed = [field for field, value in said.items() if value == tags.UNSPECIFIED]
    values = {field: rule[field] if field in assumed else value for field, value in said.items()}
    if full_range is None:
        assumed.append("range")
    return ColorFacts(
        **values, range=ColorRange.FULL if full_range else ColorRange.LIMITED, assumed=tuple(sorted(assumed))
    )


def output_color(color: ColorFacts) -> ColorFacts:
    """Tags of the output: the input's matrix, primaries and transfer, always said; limited range; chroma at the left.

    Limited because players agree on it for 10-bit HEVC, and the conversion from full range is exact to half a 10-bit
    step. Left because it is what every decoder assumes when it ignores the field.
    """
    return color.model_copy(update={"range": ColorRange.LIMITED, "chroma_location": "left", "assumed": ()})
