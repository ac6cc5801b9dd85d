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
