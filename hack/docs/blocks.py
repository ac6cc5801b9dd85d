"""The code blocks of a page, and the marker that stands above each shell block.

A marker is an HTML comment, which neither GitHub nor the site shows:

    <!-- run: sandbox -->               `make docs` runs the block in a cluster of its own (tests/docs)
    <!-- run: tests/e2e/test_demo.py --> that test does, or runs the same commands
    <!-- run: .ci/run -->               they are make targets of CI
    <!-- not run: needs a GPU -->       nobody does, and this is why
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

SHELLS = frozenset({"sh", "bash", "shell", "console", "zsh"})
_MARKER = re.compile(r"\s*<!--\s*(?P<kind>run|not run|not run in CI)\s*:\s*(?P<text>[^>]*?)\s*-->\s*", re.DOTALL)
_PARSER = MarkdownIt("commonmark")


@dataclass(frozen=True)
class Marker:
    """`runs`: who runs the block; empty if nobody does, and then `why` says why."""

    runs: str = ""
    why: str = ""


@dataclass(frozen=True)
class Block:
    """One code block. `language` is "" where none is said, and None where the block is indented and not fenced."""

    page: str
    line: int
    language: str | None
    text: str
    marker: Marker | None

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def shell(self) -> bool:
        return self.language in SHELLS


def blocks(page: str, text: str) -> list[Block]:
    """Every code block of a page, in order. A marker counts if nothing stands between it and its block."""
    found: list[Block] = []
    before: Token | None = None
    for token in _PARSER.parse(text):
        if token.type in ("fence", "code_block"):
            words = token.info.split()
            language = None if token.type == "code_block" else (words[0].lower() if words else "")
            line = (token.map or [0])[0] + 1
            found.append(Block(page, line, language, token.content, _marker(before)))
        before = token
    return found


def blocks_of(root: Path, page: str) -> list[Block]:
    """The same, of a file."""
    return blocks(page, (root / page).read_text(encoding="utf-8"))


def _marker(token: Token | None) -> Marker | None:
    found = _MARKER.fullmatch(token.content) if token is not None and token.type == "html_block" else None
    if found is None:
        return None
    text = " ".join(found["text"].split())
    return Marker(runs=text) if found["kind"] == "run" else Marker(why=text)


def commands(text: str) -> list[str]:
    """The commands of a shell block: continued lines joined, comments, here-documents and blank lines left out."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    lines, end = list[str](), None
    for line in joined.splitlines():
        if end is not None:
            end = None if line.strip() == end else end
            continue
        plain = re.sub(r"(^|\s)#.*$", "", line).strip()
        document = re.search(r"<<-?\s*['\"]?(\w+)['\"]?", plain)
        end = document[1] if document else None
        if plain:
            lines.append(plain.removeprefix("$ "))
    return lines
