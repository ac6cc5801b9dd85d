"""The operator's rate as a share of what the API server could have taken: its gate, whatever the machine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import sys
import time
from typing import Final

from benchmarks.operator import life
from benchmarks.operator.api import JOBS, Watch
from benchmarks.operator.bench import Bench, Figures, Operator, at_rest
from benchmarks.operator.sizes import Sizes

CEILING_IN_FLIGHT: Final = 16
"""More requests at once than these cores can answer: the ceiling is the server's, not the client's waiting."""


async def ceiling(bench: Bench, sizes: Sizes) -> Figures:
    """Rounds of both, in turns: a machine that is busy elsewhere slows both."""
    raw, ours = [], []
    for number in range(sizes.rounds):
        raw.append(await _raw_round(bench, await bench.api.namespace(f"raw-{number}"), sizes.round_vrs))
        ours.append(await _operator_round(bench, await bench.api.namespace(f"ours-{number}"), sizes.round_vrs))
    ratios = [mine["writes_per_s"] / bare["writes_per_s"] for mine, bare in zip(ours, raw, strict=True)]
    by_vrs = [mine["vrs_per_s"] / bare["vrs_per_s"] for mine, bare in zip(ours, raw, strict=True)]
    cpu = [_cpu(bare) / _cpu(mine) for mine, bare in zip(ours, raw, strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "vr_ratio": statistics.median(by_vrs),
        "cpu_ratio": statistics.median(cpu),
        "raw": _middle(raw),
        "operator": _middle(ours),
    }


async def _raw_round(bench: Bench, namespace: str, count: int) -> Figures:
    bodies = await life.make(bench.api, namespace, range(count))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.operator.ceiling", str(CEILING_IN_FLIGHT)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "KUBECONFIG": str(bench.plane.kubeconfig)},
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.writelines([*(json.dumps(body).encode() + b"\n" for body in bodies), b"prepared\n"])
    await process.stdout.readline()
    async with Watch(bench.api, JOBS.format(namespace)) as jobs:
        server, began = bench.server_cpu_s(), time.monotonic()
        process.stdin.write(b"go\n")
        await jobs.count(count)
        took = max(jobs.seen.values()) - began
        done = json.loads(await process.stdout.readline())
        server = bench.server_cpu_s() - server
    await process.wait()
    return _round(count, took, server, client_cpu_s=done["cpu_s"], writes=done["writes"])


async def _operator_round(bench: Bench, namespace: str, count: int) -> Figures:
    """The operator is stopped while the load is laid out, so that it starts from the same place as the raw writer."""
    async with Operator(bench, namespace) as operator, Watch(bench.api, JOBS.format(namespace)) as jobs:
        await asyncio.sleep(2)  # its watches are up
        operator.signal(signal.SIGSTOP)
        try:
            await life.make(bench.api, namespace, range(count))
            server, mine = bench.server_cpu_s(), operator.cpu_s()
        finally:
            began = time.monotonic()
            operator.signal(signal.SIGCONT)
        await jobs.count(count)
        took = max(jobs.seen.values()) - began
        written = await operator.writes()
        await at_rest(operator)
        server, mine = bench.server_cpu_s() - server, operator.cpu_s() - mine
    return _round(count, took, server, client_cpu_s=mine, writes=written)


def _round(count: int, took: float, server_cpu_s: float, *, client_cpu_s: float, writes: float) -> Figures:
    return {
        "vrs_per_s": count / took,
        "writes_per_s": writes / took,
        "writes_per_vr": writes / count,
        "server_cpu_ms_per_vr": 1000 * server_cpu_s / count,
        "client_cpu_ms_per_vr": 1000 * client_cpu_s / count,
    }


def _cpu(figures: Figures) -> float:
    return float(figures["server_cpu_ms_per_vr"] + figures["client_cpu_ms_per_vr"])


def _middle(rounds: list[Figures]) -> Figures:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
