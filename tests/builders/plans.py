"""A small valid plan for tests that need one but make no frames."""

from fractions import Fraction
from typing import Any

from restoration_api.defaults import Choices, resolve
from restoration_api.ledger import (
    ColorFacts,
    ColorRange,
    EncoderSettings,
    Grid,
    InputIdentity,
    Plan,
    Timestamps,
    VideoFacts,
)
from restoration_api.request import AudioMode, Codec, Container, Precision
from restoration_runner.plan import make_scenes, make_segments

COLOR = ColorFacts(
    matrix="bt709", primaries="bt709", transfer="bt709", range=ColorRange.LIMITED, chroma_location="left"
)


def make_plan(*, frames: int = 40, cuts: tuple[tuple[int, float], ...] = ((30, 0.5),), **changes: Any) -> Plan:
    grid = Grid(
        window_latents=3, overlap_latents=1, windows_per_segment=2, encoder_warmup_latents=2, decoder_warmup_latents=2
    )
    scenes = make_scenes(frames, cuts)
    plan = Plan(
        cache_key="a" * 64,
        request_key="b" * 64,
        engine_version="c" * 64,
        engine={"algorithm": "test/1"},
        input=InputIdentity(uri="s3://media/in.mp4", size_bytes=10, etag="e"),
        video=VideoFacts(
            container="mp4",
            stream_index=0,
            codec="h264",
            pixel_format="yuv420p",
            bit_depth=8,
            width=64,
            height=64,
            color=COLOR,
        ),
        timestamps=Timestamps.of(list(range(frames)), time_base=Fraction(1, 25), last_duration=1),
        cut_detector="test",
        scenes=scenes,
        restoration=resolve("seedvr2-nano", Choices()).restoration,
        model="seedvr2-nano",
        model_digest="sha256:d",
        precision=Precision.FP32,
        width=256,
        height=256,
        container=Container.MP4,
        audio=AudioMode.AUTO,
        color=COLOR,
        encoder=EncoderSettings(codec=Codec.HEVC, pixel_format="yuv420p10le", gop_frames=50, parameters=""),
        grid=grid,
        segments=make_segments(scenes, grid),
    )
    return plan.model_copy(update=changes)
