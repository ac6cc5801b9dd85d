"""`python -m hack.docs check`: shell blocks whose marker is missing or not kept.
`python -m hack.docs play docs/tutorial.md`: type a page's blocks in this checkout, and print how long each took.
"""

from __future__ import annotations

import argparse
import sys

from hack.docs.blocks import blocks_of
from hack.docs.pages import ROOT, pages
from hack.docs.play import PlayError, marked, play, times
from hack.docs.promises import broken


def check() -> list[str]:
    """One sentence for every block that `make docs` refuses."""
    found = (broken(block) for page in pages() for block in blocks_of(ROOT, page))
    return [sentence for sentence in found if sentence is not None]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hack.docs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    chosen = parser.add_subparsers(dest="command", required=True)
    chosen.add_parser("check", help="say which shell blocks nobody runs, although nothing says why")
    chosen.add_parser("play", help="run a page's blocks").add_argument("page", help="such as docs/tutorial.md")
    options = parser.parse_args()
    if options.command == "check":
        said = check()
        print("\n".join(said), file=sys.stderr)
        return 1 if said else 0
    try:
        steps = play(marked(options.page), cwd=ROOT)
    except PlayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for step in steps:
        print(f"--- {step.block.place}\n{step.block.text}{step.output}")
    print(times(steps))
    return 0


if __name__ == "__main__":
    sys.exit(main())
