"""What the operator holds, and how it starts."""

from __future__ import annotations

import asyncio
import statistics

from benchmarks.operator import life
from benchmarks.operator.api import CONFIG_MAPS, JOBS, METADATA_LIST, SUCCEEDED, VRS, Api, Json, Watch, all_of
from benchmarks.operator.bench import Bench, Figures, Operator, at_rest
from benchmarks.operator.sizes import Sizes


async def finished_status(bench: Bench) -> Json:
    """What the operator writes for a restoration that went well; taken from one."""
    namespace = await bench.api.namespace("sample")
    async with (
        Operator(bench, namespace),
        Watch(bench.api, JOBS.format(namespace)) as jobs,
        Watch(bench.api, VRS.format(namespace), fields=SUCCEEDED, whole=True) as finished,
    ):
        bodies: list[Json] = []
        ends: list[Json] = []
        jobs.on_added, finished.on_added = bodies.append, ends.append
        await life.make(bench.api, namespace, range(1))
        await jobs.count(1)
        await life.whole(bench.api, bodies[0])
        await finished.count(1)
    status: Json = ends[0]["status"]
    return status


async def lay_out_finished(bench: Bench, namespace: str, numbers: range, status: Json) -> None:
    """Restorations that were over long ago: no operator has to see them end."""
    path = VRS.format(namespace)
    names = [body["metadata"]["name"] for body in await life.make(bench.api, namespace, numbers)]
    await all_of([lambda name=name: bench.api.patch(f"{path}/{name}/status", {"status": status}) for name in names])


async def memory(bench: Bench, sizes: Sizes) -> Figures:
    """Resident memory with nothing to do, with finished restorations, and over create-delete cycles."""
    namespace, status = await bench.api.namespace("memory"), await finished_status(bench)
    levels = [await _resting(bench, namespace, 0)]
    laid = 0
    for count in sizes.finished_vrs:
        await lay_out_finished(bench, namespace, range(laid, count), status)
        laid = count
        levels.append(await _resting(bench, namespace, count))
    return {"levels": levels, "cycles": await _cycles(bench, sizes.cycles)}


async def _resting(bench: Bench, namespace: str, count: int) -> Figures:
    async with Operator(bench, namespace) as operator:
        await asyncio.sleep(5 + count / 500)
        return {
            "finished_vrs": count,
            "rss_mib": operator.rss_mib(),
            "peak_mib": operator.peak_mib(),
            "ready_s": operator.ready_s,
            "cpu_s": operator.cpu_s(),
        }


async def _cycles(bench: Bench, cycles: int) -> Figures:
    """Create, wait for the Job, delete, in batches; the garbage collector removes what belongs to them."""
    namespace = await bench.api.namespace("cycles")
    batch = min(200, cycles // 3)
    path, samples = VRS.format(namespace), []
    async with Operator(bench, namespace) as operator, Watch(bench.api, JOBS.format(namespace)) as jobs:
        await asyncio.sleep(2)
        for start in range(0, cycles, batch):
            numbers = range(start, min(cycles, start + batch))
            names = [body["metadata"]["name"] for body in await life.make(bench.api, namespace, numbers)]
            await jobs.count(numbers.stop)
            await all_of([lambda name=name: bench.api.call("DELETE", f"{path}/{name}") for name in names])
            await _collected(bench.api, namespace)
            samples.append(operator.rss_mib())
    return {"cycles": cycles, "rss_mib": samples, "growth_mib": _growth(samples)}


async def _collected(api: Api, namespace: str) -> None:
    """Wait for the garbage collector: what it has not removed yet is rightly in the operator's memory."""
    for path in (JOBS, CONFIG_MAPS):
        while True:
            page = await api.call("GET", f"{path.format(namespace)}?limit=2", accept=METADATA_LIST)
            if all(item["metadata"]["name"] == "kube-root-ca.crt" for item in page["items"] or ()):
                break
            await asyncio.sleep(0.2)


def _growth(samples: list[float]) -> float:
    """From the first third's mean to the last third's: the first batches fill caches and pools."""
    third = max(1, len(samples) // 3)
    return statistics.mean(samples[-third:]) - statistics.mean(samples[third : 2 * third] or samples[:third])


async def cold_start(bench: Bench, sizes: Sizes) -> Figures:
    """An operator that starts where everything is in order: most are over, one in twenty is running."""
    namespace, status = await bench.api.namespace("cold"), await finished_status_again(bench)
    running = sizes.cold_vrs // 20
    await lay_out_finished(bench, namespace, range(running, sizes.cold_vrs), status)
    async with Operator(bench, namespace) as operator, Watch(bench.api, JOBS.format(namespace)) as jobs:
        bodies: list[Json] = []
        jobs.on_added = bodies.append
        await life.make(bench.api, namespace, range(running))
        await jobs.count(running)
        await all_of([lambda job=job: life.start_pod(bench.api, job) for job in bodies])
        await at_rest(operator)
    before = await bench.api.versions(namespace)
    async with Operator(bench, namespace) as operator:
        await asyncio.sleep(10)
        ready, cpu, claimed = operator.ready_s, operator.cpu_s(), await operator.writes()
    after = await bench.api.versions(namespace)
    return {
        "vrs": sizes.cold_vrs,
        "running": running,
        "ready_s": ready,
        "cpu_s": cpu,
        "objects_changed": len(set(before.items()) ^ set(after.items())),
        "writes": claimed,
    }


async def finished_status_again(bench: Bench) -> Json:
    """The sample that `memory` has left, or a fresh one."""
    found = (await bench.api.call("GET", VRS.format("sample")))["items"]
    return found[0]["status"] if found else await finished_status(bench)
