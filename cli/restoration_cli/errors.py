"""How a command ends: exit codes, and the one exception that a user gets to read."""

from typing import Final

DONE: Final = 0
"""What was asked for happened; what was waited for succeeded."""
FAILED: Final = 1
"""A restoration that was waited for or asked about failed, or was deleted meanwhile."""
REFUSED: Final = 2
"""The command itself could not do its work: wrong usage, no cluster, no permission, no such object."""
INTERRUPTED: Final = 130


class CommandError(Exception):
    """One sentence for a person: what failed, on what, and what to do. Ends the command with `REFUSED`."""


class ConnectionLostError(CommandError):
    """The API server did not answer; a later try may be answered."""
