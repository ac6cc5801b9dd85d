"""`kubectl vr` against the real API server: what it prints, what it changes, and how it ends."""

from __future__ import annotations

import contextlib
import io
import os
import ssl
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hack.cluster.binaries import ALL
from hack.cluster.controlplane import ControlPlane
from tests.builders import clips, ffprobe
from tests.builders.apiserver import ApiServer, resource_path, with_our_kinds
from tests.builders.clips import Clip
from tests.builders.resources import Body, make_vr
from tests.builders.servers import ACCESS_KEY, SECRET_KEY, S3Server
from tests.builders.statuses import failed, make_status, running, succeeded

from restoration_cli.__main__ import main

JOB = "vr-clip-00000000-e1-run"

# With the other tests of the CRDs: they share a control plane.
pytestmark = pytest.mark.xdist_group("control-plane")


class Cluster:
    """One namespace, the operator played by the test."""

    def __init__(self, api: ApiServer, kubeconfig: Path, namespace: str) -> None:
        self.api, self.kubeconfig, self.namespace = api, kubeconfig, namespace

    def create(self, name: str = "clip", status: Any = None, changes: Any = None) -> Body:
        made = self.api.create(make_vr(changes, name=name, namespace=self.namespace))
        assert made.accepted, made.message
        if status is not None:
            self.says(name, status)
        return made.body

    def says(self, name: str, status: Any) -> None:
        """The operator writes this status."""
        body = make_vr(name=name, namespace=self.namespace)
        del body["spec"]
        answer = self.api.apply_status(body | {"status": status})
        assert answer.accepted, answer.message

    def get(self, name: str) -> Body | None:
        answer = self.api.request("GET", resource_path(make_vr(name=name, namespace=self.namespace)))
        return answer.body if answer.accepted else None

    def vr(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command: exit code, standard output, standard error."""
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        where = ("--kubeconfig", str(self.kubeconfig), "--namespace", self.namespace)
        code: Any = 0
        with (
            mock.patch.object(sys, "argv", ["kubectl-vr", *arguments, *where]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main()
            except SystemExit as ended:
                code = ended.code or 0
        texts = []
        for stream in (out, err):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
        return code, texts[0], texts[1]


@pytest.fixture(scope="module")
def api(control_plane: ControlPlane) -> Iterator[ApiServer]:
    with with_our_kinds(control_plane) as server:
        yield server


@pytest.fixture
def cluster(api: ApiServer, control_plane: ControlPlane, namespace: str) -> Cluster:
    return Cluster(api, control_plane.kubeconfig, namespace)


# -- looking ----------------------------------------------------------------------------------------------------------


def test_list_as_a_plugin_of_the_real_kubectl(cluster: Cluster) -> None:
    cluster.create("movie", running(41))
    cluster.create("broken", failed("InvalidInput", "no video"), {"output.uri": "s3://media/restored/b.mp4"})
    head, *rows = (line.split() for line in _kubectl(cluster, "vr", "list", "-n", cluster.namespace).splitlines())
    assert head == ["NAME", "PHASE", "PROGRESS", "TRIES", "AGE", "WHY"]
    assert [row[:2] for row in rows] == [["broken", "Failed"], ["movie", "Running"]]
    assert rows[0][-1] == "InvalidInput"
    assert rows[1][2:5] == ["41%", "41/100", "1"]


def test_kubectl_completes_commands_names_and_files(cluster: Cluster) -> None:
    cluster.create("movie")
    expected = {
        ("su",): ["submit", "suspend", ":4"],
        ("explain", "-n", cluster.namespace, "m"): ["movie", ":4"],
        ("submit", "a"): [":0"],
    }
    found = {words: _kubectl(cluster, "__complete", "vr", *words).splitlines() for words in expected}
    assert found == expected


def _kubectl(cluster: Cluster, *arguments: str) -> str:
    """The real kubectl, with our programs on its PATH."""
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "KUBECONFIG": str(cluster.kubeconfig)}
    command = [ALL["kubectl"].path, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_list_by_phase_and_in_all_namespaces(cluster: Cluster) -> None:
    cluster.create("movie", running(41))
    cluster.create("broken", failed("InvalidInput", "no video"), {"output.uri": "s3://media/restored/b.mp4"})
    assert cluster.vr("list", "--phase", "Failed")[1].splitlines()[1:][0].startswith("broken ")
    assert cluster.namespace in cluster.vr("list", "-A")[1]
    assert cluster.vr("list", "--selector", "team=other") == (
        0,
        "",
        f"no restorations in namespace {cluster.namespace}\n",
    )


ENDINGS = [
    ("explain", succeeded(), 0, "clip succeeded"),
    ("explain", failed("InputNotFound", "s3://media/raw/clip.mp4 does not exist"), 1, "check input.uri"),
    ("explain", make_status("Pending", Accepted="False/ProfileNotFound"), 0, "create the profile"),
    ("explain", None, 0, "no operator has looked at it yet"),
    ("watch", succeeded(), 0, "clip  Succeeded"),
    ("watch", failed("AccessDenied", "403 for bucket media"), 1, "The operator says: 403 for bucket media"),
    ("suspend", succeeded(), 2, "clip is over"),
    ("cancel", succeeded(), 2, "kubectl delete vr clip"),
    ("retry", succeeded(), 2, "clip succeeded"),
    ("retry", running(41), 2, "clip is not over"),
    ("logs", None, 2, "clip has no Job yet"),
    ("logs", running(41), 2, f"there is no pod of Job {JOB}"),
    ("open", running(41), 2, "clip is not over"),
    ("open", failed("AccessDenied", "403 for bucket media"), 1, "The operator says: 403 for bucket media"),
]


@pytest.mark.parametrize(("command", "status", "code", "said"), ENDINGS)
def test_how_commands_end(cluster: Cluster, command: str, status: Any, code: int, said: str) -> None:
    cluster.create("clip", status)
    ended, out, err = cluster.vr(command, "clip")
    assert ended == code, err
    assert said in out + err


def test_what_is_not_there_is_named(cluster: Cluster) -> None:
    for command in ("explain", "watch", "logs", "open", "retry", "suspend", "resume", "cancel"):
        sentence = f"error: VideoRestoration {cluster.namespace}/clip does not exist\n"
        assert cluster.vr(command, "clip") == (2, "", sentence)
    assert cluster.vr("list", "--context", "nowhere")[0] == 2
    assert cluster.vr("explain")[0] == 2


def test_without_rights_or_a_server_there_is_one_sentence(cluster: Cluster, control_plane: ControlPlane) -> None:
    allowed, cluster.kubeconfig = cluster.kubeconfig, control_plane.user_kubeconfig("nobody")
    code, out, err = cluster.vr("list")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert 'User "nobody" cannot list resource "videorestorations"' in err
    text = allowed.read_text().replace(control_plane.server, "https://127.0.0.1:1")
    cluster.kubeconfig = allowed.with_name("nowhere.kubeconfig")
    cluster.kubeconfig.write_text(text)
    code, out, err = cluster.vr("list")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "the API server cannot be reached" in err


# -- watching ---------------------------------------------------------------------------------------------------------


def _meanwhile(cluster: Cluster, *steps: Callable[[], Any]) -> tuple[int, str, str]:
    """Watch `clip` while the steps happen, each a moment after the one before."""

    def happen() -> None:
        for step in steps:
            time.sleep(0.3)
            step()

    thread = threading.Thread(target=happen)
    thread.start()
    try:
        return cluster.vr("watch", "clip")
    finally:
        thread.join()


def test_watch_tells_every_change_until_the_end(cluster: Cluster) -> None:
    cluster.create("clip", make_status("Queued", Scheduled="False/Queued"))
    steps = [lambda: cluster.says("clip", running(50)), lambda: cluster.says("clip", succeeded())]
    code, out, err = _meanwhile(cluster, *steps)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[-1] == "clip  Succeeded"
    assert set(lines) <= {"clip  Queued  Queued", "clip  Running  50% 50/100", "clip  Succeeded"}


def test_watch_ends_when_what_it_watches_is_deleted(cluster: Cluster) -> None:
    cluster.create("clip", running(10))
    path = resource_path(make_vr(namespace=cluster.namespace))
    code, _, err = _meanwhile(cluster, lambda: cluster.api.request("DELETE", path))
    assert (code, err) == (1, "clip was deleted before it was over\n")


def test_watch_without_names_waits_for_all_that_are_under_way(cluster: Cluster) -> None:
    assert cluster.vr("watch") == (0, "", "nothing is under way\n")
    cluster.create("old", failed("InvalidInput", "no video"))
    assert cluster.vr("watch")[0] == 0


# -- changing ---------------------------------------------------------------------------------------------------------


def test_suspend_and_resume(cluster: Cluster) -> None:
    cluster.create("clip", running(10))
    for command, value in (("suspend", True), ("resume", False)):
        assert cluster.vr(command, "clip") == (0, f"videorestoration/clip {command.rstrip('e')}ed\n", "")
        body = cluster.get("clip")
        assert body is not None
        assert body["spec"]["suspend"] is value


def test_cancel_deletes_what_is_not_over(cluster: Cluster) -> None:
    cluster.create("clip", running(10))
    assert cluster.vr("cancel", "clip") == (0, "videorestoration/clip cancelled\n", "")
    assert cluster.get("clip") is None


def test_retry_creates_the_same_under_the_next_free_name(cluster: Cluster) -> None:
    made = cluster.create("clip", failed("StorageError", "503"), {"restoration.seed": 7})
    for expected in ("clip-r2", "clip-r3"):
        assert cluster.vr("retry", "clip") == (0, f"videorestoration/{expected} created\n", "")
        again = cluster.get(expected)
        assert again is not None
        assert again["spec"] == made["spec"]
        assert again["metadata"]["annotations"]["videorestoration.dev/retry-of"] == "clip"
    old = cluster.get("clip")
    assert old is not None
    assert old["status"]["phase"] == "Failed"
    code, _, err = cluster.vr("retry", "clip", "--name", "clip-r2")
    assert code == 2
    assert "already exists" in err


# -- submitting -------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(moto: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3Server:
    moto.make_bucket("cli")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.endpoint)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return moto


def _only(cluster: Cluster) -> Body:
    path = resource_path(make_vr(namespace=cluster.namespace)).rpartition("/")[0]
    (found,) = cluster.api.request("GET", path).body["items"]
    assert isinstance(found, dict)
    return found


def test_submit_uploads_a_local_file_and_pins_it(cluster: Cluster, bucket: S3Server, tmp_path: Path) -> None:
    clip = tmp_path / "My Clip.mp4"
    clip.write_bytes(b"a video" * 1000)
    folder = f"s3://cli/{cluster.namespace}/"
    code, out, err = cluster.vr("submit", str(clip), "--upload-to", folder, "--scale", "4", "--no-wait")
    assert (code, err) == (0, "")
    made = _only(cluster)
    assert out == f"videorestoration/{made['metadata']['name']} created\n"
    assert made["metadata"]["name"].startswith("my-clip-")
    assert made["spec"]["input"]["uri"] == f"{folder}My Clip.mp4"
    assert made["spec"]["output"]["uri"] == f"{folder}My Clip-restored.mp4"
    key = f"{cluster.namespace}/My Clip.mp4"
    stored = bucket.client().get_object("cli", key)
    assert stored.read() == clip.read_bytes()
    assert bucket.client().stat_object("cli", key).metadata["x-amz-meta-sha256"] == made["spec"]["input"]["sha256"]
    # The same file again is not sent again; another of its name never takes its place.
    assert "is there already" in cluster.vr("submit", str(clip), "--upload-to", folder, "--no-wait")[2]
    clip.write_bytes(b"another")
    code, _, err = cluster.vr("submit", str(clip), "--upload-to", folder, "--no-wait")
    assert (code, "another object lies at" in err) == (2, True)


REFUSALS: list[tuple[tuple[str, ...], str]] = [
    (("no-such-file.mp4", "--upload-to", "s3://cli/"), "there is no file no-such-file.mp4"),
    ((__file__,), "--upload-to s3://BUCKET/FOLDER/"),
    ((__file__, "--upload-to", "s3://cli"), "with the slash at the end"),
    ((__file__, "--upload-to", "s3://cli/", "--endpoint", "nonsense"), "give http(s)://HOST"),
    ((__file__, "--upload-to", "s3://cli/", "--aws-profile", "nobody"), "the profile 'nobody'"),
    ((__file__, "--upload-to", "s3://no-such-bucket/"), "NoSuchBucket"),
    (("s3://cli/a.mp4", "--output", "s3://cli/a.mp4"), "output.uri must differ from input.uri"),
    (("s3://cli/a.mp4", "--seed", "-1"), "spec.restoration.seed"),
]


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize(("arguments", "said"), REFUSALS)
def test_what_submit_refuses_leaves_nothing_behind(cluster: Cluster, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = cluster.vr("submit", *arguments, "--no-wait")
    assert (code, out) == (2, ""), err
    assert said in err
    path = resource_path(make_vr(namespace=cluster.namespace)).rpartition("/")[0]
    assert cluster.api.request("GET", path).body["items"] == []


def test_submit_waits_for_the_end(cluster: Cluster) -> None:
    def end() -> None:
        deadline = time.monotonic() + 60
        while cluster.get("movie") is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        cluster.says("movie", failed("InvalidInput", "no video"))

    thread = threading.Thread(target=end)
    thread.start()
    code, out, err = cluster.vr("submit", "s3://media/raw/movie.mp4", "--name", "movie")
    thread.join()
    assert code == 1
    assert out.startswith("videorestoration/movie created\n")
    assert "give a file that ffprobe can read" in err


# -- logs -------------------------------------------------------------------------------------------------------------


class _Node(BaseHTTPRequestHandler):
    """The one page of a kubelet that is asked for: a container's log."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        text = f"{path.rpartition('/')[2]} says hello {query}\n".encode()
        self.send_response(200 if path.startswith("/containerLogs/") else 404)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def node(control_plane: ControlPlane, namespace: str) -> Iterator[str]:
    """A node whose kubelet answers for logs."""
    name = f"node-{namespace}"
    pair = control_plane.issue(name, common_name=name, hosts=["127.0.0.1"])
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Node)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": server.server_address[1]}},
    }
    control_plane.api.create("/api/v1/nodes", {"metadata": {"name": name}, "status": status})
    yield name
    control_plane.kubectl("delete", "node", name, "--wait=false")
    server.shutdown()
    server.server_close()


def test_logs_are_those_of_the_last_pod_of_the_job(cluster: Cluster, control_plane: ControlPlane, node: str) -> None:
    cluster.create("clip", failed("GPUFault", "the GPU fell off"))
    pod = {
        "metadata": {"name": f"{JOB}-abcde", "labels": {"batch.kubernetes.io/job-name": JOB}},
        "spec": {"nodeName": node, "containers": [{"name": "runner", "image": "runner"}]},
    }
    control_plane.api.create(f"/api/v1/namespaces/{cluster.namespace}/pods", pod)
    assert cluster.vr("logs", "clip", "--tail", "5") == (0, "runner says hello tailLines=5\n", "")
    assert cluster.vr("logs", "clip", "--execution", "1")[1].startswith("runner says hello")
    code, _, err = cluster.vr("logs", "clip", "--execution", "2")
    assert (code, "there are: 1" in err) == (2, True)


# -- looking at the result --------------------------------------------------------------------------------------------

SHORT = Clip(frames=12, width=48, height=32, cuts=(5,))


def _restored(cluster: Cluster, bucket: S3Server, folder: Path) -> str:
    """A restoration that is over, with both videos in the bucket. Returns their prefix."""
    prefix = f"{cluster.namespace}/"
    for name, clip in (("in.mp4", SHORT), ("out.mp4", SHORT.but(width=96, height=64, codec="libx265"))):
        bucket.client().fput_object("cli", prefix + name, str(clips.write(folder / name, clip)))
    cluster.create("clip", None, {"input.uri": f"s3://cli/{prefix}in.mp4", "output.uri": f"s3://cli/{prefix}out.mp4"})
    cluster.says("clip", succeeded() | {"output": {"uri": f"s3://cli/{prefix}out.mp4"}})
    return prefix


def test_open_shows_before_and_after(
    cluster: Cluster, bucket: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = _restored(cluster, bucket, tmp_path)
    folder = tmp_path / "made" / "here"
    code, out, err = cluster.vr("open", "clip", "--output", str(folder), "--no-browser")
    assert (code, out, err) == (0, f"{folder}/index.html\n{folder}/before-after.png\n", "")
    assert ffprobe.times(folder / "before.mp4") == ffprobe.times(folder / "after.mp4")
    assert len(ffprobe.times(folder / "after.mp4")) == SHORT.frames
    assert f"s3://cli/{prefix}in.mp4" in (folder / "index.html").read_text()

    # Again, with a browser: a program that writes down what it is to open. And a result that somebody has replaced.
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    monkeypatch.setattr(webbrowser, "_tryorder", None)
    monkeypatch.setenv("BROWSER", str(browser))
    cluster.says("clip", succeeded() | {"output": {"uri": f"s3://cli/{prefix}out.mp4", "etag": '"another"'}})
    code, out, err = cluster.vr("open", "clip", "--output", str(folder))
    assert (code, (tmp_path / "opened").read_text()) == (0, f"{folder.as_uri()}/index.html\n")
    assert err == f"s3://cli/{prefix}out.mp4 has been replaced since clip was published\n"


def test_what_open_cannot_show_is_one_sentence(cluster: Cluster, bucket: S3Server, tmp_path: Path) -> None:
    prefix = _restored(cluster, bucket, tmp_path)
    (tmp_path / "file").write_text("in the way")
    refused = [
        (("--output", str(tmp_path / "file")), f"{tmp_path}/file cannot be written"),
        (("--aws-profile", "nobody"), "the profile 'nobody'"),
        (("--endpoint", "http://127.0.0.1:1"), "the store cannot be used"),
        (("--at", "99", "--output", str(tmp_path / "late")), "has no frame at 99 s"),
    ]
    for arguments, said in refused:
        code, out, err = cluster.vr("open", "clip", "--no-browser", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert said in err
    bucket.client().remove_object("cli", f"{prefix}out.mp4")
    code, out, err = cluster.vr("open", "clip", "--no-browser", "--output", str(tmp_path / "gone"))
    assert (code, out) == (2, "")
    assert err == f"error: there is no object s3://cli/{prefix}out.mp4 any more, or not at this endpoint\n"
