"""Killed anywhere, a restoration goes on: what was finished is used, and the output has the same bytes."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.builders import clips, jobs
from tests.builders.clips import Clip, Sound
from tests.builders.faulty import Faults, faulty
from tests.builders.jobs import At, make_request, run_here, run_killed
from tests.builders.models import write_tiny_model
from tests.builders.servers import S3Server

from restoration_api.ledger import Plan, work_prefix
from restoration_api.outcome import Outcome, Result
from restoration_api.request import CacheMode, Request, SegmentCleanup
from restoration_runner import loading
from restoration_runner.job import run_job
from restoration_runner.prepare import plan_job
from restoration_runner.settle import assemble_job
from restoration_runner.storage.file import FileStore
from restoration_runner.storage.open import open_store
from restoration_runner.storage.store import Store, read_whole
from restoration_runner.task import JobContext
from restoration_runner.work import Work

Role = Callable[[JobContext], Outcome]
FRAMES, SEGMENTS = 40, 4


@dataclass(frozen=True)
class Reference:
    """The material of all tests here, and what an undisturbed run makes of it."""

    model: Path
    source: Path
    outcome: Outcome
    sha256: str


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("reference")
    model = write_tiny_model(folder / "model")
    source = clips.write(folder / "in.mp4", Clip(frames=FRAMES, width=64, height=64, cuts=(30,), sounds=(Sound(),)))
    output = folder / "out.mp4"
    outcome = run_here(make_request(source.as_uri(), output.as_uri(), model))
    assert (outcome.segments_total, outcome.segments_reused, outcome.frames_restored) == (SEGMENTS, 0, FRAMES)
    return Reference(model, source, outcome, hashlib.sha256(output.read_bytes()).hexdigest())


def work_of(request: Request, cache_key: str) -> tuple[Store, Work]:
    store, key = open_store(request.output.uri, request.output.storage, request, field="output")
    return store, Work(store, work_prefix(key, cache_key))


def content_sha256(request: Request) -> str:
    store, key = open_store(request.output.uri, request.output.storage, request, field="output")
    return hashlib.sha256(read_whole(store, key)).hexdigest()


# Where it is killed, and how many segments a successor must find finished at least.
KILLS: list[tuple[At, int]] = [
    (At("after plan"), 0),
    (At("frame", 33), 2),  # in the middle of a window of the last segment
    (At("before segment", 3), 2),
    (At("before marker", 3), 2),  # the object is there, its marker is not
    (At("after marker", 2), 2),
    (At("after marker", 4), 4),
    (At("before join"), 4),
    (At("after join"), 4),
    (At("before output"), 4),
    (At("piece of output"), 4),
]


def names(value: object) -> str:
    return f"{value.event} {value.number}" if isinstance(value, At) else ""


@pytest.mark.parametrize(("at", "least_reused"), KILLS, ids=names)
def test_killed_it_goes_on_with_what_was_finished(
    reference: Reference, tmp_path: Path, at: At, least_reused: int
) -> None:
    request = make_request(reference.source.as_uri(), (tmp_path / "out.mp4").as_uri(), reference.model)
    check_resume(reference, request, at, least_reused)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".vr", "out.mp4"] or at.event == "piece of output"


def check_resume(
    reference: Reference, request: Request, at: At, least_reused: int, environment: dict[str, str] | None = None
) -> None:
    assert run_killed(request, at, environment=environment) == -9
    assert reference.outcome.cache_key is not None
    store, work = work_of(request, reference.outcome.cache_key)
    plan = work.read_plan(reference.outcome.cache_key)
    assert plan is not None
    finished = work.markers(plan)
    assert len(finished) >= least_reused

    resumed = run_here(request, execution=2)

    missing = [segment.frames for segment in plan.segments if segment.index not in finished]
    assert (resumed.result, resumed.reason) == (Result.SUCCEEDED, "Completed")
    assert resumed.segments_reused == len(finished)
    assert resumed.frames_restored == sum(missing)
    assert content_sha256(request) == reference.sha256
    manifest = work.read_manifest()
    assert manifest is not None
    executions = {marker.segment: marker.execution for marker in manifest.markers}
    assert executions == {segment.index: 1 if segment.index in finished else 2 for segment in plan.segments}
    assert [item.key for item in store.list_objects(work.prefix)] == [f"{work.prefix}final.json"]


@pytest.mark.parametrize(
    "at", [At("after output"), At("before final"), At("after final"), At("before clear", 2)], ids=names
)
def test_killed_after_the_output_appeared_nothing_is_computed_again(
    reference: Reference, tmp_path: Path, at: At
) -> None:
    request = make_request(reference.source.as_uri(), (tmp_path / "out.mp4").as_uri(), reference.model)
    check_after_output(reference, request, at)


def check_after_output(
    reference: Reference, request: Request, at: At, environment: dict[str, str] | None = None
) -> None:
    assert run_killed(request, at, environment=environment) == -9
    before = content_sha256(request)
    resumed = run_here(request, execution=2)
    assert (resumed.reason, resumed.cache_hit, resumed.frames_restored) == ("CacheHit", True, 0)
    assert content_sha256(request) == before == reference.sha256
    assert reference.outcome.cache_key is not None
    store, work = work_of(request, reference.outcome.cache_key)
    manifest = work.read_manifest()
    assert manifest is not None
    assert resumed.output is not None
    assert (resumed.output.sha256, resumed.output.frames) == (reference.sha256, FRAMES)
    assert resumed.output.streams == manifest.streams != ()
    assert [item.key for item in store.list_objects(work.prefix)] == [f"{work.prefix}final.json"]


@pytest.fixture
def s3(seaweed: S3Server, reference: Reference, monkeypatch: pytest.MonkeyPatch) -> Request:
    """The same restoration between objects."""
    monkeypatch.setenv("VR_STORAGE_DIR", str(seaweed.secrets))
    seaweed.make_bucket("media")
    seaweed.client().fput_object("media", "in put/ä.mp4", str(reference.source))
    return make_request(
        "s3://media/in put/ä.mp4", "s3://media/out/a b.mp4", reference.model, storage=(seaweed.storage,)
    )


def s3_reference(reference: Reference, request: Request) -> Reference:
    """An object's identity is its etag, a file's its hash: other keys, the same bytes."""
    outcome = run_here(request)
    assert content_sha256(request) == reference.sha256
    store, _ = open_store(request.output.uri, request.output.storage, request, field="output")
    for item in list(store.list_objects("out/")):
        store.delete(item.key)
    return Reference(reference.model, reference.source, outcome, reference.sha256)


@pytest.mark.parametrize(
    ("at", "least_reused"),
    [(At("before marker", 3), 2), (At("after marker", 3), 3), (At("before output"), 4)],
    ids=names,
)
def test_on_object_storage_too(reference: Reference, seaweed: S3Server, s3: Request, at: At, least_reused: int) -> None:
    environment = {"VR_STORAGE_DIR": str(seaweed.secrets)}
    check_resume(s3_reference(reference, s3), s3, at, least_reused, environment)


@pytest.mark.parametrize("role", [run_job, assemble_job, plan_job])
def test_what_is_there_is_read_once(
    reference: Reference, seaweed: S3Server, s3: Request, monkeypatch: pytest.MonkeyPatch, role: Role
) -> None:
    """Every marker is a request, and a long video has thousands: one listing tells which there are, also where it is
    asked beforehand whether a model has to be loaded."""
    environment = {"VR_STORAGE_DIR": str(seaweed.secrets)}
    expected = s3_reference(reference, s3)
    assert run_killed(s3, At("before join"), environment=environment) == -9
    monkeypatch.setattr(loading, "pays", lambda _: True)
    faults = Faults()
    with faulty(seaweed.endpoint, faults) as endpoint:
        behind = s3.storage[0].model_copy(update={"endpoint": endpoint})
        outcome = run_here(s3.model_copy(update={"storage": (behind,)}), execution=2, role=role)
    assert outcome.segments_done == SEGMENTS
    found = Counter((method, path.rpartition("/")[2]) for method, path in faults.seen if "/seg/" in path)
    found += Counter((method, path.rpartition("/")[2]) for method, path in faults.seen if path.endswith("plan.json"))
    read = {name: count for (method, name), count in found.items() if method == "GET" and name.endswith(".json")}
    assert read == {"plan.json": 1, **{f"{number:05d}.json": 1 for number in range(SEGMENTS)}}
    asked = {name: count for (method, name), count in found.items() if method == "HEAD" and name.endswith(".json")}
    assert asked == {"plan.json": 1}
    if role is not plan_job:
        assert content_sha256(s3) == expected.sha256


def test_killed_between_the_parts_of_an_upload(reference: Reference, seaweed: S3Server, s3: Request) -> None:
    """Nothing is visible, the parts that were sent are given up once the successor is through."""
    environment = {"VR_STORAGE_DIR": str(seaweed.secrets), "TEST_PART_BYTES": "45000"}
    expected = s3_reference(reference, s3)
    assert run_killed(s3, At("piece of output", 2), environment=environment) == -9
    store, key = open_store(s3.output.uri, s3.output.storage, s3, field="output")
    assert store.head(key) is None
    assert unfinished_uploads(seaweed) == [key]
    resumed = run_here(s3, execution=2)
    assert (resumed.reason, resumed.segments_reused, resumed.frames_restored) == ("Completed", SEGMENTS, 0)
    assert content_sha256(s3) == expected.sha256
    assert unfinished_uploads(seaweed) == []


def unfinished_uploads(server: S3Server) -> list[str]:
    found = server.client()._list_multipart_uploads("media", prefix="out/")
    return [upload.object_name for upload in found.uploads]


def test_on_object_storage_after_complete_too(reference: Reference, seaweed: S3Server, s3: Request) -> None:
    environment = {"VR_STORAGE_DIR": str(seaweed.secrets)}
    check_after_output(s3_reference(reference, s3), s3, At("before final"), environment)


def test_of_two_runners_at_once_one_publishes_and_both_succeed(reference: Reference, tmp_path: Path) -> None:
    request = make_request(reference.source.as_uri(), (tmp_path / "out.mp4").as_uri(), reference.model)
    answers = jobs.queue()
    runners = [jobs.start(request, None, answer=answers) for _ in range(2)]
    for runner in runners:
        runner.join()
    assert [runner.exitcode for runner in runners] == [0, 0]
    outcomes = [Outcome.from_json(answers.get(timeout=10)) for _ in runners]
    assert all(outcome.result is Result.SUCCEEDED for outcome in outcomes)
    assert "Completed" in {outcome.reason for outcome in outcomes}
    assert content_sha256(request) == reference.sha256
    assert reference.outcome.cache_key is not None
    store, work = work_of(request, reference.outcome.cache_key)
    assert [item.key for item in store.list_objects(work.prefix)] == [f"{work.prefix}final.json"]


def test_a_segment_that_vanishes_while_it_is_joined_is_made_again(reference: Reference, tmp_path: Path) -> None:
    """A peer that was faster clears up, in a folder where segments are read in place."""
    request = make_request(reference.source.as_uri(), (tmp_path / "out.mp4").as_uri(), reference.model)
    removed: list[Path] = []

    def clear(event: str) -> None:
        if event == "before join" and not removed:
            removed.extend(tmp_path.glob(".vr/*/seg/00002*"))
            for path in removed:
                path.unlink()

    with jobs.hooked(clear):
        outcome = run_here(request)
    assert len(removed) == 2, "a segment and its marker"
    assert (outcome.result, outcome.reason) == (Result.SUCCEEDED, "Completed")
    assert content_sha256(request) == reference.sha256


def test_the_same_request_again_is_a_cache_hit(reference: Reference) -> None:
    output = reference.source.with_name("out.mp4")
    before = output.stat()
    again = run_here(make_request(reference.source.as_uri(), output.as_uri(), reference.model))
    assert (again.reason, again.cache_hit, again.frames_restored) == ("CacheHit", True, 0)
    assert again.cache_key == reference.outcome.cache_key
    assert output.stat() == before


def test_bypass_computes_again_but_goes_on_with_its_own(reference: Reference, tmp_path: Path) -> None:
    output = (tmp_path / "out.mp4").as_uri()
    use = make_request(reference.source.as_uri(), output, reference.model, cleanup_segments=SegmentCleanup.RETAIN)
    run_here(use)
    bypass = use.model_copy(update={"cache": CacheMode.BYPASS})
    assert run_killed(bypass, At("after marker", 2), owner="uid-2") == -9
    resumed = run_here(bypass, owner="uid-2")
    assert (resumed.reason, resumed.segments_reused) == ("Completed", 2)
    again = run_here(bypass, owner="uid-2")
    assert (again.reason, again.frames_restored) == ("CacheHit", 0)
    other = run_here(bypass, owner="uid-3")
    assert (other.reason, other.segments_reused, other.frames_restored) == ("Completed", 0, FRAMES)
    assert content_sha256(bypass) == reference.sha256


def test_segments_of_another_plan_are_not_used(reference: Reference, tmp_path: Path) -> None:
    """A marker that names another work is replaced, whatever its object is."""
    request = make_request(
        reference.source.as_uri(),
        (tmp_path / "out.mp4").as_uri(),
        reference.model,
        cleanup_segments=SegmentCleanup.RETAIN,
    )
    run_here(request)
    assert reference.outcome.cache_key is not None
    store, work = work_of(request, reference.outcome.cache_key)
    marker = f"{work.prefix}seg/00001.json"
    store.put(marker, read_whole(store, marker).replace(reference.outcome.cache_key.encode(), b"0" * 64))
    plan = work.read_plan(reference.outcome.cache_key)
    assert isinstance(plan, Plan)
    store.delete(f"{work.prefix}seg/{work.markers(plan)[2].object_key.rpartition('/')[2]}")
    (tmp_path / "out.mp4").unlink()
    again = run_here(request)
    assert (again.reason, again.segments_reused) == ("Completed", 2)
    assert content_sha256(request) == reference.sha256
    assert isinstance(store, FileStore)
