"""The one exception that ends a restoration, and how third-party errors become it.

Whoever finds out what is wrong knows best how to say it: one sentence with the file, object or field, the cause and
the remedy. The top of the program turns it into the exit code and the termination message, and nothing else catches it.
"""

from restoration_api.outcome import FAILURES, FailureReason

EXIT_UNKNOWN = 1
"""An error nobody foresaw; the operator calls it `Unknown` and shows the end of the log."""


class RestorationError(Exception):
    """A restoration cannot go on, for a reason that the user or the operator can act on."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    @property
    def exit_code(self) -> int:
        code = FAILURES[self.reason].exit_code
        return EXIT_UNKNOWN if code is None else code
