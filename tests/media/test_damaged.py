"""Whatever a work prefix holds, a restoration makes the right output of it: what is damaged counts as absent."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.builders import clips
from tests.builders.clips import Clip
from tests.builders.jobs import make_request, run_here
from tests.builders.models import write_tiny_model

from restoration_api.request import SegmentCleanup

GARBAGE = b"\xff\x00{not json"
ANOTHER_SCHEMA = b'{"schema":2,"future":true}'

Damage = Callable[[Path], object]


def foreign(path: Path, work: Path) -> None:
    """The message of another work: its key is another one."""
    key = work.name.partition("-")[0].encode()
    path.write_bytes(path.read_bytes().replace(key, b"0" * len(key)))


def segment(work: Path) -> Path:
    return min(work.glob("seg/00000-*.mkv"))


def changed(path: str, value: object) -> Damage:
    """A plan of the right work in which one value is another: whoever may write to the bucket may have made it."""

    def damage(work: Path) -> None:
        document = json.loads((work / "plan.json").read_text())
        *parents, last = path.split(".")
        place = document
        for step in parents:
            place = place[int(step)] if isinstance(place, list) else place[step]
        assert last in place, f"a plan has no {path}"
        place[last] = value
        (work / "plan.json").write_text(json.dumps(document))

    return damage


# name, damage, how many of the two segments are still used
DAMAGED: list[tuple[str, Damage, int]] = [
    ("nothing", lambda work: None, 2),
    ("a marker without its object", lambda work: segment(work).unlink(), 1),
    ("an object without its marker", lambda work: (work / "seg/00000.json").unlink(), 1),
    ("a truncated object", lambda work: segment(work).write_bytes(segment(work).read_bytes()[:-9]), 1),
    ("an object with other bytes", lambda work: segment(work).write_bytes(segment(work).read_bytes()[::-1]), 1),
    ("a marker that is garbage", lambda work: (work / "seg/00000.json").write_bytes(GARBAGE), 1),
    ("a marker of another schema", lambda work: (work / "seg/00000.json").write_bytes(ANOTHER_SCHEMA), 1),
    ("a foreign marker", lambda work: foreign(work / "seg/00000.json", work), 1),
    ("a plan that is garbage", lambda work: (work / "plan.json").write_bytes(GARBAGE), 2),
    ("a plan of another schema", lambda work: (work / "plan.json").write_bytes(ANOTHER_SCHEMA), 2),
    ("a foreign plan", lambda work: foreign(work / "plan.json", work), 2),
    ("a plan whose encoder writes files", changed("encoder.parameters", "csv=/tmp/planted:crf=18"), 2),
    ("a plan of huge frames", changed("width", 1 << 30), 2),
    ("a plan of a huge input", changed("video.width", 1 << 30), 2),
    ("a plan of endless times", changed("timestamps.deltas", [[1, 10**15]]), 2),
    ("a plan of endless runs", changed("timestamps.deltas", [[0, 13]]), 2),
    ("a plan of other segments", changed("segments.0.runs.0.frames", 3), 2),
    ("a plan of other scenes", changed("scenes.0.frames", 9), 2),
    ("a plan with another seed", changed("restoration.seed", 7), 2),
    ("a plan of another model", changed("modelDigest", "sha256:" + "0" * 64), 2),
    ("a plan of another input", changed("input.sizeBytes", 1), 2),
    ("a manifest that is garbage", lambda work: (work / "final.json").write_bytes(GARBAGE), 2),
    ("a manifest of another schema", lambda work: (work / "final.json").write_bytes(ANOTHER_SCHEMA), 2),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "model")


@pytest.mark.parametrize(("name", "damage", "reused"), DAMAGED, ids=[row[0] for row in DAMAGED])
def test_what_is_damaged_is_made_again(model: Path, tmp_path: Path, name: str, damage: Damage, reused: int) -> None:
    source = clips.write(tmp_path / "in.mp4", Clip(frames=14, width=64, height=64, cuts=(7,)))
    output = tmp_path / "out.mp4"
    request = make_request(source.as_uri(), output.as_uri(), model, cleanup_segments=SegmentCleanup.RETAIN)
    first = run_here(request)
    assert first.segments_total == 2
    before = hashlib.sha256(output.read_bytes()).hexdigest()
    (work,) = (path for path in (tmp_path / ".vr").iterdir() if path.name != ".store")
    damage(work)
    output.unlink()
    again = run_here(request, execution=2)
    assert (again.reason, again.segments_reused) == ("Completed", reused)
    assert hashlib.sha256(output.read_bytes()).hexdigest() == before
