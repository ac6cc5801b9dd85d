"""What this runner does not do exactly yet, said before anything is fetched.

A wish that is ignored is worse than one that is refused: the video looks finished and is not what was asked for. Every
row names the field and what to do instead. What depends on the input's content is refused by `video.supported`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from restoration_api.outcome import FailureReason
from restoration_api.request import (
    Codec,
    Container,
    ExecutionMode,
    Request,
)
from restoration_runner.errors import RestorationError

PRESETS = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
    "placebo",
)
"""x265's own names."""
LARGEST_CRF = 51
PIXEL_FORMAT = "yuv420p10le"


@dataclass(frozen=True)
class Refusal:
    """One thing that is not served. `remedy` is what the user can do now."""

    field: str
    applies: Callable[[Request], bool]
    found: Callable[[Request], object]
    remedy: str


REFUSALS: tuple[Refusal, ...] = (
    Refusal(
        "output.container",
        lambda r: r.output.container is not Container.MP4,
        lambda r: r.output.container.value,
        "use MP4",
    ),
    Refusal("output.codec", lambda r: r.output.codec is not Codec.HEVC, lambda r: r.output.codec.value, "use HEVC"),
    Refusal(
        "output.pixelFormat",
        lambda r: r.output.pixel_format not in (None, PIXEL_FORMAT),
        lambda r: r.output.pixel_format,
        f"leave it out or use {PIXEL_FORMAT}",
    ),
    Refusal(
        "output.preset",
        lambda r: r.output.preset not in PRESETS,
        lambda r: r.output.preset,
        f"use one of x265's: {', '.join(PRESETS)}",
    ),
    Refusal(
        "output.crf",
        lambda r: r.output.crf is None or not 0 <= r.output.crf <= LARGEST_CRF,
        lambda r: r.output.crf,
        f"use a number from 0 to {LARGEST_CRF}",
    ),
    Refusal(
        "input.clip",
        lambda r: r.input.clip is not None,
        lambda r: r.input.clip and r.input.clip.to_json(),
        "leave it out and cut the file before it is uploaded",
    ),
    Refusal(
        "input.uri",
        lambda r: r.input.uri.startswith("https:"),
        lambda r: "https://",
        "copy the file into a bucket and name it as s3://bucket/key",
    ),
    Refusal(
        "execution.mode",
        lambda r: r.execution.mode is ExecutionMode.PARALLEL,
        lambda r: r.execution.mode.value,
        "use Auto or Single",
    ),
    Refusal(
        "execution.parallelism",
        lambda r: r.execution.parallelism > 1,
        lambda r: r.execution.parallelism,
        "leave it out or use 1",
    ),
    Refusal("gpu.count", lambda r: r.gpu.count > 1, lambda r: r.gpu.count, "use 1 GPU, or 0 for the CPU"),
)


def check_request(request: Request) -> None:
    """Refuse what would not be done exactly as asked.

    Raises:
        RestorationError: `InvalidParameters`, for the first row that applies.
    """
    for row in REFUSALS:
        if row.applies(request):
            raise RestorationError(
                FailureReason.INVALID_PARAMETERS,
                f"{row.field}: {row.found(request)} is not supported by this version; {row.remedy}",
            )
    if request.input.uri == request.output.uri:
        raise RestorationError(
            FailureReason.INVALID_PARAMETERS,
            f"output.uri: {request.output.uri} is the input itself; name another object",
        )
