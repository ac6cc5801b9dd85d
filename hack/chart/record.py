"""Records what operator and runners export during some minutes of real work, for the dashboard's test and picture.

python -m hack.chart.record           the cluster that `make demo` would use; writes tests/chart/recorded.om.gz

Clips are restored one after the other, so that some wait; one input does not exist, one profile does not, one clip is
asked for twice. There is no GPU on the development cluster: the recording has no numbers of one.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hack.chart.paths import ROOT
from hack.chart.recording import Sample, openmetrics, samples, wanted_names
from hack.cluster.console import Console
from hack.cluster.errors import ClusterError
from hack.demo import store_pod
from hack.demo.bucket import Bucket
from hack.demo.install import OPERATOR_NAMESPACE, SECRET, STORAGE, build_images, install_chart, prepare_namespace
from hack.demo.kubectl import DemoError, Kubectl, Manifest
from hack.demo.stage import Stage, open_stage

RECORDING: Final = ROOT / "tests" / "chart" / "recorded.om.gz"
CLIP: Final = ROOT / "examples" / "01-first-restoration" / "clip" / "degraded.mp4"
NAMESPACE: Final = "video-restoration-recording"
PROFILE: Final = "one-at-a-time"
SCRAPE_SECONDS: Final = 5.0
LAST_SCRAPES: Final = 12
"""After the last restoration is over: what it changed shall be in the recording."""
COMPONENTS: Final = {"operator": "video-restoration-operator", "runner": "video-restoration-runner"}
"""Label of the pods, and the `job` that Prometheus would call them."""


def main() -> int:
    """Returns the process's exit code."""
    parser = argparse.ArgumentParser(description="Record metrics of real work.")
    parser.add_argument("--restorations", type=int, default=6, help="clips to restore")
    parser.add_argument("--longest-seconds", type=int, default=1200, help="end even if not all are over")
    parser.add_argument("--out", type=Path, default=RECORDING)
    options = parser.parse_args()
    console = Console()
    try:
        stage = open_stage(console)
        images = build_images(stage, console)
        with store_pod.bucket_of(stage, console) as bucket:
            bucket.ensure()
            install_chart(stage, images, bucket)
            kubectl = stage.kubectl.in_namespace(NAMESPACE)
            prepare_namespace(kubectl, bucket)
            names = submit(kubectl, bucket, options.restorations)
            with console.step(f"recording, at most {options.longest_seconds} s"):
                found = list(record(stage, kubectl, names, longest_seconds=options.longest_seconds))
            kubectl.run("delete", "namespace", NAMESPACE, "--wait=false")
    except (DemoError, ClusterError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    # mtime 0: the same recording is the same file.
    options.out.write_bytes(gzip.compress(openmetrics(found).encode(), mtime=0))
    print(f"wrote {len(found)} samples to {options.out}")
    return 0


def submit(kubectl: Kubectl, bucket: Bucket, count: int) -> list[str]:
    """Apply all restorations at once; returns the names of those that will end."""
    key = f"recording/{time.time_ns()}"
    bucket.upload(CLIP, f"{key}/in.mp4")
    store = bucket.endpoint
    storage = {"name": STORAGE, "endpoint": store.from_pods, "region": store.region, "addressing": "Path"}
    kubectl.apply(
        _body(
            "RestorationProfile",
            PROFILE,
            {
                "model": {"name": "seedvr2-nano", "source": {"builtin": {}}},
                "gpu": {"count": 0},
                "limits": {"maxActive": 1},
                "storage": [storage | {"secretName": SECRET}],
            },
        )
    )
    wishes: dict[str, Manifest] = {f"clip-{number}": {"restoration": {"seed": number}} for number in range(count)}
    wishes |= {"missing-input": {"input": {"uri": bucket.uri(f"{key}/none.mp4")}}}
    for name, wish in wishes.items():
        _apply(kubectl, bucket, key, name, wish)
    _apply(kubectl, bucket, key, "no-such-profile", {"profileRef": {"kind": "RestorationProfile", "name": "none"}})
    return list(wishes)


def _apply(kubectl: Kubectl, bucket: Bucket, key: str, name: str, wish: Manifest) -> None:
    spec: Manifest = {
        "profileRef": {"kind": "RestorationProfile", "name": PROFILE},
        "input": {"uri": bucket.uri(f"{key}/in.mp4")},
        "output": {"uri": bucket.uri(f"{key}/{name}.mp4")},
    }
    kubectl.apply(_body("VideoRestoration", name, spec | wish))


def _body(kind: str, name: str, spec: Manifest) -> Manifest:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "videorestoration.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def record(stage: Stage, kubectl: Kubectl, names: list[str], *, longest_seconds: float) -> Iterator[Sample]:
    """Ask every pod again and again, until all is over and has been told."""
    wanted, until, left = wanted_names(), time.monotonic() + longest_seconds, LAST_SCRAPES
    while time.monotonic() < until and left:
        began = time.monotonic()
        yield from _scrape(stage, wanted)
        left -= _all_over(kubectl, names)
        time.sleep(max(0.0, SCRAPE_SECONDS - (time.monotonic() - began)))


def _scrape(stage: Stage, wanted: set[str]) -> Iterator[Sample]:
    everywhere = stage.kubectl.in_namespace(OPERATOR_NAMESPACE)
    text = everywhere.run(
        "get", "pods", "--all-namespaces", "--selector=app.kubernetes.io/name=video-restoration", "-o=json"
    )
    for pod in json.loads(text)["items"]:
        job = COMPONENTS.get(pod["metadata"]["labels"].get("app.kubernetes.io/component", ""))
        address = pod["status"].get("podIP")
        if job is None or address is None or pod["status"]["phase"] != "Running":
            continue
        owner = {"namespace": pod["metadata"]["namespace"], "pod": pod["metadata"]["name"], "job": job}
        answer = _get(f"http://{address}:8080/metrics")
        if answer is not None:
            yield from samples(answer, at_seconds=time.time(), owner=owner, wanted=wanted)


def _get(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, OSError):
        return None  # not there yet, or not any more


def _all_over(kubectl: Kubectl, names: list[str]) -> bool:
    found: list[dict[str, Any]] = list(kubectl.list("videorestorations"))
    over = {
        item["metadata"]["name"]
        for item in found
        for condition in item.get("status", {}).get("conditions", ())
        if condition["type"] == "Finished" and condition["status"] == "True"
    }
    return set(names) <= over


if __name__ == "__main__":
    sys.exit(main())
