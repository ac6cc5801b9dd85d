"""The command as a user and a pod start it: real processes, their output, files and exit codes."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result as Ended
from tests.builders import clips, ffprobe
from tests.builders.clips import Clip, Sound
from tests.builders.jobs import make_request
from tests.builders.models import write_tiny_model
from tests.builders.servers import S3Server, free_ports
from typer.testing import CliRunner

from restoration_api.outcome import Outcome, Progress, Result
from restoration_api.request import Overwrite, Request
from restoration_runner.cli import app
from restoration_runner.storage.s3 import S3Store
from restoration_runner.storage.store import read_whole

SMALL = ["--scale", "1", "--chunk-frames", "9", "--segment-frames", "10", "--preset", "ultrafast"]


@dataclass(frozen=True)
class Material:
    model: Path
    source: Path
    frames: int = 26


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("material")
    model = write_tiny_model(folder / "model")
    source = clips.write(folder / "in.mp4", Clip(frames=26, width=64, height=64, sounds=(Sound(),)))
    return Material(model, source)


def command(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "restoration_runner", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=240,
        check=False,
    )


def invoke(*arguments: str | Path) -> Ended:
    """The same command in this process, where torch is loaded already: for what ends before any work."""
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_restore_writes_the_file_and_says_so(material: Material, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    wish = ["--strength", "0.5", "--denoise-strength", "0.1", "--color-correction", "LAB", "--precision", "FP16"]
    done = command("restore", material.source, out, "--model", material.model, *SMALL, "--scale", "2", *wish)
    assert done.returncode == 0, done.stderr
    assert f"{material.frames} frames at 128x128" in done.stderr
    video = ffprobe.video(out)
    assert (video["width"], video["height"], video["codec_name"]) == (128, 128, "hevc")
    assert len(ffprobe.times(out)) == material.frames
    assert ffprobe.packet_hashes(out, "a:0") == ffprobe.packet_hashes(material.source, "a:0")
    (manifest,) = tmp_path.glob(".vr/*/final.json")
    plan = json.loads(manifest.read_text())["plan"]
    chosen = [plan["restoration"][name] for name in ("strength", "denoiseStrength", "colorCorrection")]
    assert [*chosen, plan["precision"]] == [0.5, 0.1, "LAB", "FP16"]


REFUSED: list[tuple[str, list[str], int, str]] = [
    ("no such file", ["restore", "nowhere.mp4", "out.mp4", "--model", "MODEL"], 12, "nowhere.mp4"),
    ("no such model", ["restore", "IN", "out.mp4", "--model", "none"], 17, "'none'"),
    ("a wrong chunk", ["restore", "IN", "out.mp4", "--model", "MODEL", "--chunk-frames", "8"], 11, "4n+1"),
    (
        "two sizes",
        ["restore", "IN", "out.mp4", "--model", "MODEL", "--scale", "2", "--short-side", "720"],
        11,
        "one of",
    ),
    ("too strong", ["restore", "IN", "out.mp4", "--model", "MODEL", "--strength", "1.5"], 11, "strength"),
    ("no such device", ["restore", "IN", "out.mp4", "--model", "MODEL", "--device", "tpu"], 11, "cuda:N"),
    ("another container", ["restore", "IN", "out.mkv", "--model", "MODEL"], 11, ".mp4"),
    ("onto itself", ["restore", "IN", "IN", "--model", "MODEL"], 11, "input itself"),
    ("not a video", ["restore", "TEXT", "out.mp4", "--model", "MODEL"], 10, "notes.txt"),
    ("probe of no video", ["probe", "TEXT"], 10, "notes.txt"),
]


@pytest.mark.parametrize(("name", "arguments", "code", "says"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_refusal_is_one_sentence_and_an_exit_code(
    material: Material,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "notes.txt"
    text.write_text("no video")
    known = {"IN": str(material.source), "MODEL": str(material.model), "TEXT": str(text)}
    done = invoke(*(known.get(word, word) for word in arguments))
    assert done.exit_code == code, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.mp4").exists()


def test_probe_prints_what_it_found(material: Material) -> None:
    done = invoke("probe", material.source)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["frames"], found["constantFrameRate"], found["video"]["width"]) == (material.frames, True, 64)


def test_a_missing_library_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError(\"No module named 'typer'\", name='typer')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = command("probe", "x", PYTHONPATH=path)
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        == "video-restoration needs 'typer': install it with pip install 'video-restoration[runner]'"
    )


# run, as in a pod


@dataclass(frozen=True)
class Pod:
    """What the kubelet would mount and set."""

    folder: Path
    environment: dict[str, str]

    @property
    def message(self) -> Path:
        return self.folder / "termination-log"

    def outcome(self) -> Outcome:
        assert len(self.message.read_bytes()) <= 4096
        return Outcome.from_json(self.message.read_bytes())

    def arguments(self, request: Request, *, text: str | None = None) -> list[str]:
        content = request.to_json() if text is None else text
        path = self.folder / "request.json"
        path.write_text(content)
        return ["run", f"--request={path}", f"--request-sha256={hashlib.sha256(content.encode()).hexdigest()}"]

    def start(self, request: Request) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "restoration_runner", *self.arguments(request)],
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run_here(self, request: Request, *more: str, text: str | None = None) -> tuple[int, list[dict[str, Any]]]:
        """Exit code and log lines of the same command in this process."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            done = invoke(*self.arguments(request, text=text), *more)
        return done.exit_code, [json.loads(line) for line in done.stderr.splitlines()]


@pytest.fixture
def pod(tmp_path: Path, seaweed: S3Server) -> Pod:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Pod(
        tmp_path,
        {
            "VR_SCRATCH": str(scratch),
            "VR_STORAGE_DIR": str(seaweed.secrets),
            "VR_TERMINATION_LOG": str(tmp_path / "termination-log"),
            "VR_UID": "uid-1",
            "VR_EXECUTION": "3",
            "VR_HTTP_PORT": str(free_ports(1)[0]),
        },
    )


@pytest.fixture
def request_on_s3(material: Material, seaweed: S3Server, tmp_path: Path) -> Request:
    seaweed.make_bucket("commands")
    folder = tmp_path.name
    seaweed.client().fput_object("commands", f"{folder}/in.mp4", str(material.source))
    return make_request(
        f"s3://commands/{folder}/in.mp4",
        f"s3://commands/{folder}/out.mp4",
        material.model,
        storage=(seaweed.storage,),
    )


def get(port: str, path: str) -> bytes | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return bytes(answer.read())
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def test_run_restores_an_object_and_leaves_its_outcome(
    material: Material,
    seaweed: S3Server,
    pod: Pod,
    request_on_s3: Request,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = pod.start(request_on_s3)
    answers: dict[str, bytes] = {}
    while process.poll() is None:
        for path in ("/healthz", "/progress", "/metrics", "/none"):
            answer = get(pod.environment["VR_HTTP_PORT"], path)
            if answer is not None:
                answers[path] = answer
        time.sleep(0.1)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors

    assert answers["/healthz"] == b"ok\n"
    assert Progress.from_json(answers["/progress"]).execution == 3
    assert b"vr_runner_video_frames" in answers["/metrics"]
    assert "/none" not in answers

    outcome = pod.outcome()
    assert (outcome.result, outcome.reason, outcome.frames_restored) == (Result.SUCCEEDED, "Completed", 26)
    assert outcome.output is not None
    assert outcome.output.manifest_uri is not None
    assert outcome.output.manifest_uri.startswith(f"s3://commands/{tmp_path.name}/.vr/")
    assert outcome.timings.inference_milliseconds > 0
    monkeypatch.setenv("VR_STORAGE_DIR", str(seaweed.secrets))
    content = read_whole(S3Store("commands", seaweed.storage), f"{tmp_path.name}/out.mp4")
    assert hashlib.sha256(content).hexdigest() == outcome.output.sha256
    (tmp_path / "out.mp4").write_bytes(content)
    assert len(ffprobe.times(tmp_path / "out.mp4")) == 26
    assert list((tmp_path / "scratch").iterdir()) == []
    assert "test-secret" not in errors


def test_run_stops_on_sigterm_and_goes_on_later(material: Material, tmp_path: Path, pod: Pod) -> None:
    """The signal is sent when the first segment is committed: at least one more is still to be computed then."""
    source = clips.write(tmp_path / "long.mp4", Clip(frames=100, width=64, height=64))
    request = make_request(source.as_uri(), (tmp_path / "out.mp4").as_uri(), material.model)
    process = pod.start(request)
    while not list(tmp_path.glob(".vr/*/seg/*.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    stopped = pod.outcome()
    assert (stopped.result, stopped.reason) == (Result.INTERRUPTED, "Interrupted")
    assert stopped.segments_total is not None
    assert 1 <= stopped.segments_done < stopped.segments_total
    assert len(list(tmp_path.glob(".vr/*/seg/*.json"))) == stopped.segments_done

    code, log = pod.run_here(request)
    assert code == 0, log
    assert pod.outcome().segments_reused == stopped.segments_done


BAD_REQUESTS: list[tuple[str, dict[str, Any], int, str, str]] = [
    ("another hash", {"more": ["--request-sha256=" + "0" * 64]}, 11, "InvalidParameters", "sha256"),
    ("not JSON", {"text": "{"}, 11, "InvalidParameters", "not JSON"),
    ("a newer schema", {"text": '{"schema": 2}'}, 11, "InvalidParameters", "newer"),
    ("an unknown field", {"text": '{"schema": 1, "surprise": true}'}, 11, "InvalidParameters", "not valid"),
    ("segments that are no list", {"more": ["--segments=a-b"]}, 11, "InvalidParameters", "--segments"),
]


@pytest.mark.parametrize(("name", "how", "code", "reason", "says"), BAD_REQUESTS, ids=[row[0] for row in BAD_REQUESTS])
def test_a_request_that_must_not_be_read(
    material: Material, pod: Pod, name: str, how: dict[str, Any], code: int, reason: str, says: str
) -> None:
    request = make_request("file:///in.mp4", "file:///out.mp4", material.model)
    done, log = pod.run_here(request, *how.get("more", []), text=how.get("text"))
    assert done == code, log
    outcome = pod.outcome()
    assert (outcome.result, outcome.reason) == (Result.FAILED, reason)
    assert says in outcome.message
    assert log[-1]["event"] == outcome.message


STORAGE_ERRORS: list[tuple[str, int, str, list[str]]] = [
    ("no such object", 12, "InputNotFound", ["s3://commands/", "nothing.mp4", "http://127.0.0.1"]),
    ("no such bucket", 12, "InputNotFound", ["s3://no-such-bucket/", "http://127.0.0.1"]),
    ("wrong secret", 13, "AccessDenied", ["s3://commands/", "http://127.0.0.1"]),
    ("no secret", 13, "AccessDenied", ["'default'", "access-key"]),
    ("another etag", 16, "InputChanged", ["input.etag", "0000"]),
    ("another sha256", 16, "InputChanged", ["input.sha256"]),
    ("output exists", 14, "OutputConflict", ["output.uri", "overwrite"]),
    ("unsupported wish", 11, "InvalidParameters", ["gpu.count", "2"]),
    ("too large", 11, "InvalidParameters", ["limits.maxInputBytes"]),
]


@pytest.mark.parametrize(("case", "code", "reason", "says"), STORAGE_ERRORS, ids=[row[0] for row in STORAGE_ERRORS])
def test_an_error_names_what_it_is_about(
    material: Material,
    seaweed: S3Server,
    pod: Pod,
    request_on_s3: Request,
    tmp_path: Path,
    case: str,
    code: int,
    reason: str,
    says: list[str],
) -> None:
    request = spoil(case, request_on_s3, pod, seaweed, tmp_path)
    done, log = pod.run_here(request)
    assert done == code, log
    outcome = pod.outcome()
    assert outcome.reason == reason
    assert all(word in outcome.message for word in says), outcome.message
    text = outcome.to_json() + json.dumps(log)
    assert "test-secret" not in text
    assert "X-Amz-Signature" not in text
    assert "Traceback" not in text


def spoil(case: str, request: Request, pod: Pod, seaweed: S3Server, folder: Path) -> Request:
    """Make one thing wrong."""
    given, output = request.input, request.output
    secrets = folder / "secrets"
    if case == "no such object":
        return request.model_copy(update={"input": given.model_copy(update={"uri": "s3://commands/nothing.mp4"})})
    if case == "no such bucket":
        return request.model_copy(update={"input": given.model_copy(update={"uri": "s3://no-such-bucket/a.mp4"})})
    if case == "wrong secret":
        pod.environment["VR_STORAGE_DIR"] = str(secrets)
        (secrets / "default").mkdir(parents=True)
        (secrets / "default" / "access-key").write_text("test-access")
        (secrets / "default" / "secret-key").write_text("wrong")
    if case == "no secret":
        pod.environment["VR_STORAGE_DIR"] = str(secrets)
    if case == "another etag":
        return request.model_copy(update={"input": given.model_copy(update={"etag": "0" * 32})})
    if case == "another sha256":
        return request.model_copy(update={"input": given.model_copy(update={"sha256": "0" * 64})})
    if case == "output exists":
        key = output.uri.removeprefix("s3://commands/")
        (folder / "other").write_text("somebody else's")
        seaweed.client().fput_object("commands", key, str(folder / "other"))
        return request.model_copy(update={"output": output.model_copy(update={"overwrite": Overwrite.NEVER})})
    if case == "unsupported wish":
        return request.model_copy(update={"gpu": request.gpu.model_copy(update={"count": 2})})
    if case == "too large":
        return request.model_copy(update={"limits": request.limits.model_copy(update={"max_input_bytes": 100})})
    return request
