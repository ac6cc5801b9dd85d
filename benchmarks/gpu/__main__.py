"""See the package's docstring."""

import argparse
import sys
from importlib import import_module
from pathlib import Path

import benchmarks.gpu

COMMANDS = ("stages", "vae", "dit", "kernels", "layers", "memory", "numerics", "clip", "start", "copies", "roofline")


def main(arguments: list[str] | None = None) -> None:
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] not in COMMANDS:
        print(benchmarks.gpu.__doc__)
        raise SystemExit(0 if words[:1] in (["-h"], ["--help"]) else 2)
    module = import_module(f"benchmarks.gpu.{words[0]}")  # the others may need what is not installed
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.gpu {words[0]}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks and pictures, to try the program")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    module.add_arguments(parser)
    chosen = parser.parse_args(words[1:])
    chosen.words = words
    module.main(chosen)


if __name__ == "__main__":
    main()
