"""`python -m hack.cluster`: the commands of the development cluster."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from hack.cluster.binaries import CONTROL_PLANE, NODE
from hack.cluster.build import ensure_built
from hack.cluster.console import Console
from hack.cluster.errors import ClusterError
from hack.cluster.toolchain import ensure_helm


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hack.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="compile what is not cached yet")
    build.add_argument("what", nargs="?", choices=["control-plane", "all"], default="all")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the process's exit code."""
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        if options.command == "build":
            _build(options.what, console)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _build(what: str, console: Console) -> None:
    ensure_built(CONTROL_PLANE if what == "control-plane" else (*CONTROL_PLANE, *NODE), console)
    ensure_helm(console)
    console.say("everything is built")


if __name__ == "__main__":
    sys.exit(main())
