"""The contracts' own rules: defaults, hashes, sizes, timestamps."""

from fractions import Fraction

import pytest
from pydantic import ValidationError

from restoration_api.base import canonical_json
from restoration_api.defaults import Choices, resolve
from restoration_api.ledger import InputIdentity, Timestamps, cache_key, request_key, work_prefix
from restoration_api.outcome import (
    EXIT_CODES,
    PERMANENT_EXIT_CODES,
    FailureReason,
    Outcome,
    OutputOutcome,
    Result,
    StreamAction,
    StreamOutcome,
)
from restoration_api.request import (
    Codec,
    ColorCorrection,
    InputRequest,
    ModelRequest,
    OutputRequest,
    Precision,
    Request,
    Target,
)


def make_request(model: str = "seedvr2-nano", chosen: Choices | None = None, **changes: object) -> Request:
    resolved = resolve(model, chosen or Choices())
    request = Request(
        input=InputRequest(uri="s3://media/in.mp4", storage="default"),
        output=OutputRequest(uri="s3://media/out.mp4", storage="default", crf=resolved.crf, preset=resolved.preset),
        restoration=resolved.restoration,
        execution=resolved.execution(),
        model=ModelRequest(name=model, precision=Precision.FP32, path=f"/models/{model}"),
    )
    return request.model_copy(update=changes)


INPUT = InputIdentity(uri="s3://media/in.mp4", size_bytes=10, etag="e1")


@pytest.mark.parametrize(
    ("model", "chosen", "profile", "expected"),
    [
        (
            "seedvr2-nano",
            Choices(),
            None,
            {"target": Target(scale_factor=4), "frames": 21, "overlap": 4, "segment": 60},
        ),
        (
            "seedvr2-3b",
            Choices(),
            None,
            {"target": Target(short_side=1080), "frames": 49, "overlap": 4, "segment": 480},
        ),
        ("x", Choices(chunk_frames=5), None, {"frames": 5, "overlap": 0}),
        ("x", Choices(chunk_frames=9), Choices(chunk_frames=49, overlap_frames=16), {"frames": 9, "overlap": 4}),
        ("x", Choices(), Choices(chunk_frames=49, overlap_frames=16), {"frames": 49, "overlap": 16}),
        ("x", Choices(crf=20), Choices(crf=14), {"crf": 20}),
        ("x", Choices(), Choices(crf=14), {"crf": 14}),
        ("x", Choices(codec=Codec.PRORES), Choices(crf=14), {"crf": None}),
        ("x", Choices(crf=0), Choices(crf=14), {"crf": 0}),
    ],
)
def test_user_wins_over_profile_wins_over_model(
    model: str, chosen: Choices, profile: Choices | None, expected: dict[str, object]
) -> None:
    resolved = resolve(model, chosen, profile)
    actual = {
        "target": resolved.restoration.target,
        "frames": resolved.restoration.chunk.frames,
        "overlap": resolved.restoration.chunk.overlap_frames,
        "segment": resolved.segment_frames,
        "crf": resolved.crf,
    }
    assert actual == {**actual, **expected}
    assert resolved.restoration.seed == 0


@pytest.mark.parametrize("chosen", [Choices(chunk_frames=20), Choices(chunk_frames=9, overlap_frames=8)])
def test_contradictions_are_refused(chosen: Choices) -> None:
    with pytest.raises(ValidationError):
        resolve("seedvr2-nano", chosen)


def test_canonical_json_does_not_tell_one_from_one_point_zero() -> None:
    assert canonical_json({"b": 1.0, "a": [0.5, 2.0]}) == '{"a":[0.5,2],"b":1}'


def key(request: Request, input_: InputIdentity = INPUT) -> str:
    return cache_key(request, input_=input_, model_digest="sha256:m", engine_version="v")


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"output": OutputRequest(uri="s3://media/other.mp4", crf=18, preset="medium")}, True),
        ({"output": OutputRequest(uri="s3://media/out.mp4", crf=19, preset="medium")}, False),
        ({"restoration": resolve("seedvr2-nano", Choices(strength=1.0)).restoration}, True),
        ({"restoration": resolve("seedvr2-nano", Choices(strength=0.9)).restoration}, False),
        ({"restoration": resolve("seedvr2-nano", Choices(color_correction=ColorCorrection.NONE)).restoration}, False),
        ({"cache": "Bypass"}, True),
    ],
)
def test_cache_key_changes_only_with_the_content(change: dict[str, object], same: bool) -> None:
    assert (key(make_request()) == key(make_request(**change))) is same


def test_the_same_bytes_under_another_name_are_the_same_work() -> None:
    renamed = INPUT.model_copy(update={"uri": "s3://media/copy.mp4"})
    changed = INPUT.model_copy(update={"etag": "e2"})
    assert key(make_request(), renamed) == key(make_request())
    assert key(make_request(), changed) != key(make_request())
    assert request_key(make_request(), input_=INPUT) != key(make_request())


@pytest.mark.parametrize(
    ("output_key", "folder"), [("a/b/out.mp4", "a/b/.vr/"), ("out.mp4", ".vr/"), ("a b/ö.mp4", "a b/.vr/")]
)
def test_two_outputs_never_share_a_work_prefix(output_key: str, folder: str) -> None:
    prefix = work_prefix(output_key, "0" * 64)
    assert prefix.startswith(f"{folder}{'0' * 16}-")
    assert prefix.endswith("/")
    assert prefix != work_prefix(output_key + "x", "0" * 64)


@pytest.mark.parametrize(
    "pts", [[0], [5], [0, 1001, 2002, 3003], [0, 1, 4, 9, 16], [*list(range(0, 3000, 3)), 3001, 3007]]
)
def test_timestamps_survive_coding(pts: list[int]) -> None:
    coded = Timestamps.of(pts, time_base=Fraction(1, 24000), last_duration=1001)
    assert list(coded.pts()) == pts
    assert coded.frames == len(pts)
    assert coded.time_base == "1/24000"


def test_a_termination_message_fits_whatever_it_holds() -> None:
    streams = tuple(
        StreamOutcome(index=i, type="subtitle", action=StreamAction.DROPPED, detail="ü" * 256) for i in range(64)
    )
    outcome = Outcome(
        result=Result.SUCCEEDED,
        reason="Completed",
        message="é" * 1024,
        output=OutputOutcome(uri="s3://" + "k" * 2000, streams=streams),
    )
    message = outcome.termination_message()
    assert len(message.encode()) <= 4096
    assert Outcome.from_json(message).reason == "Completed"


def test_exit_codes_are_distinct_and_below_the_systems() -> None:
    assert len(EXIT_CODES) == 12
    assert all(10 <= code < 64 for code in EXIT_CODES)
    assert PERMANENT_EXIT_CODES == (10, 11, 12, 13, 14, 15, 16, 17)
    assert EXIT_CODES[12] is FailureReason.INPUT_NOT_FOUND
