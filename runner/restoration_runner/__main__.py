"""`video-restoration` and `python -m restoration_runner`."""

import sys


def main() -> None:
    """Run the command, or say which part of the installation is missing."""
    try:
        from restoration_runner.cli import main as command

        command()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("restoration_"):
            raise
        sys.exit(f"video-restoration needs '{error.name}': install it with pip install 'video-restoration[runner]'")


if __name__ == "__main__":
    main()
