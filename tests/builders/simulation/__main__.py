"""Plays the history of a seed again and prints everything that happens in it.

python -m tests.builders.simulation 1234            the whole history
python -m tests.builders.simulation 1234 --shrink   of a failing one, only the steps that it needs
"""

from __future__ import annotations

import argparse
import logging

import structlog

from tests.builders.simulation.history import BrokenPromiseError, fails, play, shortest, story


def main() -> int:
    """Returns 1 if a promise is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.builders.simulation", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--shrink", action="store_true", help="leave out the steps that the failure does not need")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    steps = story(arguments.seed)
    if arguments.shrink and fails(arguments.seed, steps):
        steps = shortest(arguments.seed, steps)
    try:
        print(play(arguments.seed, steps, say=print))
    except BrokenPromiseError as error:
        print(f"seed {arguments.seed}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
