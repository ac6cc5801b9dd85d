"""`kubectl apply` to a restored object: images, operator, Job, pod, network, storage, all real, judged by ffprobe."""

import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from restoration_api.outcome import StreamAction, Verdict
from tests.builders import clips, ffprobe
from tests.builders.clips import Clip, Sound
from tests.e2e.lab import Lab

SHORT_SEGMENTS = {"execution.segmentFrames": 20}
CUT = Clip(frames=90, width=48, height=32, cuts=(40,), sounds=(Sound(seconds=3.6, language="eng"),))
VARIABLE = Clip(
    frames=24,
    width=48,
    height=32,
    stamps=[0, 10, 15, 40, 41, 60, 90, 100, 130, 150, 151, 190] + [200 + 23 * rank for rank in range(12)],
    time_base=Fraction(1, 600),
    matrix=6,
    primaries=6,
    transfer=6,
)


def assert_is_restored(source: Path, restored: Path, clip: Clip, *, tags: str) -> None:
    """Codec, size, tags, number of frames and every timestamp, as the machine's own ffprobe sees them."""
    video = ffprobe.video(restored)
    assert (video["codec_name"], video["codec_tag_string"], video["profile"]) == ("hevc", "hvc1", "Main 10")
    assert (video["width"], video["height"]) == (4 * clip.width, 4 * clip.height)
    assert [video[key] for key in ("color_space", "color_primaries", "color_transfer")] == [tags] * 3
    assert (video["color_range"], video["pix_fmt"]) == ("tv", "yuv420p10le")
    times = ffprobe.times(restored)
    assert len(times) == clip.frames
    assert times == ffprobe.times(source)


@pytest.mark.timeout(420)
def test_cut_sound_and_short_segments(lab: Lab) -> None:
    source = clips.write(lab.folder / "cut.mp4", CUT)
    lab.apply(
        "cut", source=lab.upload(source), to="restored.mp4", changes={**SHORT_SEGMENTS, "cleanup.segments": "Retain"}
    )
    status = lab.succeed("cut")

    restored = lab.download("restored.mp4")
    assert_is_restored(source, restored, CUT, tags="bt709")
    assert ffprobe.packet_hashes(restored, "a:0") == ffprobe.packet_hashes(source, "a:0")
    [audio] = [stream for stream in ffprobe.streams(restored) if stream["codec_type"] == "audio"]
    assert audio["tags"]["language"] == "eng"

    markers = lab.objects(".json")
    assert sum("/seg/" in key for key in markers) >= 3, markers
    assert status.output is not None and status.output.verification is not None
    assert status.output.verification.verdict is Verdict.PASSED
    assert (status.output.frames, status.output.verification.decoded_frames) == (CUT.frames, CUT.frames)
    assert [stream.action for stream in status.output.streams or ()] == [StreamAction.RESTORED, StreamAction.COPIED]
    assert status.output.uri == lab.uri("restored.mp4")
    assert status.progress is not None and status.progress.percent == 100
    assert status.timings is not None and (status.timings.inference_milliseconds or 0) > 0
    assert status.attempts.executions == 1


@pytest.mark.timeout(420)
def test_variable_frame_rate_keeps_every_timestamp(lab: Lab) -> None:
    source = clips.write(lab.folder / "variable.mp4", VARIABLE)
    lab.apply("variable", source=lab.upload(source), to="restored.mp4", changes=SHORT_SEGMENTS)
    lab.succeed("variable")
    assert_is_restored(source, lab.download("restored.mp4"), VARIABLE, tags="smpte170m")


@pytest.mark.timeout(600)
def test_the_same_request_again_is_a_cache_hit(lab: Lab) -> None:
    source = lab.upload(clips.write(lab.folder / "short.mp4", Clip(frames=9)))
    lab.apply("once", source=source, to="restored.mp4")
    once = lab.succeed("once")
    applied = time.monotonic()
    lab.apply("again", source=source, to="restored.mp4")
    again = lab.succeed("again")
    # Printed, not asserted: a figure of the machine (benchmarks/RESULTS.md).
    print(f"\ncache hit {time.monotonic() - applied:.1f} s after apply; {again.timings}")
    assert (once.cache_hit, again.cache_hit) == (False, True)
    assert jobs_of(lab, "again") == ["e1-plan"]
    assert jobs_of(lab, "once") == ["e1-plan", "e1-run"]
    assert (once.attempts.executions, again.attempts.executions) == (1, 1)
    assert once.output is not None and again.output is not None
    assert once.output.etag == again.output.etag
    assert once.cache_key == again.cache_key

    lab.apply("anew", source=source, to="restored.mp4", changes={"cache": "Bypass"})
    anew = lab.succeed("anew")
    assert (anew.cache_hit, jobs_of(lab, "anew")) == (False, ["e1-plan", "e1-run"])
    assert anew.timings is not None and (anew.timings.inference_milliseconds or 0) > 0


def jobs_of(lab: Lab, name: str) -> list[str]:
    """Execution and role of all Jobs of a restoration."""
    found = lab.kubectl.get("vr", name)
    assert found is not None
    jobs = lab.kubectl.list("jobs", selector=f"videorestoration.dev/uid={found['metadata']['uid']}")
    return sorted("-".join(job["metadata"]["name"].rsplit("-", 2)[1:]) for job in jobs)


def broken(lab: Lab) -> str:
    path = clips.write(lab.folder / "broken.mp4", Clip())
    path.write_bytes(path.read_bytes()[:200] + b"\0" * 4000)
    return lab.upload(path)


def text(lab: Lab) -> str:
    path = lab.folder / "notes.mp4"
    path.write_text("This is no video.\n" * 50)
    return lab.upload(path)


def missing(lab: Lab) -> str:
    return lab.uri("nowhere.mp4")


def elsewhere(lab: Lab) -> str:
    return "s3://no-such-bucket/in.mp4"


REFUSED: dict[str, tuple[Callable[[Lab], str], str, str]] = {
    "broken-video": (broken, "InvalidInput", "broken.mp4"),
    "no-video": (text, "InvalidInput", "notes.mp4"),
    "no-object": (missing, "InputNotFound", "nowhere.mp4"),
    "no-bucket": (elsewhere, "InputNotFound", "no-such-bucket"),
}


@pytest.mark.timeout(420)
def test_what_cannot_be_restored_fails_with_its_reason(lab: Lab) -> None:
    for name, (source, _, _) in REFUSED.items():
        lab.apply(name, source=source(lab), to=f"{name}/restored.mp4")
    for name, (_, reason, named) in REFUSED.items():
        found, message = lab.fail(name)
        assert (name, found) == (name, reason)
        assert named in message
        # One execution, no second try can help; and nothing that restores was ever there to wait for a GPU.
        assert jobs_of(lab, name) == ["e1-plan"]
    assert not lab.objects("restored.mp4")
