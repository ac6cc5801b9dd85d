"""With which exact knobs a restoration fits a GPU, the fastest first; and what to say where none do.

Knobs are chosen by the GPU's total memory, never by what happens to be free: the same plan on the same kind of GPU must
compute the same bits.
"""

from collections.abc import Iterator
from dataclasses import replace

from restoration_runner.models.kernels import winograd
from restoration_runner.models.seedvr2.fast.dit_knobs import DitKnobs
from restoration_runner.models.seedvr2.fast.vae_convolve import LARGEST_TENSOR
from restoration_runner.models.seedvr2.fast.vae_state import VaeKnobs
from restoration_runner.models.seedvr2.knobs import Knobs
from restoration_runner.models.seedvr2.memory_model import Load, estimate, host_bytes

GIB = 2**30
KEPT_BACK = 1 * GIB
"""Of the total: CUDA's context and the libraries' kernels, which PyTorch does not count (0.6 GiB on an H100)."""
USABLE = 0.94
"""Of the rest: what is reserved is a little more than what is live, and the model may err."""
HOST_KEPT_BACK = 8 * GIB
"""Of the host's memory: Python with CUDA's libraries, frames that wait for a codec, the codecs themselves."""
MOST_WINDOW_LATENTS = 64


def usable_bytes(total_bytes: int) -> int:
    """What may be planned for on a GPU of that size."""
    return round(USABLE * (total_bytes - KEPT_BACK))


def ladder(load: Load) -> Iterator[Knobs]:
    """All that may be tried, fastest first (measured on one H100; see benchmarks/RESULTS.md).

    Stage by stage it is the decoder that takes most, so it goes in strips long before the encoder has to. Rings that
    cuDNN's fast kernels cannot index (3840×2160) are not offered.
    """
    few, some, many = (-(-load.height // parts) for parts in (4, 8, 16))
    strips = [VaeKnobs(strip_rows=rows) for rows in (few, some, many)]
    ring, in_decoder = VaeKnobs(), replace(strips[0], encoder_strips=False)
    if 3 * load.vae.channels[0] * load.pixels > LARGEST_TENSOR:
        ring = in_decoder = strips[0]
    in_last = replace(in_decoder, strip_levels=1)
    in_maps = VaeKnobs(frames_at_once=winograd.FRAMES, winograd=True)
    lean = DitKnobs(mlp_rows=8192, attention_rows=8192)
    streamed = replace(lean, streamed_weights=True)
    vaes = (ring,) if load.is_image else (in_maps, ring)  # a picture has nothing over time
    for vae in vaes:
        for latents in (6, 3, 2, 1):
            yield Knobs(latents_at_once=latents, vae=vae)
    yield Knobs(vae=ring, dit=lean)
    for vae in vaes:
        for dit in (lean, streamed):
            for latents in (2, 1):
                yield Knobs(latents_at_once=latents, stage_by_stage=True, vae=vae, dit=dit)
    for vae in (in_last, in_decoder, strips[0]):
        yield Knobs(stage_by_stage=True, vae=vae, dit=lean)
    for vae in (in_last, in_decoder, *strips):
        yield Knobs(stage_by_stage=True, vae=vae, dit=streamed)
    smallest = replace(strips[-1], attention_scores=2**25)
    least = replace(streamed, mlp_rows=2048, attention_rows=2048)
    yield Knobs(stage_by_stage=True, vae=smallest, dit=least)
    for vae in (replace(strips[1], past_on_host=True), replace(smallest, past_on_host=True)):
        yield Knobs(stage_by_stage=True, vae=vae, dit=streamed)
    yield Knobs(stage_by_stage=True, vae=replace(smallest, past_on_host=True, second_level=True), dit=least)


def fitting(load: Load, total_bytes: int, host_total_bytes: int = 0) -> list[Knobs]:
    """What fits into a GPU of that size, fastest first; a later one always takes less than those before.

    host_total_bytes: what the process may use of the host's memory; decides whether the VAE's past may wait there.
    """
    found: list[Knobs] = []
    least = usable_bytes(total_bytes) + 1
    for knobs in ladder(load):
        peak = estimate(load, knobs).peak
        is_held = not knobs.vae.past_on_host or host_bytes(load, knobs) + HOST_KEPT_BACK <= host_total_bytes
        if peak < least and is_held:
            found.append(knobs)
            least = peak
    return found


def host_bytes_needed(load: Load, total_bytes: int) -> int | None:
    """Least memory of the host with which something fits a GPU of that size; None if nothing does."""
    needed = (
        host_bytes(load, knobs) + HOST_KEPT_BACK
        for knobs in ladder(load)
        if estimate(load, knobs).peak <= usable_bytes(total_bytes)
    )
    return min(needed, default=None)


def largest_window(load: Load, total_bytes: int, host_total_bytes: int = 0) -> int | None:
    """Most latents of a window, up to `MOST_WINDOW_LATENTS`, that fit with some knobs, however long the scene is; None
    if not even two do."""
    fitting_ones, too_many = 1, MOST_WINDOW_LATENTS + 1
    while too_many - fitting_ones > 1:  # more latents always take more
        middle = (fitting_ones + too_many) // 2
        if fitting(replace(load, window_latents=middle, scene_latents=None), total_bytes, host_total_bytes):
            fitting_ones = middle
        else:
            too_many = middle
    return fitting_ones if fitting_ones > 1 else None
