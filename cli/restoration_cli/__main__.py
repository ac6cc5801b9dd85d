"""`kubectl-vr` and `python -m restoration_cli`; a missing extra is one sentence instead of a traceback."""

import sys


def main() -> None:
    """Run the command."""
    try:
        from restoration_cli.commands import main as command
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("restoration_"):
            raise
        print(f"kubectl-vr needs '{error.name}': install it with pip install 'video-restoration[cli]'", file=sys.stderr)
        sys.exit(2)
    command()


if __name__ == "__main__":
    main()
