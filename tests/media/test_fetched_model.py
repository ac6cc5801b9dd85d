"""Restorations whose model is fetched: the same frames as with the folder itself, and planning without weights."""

import dataclasses
import hashlib
import shutil
import time
from pathlib import Path

import pytest
from tests.builders import clips
from tests.builders.clips import Clip
from tests.builders.jobs import make_request, run_here
from tests.builders.models import write_tiny_model

from restoration_api.outcome import FailureReason, Outcome, Stage
from restoration_api.request import InputRequest, ModelDownload, Request
from restoration_runner.errors import RestorationError
from restoration_runner.prepare import plan_job
from restoration_runner.progress import ProgressTracker
from restoration_runner.stopping import InterruptedByRequestError, StopSignal
from restoration_runner.weights.bucket import BucketShelf
from restoration_runner.weights.digest import write_sums
from restoration_runner.weights.shelf import Item, OnBytes

WEIGHTS = ("dit.safetensors", "vae.safetensors", "text.safetensors")


@dataclasses.dataclass(frozen=True)
class Material:
    origin: Path
    digest: str
    source: Path
    outcome: Outcome
    sha256: str
    """Of what a run makes with the folder where it lies."""

    def request(
        self, folder: Path, *, shared: bool = False, digest: str | None = None, origin: Path | None = None
    ) -> Request:
        """The same restoration, with weights that are fetched to `folder`/models."""
        request = make_request(self.source.as_uri(), (folder / "out.mp4").as_uri(), self.origin)
        model = request.model.model_copy(
            update={
                "path": str(folder / "models" / "tiny"),
                "digest": digest or self.digest,
                "download": ModelDownload(uri=(origin or self.origin).as_uri(), shared=shared),
            }
        )
        return request.model_copy(update={"model": model})


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("fetched")
    origin = write_tiny_model(folder / "model")
    digest = write_sums(origin)
    source = clips.write(folder / "in.mp4", Clip(frames=12, width=64, height=64))
    output = folder / "out.mp4"
    outcome = run_here(make_request(source.as_uri(), output.as_uri(), origin))
    return Material(origin, digest, source, outcome, sha256(output))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_fetched_weights_make_the_same_video(material: Material, tmp_path: Path) -> None:
    outcome = run_here(material.request(tmp_path))
    assert sha256(tmp_path / "out.mp4") == material.sha256
    assert outcome.cache_key == material.outcome.cache_key  # where a model comes from is not which one it is
    assert outcome.timings.model_fetch_milliseconds >= 0
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["tiny"]


def test_planning_fetches_no_weights(material: Material, tmp_path: Path) -> None:
    listed = tmp_path / "listed"
    shutil.copytree(material.origin, listed, ignore=shutil.ignore_patterns("*.safetensors"))
    planned = run_here(material.request(tmp_path, origin=listed), role=plan_job)
    assert (planned.reason, planned.cache_key) == ("Planned", material.outcome.cache_key)
    assert not (tmp_path / "models").exists()


def test_another_model_than_pinned_is_refused_while_planning(material: Material, tmp_path: Path) -> None:
    with pytest.raises(RestorationError, match=r"model\.digest: .*SHA256SUMS promises") as caught:
        run_here(material.request(tmp_path, digest=f"sha256:{'0' * 64}"), role=plan_job)
    assert caught.value.reason is FailureReason.MODEL_INVALID


def test_what_a_claim_keeps_needs_no_store_and_is_checked(material: Material, tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    shutil.copytree(material.origin, origin)
    request = material.request(tmp_path, shared=True, origin=origin)
    run_here(request)
    origin.rename(tmp_path / "away")

    (tmp_path / "out.mp4").unlink()
    run_here(request)
    assert sha256(tmp_path / "out.mp4") == material.sha256

    (tmp_path / "out.mp4").unlink()
    rotten = tmp_path / "models" / "tiny" / "dit.safetensors"
    data = bytearray(rotten.read_bytes())
    data[-1] ^= 1
    rotten.write_bytes(data)
    with pytest.raises(RestorationError, match=r"SHA256SUMS does not exist"):
        run_here(request)
    (tmp_path / "away").rename(origin)
    run_here(request)
    assert sha256(tmp_path / "out.mp4") == material.sha256


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_not_there_end_the_run(material: Material, tmp_path: Path, name: str) -> None:
    origin = tmp_path / "origin"
    shutil.copytree(material.origin, origin)
    (origin / name).unlink()
    with pytest.raises(RestorationError, match=f"{name} does not exist") as caught:
        run_here(material.request(tmp_path, origin=origin))
    assert caught.value.reason is FailureReason.MODEL_INVALID


@pytest.mark.parametrize(
    ("description", "says"),
    [('{"architecture": "flashvsr"}', "architecture"), ("{", "model.json"), ('{"schema": 2}', "schema")],
)
def test_a_model_of_another_kind_is_refused_while_planning(
    material: Material, tmp_path: Path, description: str, says: str
) -> None:
    origin = tmp_path / "origin"
    shutil.copytree(material.origin, origin)
    (origin / "model.json").write_text(description)
    request = material.request(tmp_path, origin=origin, digest=write_sums(origin))
    with pytest.raises(RestorationError, match=says) as caught:
        run_here(request, role=plan_job)
    assert caught.value.reason is FailureReason.MODEL_INVALID


def test_while_nothing_else_is_left_to_do_the_stage_says_so_and_a_signal_ends_it(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow bucket: the input is fetched and planned meanwhile, then the weights are what is waited for."""
    stop, progress, seen = StopSignal(), ProgressTracker(), []

    def slowly(self: BucketShelf, item: Item, target: Path, *, on_bytes: OnBytes) -> None:
        while True:
            on_bytes(1)
            seen.append(progress.snapshot())
            if seen[-1].stage is Stage.FETCHING_MODEL:
                stop.set()
            time.sleep(0.01)

    monkeypatch.setattr(BucketShelf, "fetch", slowly)
    with pytest.raises(InterruptedByRequestError):
        run_here(material.request(tmp_path), stop=stop, progress=progress)
    weights = sum(path.stat().st_size for path in material.origin.iterdir() if path.suffix != "")
    assert (seen[-1].stage, seen[-1].model_bytes_total) == (Stage.FETCHING_MODEL, weights)
    assert seen[-1].model_bytes_done == len(seen)
    assert seen[-1].frames_total == 12  # planned while the weights were on their way


def test_a_work_that_fails_waits_for_no_weights(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endlessly(self: BucketShelf, item: Item, target: Path, *, on_bytes: OnBytes) -> None:
        while True:
            on_bytes(0)
            time.sleep(0.01)

    monkeypatch.setattr(BucketShelf, "fetch", endlessly)
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    request = material.request(tmp_path).model_copy(update={"input": InputRequest(uri=broken.as_uri())})
    with pytest.raises(RestorationError) as caught:
        run_here(request)
    assert caught.value.reason is FailureReason.INVALID_INPUT
