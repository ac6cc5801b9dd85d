"""How much of a GPU's memory a restoration takes: arithmetic, from dimensions, sizes and knobs.

What the fast networks hold at the same time is counted from their dimensions, the size of the frames, the window and
the knobs. Measured against real peaks by `python -m benchmarks.gpu memory`.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from restoration_runner.models.kernels import winograd
from restoration_runner.models.seedvr2.config import DitConfig, VaeConfig
from restoration_runner.models.seedvr2.fast.dit_knobs import DitKnobs
from restoration_runner.models.seedvr2.fast.vae_state import VaeKnobs
from restoration_runner.models.seedvr2.fast.vae_winograd import most_frames
from restoration_runner.models.seedvr2.knobs import Knobs
from restoration_runner.models.seedvr2.windows import Grid, partition

WORKSPACE = 192 * 2**20
"""The timestep's part of the modulation and what cuBLAS keeps for itself; measured, the same for all sizes."""
SCORE_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is restored: frames of width × height, already aligned, in windows of so many latents.

    overlap_latents: of two windows. scene_latents: of the longest scene; None stands for any length. element_bytes: of
    a weight and of an activation, 2 in bf16. fp8_weights: the transformer's matrices have 8 bits (`fp8.py`).
    """

    dit: DitConfig
    vae: VaeConfig
    width: int
    height: int
    window_latents: int
    text_tokens: int
    overlap_latents: int = 1
    scene_latents: int | None = None
    element_bytes: int = 2
    fp8_weights: bool = False

    @property
    def is_image(self) -> bool:
        """One picture, after which nothing comes that would have to remember it."""
        return self.scene_latents == 1

    @property
    def pixels(self) -> int:
        return self.width * self.height


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes that are live at the worst moment of each stage, weights and what waits meanwhile included."""

    encode: int
    transformer: int
    decode: int

    @property
    def peak(self) -> int:
        return max(self.encode, self.transformer, self.decode)


def estimate(load: Load, knobs: Knobs) -> Estimate:
    """What this load takes with these knobs."""
    if load.scene_latents is not None:
        knobs = replace(knobs, latents_at_once=min(knobs.latents_at_once, load.scene_latents))
    base = dit_weights(load, knobs.dit) + vae_weights(load, knobs.vae) + WORKSPACE + _latent_bytes(load)
    encoded, decoded = encoder_state(load, knobs), decoder_state(load, knobs)
    beside = not knobs.stage_by_stage
    calls = encoder_calls(load, knobs)
    encoding = max(encoder_work(load, knobs, frames) + decoded * (decodes and beside) for frames, decodes in calls)
    waiting = encoded + decoded * decodes_before_the_last_window(load, knobs)
    return Estimate(
        encode=base + encoded + encoding,
        transformer=base + waiting * beside + transformer_work(load, knobs.dit),
        decode=base + decoded + encoded * beside + decoder_work(load, knobs),
    )


def encoder_calls(load: Load, knobs: Knobs) -> Iterator[tuple[int, bool]]:
    """Frames of each call, and whether the decoder has a past by then, until one is as all that follow.

    The first call has three frames less, and a scene of few windows may never hold both pasts in a full one.
    """
    scene, at_once, stride = load.scene_latents or sys.maxsize, knobs.latents_at_once, load.vae.temporal_stride
    step = max(1, load.window_latents - load.overlap_latents)  # of a scene that is one window, which may be short
    for start in range(0, scene, at_once):
        latents = min(at_once, scene - start)
        # Clean is what lies before the next window; the last one ends with the scene.
        clean = min((start - load.overlap_latents) // step * step, scene - load.window_latents)
        yield stride * latents - (stride - 1 if start == 0 else 0), clean >= at_once
        if clean >= at_once == latents:
            return


def decodes_before_the_last_window(load: Load, knobs: Knobs) -> bool:
    return load.scene_latents is None or load.scene_latents - load.window_latents >= knobs.latents_at_once


def _latent_bytes(load: Load) -> int:
    """Condition, noise and clean latents of a window in fp32, and what is made of them for the transformer."""
    return 6 * 4 * load.vae.latent_channels * load.window_latents * load.pixels // load.vae.spatial_stride**2


# The transformer.


def dit_weights(load: Load, knobs: DitKnobs) -> int:
    config = load.dit
    block = _block_elements(config)
    both = block * 2 * config.separate_layers + block * (config.layers - config.separate_layers)
    matrices = 2 * 2 * block if knobs.streamed_weights else both
    ends = config.text_width * config.width + config.width * 4 * (config.in_channels + config.out_channels)
    if load.fp8_weights:  # and one block as products take it
        return matrices + load.element_bytes * (2 * block + ends)
    return load.element_bytes * (matrices + ends)


def _block_elements(config: DitConfig) -> int:
    """Matrices of one stream of one block."""
    mlp = (3 if config.mlp == "swiglu" else 2) * config.width * config.mlp_hidden
    return 4 * config.width * config.inner + mlp


def transformer_work(load: Load, knobs: DitKnobs) -> int:
    config = load.dit
    grid = (
        load.window_latents,
        load.height // load.vae.spatial_stride // 2,
        load.width // load.vae.spatial_stride // 2,
    )
    tokens = grid[0] * grid[1] * grid[2]
    rows = tokens + load.text_tokens
    stream = 2 * rows * config.width  # the residual stream and its norm
    attention = max(_attention_elements(load, grid, tokens, config, knobs, kind) for kind in _kinds(config))
    wide = (2 if config.mlp == "swiglu" else 1) * config.mlp_hidden
    mlp = min(rows, knobs.mlp_rows or rows) * wide
    return load.element_bytes * (stream + max(attention, mlp))


Kind = tuple[Grid, bool]


def _kinds(config: DitConfig) -> set[Kind]:
    return set(zip(config.window, config.shifted, strict=True))


def _attention_elements(load: Load, grid: Grid, tokens: int, config: DitConfig, knobs: DitKnobs, kind: Kind) -> int:
    """qkv, the gathered q, k and v of a batch of windows, what attention makes of a run, and the mixed rows."""
    lengths = [volume + load.text_tokens for volume in _volumes(grid, kind)]
    packed = sum(lengths)
    batch = packed if knobs.attention_rows is None else max(*lengths, min(packed, knobs.attention_rows))
    run = max(lengths.count(length) * length for length in set(lengths))
    mixed = tokens + len(lengths) * load.text_tokens
    qkv = 3 * (tokens + load.text_tokens)
    return config.inner * (qkv + mixed + 3 * batch + 2 * min(run, batch))


@cache
def _volumes(grid: Grid, kind: Kind) -> tuple[int, ...]:
    """Tokens of every window."""
    return tuple(t * h * w for t, h, w in (window.shape for window in partition(grid, kind[0], shifted=kind[1])))


# The VAE. Everything scales with the pixels of a frame; sums are in elements for each of them.


def vae_weights(load: Load, knobs: VaeKnobs) -> int:
    """Prepared weights: of every causal convolution also the one for a first frame; of rings also those that fit three
    frames side by side, in three turns; those of Winograd's six maps."""
    deepest = load.vae.channels[-1]
    ends = 3 * 36 * load.vae.latent_channels * deepest  # into the decoder, and the moments out of the encoder
    maps = 54 * knobs.winograd
    total = ends + 2 * (4 * (36 + maps) + 4) * deepest**2  # both middle blocks
    for level in (*_encoder_levels(load.vae, knobs), *_decoder_levels(load.vae, knobs)):
        own = level.knobs
        one_by_one = level.full and own.frames_at_once == 1
        copies = 3 if _has_rings(level) else 0
        total += (36 + maps + 27 * copies) * level.channels * level.convolved
        total += level.inputs * level.channels if level.inputs != level.channels else 0
        resampled = (
            {"time": 36, "space": 9, "": 0}
            if level.is_encoder
            else {"time": 144, "space": 64 + 144 * (one_by_one and not knobs.second_level), "": 0}
        )
        total += resampled[level.resample] * level.channels**2
    return load.element_bytes * total


@dataclass(frozen=True)
class _Level:
    """One resolution. share: of the pixels of a frame; rate: frames of it for each latent. full: whether it goes frame
    by frame with the full-resolution ones, see `VaeKnobs`; ring: whether its frames come together, but have rings."""

    is_encoder: bool
    inputs: int
    channels: int
    blocks: int
    share: float
    rate: int
    full: bool
    ring: bool
    resample: str
    knobs: VaeKnobs

    @property
    def convolved(self) -> int:
        """Channels of the inputs of all its causal convolutions, changes of resolution left out."""
        return self.inputs + (2 * self.blocks - 1) * self.channels


def _encoder_levels(config: VaeConfig, knobs: VaeKnobs) -> list[_Level]:
    last, own = len(config.channels) - 1, knobs.of_encoder
    first_temporal = last - config.temporal_levels
    levels, rate = [], config.temporal_stride
    for i, channels in enumerate(config.channels):
        resample = "" if i == last else "time" if i >= first_temporal else "space"
        inputs = config.channels[max(i - 1, 0)]
        full, ring = i < first_temporal + knobs.second_level, i == first_temporal
        levels.append(_Level(True, inputs, channels, config.encoder_blocks, 4.0**-i, rate, full, ring, resample, own))
        rate //= 2 if resample == "time" else 1
    return levels


def _decoder_levels(config: VaeConfig, knobs: VaeKnobs) -> list[_Level]:
    backwards, last = config.channels[::-1], len(config.channels) - 1
    levels, rate = [], 1
    for i, channels in enumerate(backwards):
        resample = "" if i == last else "time" if i < config.temporal_levels else "space"
        inputs, share = backwards[max(i - 1, 0)], 4.0 ** (i - last)
        full = i >= config.temporal_levels - knobs.second_level
        own, blocks = knobs.of_decoder(last - i), config.encoder_blocks + 1
        levels.append(_Level(False, inputs, channels, blocks, share, rate, full, False, resample, own))
        rate *= 2 if resample == "time" else 1
    return levels


def encoder_state(load: Load, knobs: Knobs) -> int:
    if load.is_image:
        return 0
    kept = 2 * load.vae.image_channels + _middle_state(load.vae, knobs)
    for level in _encoder_levels(load.vae, knobs.vae):
        kept += _kept_frames(level, knobs.latents_at_once) * level.share * level.convolved
        kept += level.share * level.channels if level.resample == "time" else 0
    return round(load.element_bytes * load.pixels * kept)


def decoder_state(load: Load, knobs: Knobs) -> int:
    if load.is_image:
        return 0
    kept = 2 * 16 + _middle_state(load.vae, knobs)
    for level in _decoder_levels(load.vae, knobs.vae):
        kept += _kept_frames(level, knobs.latents_at_once) * level.share * level.convolved
        if level.resample:
            ring = 3 if level.full and knobs.vae.frames_at_once == 1 and not knobs.vae.second_level else 2
            kept += level.share * level.channels * (1 if level.resample == "time" else ring)
    return round(load.element_bytes * load.pixels * kept)


def _middle_state(config: VaeConfig, knobs: Knobs) -> float:
    """Four convolutions of residual blocks and one before or after them."""
    blocks = _kept_by_winograd(knobs.latents_at_once) if knobs.vae.winograd else 2
    return (4 * blocks + 2) * config.channels[-1] / config.spatial_stride**2


def _kept_frames(level: _Level, latents: int) -> int:
    """A ring holds three frames of its input; strips and joined buffers keep two, or none if those are on the host."""
    if level.full and level.knobs.past_on_host:
        return 0
    if level.knobs.winograd:
        frames = level.rate * latents
        return _kept_by_winograd(min(frames, level.knobs.frames_at_once or frames) if level.full else frames)
    return 3 if _has_rings(level) else 2


def _kept_by_winograd(frames: int) -> int:
    """All of a call that has no more than four; copies of two of them otherwise."""
    return max(2, frames) if frames <= winograd.FRAMES else 2


def _has_rings(level: _Level) -> bool:
    knobs = level.knobs
    return (level.full or level.ring) and knobs.frames_at_once == 1 and knobs.strip_rows is None


def host_bytes(load: Load, knobs: Knobs) -> int:
    """Of the host's memory: what waits there, page-locked, instead of on the GPU.

    PyTorch rounds each piece of the past up to a power of two, and encoder and decoder use the same pieces in turn.
    """
    past = 0
    if knobs.vae.past_on_host and not load.is_image:
        for levels in (_encoder_levels(load.vae, knobs.vae), _decoder_levels(load.vae, knobs.vae)):
            inputs = [
                (channels, level.share)
                for level in levels
                if level.full
                for channels in (level.inputs, *[level.channels] * (2 * level.blocks - 1))
            ]
            sizes = [round(2 * load.element_bytes * load.pixels * share * channels) for channels, share in inputs]
            past = max(past, sum(1 << (size - 1).bit_length() for size in sizes))
    matrices = replace(knobs.dit, streamed_weights=False)
    return past + (dit_weights(load, matrices) if knobs.dit.streamed_weights else 0)


def _frames_of_call(load: Load, knobs: Knobs) -> int:
    return 1 if load.is_image else knobs.latents_at_once * load.vae.temporal_stride


def encoder_work(load: Load, knobs: Knobs, frames: int) -> int:
    """Of a call with so many frames."""
    earlier = 0 if load.is_image else 2
    some = min(frames, knobs.vae.frames_at_once or frames)
    full, after, *deeper = _encoder_levels(load.vae, knobs.vae)
    handed_on = after.share * full.channels * frames
    block = _full_block(load, knobs.vae.of_encoder, some, full)
    if knobs.vae.second_level and deeper:
        # Beside it the pair that the second level's downsampling reads, and what that has made.
        pair = after.share * after.channels * 3
        made = deeper[0].share * after.channels * frames / 2
        peaks = [block + pair + made]
    else:
        # Beside it what is collected for the next level, which sees all frames: its input, a buffer with two earlier
        # frames (where it has no rings), what comes out, and what is written for its downsampling. By Winograd also
        # what lies between two convolutions and what is added, and instead of the buffer the maps of some frames.
        if knobs.vae.winograd:
            joined = frames * (after.inputs + 3 * after.channels) + _maps(load, after, frames)
        else:
            buffers = 1 if _has_rings(after) else 2
            joined = (frames + earlier) * buffers * after.channels + frames * (after.channels + full.channels)
        peaks = [block + handed_on, 2 * handed_on, after.share * joined]
    picture = frames * load.vae.image_channels * (4 / load.element_bytes + 3)
    return round(load.element_bytes * load.pixels * (max(peaks) + picture))


def decoder_work(load: Load, knobs: Knobs) -> int:
    levels = _decoder_levels(load.vae, knobs.vae)
    deep, before, last = levels[-3], levels[-2], levels[-1]
    frames = _frames_of_call(load, knobs)
    some = min(frames, knobs.vae.frames_at_once or frames)
    deep_frames = 1 if load.is_image else deep.rate * knobs.latents_at_once
    if knobs.vae.second_level:
        # What the level before the upsampling over time has made and what that reads; what the one over space reads.
        waiting, reads = deep.share * deep.channels * 2 * deep_frames, 3 * before.share * before.channels
    else:
        # What the upsampling over time reads and makes.
        waiting, reads = deep.share * deep.channels * (deep_frames + 1), 0.0
        waiting += max(2, some) * before.share * before.inputs
        waiting *= not load.is_image  # which goes through the levels at once
    # An input of a convolution of its own, where there is neither a ring nor a strip.
    single = last.inputs if load.is_image and knobs.vae.strip_rows is None else 0
    peaks = [
        # The convolution of the last upsampling, and its frames shuffled.
        waiting + reads + min(some, knobs.vae.upsample_frames) * last.inputs + some * last.inputs,
        # The first block of full resolution, whose input is twice as wide.
        waiting + max(_full_block(load, knobs.vae, some, last),
                      single + last.inputs + last.channels + _strip(load, knobs.vae, last.inputs)),
        # A block of the level that doubles time.
        deep.share * (deep.channels * (4 * deep_frames + 2) + knobs.vae.winograd * _maps(load, deep, deep_frames)),
    ]  # fmt: skip
    picture = 3 * some * load.vae.image_channels
    attention = _attention_bytes(load, knobs.vae)
    return max(attention, round(load.element_bytes * load.pixels * (max(peaks) + picture)))


def _full_block(load: Load, knobs: VaeKnobs, frames: int, level: _Level) -> float:
    """What a block of full resolution reads, what its first convolution makes, and what that takes beside them: as much
    as it makes, or by Winograd both once more as one and a half maps for each frame."""
    if knobs.winograd:
        return frames * 2.5 * (level.inputs + level.channels)
    return frames * (level.inputs + 2 * level.channels) + _strip(load, knobs, level.inputs)


def _maps(load: Load, level: _Level, frames: int) -> float:
    """Maps of a convolution's input and output, one and a half for each frame of those that are in work at one time."""
    return 3 * min(frames, most_frames(round(load.pixels * level.share))) * level.channels


def _strip(load: Load, knobs: VaeKnobs, channels: int) -> float:
    """The input of a convolution in strips exists for some rows of three frames, beside what it does not overwrite.

    With the past on the host the next strip is there already.
    """
    if knobs.strip_rows is None:
        return 0.0
    frames = 1 if load.is_image else 6 if knobs.past_on_host else 3
    return frames * channels * min(1.0, (knobs.strip_rows + 2) / load.height)


def _attention_bytes(load: Load, knobs: VaeKnobs) -> int:
    """Scores in fp32 and what the softmax makes of them."""
    positions = load.pixels // load.vae.spatial_stride**2
    pieces = -(-positions * positions // knobs.attention_scores)
    return -(-positions // pieces) * positions * (SCORE_BYTES + load.element_bytes)
