"""The one look at the whole input: what it is, whether it is served, and the plan that follows from it."""

from pathlib import Path

from restoration_api.ledger import Plan, Timestamps, VideoFacts
from restoration_runner.errors import RestorationError
from restoration_runner.plan import Found, make_plan, plan_output_size
from restoration_runner.task import Task
from restoration_runner.video import colorimetry, rules, streams, write
from restoration_runner.video.probe import probe
from restoration_runner.video.scan import MOST_FRAMES, scan
from restoration_runner.video.source import MOST_PIXELS
from restoration_runner.video.supported import check_supported

MOST_TICKS = 1 << 62
"""Of a time: what containers hold."""
Cuts = tuple[tuple[int, float], ...]
"""(first frame of the new scene, score)."""


def new_plan(task: Task, source: Path) -> Plan:
    """Probe and decode the input once, and plan the work.

    Raises:
        RestorationError: `InvalidInput`, `InvalidParameters`.
        InterruptedByRequestError: told to stop.
    """
    request, name = task.request, task.input.identity.uri
    facts = probe(source, name=name)
    check_supported(facts, name=name)
    # What these two refuse, they refuse before the whole file is decoded.
    streams.decide(facts, audio=request.output.audio)
    plan_output_size(request, width=facts.width, height=facts.height)
    seen = scan(source, facts, name=name, on_frame=lambda _: task.stop.check())
    check_supported(facts, seen, name=name)
    return _follows(task, facts, seen.timestamps, tuple((cut.frame, cut.score) for cut in seen.cuts))


def _follows(task: Task, facts: VideoFacts, timestamps: Timestamps, cuts: Cuts) -> Plan:
    """What is to be done with a video of which this is known."""
    request, color = task.request, colorimetry.output_color(facts.color)
    width, height = plan_output_size(request, width=facts.width, height=facts.height)
    assert request.output.crf is not None and request.output.preset is not None, "checked by check_request"
    return make_plan(
        request,
        keys=task.keys,
        input_=task.input.identity,
        found=Found(video=facts, timestamps=timestamps, cuts=cuts),
        model_digest=task.model.digest,
        capabilities=task.model.capabilities,
        cut_detector=rules.CUTS,
        color=color,
        encoder=write.encoder_settings(
            crf=request.output.crf,
            preset=request.output.preset,
            width=width,
            height=height,
            frame_rate=facts.frame_rate,
            color=color,
        ),
    )


def believable(task: Task, plan: Plan) -> bool:
    """Whether a stored plan follows from the facts in it, as ours does.

    Whoever may write to the output's bucket may write a plan. Of its facts none can do more than spoil the output,
    which they may do anyway; but it also names sizes, counts and the encoder's option string, which opens files. So
    none of these is taken from it: they are made again from the facts and compared.
    """
    if not _bounded(plan):
        return False
    try:
        check_supported(plan.video, name=task.input.identity.uri)
        cuts = tuple((scene.first_frame, scene.score or 0.0) for scene in plan.scenes[1:])
        ours = _follows(task, plan.video, plan.timestamps, cuts)
    except (RestorationError, ValueError, ArithmeticError):
        return False
    # The same bytes under another name, or weights that another profile calls otherwise, are the same work.
    input_ = plan.input.model_copy(update={"uri": ours.input.uri})
    return ours == plan.model_copy(update={"input": input_, "model": ours.model})


def _bounded(plan: Plan) -> bool:
    """Before anything is counted or made: numbers that a scan could have found."""
    times, video = plan.timestamps, plan.video
    if len(times.deltas) > MOST_FRAMES or max(abs(times.first), times.last_duration) > MOST_TICKS:
        return False
    if not all(0 < delta < MOST_TICKS and 0 < count <= MOST_FRAMES for delta, count in times.deltas):
        return False
    return plan.frames <= MOST_FRAMES and video.width > 0 and 0 < video.width * video.height <= MOST_PIXELS
