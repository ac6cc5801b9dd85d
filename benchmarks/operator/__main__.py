"""The operator against a real API server: `python -m benchmarks.operator [SCENARIO …] [--quick] [--json FILE]`.

etcd, kube-apiserver, the operator and the load share this machine's cores; absolute figures belong to it, the ratio to
the raw write ceiling of the same run does not. Without scenarios: all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from hack.cluster.controlplane import ControlPlane

from benchmarks.operator import footprint, rate, report, speed
from benchmarks.operator.bench import CONTROLLERS_OFF, Bench, Figures, connected
from benchmarks.operator.sizes import FULL, QUICK, Sizes

SCENARIOS: dict[str, Callable[[Bench, Sizes], Awaitable[Figures]]] = {
    "ceiling": rate.ceiling,
    "latency": speed.latency,
    "burst": speed.burst,
    "sustained": speed.sustained,
    "memory": footprint.memory,
    "cold-start": footprint.cold_start,
}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operator", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of: {', '.join(SCENARIOS)}; none: all")
    parser.add_argument("--quick", action="store_true", help="a fifth of everything: does it work, not how fast it is")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    arguments = parser.parse_args()
    unknown = set(arguments.scenarios) - set(SCENARIOS)
    if unknown:
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    sizes = QUICK if arguments.quick else FULL
    with ControlPlane(controller_flags=CONTROLLERS_OFF) as plane:
        found = asyncio.run(run(plane, sizes, arguments.scenarios or list(SCENARIOS)))
    document = {"machine": machine(), "quick": arguments.quick, **found}
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    print(report.table(document))


async def run(plane: ControlPlane, sizes: Sizes, names: list[str]) -> Figures:
    """Figures by scenario."""
    found: Figures = {}
    async with connected(plane) as bench:
        for name in names:
            print(f"{datetime.now():%H:%M:%S} {name}", flush=True)
            found[name] = await SCENARIOS[name](bench, sizes)
    return found


def machine() -> Figures:
    """Where and when; the load says whether the machine had other work."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}Z",
        "commit": commit,
        "cpu": cpu.partition(": ")[2] or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
