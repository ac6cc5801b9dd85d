"""See the package's docstring."""

import argparse
from pathlib import Path

import benchmarks.gpu
from benchmarks.gpu import copies, dit, stages, vae

COMMANDS = {"stages": stages, "vae": vae, "dit": dit, "copies": copies}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=benchmarks.gpu.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in COMMANDS.items():
        command = commands.add_parser(name, help=(module.__doc__ or "").splitlines()[0])
        command.add_argument("--device", default="cuda")
        command.add_argument("--tiny", action="store_true", help="small networks and pictures, to try the program")
        command.add_argument("--json", type=Path, help="also write the figures here")
        module.add_arguments(command)
    chosen = parser.parse_args(arguments)
    COMMANDS[chosen.command].main(chosen)


if __name__ == "__main__":
    main()
