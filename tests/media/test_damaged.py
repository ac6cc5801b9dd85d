"""Whatever a work prefix holds, a restoration makes the right output of it: what is damaged counts as absent."""

import hashlib
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
