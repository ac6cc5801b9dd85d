"""Whether CI keeps what the marker above a shell block promises.

A block that a test plays is run as it stands (the test names the page and takes its blocks from it). Another test must
have every word of every command in its source, paths piece by piece: a command that changes in one of the two places is
found. What a make target stands for is read from the Makefile.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from hack.docs.blocks import Block, commands
from hack.docs.pages import ROOT

SANDBOX = "sandbox"
CI = ".ci/run"
_OUTSIDE_CI = "tests/kueue/"
_HOW_TO_MARK = "say above it who runs it, or why nobody does; CONTRIBUTING.md has the forms"


def broken(block: Block, root: Path = ROOT) -> str | None:
    """What is wrong with a block, as one sentence; None if nothing is."""
    said = next(_complaints(block, root), None)
    return None if said is None else f"{block.place}: {said}"


def _complaints(block: Block, root: Path) -> Iterator[str]:
    if block.language is None:
        yield "an indented block says not what it is; fence it: ```sh, ```yaml, ```text"
    elif block.language == "":
        yield "the block's language is missing: ```sh, ```yaml, ```text"
    elif not block.shell:
        if block.marker is not None:
            yield f"a marker above a block of {block.language}, which nobody runs"
    elif block.marker is None:
        yield f"a shell block without a marker: {_HOW_TO_MARK}"
    elif block.marker.runs:
        yield from _kept(block, block.marker.runs, root)
    elif len(block.marker.why) < 8:
        yield "the marker does not say why nobody runs the block"


def _kept(block: Block, by: str, root: Path) -> Iterator[str]:
    if by == SANDBOX:
        return
    if by == CI:
        run = targets_of_ci(root)
        for command in commands(block.text):
            words = command.split()
            if words[0] != "make" or not set(words[1:]) <= run:
                yield f"'{command}' is not among what .ci/run makes ({', '.join(sorted(run))})"
        return
    if not re.fullmatch(r"tests/[\w/]+/test_\w+\.py", by) or by.startswith(_OUTSIDE_CI):
        yield f"'{by}' is neither {SANDBOX}, {CI} nor a test that CI runs"
    elif not (root / by).is_file():
        yield f"there is no {by}"
    else:
        source = (root / by).read_text(encoding="utf-8")
        if not (block.page in source and "hack.docs" in source):
            yield from _missing(block, by, source, root)


def _missing(block: Block, by: str, source: str, root: Path) -> Iterator[str]:
    for command in commands(block.text):
        absent = [word for word in _words(command, root) if word not in source]
        if absent:
            yield f"{by} has no {', '.join(absent)}, so it does not run '{command}'"


def _words(command: str, root: Path) -> list[str]:
    """What a test must name: every word, paths and flags in pieces; of a make target, the module that it starts."""
    words = shlex.split(command, comments=True)
    if words[:1] == ["make"]:
        return [module for target in words[1:] for module in _modules(target, root)] or ["make", *words[1:]]
    pieces = [piece for word in words for piece in re.split(r"[/=]", word)]
    return [piece for piece in pieces if re.search(r"\w", piece)]


def _makefile(root: Path) -> dict[str, tuple[list[str], str]]:
    """Targets with their prerequisites and recipes."""
    text = (root / "Makefile").read_text(encoding="utf-8")
    rules = re.findall(r"^([a-z0-9-]+):([^=\n]*)\n((?:\t.*\n?)*)", text, re.MULTILINE)
    return {target: (needs.split("#")[0].split(), recipe) for target, needs, recipe in rules}


def _modules(target: str, root: Path) -> list[str]:
    _, recipe = _makefile(root).get(target, ([], ""))
    return re.findall(r"-m (hack[\w.]*)", recipe)


def targets_of_ci(root: Path = ROOT) -> set[str]:
    """Every target that .ci/run makes, and what those need."""
    script = (root / CI).read_text(encoding="utf-8")
    calls = re.findall(r"(?<![\w-])make ([^\n|&<;#)]*)", script)
    wanted = {word for call in calls for word in call.split() if re.fullmatch(r"[a-z0-9-]+", word)}
    rules, found = _makefile(root), set[str]()
    while wanted:
        target = wanted.pop()
        if target in rules and target not in found:
            found.add(target)
            wanted |= set(rules[target][0])
    return found
