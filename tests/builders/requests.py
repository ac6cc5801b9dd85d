"""Requests for tests of pure functions: valid as they are, one thing changed at a time."""

from typing import Any

from restoration_api.defaults import Choices, resolve
from restoration_api.request import InputRequest, ModelRequest, OutputRequest, Precision, Request

MODEL = "seedvr2-nano"


def make_request(*, choices: Choices | None = None, precision: Precision = Precision.FP32, **changes: Any) -> Request:
    """`changes` replace whole parts of the request."""
    resolved = resolve(MODEL, choices or Choices())
    request = Request(
        input=InputRequest(uri="s3://media/in.mp4"),
        output=OutputRequest(uri="s3://media/out.mp4", crf=resolved.crf, preset=resolved.preset),
        restoration=resolved.restoration,
        execution=resolved.execution(),
        model=ModelRequest(name=MODEL, precision=precision, path=f"/models/{MODEL}"),
    )
    return request.model_copy(update=changes)
