"""`make demo`, start to end. Reading order is the order of events."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from hack.cluster.console import Console
from hack.cluster.errors import ClusterError
from hack.cluster.paths import CHECKOUT
from hack.demo import store_pod
from hack.demo.bucket import Bucket
from hack.demo.compare import Comparison, compare
from hack.demo.install import build_images, install_chart, prepare_namespace
from hack.demo.kubectl import DemoError, Kubectl
from hack.demo.stage import Stage, open_stage
from hack.demo.summary import summary
from hack.demo.watch import Display, follow, why
from restoration_api.resources.status import ConditionType, VideoRestorationStatus

EXAMPLE = CHECKOUT / "examples" / "01-first-restoration"
NAMESPACE = "video-restoration-demo"
PATIENCE_S = 1800


def main() -> int:
    """Run the demo. Returns the process's exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description="Restore a real clip on a real cluster.")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "out", help="folder for the results")
    options = parser.parse_args()
    console = Console()
    try:
        run(console, out=options.out)
    except (DemoError, ClusterError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the cluster goes on (`make cluster-down` ends the development cluster)", file=sys.stderr)
        return 130
    return 0


def run(console: Console, *, out: Path) -> None:
    """Everything the demo does, in order."""
    started_at = time.monotonic()
    stage = open_stage(console)
    images = build_images(stage, console)
    kubectl = stage.kubectl.in_namespace(NAMESPACE)
    with store_pod.bucket_of(stage, console) as bucket:
        with console.step("installing the chart: CRDs, rights, operator"):
            install_chart(stage, images, bucket)
        prepare_namespace(kubectl, bucket)
        name, output_key = submit(kubectl, bucket, console)
        display = Display(started_at)
        status = follow(kubectl, name, display=display, timeout_s=PATIENCE_S)
        require_restored(kubectl, name, status)
        restored = out / "restored.mp4"
        with console.step(f"downloading {bucket.uri(output_key)}"):
            bucket.download(output_key, restored)
    with console.step("measuring against the original"):
        comparison = measure(restored, out)
    print(report(stage, name, status, comparison, restored, out))


def submit(kubectl: Kubectl, bucket: Bucket, console: Console) -> tuple[str, str]:
    """Upload the clip and apply the example under a name and an output key that nothing had before."""
    manifest: dict[str, Any] = yaml.safe_load((EXAMPLE / "restoration.yaml").read_text())
    name = f"{manifest['metadata']['name']}-{secrets.token_hex(3)}"
    folder = f"first-restoration/{name}"
    with console.step(f"uploading {EXAMPLE.name}/clip/degraded.mp4"):
        bucket.ensure()
        bucket.upload(EXAMPLE / "clip" / "degraded.mp4", f"{folder}/degraded.mp4")
    manifest["metadata"]["name"] = name
    manifest["spec"]["input"]["uri"] = bucket.uri(f"{folder}/degraded.mp4")
    manifest["spec"]["output"]["uri"] = bucket.uri(f"{folder}/restored.mp4")
    manifest["spec"]["cache"] = "Bypass"  # the point is to see it work
    kubectl.apply(manifest)
    console.say(f"applied VideoRestoration {kubectl.namespace}/{name}")
    return name, f"{folder}/restored.mp4"


def require_restored(kubectl: Kubectl, name: str, status: VideoRestorationStatus) -> None:
    """Raise DemoError unless it succeeded, and by computing: a result from a cache shows nothing."""
    if status.condition(ConditionType.SUCCEEDED) != "True":
        raise DemoError(f"{name} was not restored. {why(status)}\nSee {kubectl.program} describe vr {name}.")
    frames = status.output.frames if status.output else 0
    inference_ms = status.timings.inference_milliseconds if status.timings else 0
    if status.cache_hit or not frames or not inference_ms:
        raise DemoError(
            f"{name} succeeded, but no frame was computed: a cache hit, or a status without inference time."
        )


def measure(restored: Path, out: Path) -> Comparison:
    """Compare with the original and draw the picture."""
    clip = EXAMPLE / "clip"
    return compare(
        original=clip / "original.mp4",
        degraded=clip / "degraded.mp4",
        restored=restored,
        picture=out / "before-after.png",
    )


def report(
    stage: Stage, name: str, status: VideoRestorationStatus, comparison: Comparison, restored: Path, out: Path
) -> str:
    """What a person wants to know at the end."""
    kubectl = f"{stage.kubectl.program} --kubeconfig {stage.kubectl.kubeconfig} --namespace {NAMESPACE}"
    gain_db = comparison.restored_db - comparison.bicubic_db
    return "\n".join(
        [
            "",
            summary(status),
            f"PSNR (luma, {comparison.frames} frames): bicubic {comparison.bicubic_db:.2f} dB,"
            f" restored {comparison.restored_db:.2f} dB ({gain_db:+.2f} dB)",
            "",
            f"video    {restored}",
            f"picture  {out / 'before-after.png'}",
            f"object   {status.output.uri if status.output else ''}",
            f"status   {kubectl} get vr {name} --output yaml",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
