"""What a reader of the documentation has while typing: a cluster, a bucket, a few files, and our programs.

The API server, its controllers and helm are real; no pod ever runs, so what waits for a restoration's end is run by the
end-to-end tests instead. Each page begins with the same objects.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hack.cluster.binaries import ALL
from hack.cluster.controlplane import ControlPlane
from hack.docs.pages import ROOT
from tests.builders import chart, clips
from tests.builders.apiserver import ApiServer, with_our_kinds
from tests.builders.clips import Clip
from tests.builders.resources import make_vr
from tests.builders.servers import ACCESS_KEY, SECRET_KEY, S3Server
from tests.builders.statuses import failed, make_status, running

VALUES = """\
image: {repository: registry.example.com/video-restoration/operator}
defaultProfile:
  storage: [{name: media, endpoint: "https://minio.media.svc:9000", addressing: Path, secretName: media-s3}]
"""
STATUSES = {
    "movie-night": running(41),
    "broken": failed("InvalidInput", "no video"),
    "stuck": make_status("Pending", Stalled="True/MountFailed", message="there is no Secret media-s3"),
}


@dataclass(frozen=True)
class Sandbox:
    """A reader's machine: `folder` is where commands are typed, a checkout in which files may be made."""

    folder: Path
    environment: dict[str, str]


@pytest.fixture(scope="session")
def control_plane(cluster_binaries: None) -> Iterator[ControlPlane]:
    with ControlPlane() as running_plane:
        yield running_plane


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> Iterator[ApiServer]:
    with with_our_kinds(control_plane) as server:
        yield server


@pytest.fixture
def sandbox(api: ApiServer, control_plane: ControlPlane, moto: S3Server, tmp_path: Path) -> Iterator[Sandbox]:
    """The same for every page: what an earlier page installed or created is gone."""
    for name, status in STATUSES.items():
        body = make_vr({"output.uri": f"s3://media/restored/{name}.mp4"}, name=name, namespace="default")
        made = api.create(body)
        assert made.accepted, made.message
        del body["spec"]
        answer = api.apply_status(body | {"status": status})
        assert answer.accepted, answer.message
    moto.make_bucket("media")
    yield Sandbox(_checkout(tmp_path / "checkout"), _environment(control_plane, moto, tmp_path))
    for release in chart.run_helm(control_plane, "list", "--all-namespaces", "--short").split():
        chart.run_helm(control_plane, "uninstall", release, "--namespace", chart.NAMESPACE)
    control_plane.kubectl("delete", "vr", "--all", "--namespace=default")


def _checkout(folder: Path) -> Path:
    """The repository's entries as links, and files of the reader's own beside them."""
    folder.mkdir()
    for entry in ROOT.iterdir():
        if entry.name not in ("out", ".dev"):
            (folder / entry.name).symlink_to(entry)
    for name in ("in.mp4", "movie.mp4", "clip.mp4", "trailer.mp4"):
        clips.write(folder / name, Clip(frames=9, width=48, height=32))
    (folder / "values.yaml").write_text(VALUES)
    return folder


def _environment(cluster: ControlPlane, store: S3Server, folder: Path) -> dict[str, str]:
    """PATH and KUBECONFIG as `hack.cluster env` sets them; helm takes CRDs over that the tests made."""
    programs = folder / "bin"
    programs.mkdir()
    helm = programs / "helm"
    helm.write_text(
        f'#!/bin/sh\n[ "$1" = install ] && set -- "$@" {chart.TAKE_OVER}\nexec {chart.helm_program()} "$@"\n'
    )
    helm.chmod(0o755)
    path = [programs, ALL["kubectl"].path.parent, Path(sys.executable).parent, os.environ["PATH"]]
    return {
        "PATH": ":".join(map(str, path)),
        "HOME": str(folder),
        "KUBECONFIG": str(cluster.kubeconfig),
        "AWS_ENDPOINT_URL": store.endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", f"--site-dir={folder}"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
