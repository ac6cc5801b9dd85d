"""What of the video code decides an output's bytes, by name: the part of the cache key that it is.

Apart from the code that follows these rules, because a finished work is recognised without loading it.
"""

from typing import Final

CUTS: Final = "luma-blocks-1"
"""Measure of `cuts`; another name whenever a cut can move."""

GOP_SECONDS: Final = 2
"""A keyframe every two seconds, so that the one at a segment's start looks like any other."""
PINNED: Final = "frame-threads=16:wpp=1:info=0:repeat-headers=0:open-gop=0:scenecut=0"
"""The part of x265's options that decides whether bytes repeat, and whether segments can be joined."""
BLOCK: Final = 64
"""Side of x265's largest blocks."""
SMALL: Final = "ctu=16:weightp=0:weightb=0"
"""For pictures of one row or one column of blocks, of which x265 4.2 reads memory as it was found, such as weighted
references that are not made yet: other bytes each time. With smaller blocks there are several."""
NARROW: Final = "asm=0"
"""For pictures less than a block wide: at 33 to 48 columns x265 4.2 writes behind a buffer with AVX2, and crashes."""
ENCODER: Final = f"{PINNED};{BLOCK}:{SMALL};{BLOCK}:{NARROW}"
"""All of them, and for which pictures they are."""
