"""Reading what the operator handed over: the request file, and arguments that differ from execution to execution."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from restoration_api.outcome import FailureReason
from restoration_api.request import Request
from restoration_runner.errors import RestorationError
from restoration_runner.local import validation_sentence

NEWEST_SCHEMA = 1


def read_request(path: Path, sha256: str | None) -> Request:
    """The request, if it is the one that was meant.

    Raises:
        RestorationError: `InvalidParameters`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _refused(f"the request {path} cannot be read: {error.strerror}") from error
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256.removeprefix("sha256:"):
        raise _refused(f"the request {path} does not have the sha256 that the Job promises: it was changed")
    try:
        raw: Any = json.loads(content)
        schema = raw.get("schema", NEWEST_SCHEMA) if isinstance(raw, dict) else None
    except (ValueError, RecursionError) as error:  # the second: brackets inside brackets
        raise _refused(f"the request {path} is not JSON: {str(error)[:200]}") from error
    if isinstance(schema, int) and schema > NEWEST_SCHEMA:
        raise _refused(
            f"the request has schema {schema}, this runner reads up to {NEWEST_SCHEMA}: the operator is newer than "
            "the runner's image; use an image of the operator's version"
        )
    try:
        return Request.from_json(content)
    except ValidationError as error:
        raise _refused(f"the request {path} is not valid: {validation_sentence(error)}") from error


def _refused(message: str) -> RestorationError:
    return RestorationError(FailureReason.INVALID_PARAMETERS, message)


def parse_segments(text: str | None) -> frozenset[int] | None:
    """`0-16,18` as a set."""
    if text is None:
        return None
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise _refused(f"--segments: '{text}' is not a list such as 0-16,18")
        chosen.update(range(int(first), int(last or first) + 1))
    return frozenset(chosen)
