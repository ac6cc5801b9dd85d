"""The table: what was measured, what is wanted, and what others publish about theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.operator.bench import Figures

Row = tuple[str, str, str]
"""What, measured, wanted."""

ANCHORS = (
    ("Kueue 0.1x, `test/performance/scheduler`", "42.7 workloads/s", "admission of 15,000 workloads, no Jobs or pods"),
    ("KubeRay 1.1.1, `benchmark/perf-tests`", "6.6 clusters/s", "10,000 RayClusters with running pods until ready"),
    ("spark-operator, its benchmark page", "2.3 apps/s", "6,000 SparkApplications submitted on 25 to 36 cores"),
)
"""Published by the projects, on larger machines. Each does another amount of work for an object: no ranking."""


def table(document: Figures) -> str:
    """Markdown."""
    machine = document["machine"]
    where = f"{machine['date']}, commit {machine['commit']}, {machine['cores']} cores of {machine['cpu']}"
    sizes = ", quick sizes" if document["quick"] else ""
    rows = [row for name, write in _ROWS.items() if name in document for row in write(document[name])]
    lines = [
        f"{where}, load {machine['load']:.1f}{sizes}",
        "",
        "| what | measured | wanted |",
        "| --- | --- | --- |",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "| published by others | figure | what it measures |",
        "| --- | --- | --- |",
        *(f"| {' | '.join(anchor)} |" for anchor in ANCHORS),
    ]
    return "\n".join(lines)


def _ceiling(found: Figures) -> Iterator[Row]:
    raw, ours = found["raw"], found["operator"]
    rounds = ", ".join(f"{ratio:.0%}" for ratio in found["ratios"])
    ratio = f"{found['ratio']:.0%} of writes/s (rounds {rounds}), {found['vr_ratio']:.0%} of VR/s"
    yield "operator's rate ÷ raw write ceiling", ratio, "≥ 60 %"
    for name, side in (("raw writes", raw), ("operator", ours)):
        client, server = side["client_cpu_ms_per_vr"], side["server_cpu_ms_per_vr"]
        rate = f"{side['vrs_per_s']:.0f} VR/s, {side['writes_per_s']:.0f} writes/s, {side['writes_per_vr']:.1f} each"
        yield f"– {name}, VR → Job", f"{rate}; CPU for one VR: client {client:.1f} ms, servers {server:.1f} ms", ""
    yield "– CPU of everything for one VR, raw ÷ operator", f"{found['cpu_ratio']:.0%}", ""


def _latency(found: Figures) -> Iterator[Row]:
    wanted = "p99 ≤ 500 ms"
    yield "create-ack → Job created at 10 VR/s", _ms(found["create_to_job"]), "p50 ≤ 30 ms, p99 ≤ 250 ms"
    yield "runner's report in the pod's status → `Finished=True`", _ms(found["report_to_finished"]), wanted
    yield "Job finished, no report → `Finished=True`", _ms(found["job_end_to_finished"]), wanted


def _ms(found: Figures) -> str:
    return f"p50 {found['p50_ms']:.0f} ms, p99 {found['p99_ms']:.0f} ms, max {found['max_ms']:.0f} ms"


def _burst(found: Figures) -> Iterator[Row]:
    measured = f"{found['seconds']:.1f} s, {found['jobs']} Jobs, {found['duplicates']} duplicates"
    yield f"burst of {found['vrs']} VRs → Jobs", measured, "1,000 in ≤ 30 s, 0 duplicates"
    yield "– operator's CPU for one VR", f"{found['operator_cpu_ms_per_vr']:.1f} ms", ""


def _sustained(found: Figures) -> Iterator[Row]:
    names = {"whole_life": "full life", "create_to_job": "create → Job"}
    for key, name in names.items():
        one = found[key]
        done = (
            f"{one['done_per_s']:.1f} of {one['arrived_per_s']:.1f} VR/s, {one['behind_at_the_end']} behind at the end"
        )
        queue = f"queue p50 {one['queue_p50']:.0f}, max {one['queue_max']:.0f}"
        cpu = f"{one['operator_cpu_ms_per_vr']:.1f} ms operator CPU for one"
        yield f"sustained, {name}", f"{done}; {queue}; {cpu}", f"≥ {one['wanted_per_s']:.0f} VR/s, queue bounded"


def _memory(found: Figures) -> Iterator[Row]:
    for level in found["levels"]:
        measured = f"{level['rss_mib']:.0f} MiB (peak {level['peak_mib']:.0f}), ready in {level['ready_s']:.1f} s"
        wanted = {0: "≤ 85 MiB", 1000: "≤ 100 MiB", 10_000: "≤ 180 MiB"}.get(level["finished_vrs"], "")
        yield f"RSS with {level['finished_vrs']} finished VRs", measured, wanted
    cycles = found["cycles"]
    ends = f"{cycles['rss_mib'][0]:.0f} → {cycles['rss_mib'][-1]:.0f} MiB"
    measured = f"{cycles['growth_mib']:+.1f} MiB ({ends})"
    yield f"growth over {cycles['cycles']} create-delete cycles", measured, "none"


def _cold_start(found: Figures) -> Iterator[Row]:
    what = f"cold start, {found['vrs']} VRs, {found['running']} of them running"
    measured = (
        f"ready in {found['ready_s']:.1f} s, {found['objects_changed']} objects changed, {found['writes']:.0f} writes, "
        f"{found['cpu_s']:.1f} s CPU"
    )
    yield what, measured, "ready ≤ 5 s, 0 writes"


def _kwok(found: Figures) -> Iterator[Row]:
    rate = f"{found['vrs_per_s']:.1f} VR/s: {found['vrs']} in {found['seconds']:.1f} s, {found['jobs']} Jobs"
    yield "every controller on, pods played by KWOK: create → `Succeeded`", rate, ""
    yield (
        "– time to `Succeeded` in that burst",
        f"p50 {found['finished_p50_s']:.1f} s, p99 {found['finished_p99_s']:.1f} s",
        "",
    )
    cpu = f"operator {found['operator_cpu_ms_per_vr']:.0f} ms, servers {found['server_cpu_ms_per_vr']:.0f} ms"
    yield "– CPU for one VR", cpu, ""


_ROWS: dict[str, Callable[[Figures], Iterator[Row]]] = {
    "ceiling": _ceiling,
    "latency": _latency,
    "burst": _burst,
    "sustained": _sustained,
    "memory": _memory,
    "cold-start": _cold_start,
    "kwok": _kwok,
}
