"""How a scene is cut into windows and segments, so that no seam shows and bytes depend on nothing but the plan.

All numbers are relative to the scene (cut to cut): frame 0 is its first frame, latent 0 is frame 0, latent j >= 1 is
frames 4j-3..4j. A window is a number of latents that the diffusion transformer sees at once; a segment is the grain of
commit and resume. Windows at a segment border are computed by both neighbours; encoder and decoder get latents of
warm-up before the first one that counts.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

TEMPORAL_STRIDE = 4
"""Frames per latent of the causal VAE."""


@dataclass(frozen=True, order=True)
class Window:
    """Half-open range of latents."""

    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class SegmentWork:
    """What to compute for one segment of one scene. Frame ranges are inclusive, latent ranges half-open.

    scene_start: absolute index of the scene's frame 0 in the input (the noise depends on it).
    scene_frames: frames of the scene, without padding at its end.
    latents: the latents this segment owns.
    first_frame, last_frame: the frames it owns.
    scene_windows: all windows of the scene (a latent's blend weight depends on the neighbours).
    needed: range of indices into `scene_windows` that this segment must run.
    encode_from, encode_to: frames to feed to the encoder; `encode_from` is a multiple of 4.
    decode_from: first latent to feed to the decoder.
    drop_frames: decoded frames before `first_frame`.
    """

    scene_start: int
    scene_frames: int
    latents: Window
    first_frame: int
    last_frame: int
    scene_windows: tuple[Window, ...]
    needed: range
    encode_from: int
    encode_to: int
    decode_from: int
    drop_frames: int

    @property
    def frames(self) -> int:
        return self.last_frame - self.first_frame + 1

    @property
    def encode_latent(self) -> int:
        """Latent that `encode_from` stands for."""
        return self.encode_from // TEMPORAL_STRIDE

    @property
    def windows(self) -> tuple[Window, ...]:
        return tuple(self.scene_windows[i] for i in self.needed)


def latent_count(frames: int) -> int:
    """Latents of a scene. Two to five frames make two: only a single image is a scene of one latent."""
    return 1 if frames == 1 else max(2, -(-(frames - 1) // TEMPORAL_STRIDE) + 1)


def padded_frames(latents: int) -> int:
    """Frames that the VAE needs for so many latents; what the scene lacks is copies of its last frame."""
    return TEMPORAL_STRIDE * (latents - 1) + 1


def scene_windows(latents: int, *, window: int, overlap: int) -> tuple[Window, ...]:
    """Windows at 0, S, 2S …; the last one slides left, so that all have the same length.

    The length decides the network's attention partition: a short last window would change the texture.
    """
    if latents <= window:
        return (Window(0, latents),)
    starts = [*range(0, latents - window, window - overlap), latents - window]
    return tuple(Window(start, start + window) for start in starts)


def blend_weight(windows: Sequence[Window], index: int, latent: int) -> float:
    """Weight of window `index` at `latent`, before division by the sum over all windows that cover it.

    Ramps run over the real overlaps with the neighbours, so the slid last window and its neighbour agree.
    """
    here = windows[index]
    left = windows[index - 1].stop - here.start if index else 0
    right = here.stop - windows[index + 1].start if index + 1 < len(windows) else 0
    rise = min(1.0, (latent - here.start + 0.5) / left) if left > 0 else 1.0
    fall = min(1.0, (here.stop - latent - 0.5) / right) if right > 0 else 1.0
    return rise * fall


def windows_per_segment(segment_frames: int, *, window: int, overlap: int) -> int:
    return max(1, round(segment_frames / (TEMPORAL_STRIDE * (window - overlap))))


def scene_segments(
    *, start: int, frames: int, window: int, overlap: int, per_segment: int, encoder_warmup: int, decoder_warmup: int
) -> Iterator[SegmentWork]:
    """Cut a scene of `frames` frames, whose frame 0 is frame `start` of the input, into segments, in order.

    window, overlap, encoder_warmup, decoder_warmup: in latents. per_segment: windows per segment. Borders lie at
    starts of regular windows, never at the slid last one; a tail shorter than half a segment joins its neighbour.
    """
    latents = latent_count(frames)
    windows = scene_windows(latents, window=window, overlap=overlap)
    regular = len(windows) if latents <= window else len(windows) - 1
    borders = list(range(0, regular, per_segment))
    if len(borders) > 1 and latents - windows[borders[-1]].start < per_segment * (window - overlap) // 2:
        borders.pop()
    for number, border in enumerate(borders):
        first = windows[border].start
        stop = windows[borders[number + 1]].start if number + 1 < len(borders) else latents
        decode_from = max(0, first - decoder_warmup)
        # The windows that intersect [decode_from, stop): starts and stops both increase.
        needed = range(
            bisect_right(windows, decode_from, key=lambda window: window.stop),
            bisect_left(windows, stop, key=lambda window: window.start),
        )
        encode_latent = max(0, windows[needed[0]].start - encoder_warmup)
        first_frame = 0 if first == 0 else TEMPORAL_STRIDE * first - 3
        # A decoder that starts inside the scene takes its first latent for an image: one frame instead of four.
        decoded_from = TEMPORAL_STRIDE * decode_from
        yield SegmentWork(
            scene_start=start,
            scene_frames=frames,
            latents=Window(first, stop),
            first_frame=first_frame,
            last_frame=frames - 1 if stop == latents else TEMPORAL_STRIDE * (stop - 1),
            scene_windows=windows,
            needed=needed,
            encode_from=TEMPORAL_STRIDE * encode_latent,
            encode_to=min(frames - 1, TEMPORAL_STRIDE * (windows[needed[-1]].stop - 1)),
            decode_from=decode_from,
            drop_frames=first_frame - decoded_from,
        )
