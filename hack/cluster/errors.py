"""The one exception of this package: what a person at a terminal can act on."""


class ClusterError(Exception):
    """One sentence that names the thing, the cause and the remedy. The command line prints it without a traceback."""
