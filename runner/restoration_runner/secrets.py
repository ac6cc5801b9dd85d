"""The secrets that this process holds, so that none of them is ever written.

Whoever reads a credential says so here, before it is used. The log, the termination message and whatever else leaves
the process go through `cleaned`; nobody has to remember what an exception of some library may quote.
"""

import threading
from typing import Any

from restoration_api.redaction import LEAST_CHARACTERS, redact

MOST = 512
"""Of known values, newest kept: a run of days renews tokens every hour, and old ones have expired."""

_lock = threading.Lock()
_known: dict[str, None] = {}


def learn(*values: str | None) -> None:
    """These must never be written."""
    with _lock:
        for value in values:
            if value and len(value) >= LEAST_CHARACTERS:
                _known.pop(value, None)
                _known[value] = None
        while len(_known) > MOST:
            _known.pop(next(iter(_known)))


def forget_all() -> None:
    """Begin anew: tests run many lives in one process."""
    with _lock:
        _known.clear()


def cleaned(text: str) -> str:
    """`text` without what is secret."""
    with _lock:
        known = tuple(_known)
    return redact(text, known)


def cleaned_values(value: Any) -> Any:
    """The same for all texts in a structure of dicts, lists and tuples."""
    match value:
        case str():
            return cleaned(value)
        case bytes():
            return cleaned(repr(value))
        case dict():
            return {cleaned_values(key): cleaned_values(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [cleaned_values(item) for item in value]
        case None | bool() | int() | float():
            return value
        case _:
            return cleaned(str(value))
