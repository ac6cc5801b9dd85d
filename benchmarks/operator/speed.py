"""How long things take, and how many a second go through."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.operator import life
from benchmarks.operator.api import FAILED, JOBS, SUCCEEDED, VRS, Api, Json, Watch, all_of
from benchmarks.operator.bench import Bench, Figures, Operator, at_rest, quantile
from benchmarks.operator.sizes import Sizes


async def latency(bench: Bench, sizes: Sizes) -> Figures:
    """10 restorations a second: from the answer to their creation until the Job is there, and to `Finished=True` from
    the end of what tells it: the container with the runner's report, or, for every other restoration, the Job."""
    namespace = await bench.api.namespace("latency")
    acknowledged: dict[str, float] = {}
    ended: dict[str, float] = {}
    owners: dict[str, str] = {}
    bodies: list[Json] = []

    def noticed(job: Json) -> None:
        owners[job["metadata"]["name"]] = job["metadata"]["ownerReferences"][0]["name"]
        bodies.append(job)

    async def one(number: int) -> None:
        body = life.restoration(namespace, number)
        await bench.api.call("POST", VRS.format(namespace), body)
        acknowledged[body["metadata"]["name"]] = time.monotonic()

    async def end(job: Json, how: Callable[[Api, Json], Awaitable[None]]) -> None:
        await how(bench.api, job)
        ended[owners[job["metadata"]["name"]]] = time.monotonic()

    async with (
        Operator(bench, namespace),
        Watch(bench.api, JOBS.format(namespace)) as jobs,
        Watch(bench.api, VRS.format(namespace), fields=SUCCEEDED) as finished,
        Watch(bench.api, VRS.format(namespace), fields=FAILED) as failed,
    ):
        jobs.on_added = noticed
        await asyncio.sleep(2)
        await _paced([lambda n=n: one(n) for n in range(sizes.latency_vrs)], per_s=10)
        await jobs.count(sizes.latency_vrs)
        to_job = [when - acknowledged[owners[name]] for name, when in jobs.seen.items()]
        await all_of([lambda job=job: life.start_pod(bench.api, job) for job in bodies], in_flight=4)
        await asyncio.sleep(3)
        told, silent = bodies[::2], bodies[1::2]
        await _paced([lambda job=job: end(job, life.end_pod) for job in told], per_s=10)
        await all_of([lambda job=job: life.complete(bench.api, job) for job in told], in_flight=4)
        await all_of([lambda job=job: life.break_pod(bench.api, job) for job in silent], in_flight=4)
        await asyncio.sleep(3)
        await _paced([lambda job=job: end(job, life.fail) for job in silent], per_s=10)
        await finished.count(len(told))
        await failed.count(len(silent))
    return {
        "create_to_job": _quantiles(to_job),
        "report_to_finished": _quantiles([when - ended[name] for name, when in finished.seen.items()]),
        "job_end_to_finished": _quantiles([when - ended[name] for name, when in failed.seen.items()]),
    }


async def _paced(jobs: list[Callable[[], Awaitable[Any]]], *, per_s: float) -> None:
    """Start them at random moments, so many a second on average: users do not come in step."""
    tasks = []
    due = time.monotonic()
    for job in jobs:
        due += random.uniform(0, 2 / per_s)  # not from now: what the load itself takes must not slow it down
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.ensure_future(job()))
    await asyncio.gather(*tasks)


def _quantiles(seconds: list[float]) -> Figures:
    # A watch event may overtake the answer to the request that caused it.
    ms = [max(0.0, 1000 * value) for value in seconds]
    return {"p50_ms": quantile(ms, 0.5), "p99_ms": quantile(ms, 0.99), "max_ms": max(ms), "count": len(ms)}


async def burst(bench: Bench, sizes: Sizes) -> Figures:
    """All at once, creation included."""
    namespace, count = await bench.api.namespace("burst"), sizes.burst_vrs
    async with Operator(bench, namespace) as operator, Watch(bench.api, JOBS.format(namespace)) as jobs:
        await asyncio.sleep(2)
        mine, began = operator.cpu_s(), time.monotonic()
        await life.make(bench.api, namespace, range(count))
        made = time.monotonic() - began
        await jobs.count(count)
        took = max(jobs.seen.values()) - began
        await at_rest(operator)
        mine = operator.cpu_s() - mine
        listed = (await bench.api.call("GET", JOBS.format(namespace)))["items"]
        owners = [job["metadata"]["ownerReferences"][0]["uid"] for job in listed]
    return {
        "vrs": count,
        "seconds": took,
        "creation_seconds": made,
        "jobs": len(owners),
        "duplicates": len(owners) - len(set(owners)),
        "operator_cpu_ms_per_vr": 1000 * mine / count,
    }


async def sustained(bench: Bench, sizes: Sizes) -> Figures:
    """Restorations arrive at a fixed rate, a little more than is wanted, whether the operator keeps up or not."""
    seconds = sizes.sustained_s
    return {
        "whole_life": {"wanted_per_s": 15, **await _arrivals(bench, "life", rate=16, seconds=seconds, whole=True)},
        "create_to_job": {"wanted_per_s": 30, **await _arrivals(bench, "jobs", rate=32, seconds=seconds, whole=False)},
    }


async def _arrivals(bench: Bench, name: str, *, rate: float, seconds: int, whole: bool) -> Figures:
    namespace = await bench.api.namespace(f"sustained-{name}")
    path, depths, lives = VRS.format(namespace), [], []
    total = int(rate * seconds)

    async def measure_queue() -> None:
        while True:
            depths.append(await operator.metric("workqueue_depth"))
            await asyncio.sleep(1)

    async with (
        Operator(bench, namespace) as operator,
        Watch(bench.api, JOBS.format(namespace)) as jobs,
        Watch(bench.api, path, fields=SUCCEEDED) as finished,
    ):
        if whole:
            jobs.on_added = lambda job: lives.append(asyncio.ensure_future(life.whole(bench.api, job)))
        await asyncio.sleep(2)
        watching = asyncio.create_task(measure_queue())
        began, mine = time.monotonic(), operator.cpu_s()
        bodies = [life.restoration(namespace, number) for number in range(total)]
        creating = [lambda body=body: bench.api.call("POST", path, body) for body in bodies]
        await _paced(creating, per_s=rate)
        arrived = time.monotonic() - began
        done = finished if whole else jobs
        behind = total - len(done.seen)
        await done.count(total)
        took = max(done.seen.values()) - began
        await asyncio.gather(*lives)
        watching.cancel()
        mine = operator.cpu_s() - mine
    return {
        "asked_per_s": rate,
        "arrived_per_s": total / arrived,
        "done_per_s": total / took,
        "behind_at_the_end": behind,
        "queue_p50": statistics.median(depths),
        "queue_max": max(depths),
        "operator_cpu_ms_per_vr": 1000 * mine / total,
    }
