"""A commit that dies between any two of its steps leaves nothing that lies, and nothing behind once it is repeated.

Every step is tried: what a plan, a segment with its marker, and the clearing of a work do to files is counted, then a
process that does it is killed before the first, the second … the last of them, and another process goes on.
"""

import multiprocessing
from pathlib import Path

from tests.builders.plans import make_plan
from tests.builders.steps import Steps
from tests.storage.test_work import MAKER, PREFIX, made

from restoration_runner.storage.file import FileStore
from restoration_runner.storage.store import read_whole
from restoration_runner.work import Work

LEAST_STEPS, MOST_STEPS = 30, 200
CONTENT = b"segment" * 1000


def work_in(root: Path) -> Work:
    return Work(FileStore(root / "bucket"), PREFIX)


def commit(root: Path) -> None:
    plan = make_plan()
    work_in(root).commit(plan, made(root, plan.segments[0], CONTENT), MAKER)


def whole(root: Path) -> None:
    work_in(root).publish_plan(make_plan())
    commit(root)
    work_in(root).clear()


def _do(root: Path, fatal: int) -> None:
    steps = Steps(fatal=fatal)
    steps.watch(root / "bucket")
    whole(root)


def killed(root: Path, fatal: int) -> bool:
    """Whether it died; false if it had fewer steps and is through."""
    root.mkdir()
    process = multiprocessing.get_context("fork").Process(target=_do, args=(root, fatal))
    process.start()
    process.join()
    assert process.exitcode in (-9, 0)
    return process.exitcode == -9


def look(root: Path) -> None:
    """What a successor may believe, it may believe wholly."""
    plan, work, store = make_plan(), work_in(root), FileStore(root / "bucket")
    assert work.read_plan(plan.cache_key) in (None, plan)
    for marker in work.markers(plan).values():
        assert read_whole(store, marker.object_key, if_match=marker.etag) == CONTENT


def again(root: Path) -> None:
    """What the successor does: all of it from the beginning, with a look in between."""
    plan, work, store = make_plan(), work_in(root), FileStore(root / "bucket")
    assert work.publish_plan(plan) == plan
    commit(root)
    markers = work.markers(plan)
    assert list(markers) == [0]
    keys = {item.key for item in store.list_objects(PREFIX)}
    assert keys == {f"{PREFIX}plan.json", f"{PREFIX}seg/00000.json", markers[0].object_key}
    look(root)
    work.clear()


def test_killed_before_every_step(tmp_path: Path) -> None:
    for fatal in range(1, MOST_STEPS):
        root = tmp_path / str(fatal)
        died = killed(root, fatal)
        look(root)
        again(root)
        left = [path for path in (root / "bucket").rglob("*") if path.is_file() and path.parent.name != ".store"]
        assert left == [], f"killed before step {fatal}"
        if not died:
            break
    assert LEAST_STEPS < fatal < MOST_STEPS - 1
