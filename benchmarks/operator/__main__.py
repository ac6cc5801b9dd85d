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

from benchmarks.operator import footprint, kwok, rate, report, speed
from benchmarks.operator.bench import CONTROLLERS_OFF, CONTROLLERS_ON, Bench, Figures, connected
from benchmarks.operator.sizes import FULL, QUICK, Sizes

Scenario = Callable[[Bench, Sizes], Awaitable[Figures]]
SCENARIOS: dict[str, Scenario] = {
    "ceiling": rate.ceiling,
    "latency": speed.latency,
    "burst": speed.burst,
    "sustained": speed.sustained,
    "memory": footprint.memory,
    "cold-start": footprint.cold_start,
}
EVERYTHING_ON: dict[str, Scenario] = {"kwok": kwok.everything}
"""With every controller of Kubernetes, and on a control plane of its own."""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operator", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help=f"of: {', '.join((*SCENARIOS, *EVERYTHING_ON))}; none: all"
    )
    parser.add_argument("--quick", action="store_true", help="a fifth of everything: does it work, not how fast it is")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    arguments = parser.parse_args()
    unknown = set(arguments.scenarios) - {*SCENARIOS, *EVERYTHING_ON}
    if unknown:
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join((*SCENARIOS, *EVERYTHING_ON))}")
    sizes = QUICK if arguments.quick else FULL
    names = arguments.scenarios or [*SCENARIOS, *EVERYTHING_ON]
    found: Figures = {}
    for flags, scenarios in ((CONTROLLERS_OFF, SCENARIOS), (CONTROLLERS_ON, EVERYTHING_ON)):
        chosen = [name for name in names if name in scenarios]
        if chosen:
            with ControlPlane(controller_flags=flags) as plane:
                found |= asyncio.run(run(plane, sizes, {name: scenarios[name] for name in chosen}))
    document = {"machine": machine(), "quick": arguments.quick, **found}
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    print(report.table(document))


async def run(plane: ControlPlane, sizes: Sizes, scenarios: dict[str, Scenario]) -> Figures:
    """Figures by scenario."""
    found: Figures = {}
    async with connected(plane) as bench:
        for name, scenario in scenarios.items():
            print(f"{datetime.now():%H:%M:%S} {name}", flush=True)
            found[name] = await scenario(bench, sizes)
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
