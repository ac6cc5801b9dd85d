"""`video-restoration` and `python -m restoration_runner`."""

import os
import sys


def main() -> None:
    """Run the command, or say which part of the installation is missing."""
    # Before torch is loaded: threads that wait must sleep, or they use up the cores that the video encoder needs and
    # the CPU quota of the pod (measured on two busy cores: 1.3 instead of 0.8 s of CPU time a frame).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from restoration_runner.cli import main as command

        command()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("restoration_"):
            raise
        sys.exit(f"video-restoration needs '{error.name}': install it with pip install 'video-restoration[runner]'")


if __name__ == "__main__":
    main()
