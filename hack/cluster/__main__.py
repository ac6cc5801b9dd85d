"""`python -m hack.cluster`: the development cluster.

A complete Kubernetes on this machine, compiled from source: control plane, one node, DNS, an image registry and an S3
server. `.dev/cluster/` then holds kubeconfig, s3.json and registry.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from hack.cluster.binaries import CONTROL_PLANE, NODE
from hack.cluster.build import ensure_built
from hack.cluster.console import Console
from hack.cluster.environment import exports
from hack.cluster.errors import ClusterError
from hack.cluster.images import COMPONENTS, build_component
from hack.cluster.lifecycle import Node
from hack.cluster.preflight import problems
from hack.cluster.services import REGISTRY
from hack.cluster.toolchain import ensure_helm


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the process's exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options, Console())
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hack.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start the cluster, or say that it runs")
    commands.add_parser("status", help="say what runs and where; exit code 1 unless everything does")
    down = commands.add_parser("down", help="end the cluster and remove every trace of it, also after a crash")
    down.add_argument("--anyones", action="store_true", help="even if a living checkout elsewhere started it")
    commands.add_parser(
        "env", help='print what a shell needs to use it: eval "$(.venv/bin/python -m hack.cluster env)"'
    )
    commands.add_parser("preflight", help="say what this machine lacks, without changing anything")
    build = commands.add_parser("build", help="compile what is not cached yet")
    build.add_argument("what", nargs="?", choices=["control-plane", "all"], default="all")
    image = commands.add_parser("image", help="build an image and push it to the cluster's registry")
    image_commands = image.add_subparsers(dest="image_command", required=True)
    image_build = image_commands.add_parser("build", help="print the digest reference of what was pushed")
    image_build.add_argument("component", choices=COMPONENTS)
    image_build.add_argument("--registry", default=REGISTRY, help="where to push (default: the cluster's own)")
    image_build.add_argument("--base-image", help="BASE_IMAGE of the Dockerfile (default: a Debian made here)")
    return parser


def _run(options: argparse.Namespace, console: Console) -> int:
    match options.command:
        case "up":
            Node(console).up()
        case "status":
            return 0 if Node(console).status() else 1
        case "down":
            Node(console).down(anyones=options.anyones)
        case "env":
            print(exports(console))
        case "preflight":
            found = problems()
            print("\n".join(found) if found else "This machine can run the cluster.")
            return 1 if found else 0
        case "build":
            ensure_built(CONTROL_PLANE if options.what == "control-plane" else (*CONTROL_PLANE, *NODE), console)
            ensure_helm(console)
        case "image":
            registry, base_image = options.registry, options.base_image
            print(build_component(options.component, console, registry=registry, base_image=base_image))
    return 0


if __name__ == "__main__":
    sys.exit(main())
