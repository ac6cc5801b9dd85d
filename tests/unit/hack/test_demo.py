"""What the demo shows: progress from a status, PSNR from frames, and which stage the environment asks for."""

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hack.cluster.console import SILENT
from hack.demo import stage
from hack.demo.compare import Comparison, draw, psnr_db, read_rgb
from hack.demo.install import Images, chart_values
from hack.demo.kubectl import DemoError
from hack.demo.stage import open_stage
from hack.demo.watch import line, why
from PIL import Image
from tests.builders import clips
from tests.builders.clips import Clip

from restoration_api.resources.status import VideoRestorationStatus

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def condition(kind: str, status: str, reason: str, message: str) -> dict[str, str]:
    moment = NOW.isoformat()
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": moment}


def status(**fields: Any) -> VideoRestorationStatus:
    return VideoRestorationStatus.model_validate(fields)


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, ["Pending"]),
        (
            {"phase": "Pending", "conditions": [condition("Accepted", "False", "ProfileNotReady", "set storage")]},
            ["Pending", "Accepted=False ProfileNotReady: set storage"],
        ),
        (
            {"phase": "Starting", "conditions": [condition("Scheduled", "False", "Unschedulable", "no GPU")]},
            ["Starting", "Scheduled=False Unschedulable: no GPU"],
        ),
        (
            {
                "phase": "Running",
                "progress": {
                    "stage": "Restoring",
                    "percent": 40,
                    "framesDone": 20,
                    "framesTotal": 50,
                    "milliFramesPerSecond": 1250,
                    "estimatedCompletionTime": (NOW + timedelta(seconds=84)).isoformat(),
                },
            },
            ["Running", "Restoring", " 40%", "20/50 frames", "1.25 frames/s", "1:24 left"],
        ),
    ],
    ids=["nothing yet", "not accepted", "no place", "running"],
)
def test_progress_line(fields: dict[str, Any], shown: list[str]) -> None:
    text = line(status(**fields), now=NOW)
    for part in shown:
        assert part in text


def test_the_end_is_told_by_its_reason() -> None:
    failed = status(
        conditions=[
            condition("Accepted", "True", "Valid", "accepted"),
            condition("Succeeded", "False", "InputNotFound", "s3://video/a.mp4 does not exist"),
        ]
    )
    assert why(failed) == "Succeeded=False InputNotFound: s3://video/a.mp4 does not exist"


@pytest.mark.parametrize(("error", "expected_db"), [(1, 49.45), (16, 25.37)])
def test_psnr_of_a_constant_error(error: int, expected_db: float) -> None:
    truth = np.full((3, 4, 6, 3), 100, dtype=np.uint8)
    assert psnr_db(truth + np.uint8(error), truth) == pytest.approx(expected_db, abs=0.01)


def test_psnr_is_of_the_clip_not_the_mean_of_frames() -> None:
    truth = np.full((2, 4, 6, 3), 100, dtype=np.uint8)
    frames = truth.copy()
    frames[1] += 10
    assert psnr_db(frames, truth) == pytest.approx(10 * np.log10(255**2 / (50 * (219 / 255) ** 2)), abs=0.01)


def test_picture_shows_three_columns(tmp_path: Path) -> None:
    low = np.zeros((2, 8, 16, 3), dtype=np.uint8)
    high = np.zeros((2, 32, 64, 3), dtype=np.uint8)
    high[:, 4:12, 40:60] = 255
    picture = tmp_path / "new" / "before-after.png"
    draw(low=low, plain=high, high=high, result=Comparison(2, 30.0, 31.0), picture=picture)
    with Image.open(picture) as image:
        assert image.width >= 3 * 64
        assert image.convert("L").getextrema() == (0, 255)


def own_cluster(folder: Path, **extra: str) -> dict[str, str]:
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text("{}")
    return {"KUBECONFIG": str(kubeconfig), **extra}


@pytest.fixture
def installed_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_kubectl_program", lambda console: Path("kubectl"))
    monkeypatch.setattr(stage, "ensure_helm", lambda console: Path("helm"))


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({}, "REGISTRY"),
        ({"REGISTRY": "r", "S3_ENDPOINT": "https://s3"}, "AWS_ACCESS_KEY_ID"),
        ({"REGISTRY": "r", "S3_ENDPOINT": "https://s3", "AWS_ACCESS_KEY_ID": "a"}, "AWS_SECRET_ACCESS_KEY"),
    ],
)
@pytest.mark.usefixtures("installed_programs")
def test_what_is_missing_for_an_own_cluster_is_named(tmp_path: Path, extra: dict[str, str], named: str) -> None:
    with pytest.raises(DemoError, match=named):
        open_stage(SILENT, own_cluster(tmp_path, **extra))


@pytest.mark.usefixtures("installed_programs")
def test_a_kubeconfig_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="no file"):
        open_stage(SILENT, {"KUBECONFIG": str(tmp_path / "nowhere"), "REGISTRY": "r"})


@pytest.mark.usefixtures("installed_programs")
def test_own_cluster_without_a_store_gets_one(tmp_path: Path) -> None:
    opened = open_stage(SILENT, own_cluster(tmp_path, REGISTRY="registry.example"))
    assert (opened.registry, opened.bucket, opened.nodes_are_local) == ("registry.example", None, False)


@pytest.mark.usefixtures("installed_programs")
def test_a_development_clusters_kubeconfig_brings_everything(tmp_path: Path) -> None:
    facts = {"endpoint": "http://10.0.0.1:1", "region": "us-east-1", "bucket": "v", "accessKey": "a", "secretKey": "s"}
    (tmp_path / "s3.json").write_text(json.dumps(facts))
    (tmp_path / "registry").write_text("10.0.0.1:5000\n")
    opened = open_stage(SILENT, own_cluster(tmp_path))
    assert opened.registry == "10.0.0.1:5000"
    assert opened.nodes_are_local
    assert opened.bucket is not None
    values = chart_values(Images("10.0.0.1:5000/op@sha256:1", "10.0.0.1:5000/run@sha256:2"), opened.bucket)
    assert values["image"] == {"repository": "10.0.0.1:5000/op", "digest": "sha256:1"}
    [storage] = values["defaultProfile"]["storage"]
    assert storage["endpoint"] == "http://10.0.0.1:1"
    assert "s" not in storage.values()  # no secret in the chart's values


def test_psnr_is_the_number_of_ffmpegs_filter(tmp_path: Path) -> None:
    one, other = (clips.write(tmp_path / f"{crf}.mp4", Clip(frames=8, options={"crf": crf})) for crf in ("8", "40"))
    ours = psnr_db(read_rgb(other), read_rgb(one))
    compared = ["ffmpeg", "-i", str(other), "-i", str(one), "-lavfi", "psnr", "-f", "null", "-"]
    said = subprocess.run(compared, capture_output=True, text=True, check=True).stderr
    theirs = re.search(r"PSNR y:([\d.]+)", said)
    assert theirs is not None
    assert ours == pytest.approx(float(theirs[1]), abs=0.3)  # 8-bit RGB in between
