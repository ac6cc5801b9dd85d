"""How many frames may wait between the pipeline's threads."""

import pytest
from tests.builders.plans import make_plan

from restoration_runner.restoration.pipeline import QUEUE_FRAMES, Room, queue_room


@pytest.mark.parametrize(
    ("size", "hint_mib", "on_gpu", "expected"),
    [
        ((1280, 720), None, False, Room(decoded=QUEUE_FRAMES, restored=QUEUE_FRAMES)),
        ((640, 360), None, True, Room(decoded=QUEUE_FRAMES, restored=48)),  # a window of 49 frames, nearly
        ((1920, 1080), None, True, Room(decoded=QUEUE_FRAMES, restored=43)),  # 256 MiB
        ((3840, 2160), None, True, Room(decoded=QUEUE_FRAMES, restored=10)),
        ((7680, 4320), None, True, Room(decoded=QUEUE_FRAMES, restored=QUEUE_FRAMES)),
        # A predecessor was killed for the memory that it took: how much it may be told now makes no difference.
        ((1920, 1080), 65536, True, Room(decoded=1, restored=1)),
        ((640, 360), 96, False, Room(decoded=1, restored=1)),
    ],
)
def test_room(size: tuple[int, int], hint_mib: int | None, on_gpu: bool, expected: Room) -> None:
    plan = make_plan().model_copy(update={"width": size[0], "height": size[1]})
    assert queue_room(plan, hint_mib, on_gpu=on_gpu) == expected
