"""A judge of what was written: finds secrets in any spelling, without knowing how the product looks for them.

Every text is also read percent-decoded, and every run of base64 in it decoded from each of its four beginnings. A
secret counts as shown when twelve of its characters in a row are.
"""

import base64
import contextlib
import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote, unquote_plus

SHOWN = 12
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}")


def leaks(texts: Iterable[str], secrets: Iterable[str]) -> list[str]:
    """Which secrets show where; empty if none does."""
    pieces = {secret[at : at + SHOWN] for secret in secrets for at in range(max(1, len(secret) - SHOWN + 1))}
    found = []
    for text in texts:
        for reading in readings(text):
            shown = [piece for piece in pieces if piece in reading]
            if shown:
                at = reading.index(shown[0])
                found.append(f"{shown[0]!r} in …{reading[max(0, at - 80) : at + 40]!r}")
                break
    return found


def readings(text: str) -> Iterator[str]:
    """The text, and what is in it for who decodes it."""
    plain = {text, unquote(text), unquote(unquote(text)), unquote_plus(text), text.replace('\\"', '"')}
    for reading in plain:
        yield reading
        for run in _BASE64.findall(reading):
            for begin in range(4):
                part = run[begin:].replace("-", "+").replace("_", "/")
                with contextlib.suppress(ValueError):
                    yield base64.b64decode(part[: len(part) // 4 * 4]).decode("latin-1")
