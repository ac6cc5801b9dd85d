"""The one look at the whole input: what it is, whether it is served, and the plan that follows from it."""

from pathlib import Path

from restoration_api.ledger import Plan
from restoration_runner.plan import Found, make_plan, plan_output_size
from restoration_runner.task import Task
from restoration_runner.video import colorimetry, rules, streams, write
from restoration_runner.video.probe import probe
from restoration_runner.video.scan import scan
from restoration_runner.video.supported import check_supported


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
    color = colorimetry.output_color(facts.color)
    assert request.output.crf is not None and request.output.preset is not None, "checked by check_request"
    return make_plan(
        request,
        keys=task.keys,
        input_=task.input.identity,
        found=Found(video=facts, timestamps=seen.timestamps, cuts=tuple((cut.frame, cut.score) for cut in seen.cuts)),
        model_digest=task.model.digest,
        capabilities=task.model.capabilities,
        cut_detector=rules.CUTS,
        color=color,
        encoder=write.encoder_settings(
            crf=request.output.crf, preset=request.output.preset, frame_rate=facts.frame_rate, color=color
        ),
    )
