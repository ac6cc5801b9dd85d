"""`kubectl_complete-vr`: what kubectl asks for the words that may follow `kubectl vr …`.

kubectl (1.26 or newer) runs a program of this name with the words typed so far, the unfinished one last, and reads one
proposal a line and then `:` with one of cobra's directives. The proposals are typer's own, asked for in the way in
which its bash script asks.
"""

import contextlib
import io
import os
import shlex
import sys
from typing import Final

FILES: Final = ":0"
NO_FILES: Final = ":4"


def proposals(words: list[str]) -> list[str]:
    """What may stand in the place of the last word."""
    from restoration_cli.commands import app

    *typed, unfinished = words or [""]
    asked = {
        "_KUBECTL_VR_COMPLETE": "complete_bash",
        "COMP_WORDS": shlex.join(["kubectl-vr", *typed, *([unfinished] if unfinished else [])]),
        "COMP_CWORD": str(len(typed) + 1),
    }
    os.environ.update(asked)
    answer = io.StringIO()
    with contextlib.redirect_stdout(answer), contextlib.suppress(SystemExit):
        app(prog_name="kubectl-vr")
    return [line for line in answer.getvalue().splitlines() if line]


def main() -> None:
    """Answer kubectl; without proposals rather than with an error, since nobody would see it."""
    found: list[str] = []
    with contextlib.suppress(Exception):
        found = proposals(sys.argv[1:])
    print("\n".join([*found, FILES if sys.argv[1:2] == ["submit"] and not found else NO_FILES]))


if __name__ == "__main__":
    main()
