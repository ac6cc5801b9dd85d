"""Hostile variants of real samples: bytes that are flipped, cut, repeated; documents with values nobody sends.

Everything follows from a seed, so a failure names the one case that made it: `VR_TEST_FUZZ_SEED=… VR_TEST_FUZZ=1`.
"""

import copy
import json
import os
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

CASES = int(os.environ.get("VR_TEST_FUZZ", "0"))
"""Of every target; 0 means the few that each test names."""
FIRST_SEED = int(os.environ.get("VR_TEST_FUZZ_SEED", "0"))

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HOSTILE: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    10**30,
    10**400,
    1e308,
    0.5,
    "",
    "\x00",
    "../../../etc/passwd",
    "é" * 3,
    "\ud800",
    "x" * 5000,
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "1/0",
    "9" * 5000,
    [],
    {},
    [[[[]]]],
    {"$ref": "#"},
)


def seeds(few: int) -> Iterator[random.Random]:
    """One source of chance for each case, `few` of them unless the environment asks for more."""
    for seed in range(FIRST_SEED, FIRST_SEED + (CASES or few)):
        chance = random.Random(seed)
        chance.seed_of_case = seed  # type: ignore[attr-defined]
        yield chance


def each(few: int, make: Callable[[random.Random], Any], check: Callable[[Any], object]) -> None:
    """Check many cases; whatever is raised is the failure of the case that it names."""
    for chance in seeds(few):
        case = make(chance)
        try:
            check(case)
        except Exception as error:
            seed = chance.seed_of_case  # type: ignore[attr-defined]
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}; case: {str(case)[:400]}") from error


def bytes_of(sample: bytes, chance: random.Random) -> bytes:
    """The sample with one to a dozen things done to it."""
    data = bytearray(sample)
    for _ in range(chance.choice((1, 1, 2, 4, 12))):
        if not data:
            return bytes(data)
        at = chance.randrange(len(data))
        match chance.randrange(8):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at] = chance.randrange(256)
            case 2:  # a length or a count
                size, form = chance.choice(((2, ">H"), (4, ">I"), (4, "<I"), (8, ">Q")))
                number = chance.choice(INTERESTING) & ((1 << 8 * size) - 1)
                data[at : at + size] = struct.pack(form, number)
            case 3:
                del data[at:]
            case 4:
                del data[at : at + chance.randrange(1, 64)]
            case 5:
                data[at:at] = data[at : at + chance.randrange(1, 64)] * chance.randrange(1, 20)
            case 6:
                data[at:at] = chance.randbytes(chance.randrange(1, 64))
            case 7:
                other = chance.randrange(len(data))
                data[at : at + 16], data[other : other + 16] = data[other : other + 16], data[at : at + 16]
    return bytes(data)


def document_of(sample: Any, chance: random.Random, values: tuple[Any, ...] = HOSTILE) -> Any:
    """The JSON document with some of its values replaced, removed or added."""
    document = copy.deepcopy(sample)
    for _ in range(chance.choice((1, 1, 2, 5))):
        places = list(_places(document))
        if not places:
            return chance.choice(values)
        parent, key = chance.choice(places)
        match chance.randrange(6):
            case 0 if isinstance(parent, dict):
                del parent[key]
            case 1 if isinstance(parent, dict):
                parent[f"{key}x"] = chance.choice(values)
            case 2 if isinstance(parent, list):
                parent.extend(copy.deepcopy(parent) * chance.choice((1, 3)))
            case 3 if isinstance(parent[key], int) and not isinstance(parent[key], bool):
                parent[key] = chance.choice((-1, 0, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 10**30, parent[key] + 1))
            case _:
                parent[key] = copy.deepcopy(chance.choice(values))
    return document


def text_of(sample: Any, chance: random.Random) -> bytes:
    """A document as bytes: its values changed, or its text, or bombs of depth and size."""
    match chance.randrange(12):
        case 0:
            return b"[" * chance.choice((10, 1000, 200_000))
        case 1:
            return b'{"a":' * chance.choice((10, 1000, 200_000))
        case 2:
            return b"9" * 100_000
        case 3 | 4 | 5:
            return bytes_of(json.dumps(sample).encode(), chance)
        case _:
            text = json.dumps(document_of(sample, chance), ensure_ascii=chance.random() < 0.5)
            return text.encode("utf-8", errors="surrogatepass")


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value inside."""
    inside: Any = ()
    if isinstance(document, dict):
        inside = list(document.items())
    elif isinstance(document, list):
        inside = list(enumerate(document))
    for key, value in inside:
        yield document, key
        yield from _places(value)
