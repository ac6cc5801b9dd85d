"""The roles of a pod: planning and settling need neither torch nor a GPU, and running goes on from what they leave."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.builders import clips
from tests.builders.clips import Clip, Sound
from tests.builders.jobs import At, make_request, run_here, run_killed
from tests.builders.models import write_tiny_model

from restoration_api.ledger import work_prefix
from restoration_api.outcome import EXIT_INTERRUPTED, FailureReason, Outcome, Result, Verdict
from restoration_api.request import AudioMode, CacheMode, Limits, Overwrite, Request, SegmentCleanup
from restoration_runner import examine, inputs, task
from restoration_runner.errors import RestorationError
from restoration_runner.prepare import plan_job
from restoration_runner.settle import assemble_job
from restoration_runner.storage.file import FileStore
from restoration_runner.storage.open import open_store
from restoration_runner.weights import digest
from restoration_runner.work import Work

FRAMES, SEGMENTS = 40, 4
SMALL_MEMORY_BYTES = 300 << 20
"""Torch alone takes 600 MB. Planning takes 100 MB here, most of it Python's libraries."""


@dataclasses.dataclass(frozen=True)
class Material:
    model: Path
    source: Path
    outcome: Outcome
    sha256: str
    """Of what an undisturbed run makes of it."""

    def request(self, output: Path, **changes: object) -> Request:
        return make_request(self.source.as_uri(), output.as_uri(), self.model, **changes)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("roles")
    model = write_tiny_model(folder / "model")
    source = clips.write(folder / "in.mp4", Clip(frames=FRAMES, width=64, height=64, cuts=(30,), sounds=(Sound(),)))
    output = folder / "out.mp4"
    outcome = run_here(make_request(source.as_uri(), output.as_uri(), model))
    return Material(model, source, outcome, sha256(output))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def work_of(request: Request, cache_key: str | None) -> Work:
    store, key = open_store(request.output.uri, request.output.storage, request, field="output")
    assert cache_key is not None
    return Work(store, work_prefix(key, cache_key))


def forbid(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError(f"{name} was called")

    monkeypatch.setattr(module, name, refuse)


# plan


def test_a_planned_run_looks_at_nothing_twice(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.mp4"
    request = material.request(out)
    planned = run_here(request, role=plan_job)
    assert (planned.result, planned.reason, planned.cache_hit) == (Result.SUCCEEDED, "Planned", False)
    assert (planned.segments_done, planned.segments_total, planned.frames_restored) == (0, SEGMENTS, 0)
    assert planned.input == material.outcome.input
    assert planned.cache_key == material.outcome.cache_key
    assert planned.output is None and not out.exists()

    for name in ("probe", "scan"):
        forbid(monkeypatch, examine, name)
    done = run_here(request)
    assert (done.reason, done.frames_restored) == ("Completed", FRAMES)
    assert sha256(out) == material.sha256


def test_a_second_plan_is_the_first_and_counts_what_is_finished(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = material.request(tmp_path / "out.mp4")
    assert run_killed(request, At("after marker", 2)) == -9
    forbid(monkeypatch, examine, "scan")
    forbid(monkeypatch, inputs.shutil, "disk_usage")  # nothing is fetched
    planned = run_here(request, role=plan_job, execution=2)
    assert (planned.reason, planned.segments_done, planned.segments_total) == ("Planned", 2, SEGMENTS)


def test_what_is_there_is_a_hit_that_reads_no_video(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.mp4"
    request = material.request(out)
    done = run_here(request)
    before = out.stat()
    for module, name in ((examine, "probe"), (examine, "scan"), (task, "fetch_input")):
        forbid(monkeypatch, module, name)
    hit = run_here(request, role=plan_job)
    assert (hit.result, hit.reason, hit.cache_hit) == (Result.SUCCEEDED, "CacheHit", True)
    assert hit.output == done.output
    assert hit.input == done.input
    assert (out.stat().st_mtime_ns, out.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_bypass_plans_anew_beside_the_output_that_is_there(material: Material, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    run_here(material.request(out))
    planned = run_here(material.request(out, cache=CacheMode.BYPASS), role=plan_job, owner="another")
    assert (planned.reason, planned.cache_hit, planned.segments_done) == ("Planned", False, 0)


def without_input(material: Material, folder: Path) -> Request:
    return make_request((folder / "nowhere.mp4").as_uri(), (folder / "out.mp4").as_uri(), material.model)


def broken_input(material: Material, folder: Path) -> Request:
    path = folder / "broken.mp4"
    path.write_bytes(material.source.read_bytes()[:2000])
    return make_request(path.as_uri(), (folder / "out.mp4").as_uri(), material.model)


def pinned_otherwise(material: Material, folder: Path) -> Request:
    request = material.request(folder / "out.mp4")
    return request.model_copy(update={"input": request.input.model_copy(update={"sha256": "0" * 64})})


def too_large(material: Material, folder: Path) -> Request:
    request = material.request(folder / "out.mp4", limits=Limits(max_output_megapixels=1))
    target = request.restoration.target.model_copy(update={"scale_factor": 8 * 4})
    return request.model_copy(update={"restoration": request.restoration.model_copy(update={"target": target})})


def taken_output(material: Material, folder: Path) -> Request:
    (folder / "out.mp4").write_bytes(b"somebody else's")
    request = material.request(folder / "out.mp4")
    return request.model_copy(update={"output": request.output.model_copy(update={"overwrite": Overwrite.NEVER})})


def impossible_sound(material: Material, folder: Path) -> Request:
    source = clips.write(folder / "in.mov", Clip(sounds=(Sound(codec="pcm_mulaw", sample_format="s16"),)))
    request = make_request(source.as_uri(), (folder / "out.mp4").as_uri(), material.model)
    return request.model_copy(update={"output": request.output.model_copy(update={"audio": AudioMode.COPY})})


REFUSALS: list[tuple[Callable[[Material, Path], Request], FailureReason, str]] = [
    (without_input, FailureReason.INPUT_NOT_FOUND, "nowhere.mp4"),
    (broken_input, FailureReason.INVALID_INPUT, "broken.mp4"),
    (pinned_otherwise, FailureReason.INPUT_CHANGED, "input.sha256"),
    (too_large, FailureReason.INVALID_PARAMETERS, "maxOutputMegapixels"),
    (taken_output, FailureReason.OUTPUT_CONFLICT, "output.overwrite"),
    (impossible_sound, FailureReason.INVALID_PARAMETERS, "audio"),
]


@pytest.mark.parametrize(("make", "reason", "says"), REFUSALS, ids=[row[0].__name__ for row in REFUSALS])
def test_what_cannot_be_served_ends_while_planning(
    material: Material, tmp_path: Path, make: Callable[[Material, Path], Request], reason: FailureReason, says: str
) -> None:
    request = make(material, tmp_path)
    before = sorted(path for path in tmp_path.iterdir() if path.is_file())
    with pytest.raises(RestorationError) as refused:
        run_here(request, role=plan_job)
    assert refused.value.reason is reason
    assert says in refused.value.message
    assert not list(tmp_path.glob(".vr/*/plan.json"))
    assert sorted(path for path in tmp_path.iterdir() if path.is_file()) == before


# assemble


# Where the execution was killed, and what is there to be settled.
SETTLED: list[tuple[At, bool]] = [
    (At("before join"), True),
    (At("before output"), True),
    (At("piece of output"), True),
    (At("after output"), True),  # published, but neither manifest nor report
    (At("after final"), True),
    (At("before marker", 4), False),
    (At("after plan"), False),
]


@pytest.mark.parametrize(("at", "published"), SETTLED, ids=[f"{row[0].event} {row[0].number}" for row in SETTLED])
def test_an_execution_without_a_report_is_settled_by_what_it_left(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: At, published: bool
) -> None:
    out = tmp_path / "out.mp4"
    request = material.request(out)
    assert run_killed(request, at) == -9
    forbid(monkeypatch, examine, "scan")
    settled = run_here(request, role=assemble_job)
    if not published:
        assert (settled.result, settled.reason) == (Result.INTERRUPTED, "Interrupted")
        assert f"{settled.segments_done} of {SEGMENTS} segments" in settled.message
        assert settled.segments_done == (3 if at.event == "before marker" else 0)
        assert not out.exists()
        assert run_here(request, execution=2).reason == "Completed"
        assert sha256(out) == material.sha256
        return
    assert (settled.result, settled.reason, settled.cache_hit) == (Result.SUCCEEDED, "Completed", False)
    assert sha256(out) == material.sha256
    assert settled.output is not None and settled.output.verification is not None
    assert settled.output.verification.verdict is Verdict.PASSED
    assert (settled.segments_done, settled.segments_total) == (SEGMENTS, SEGMENTS)
    assert settled.input == material.outcome.input
    manifest = work_of(request, settled.cache_key).read_manifest()
    assert manifest is not None and manifest.sha256 == material.sha256
    assert not list(tmp_path.glob(".vr/*/seg/*"))


def test_a_settled_success_keeps_the_times_of_the_execution_that_made_it(material: Material, tmp_path: Path) -> None:
    request = material.request(tmp_path / "out.mp4")
    done = run_here(request)
    settled = run_here(request, role=assemble_job)
    assert settled.timings.inference_milliseconds == done.timings.inference_milliseconds > 0
    assert settled.output == done.output


def test_nothing_at_all_is_unfinished(material: Material, tmp_path: Path) -> None:
    settled = run_here(material.request(tmp_path / "out.mp4"), role=assemble_job)
    assert (settled.result, settled.segments_done, settled.segments_total) == (Result.INTERRUPTED, 0, None)


def test_an_output_replaced_by_somebody_is_not_the_success_that_it_was(material: Material, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    request = material.request(out)
    run_here(request)
    out.write_bytes(b"somebody else's")
    assert run_here(request, role=assemble_job).result is Result.INTERRUPTED
    assert out.read_bytes() == b"somebody else's"


def test_a_segment_that_vanishes_while_settling_is_unfinished(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = material.request(tmp_path / "out.mp4")
    assert run_killed(request, At("before join")) == -9
    markers = Work.markers

    def then_gone(self: Work, plan: object) -> object:
        found = markers(self, plan)  # type: ignore[arg-type]
        FileStore().delete(found[2].object_key)
        return found

    monkeypatch.setattr(Work, "markers", then_gone)
    assert run_here(request, role=assemble_job).result is Result.INTERRUPTED
    assert not (tmp_path / "out.mp4").exists()


# In a pod: a process of its own, without torch.

PROBE = """
import json, sys
from restoration_runner.cli import main
try:
    main()
finally:
    # Not getrusage: its peak is the parent's where that was larger when it forked.
    [peak] = [int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(json.dumps({"torch": "torch" in sys.modules, "peakBytes": peak}))
"""


def in_a_pod(folder: Path, request: Request, role: str) -> tuple[int, Outcome, dict[str, float]]:
    path, message = folder / "request.json", folder / "message"
    path.write_text(request.to_json())
    arguments = [role, f"--request={path}", f"--scratch={folder}", "--http-port=0", f"--termination-log={message}"]
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, timeout=240, env={**os.environ}
    )
    assert "Traceback" not in done.stderr, done.stderr
    used = json.loads(done.stdout.splitlines()[-1])
    return done.returncode, Outcome.from_json(message.read_text()), used


def test_plan_and_assemble_load_no_torch_and_little_memory(material: Material, tmp_path: Path) -> None:
    request = material.request(tmp_path / "out.mp4", cleanup_segments=SegmentCleanup.RETAIN)
    code, planned, used = in_a_pod(tmp_path, request, "plan")
    assert (code, planned.reason, used["torch"]) == (0, "Planned", False)
    assert used["peakBytes"] < SMALL_MEMORY_BYTES

    code, unfinished, _ = in_a_pod(tmp_path, request, "assemble")
    assert (code, unfinished.result) == (EXIT_INTERRUPTED, Result.INTERRUPTED)

    assert run_killed(request, At("before join")) == -9
    code, settled, used = in_a_pod(tmp_path, request, "assemble")
    assert (code, settled.reason, used["torch"]) == (0, "Completed", False)
    assert used["peakBytes"] < SMALL_MEMORY_BYTES
    assert sha256(tmp_path / "out.mp4") == material.sha256

    for role in ("plan", "run"):
        code, hit, used = in_a_pod(tmp_path, request, role)
        assert (code, hit.reason, used["torch"]) == (0, "CacheHit", False)


def test_a_model_whose_digest_is_pinned_is_read_only_by_who_computes(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gigabytes of weights need not be where a plan is made; `run` insists on the ones that were promised."""
    request = material.request(tmp_path / "out.mp4")
    pinned = request.model_copy(update={"model": request.model.model_copy(update={"digest": "sha256:" + "0" * 64})})
    with monkeypatch.context() as planning:
        forbid(planning, digest, "file_digests")
        assert run_here(pinned, role=plan_job).reason == "Planned"
    with pytest.raises(RestorationError) as refused:
        run_here(pinned)
    assert refused.value.reason is FailureReason.MODEL_INVALID
