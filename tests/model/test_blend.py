"""Windows that agree blend into what they agree on; where they differ, both have their share."""

import pytest
import torch

from restoration_runner.restoration.blend import WindowBlend
from restoration_runner.restoration.grid import SegmentWork, scene_segments

GRIDS = [(1, 0), (2, 0), (3, 1), (5, 2), (6, 1), (6, 2), (13, 1)]


def works(frames: int, window: int, overlap: int, per_segment: int) -> list[SegmentWork]:
    return list(
        scene_segments(
            start=0,
            frames=frames,
            window=window,
            overlap=overlap,
            per_segment=per_segment,
            encoder_warmup=1,
            decoder_warmup=2,
        )
    )


def blended(work: SegmentWork, value: dict[int, float] | None = None) -> list[float]:
    """Every window says `number of the latent` for each of its latents, or its own value."""
    blend, found = WindowBlend(work), []
    for index in work.needed:
        window = work.scene_windows[index]
        numbers = [float(j) if value is None else value[index] for j in range(window.start, window.stop)]
        x0 = torch.tensor(numbers).view(-1, 1, 1, 1).expand(-1, 2, 2, 3)
        found += [latent[0, 0, 0].item() for latent in blend.add(index, x0)]
    return found


@pytest.mark.parametrize(("window", "overlap"), GRIDS)
@pytest.mark.parametrize("per_segment", [1, 3])
def test_windows_that_agree(window: int, overlap: int, per_segment: int) -> None:
    for frames in range(1, 160):
        for work in works(frames, window, overlap, per_segment):
            expected = list(range(work.decode_from, work.latents.stop))
            assert blended(work) == pytest.approx(expected, rel=1e-6)


def test_three_windows_may_cover_a_latent() -> None:
    """The slid last window reaches behind its neighbour; all three count."""
    (work,) = works(57, 5, 2, 1000)
    covering = {
        j: [i for i, w in enumerate(work.scene_windows) if w.start <= j < w.stop] for j in range(work.latents.stop)
    }
    latent, three = next((j, indices) for j, indices in covering.items() if len(indices) == 3)
    for index in three:
        shares = blended(work, {i: float(i == index) for i in work.needed})
        assert 0 < shares[latent] < 1


def test_a_latent_of_one_window_is_copied() -> None:
    (work,) = works(49, 13, 1, 1000)
    value = torch.rand(13, 2, 2, 16, generator=torch.Generator().manual_seed(0))
    blend = WindowBlend(work)
    assert all(torch.equal(new, old) for new, old in zip(blend.add(0, value), value, strict=True))
