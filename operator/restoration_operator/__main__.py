"""Entry point of `video-restoration-operator`.

Kept apart from `main` so that a missing extra is one sentence instead of a traceback.
"""

import sys


def main() -> None:
    """Run the operator until it is told to stop."""
    try:
        from restoration_operator.main import main as program
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("restoration_operator", "restoration_api"):
            raise
        sys.exit(
            f"video-restoration-operator needs the module {error.name!r}, which is not installed: "
            "pip install 'video-restoration[operator]'"
        )
    sys.exit(program())


if __name__ == "__main__":
    main()
