"""What is not done exactly is refused, each with its field and a remedy: a row for every refusal."""

import pytest
from tests.builders.requests import make_request

from restoration_api.outcome import FailureReason
from restoration_api.request import (
    Clip,
    Codec,
    ColorCorrection,
    Container,
    ExecutionMode,
    GpuRequest,
    InputRequest,
    ModelRequest,
    OutputRequest,
    Precision,
    Request,
    ResolvedExecution,
)
from restoration_runner.accept import REFUSALS, check_request
from restoration_runner.errors import RestorationError


def output(**changes: object) -> Request:
    base = make_request()
    return base.model_copy(update={"output": base.output.model_copy(update=changes)})


def restoration(**changes: object) -> Request:
    base = make_request()
    return base.model_copy(update={"restoration": base.restoration.model_copy(update=changes)})


ROWS: list[tuple[str, Request]] = [
    ("output.container", output(container=Container.MKV)),
    ("output.container", output(container=Container.MOV)),
    ("output.codec", output(codec=Codec.H264)),
    ("output.codec", output(codec=Codec.AV1)),
    ("output.codec", output(codec=Codec.PRORES, crf=None, preset=None)),
    ("output.codec", output(codec=Codec.FFV1, crf=None, preset=None)),
    ("output.pixelFormat", output(pixel_format="yuv444p10le")),
    ("output.preset", output(preset="6")),
    ("output.preset", output(preset=None)),
    ("output.crf", output(crf=52)),
    ("output.crf", output(crf=None)),
    ("input.clip", make_request(input=InputRequest(uri="s3://a/b", clip=Clip(start_milliseconds=1)))),
    ("input.uri", make_request(input=InputRequest(uri="https://example.com/a.mp4"))),
    (
        "execution.mode",
        make_request(execution=ResolvedExecution(mode=ExecutionMode.PARALLEL, segment_frames=60)),
    ),
    ("execution.parallelism", make_request(execution=ResolvedExecution(parallelism=2, segment_frames=60))),
    ("gpu.count", make_request(gpu=GpuRequest(count=2))),
    ("output.uri", make_request(output=OutputRequest(uri="s3://media/in.mp4", crf=18, preset="medium"))),
]


@pytest.mark.parametrize(("field", "request_"), ROWS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_wish_that_is_not_served_is_refused_with_field_and_remedy(field: str, request_: Request) -> None:
    with pytest.raises(RestorationError) as caught:
        check_request(request_)
    assert caught.value.reason is FailureReason.INVALID_PARAMETERS
    assert caught.value.exit_code == 11
    assert caught.value.message.startswith(f"{field}: ")
    assert "; " in caught.value.message


def test_every_refusal_has_a_row_here() -> None:
    assert {row.field for row in REFUSALS} <= {field for field, _ in ROWS}


@pytest.mark.parametrize(
    "request_",
    [
        make_request(),
        make_request(precision=Precision.BF16),
        make_request(precision=Precision.FP16),
        make_request(gpu=GpuRequest(count=0)),
        output(pixel_format="yuv420p10le", crf=0, preset="placebo"),
        *(restoration(color_correction=correction) for correction in ColorCorrection),
        restoration(strength=0.5, denoise_strength=0.1),
        make_request(execution=ResolvedExecution(mode=ExecutionMode.SINGLE, segment_frames=1)),
        make_request(model=ModelRequest(name="any", precision=Precision.FP32, path="/models/any")),
    ],
)
def test_what_is_served_passes(request_: Request) -> None:
    check_request(request_)
