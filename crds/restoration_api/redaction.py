"""What must never be shown, by its look and by its value: used wherever text of others ends in a log or a status.

Both programs show text that they did not write: errors of client libraries (which like to quote the request), answers
of servers, URIs that people paste with a password or a signature in them. Two nets catch what is secret in it. Values
that this process was given are known exactly and are found in every spelling that a library may give them. What it was
not given is told by its look: the userinfo of a URL, signing parameters, authorization headers, keys and tokens.
"""

import re
from base64 import b64encode
from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import quote, quote_plus

MARK: Final = "[redacted]"
LEAST_CHARACTERS: Final = 8
"""Of a value that is looked for. S3 secrets have 8 or more; replacing each `abc` would make a log unreadable."""

_NAMES: Final = (
    r"x-amz-(?:signature|credential|security-token)|awsaccesskeyid|"
    r"(?:access|secret|session|security|refresh|id|bearer|api|auth|web[-_]?identity)[-_]?(?:access[-_]?)?(?:key|token)"
    r"(?:[-_]?id)?|passw(?:or)?d"
)
_WORDS: Final = rf"{_NAMES}|token|secret|signature|sig"
"""Names of parameters, headers and fields whose values are secret. The second list has words that sentences use, too:
they count as names where a value follows without a gap, or in quotes."""

_BEGIN: Final = r"(?:(?<![\w-])|(?<=%[0-9A-Fa-f]{2}))"
"""Of a name: not inside a word, unless what stands before is an encoded `?` or `&`."""

_LOOKS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), MARK),
    # http://user:password@host, also where the whole URL is percent-encoded inside another.
    (re.compile(r"(://|%3A%2F%2F)(?!\[redacted\]@)[^/?#\s@\"'<>]{1,512}(@|%40)", re.IGNORECASE), rf"\1{MARK}\2"),
    (re.compile(r"\b(AWS4-HMAC-SHA256)\b[^\"'\n]*", re.IGNORECASE), rf"\1 {MARK}"),
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {MARK}"),
    # name=value in a query string or a form, <name>value in XML, "name": "value" in JSON or a repr, name: value.
    (re.compile(rf"{_BEGIN}({_WORDS})(=|%3D)(?!\[redacted\])[^\s&\"'<>,;]+", re.IGNORECASE), rf"\1\2{MARK}"),
    (re.compile(rf"<({_WORDS})>[^<]*", re.IGNORECASE), rf"<\1>{MARK}"),
    (
        re.compile(rf"([\"']({_WORDS})[\"']\s*:\s*b?[\"'])(?!\[redacted\])[^\"']*", re.IGNORECASE),
        rf"\1{MARK}",
    ),
    (re.compile(rf"{_BEGIN}({_NAMES})(\s*:\s*)(?!\[redacted\])[^\s&\"'<>,;]+", re.IGNORECASE), rf"\1\2{MARK}"),
    (re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?"), MARK),  # a JSON Web Token
    (re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|(?:AKIA|ASIA)[A-Z0-9]{12,})"), MARK),
)


def redact(text: str, known: Iterable[str] = ()) -> str:
    """`text` without secrets.

    known: values that must not appear in any spelling: as they are, percent-encoded, in base64 (also inside a longer
    base64 text, as `user:password` is). Values shorter than `LEAST_CHARACTERS` are not looked for.
    """
    for value in sorted(known, key=len, reverse=True):
        if len(value) >= LEAST_CHARACTERS:
            text = _spellings(value).sub(MARK, text)
    for look, instead in _LOOKS:
        text = look.sub(instead, text)
    return text


@lru_cache(maxsize=1024)  # more than a process may know: fewer would be made anew for every line
def _spellings(value: str) -> re.Pattern[str]:
    forms = {value, quote(value, safe=""), quote(value), quote_plus(value), quote(quote(value, safe=""), safe="")}
    forms |= _in_base64(value.encode())
    # The two digits after a percent sign are written in capitals or not.
    patterns = (re.sub("%[0-9A-F]{2}", r"(?i:\g<0>)", re.escape(form)) for form in sorted(forms, key=len, reverse=True))
    return re.compile("|".join(patterns))


def _in_base64(value: bytes) -> set[str]:
    """What of `value` shows in base64, wherever in the encoded bytes it begins.

    Three bytes become four characters, so there are three alignments; the characters that also depend on what stands
    before and after are left out.
    """
    forms = set()
    for before in range(3):
        text = b64encode(bytes(before) + value).decode().rstrip("=")
        mixed_first = (0, 2, 3)[before]
        mixed_last = 0 if (before + len(value)) % 3 == 0 else 1
        core = text[mixed_first : len(text) - mixed_last]
        forms |= {core, core.replace("+", "-").replace("/", "_"), quote(core, safe="")}
    return {form for form in forms if len(form) >= LEAST_CHARACTERS}
