"""Killed at any step of any file or request, on one core or two, alone or in a race: segments and output keep their
bytes.

The steps are what the process does to files below the output's folder or sends to S3, each frame and each write: drawn
by a fixed seed, one from each stretch of an undisturbed run, so no stage is left out. `make soak` sets VR_TEST_DEATHS,
VR_TEST_S3_DEATHS and VR_TEST_RACES and draws many more.
"""

import hashlib
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from tests.builders import clips, jobs
from tests.builders.clips import Clip, Sound
from tests.builders.jobs import make_request
from tests.builders.models import write_tiny_model
from tests.builders.servers import LEAST_MOTO_PART_BYTES, S3Server

from restoration_api.outcome import Outcome, Result
from restoration_api.request import Request, SegmentCleanup
from restoration_runner.storage.s3 import S3Store
from restoration_runner.storage.store import read_whole

KILLS: Final = int(os.environ.get("VR_TEST_DEATHS", "20"))
S3_KILLS: Final = int(os.environ.get("VR_TEST_S3_DEATHS", "5"))
RACES: Final = int(os.environ.get("VR_TEST_RACES", "3"))
FRAMES, SEGMENTS = 28, 3
CORES: Final = sorted(os.sched_getaffinity(0))
PATIENCE_SECONDS: Final = 300


@dataclass(frozen=True)
class Undisturbed:
    """What is restored, the bytes of all that an undisturbed run left, and in how many steps."""

    model: Path
    source: Path
    sha256: dict[str, str]
    steps: int


def cores(number: int) -> str:
    """For TEST_CORES: the first one or two."""
    return ",".join(str(core) for core in CORES[:number])


def request_in(folder: Path, model: Path, source: Path, **changes: SegmentCleanup) -> Request:
    wanted = {"cleanup_segments": SegmentCleanup.RETAIN} | changes
    return make_request(source.as_uri(), (folder / "out.mp4").as_uri(), model, **wanted)


def contents(folder: Path) -> dict[str, str]:
    """Hashes of the output and of every segment, by their names."""
    found = [folder / "out.mp4", *folder.glob(".vr/*/seg/[0-9]*.mkv")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    model = write_tiny_model(folder / "model")
    source = clips.write(folder / "in.mp4", Clip(frames=FRAMES, width=64, height=64, cuts=(21,), sounds=(Sound(),)))
    place = folder / "place"
    place.mkdir()
    request = request_in(place, model, source)
    environment = {"TEST_CORES": cores(2), "TEST_STEPS_IN": str(place), "TEST_COUNT_TO": str(folder / "steps")}
    outcome = in_another_process(request, environment)
    assert (outcome.reason, outcome.segments_total, outcome.frames_restored) == ("Completed", SEGMENTS, FRAMES)
    found = contents(place)
    assert len(found) == 1 + SEGMENTS
    return Undisturbed(model, source, found, int((folder / "steps").read_text()))


def in_another_process(request: Request, environment: dict[str, str]) -> Outcome:
    answers = jobs.queue()
    process = jobs.start(request, None, environment=environment, answer=answers)
    process.join()
    assert process.exitcode == 0
    return Outcome.from_json(answers.get(timeout=PATIENCE_SECONDS))


def drawn(number: int, *, purpose: str) -> list[float]:
    """Of [0, 1): one from each of so many equal stretches."""
    draw = random.Random(f"{purpose} 1")
    return [(stretch + draw.random()) / number for stretch in range(number)]


def dying(at: float, undisturbed: Undisturbed, folder: Path) -> dict[str, str]:
    """For the environment of a process that is to be killed after such a part of its steps."""
    return {"TEST_STEPS_IN": str(folder), "TEST_DIE_AT_STEP": str(1 + int(at * undisturbed.steps))}


@pytest.mark.parametrize(
    ("at", "first", "second"),
    [(at, 1 + number % 2, 1 + number // 2 % 2) for number, at in enumerate(drawn(KILLS, purpose="kills"))],
    ids=lambda value: f"{value:.3f}" if isinstance(value, float) else f"{value} core",
)
def test_killed_at_any_step_another_process_makes_the_same_bytes(
    undisturbed: Undisturbed, tmp_path: Path, at: float, first: int, second: int
) -> None:
    request = request_in(tmp_path, undisturbed.model, undisturbed.source)
    environment = {"TEST_CORES": cores(first)} | dying(at, undisturbed, tmp_path)
    assert jobs.run_killed(request, None, environment=environment) == -9
    survived = contents(tmp_path) if (tmp_path / "out.mp4").exists() else {}
    assert survived in ({}, undisturbed.sha256), "an output appears only whole, after all of its segments"
    outcome = in_another_process(request, {"TEST_CORES": cores(second)})
    assert outcome.result is Result.SUCCEEDED
    assert outcome.reason == ("CacheHit" if survived else "Completed")
    assert contents(tmp_path) == undisturbed.sha256


@pytest.mark.parametrize("at", drawn(RACES, purpose="races"), ids=lambda at: f"{at:.3f}")
def test_of_two_that_race_one_is_killed_and_the_other_makes_the_same_bytes(
    undisturbed: Undisturbed, tmp_path: Path, at: float
) -> None:
    """The victim may be through before its last step, because its peer did some of the work."""
    request = request_in(tmp_path, undisturbed.model, undisturbed.source)
    answers = jobs.queue()
    environment = {"TEST_CORES": cores(1)} | dying(at, undisturbed, tmp_path)
    victim = jobs.start(request, None, environment=environment)
    survivor = jobs.start(request, None, environment={"TEST_CORES": cores(2)}, answer=answers)
    victim.join()
    survivor.join()
    assert victim.exitcode in (-9, 0)
    assert survivor.exitcode == 0
    assert Outcome.from_json(answers.get(timeout=PATIENCE_SECONDS)).result is Result.SUCCEEDED
    assert contents(tmp_path) == undisturbed.sha256


@dataclass(frozen=True)
class Bucket:
    """The same on S3: every piece of a request is a step, and what is larger than 2 KiB goes up in parts."""

    server: S3Server
    material: Undisturbed
    steps: int

    @property
    def environment(self) -> dict[str, str]:
        return environment_of(self.server)

    def request(self, place: str) -> Request:
        return make_request(
            "s3://deaths/in.mp4",
            f"s3://deaths/{place}/out.mp4",
            self.material.model,
            storage=(self.server.storage,),
            cleanup_segments=SegmentCleanup.RETAIN,
        )

    def contents(self, place: str) -> dict[str, str]:
        store = S3Store("deaths", self.server.storage)
        keys = [item.key for item in store.list_objects(f"{place}/") if item.key.endswith((".mkv", "out.mp4"))]
        return {key.rpartition("/")[2]: hashlib.sha256(read_whole(store, key)).hexdigest() for key in keys}

    def unfinished_uploads(self, place: str) -> list[str]:
        found = self.server.client()._list_multipart_uploads("deaths", prefix=f"{place}/")
        return [upload.object_name for upload in found.uploads if upload.object_name is not None]


def environment_of(server: S3Server) -> dict[str, str]:
    return {"VR_STORAGE_DIR": str(server.secrets), "TEST_PART_BYTES": str(LEAST_MOTO_PART_BYTES)}


@pytest.fixture(scope="module")
def bucket(undisturbed: Undisturbed, moto: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Bucket:
    moto.make_bucket("deaths")
    moto.client().fput_object("deaths", "in.mp4", str(undisturbed.source))
    counted = tmp_path_factory.mktemp("bucket") / "steps"
    bucket = Bucket(moto, undisturbed, 0)
    environment = bucket.environment | {"TEST_STEPS_OF_REQUESTS": "1", "TEST_COUNT_TO": str(counted)}
    assert in_another_process(bucket.request("undisturbed"), environment).reason == "Completed"
    return Bucket(moto, undisturbed, int(counted.read_text()))


@pytest.mark.parametrize("at", drawn(S3_KILLS, purpose="S3"), ids=lambda at: f"{at:.3f}")
def test_killed_at_any_request_another_process_makes_the_same_bytes(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, at: float
) -> None:
    """What the dead one began to send in parts is given up by its successor."""
    monkeypatch.setenv("VR_STORAGE_DIR", str(bucket.server.secrets))
    place = f"killed at {at}"
    dying = {"TEST_STEPS_OF_REQUESTS": "1", "TEST_DIE_AT_STEP": str(1 + int(at * bucket.steps))}
    assert jobs.run_killed(bucket.request(place), None, environment=bucket.environment | dying) == -9
    survived = bucket.contents(place)
    published = "out.mp4" in survived
    assert not published or survived == bucket.material.sha256, "an output appears only after all of its segments"
    outcome = in_another_process(bucket.request(place), bucket.environment)
    assert outcome.result is Result.SUCCEEDED
    assert outcome.reason == "Completed" or published
    assert bucket.contents(place) == bucket.material.sha256
    assert bucket.unfinished_uploads(place) == []
