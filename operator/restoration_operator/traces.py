"""The operator's part of a restoration's trace: the whole, the waiting, each execution; and what its runner is told.

Spans are made when they are over, from the status that was stored: there is nothing to remember in between, and a
restart in the middle of a restoration changes nothing. Of a process that dies between storing a status and sending
its spans those spans are missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from restoration_api import traces
from restoration_api.resources import ConditionType, VideoRestoration, VideoRestorationStatus
from restoration_api.resources.status import Attempt
from restoration_operator.views import EXECUTION_LABEL, RUNNER_CONTAINER

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

HANDED_ON: Final = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_TRACES_EXPORTER",
)
"""What runners are told of the operator's own settings. Not the headers: they may hold a token, which would be readable
in every Job; a profile's `pod.specPatch` can set them from a Secret."""

Json = dict[str, Any]


class Ids:
    """Gives the next span the numbers that follow from the restoration."""

    def __init__(self) -> None:
        self.trace, self.span = 1, 1

    def generate_trace_id(self) -> int:
        return self.trace

    def generate_span_id(self) -> int:
        return self.span

    def is_trace_id_random(self) -> bool:
        """They are hashes, as good as random for a sampler."""
        return True


class Traces:
    """Does nothing unless the environment names a collector."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._ids = Ids()
        self._sender: TracerProvider | None = traces.provider(
            environment, service="video-restoration-operator", ids=self._ids
        )
        self._handed_on = [{"name": name, "value": environment[name]} for name in HANDED_ON if environment.get(name)]

    def equip(self, restoration: VideoRestoration, manifest: Json) -> Json:
        """A Job's manifest whose runner adds to the trace; what a profile says of these variables wins."""
        if self._sender is None:
            return manifest
        uid, execution = restoration.metadata.uid, int(manifest["metadata"]["labels"][EXECUTION_LABEL])
        sampled = self._sampled(uid)
        added = [
            {"name": traces.TRACEPARENT, "value": traces.traceparent(uid, execution, sampled=sampled)},
            *self._handed_on,
        ]
        pod = manifest["spec"]["template"]["spec"]
        containers = [
            {**one, "env": [*added, *one.get("env", ())]} if one["name"] == RUNNER_CONTAINER else one
            for one in pod["containers"]
        ]
        template = {**manifest["spec"]["template"], "spec": {**pod, "containers": containers}}
        return {**manifest, "spec": {**manifest["spec"], "template": template}}

    def recorded(self, restoration: VideoRestoration, after: VideoRestorationStatus) -> None:
        """Send what a stored status says is over and the one before did not."""
        if self._sender is None:
            return
        before = restoration.status
        over = {one.execution for one in before.attempt_history if one.end_time}
        for attempt in after.attempt_history:
            if attempt.end_time and attempt.execution not in over:
                self._execution(restoration, attempt)
        finished = ConditionType.FINISHED
        if after.condition(finished) == "True" and before.condition(finished) != "True":
            self._whole(restoration, after)

    async def close(self) -> None:
        """Send what is left."""
        if self._sender is not None:
            await asyncio.to_thread(traces.send_the_rest, self._sender)

    def _execution(self, restoration: VideoRestoration, attempt: Attempt) -> None:
        uid = restoration.metadata.uid
        begun, ended = attempt.start_time or attempt.end_time, attempt.end_time
        if begun is None or ended is None:
            return
        facts = {
            "vr.execution": attempt.execution,
            "vr.reason": attempt.reason,
            "k8s.job.name": attempt.job_name,
            "k8s.pod.name": attempt.pod_name,
            "k8s.node.name": attempt.node_name,
            "process.exit.code": attempt.exit_code,
            "vr.gpu": attempt.gpu,
        }
        failed = None if attempt.reason in ("Completed", "CacheHit", "Planned") else attempt.reason
        self._send(
            f"execution {attempt.execution}",
            uid,
            span=traces.execution_span_id(uid, attempt.execution),
            times=(begun, ended),
            facts=facts,
            failed=failed,
        )

    def _whole(self, restoration: VideoRestoration, status: VideoRestorationStatus) -> None:
        meta = restoration.metadata
        if meta.creation_timestamp is None or status.completion_time is None:
            return
        ended = status.completion_time
        if status.start_time is not None:
            waited = (meta.creation_timestamp, status.start_time)
            span = traces.execution_span_id(meta.uid, 0)
            self._send("wait", meta.uid, span=span, times=waited, facts={}, failed=None)
        reason = next((one.reason for one in status.conditions if one.type == ConditionType.FINISHED), None)
        facts = {
            "k8s.namespace.name": meta.namespace,
            "vr.name": meta.name,
            "vr.uid": meta.uid,
            "vr.reason": reason,
            "vr.executions": status.attempts.executions,
        }
        failed = reason if status.condition(ConditionType.SUCCEEDED) != "True" else None
        span = traces.restoration_span_id(meta.uid)
        self._send(
            "VideoRestoration", meta.uid, span=span, times=(meta.creation_timestamp, ended), facts=facts, failed=failed
        )

    def _send(
        self,
        name: str,
        uid: str,
        *,
        span: int,
        times: tuple[datetime, datetime],
        facts: Mapping[str, str | int | None],
        failed: str | None,
    ) -> None:
        """Begin and end one span, below the restoration's own unless it is that one."""
        from opentelemetry import trace

        assert self._sender is not None
        whole = traces.restoration_span_id(uid)
        above = trace.SpanContext(
            trace.INVALID_TRACE_ID if span == whole else traces.trace_id(uid),
            trace.INVALID_SPAN_ID if span == whole else whole,
            is_remote=False,
            trace_flags=trace.TraceFlags(int(self._sampled(uid))),
        )
        self._ids.trace, self._ids.span = traces.trace_id(uid), span
        begun, ended = (round(moment.timestamp() * 1_000_000_000) for moment in times)
        made = self._sender.get_tracer("restoration_operator").start_span(
            name,
            context=trace.set_span_in_context(trace.NonRecordingSpan(above)),
            attributes={key: value for key, value in facts.items() if value is not None},
            start_time=begun,
        )
        if failed is not None:
            made.set_status(trace.Status(trace.StatusCode.ERROR, failed))
        made.end(max(begun, ended))

    def _sampled(self, uid: str) -> bool:
        """What the SDK's sampler says of the whole trace (`OTEL_TRACES_SAMPLER`): all its spans, or none."""
        assert self._sender is not None
        result = self._sender.sampler.should_sample(None, traces.trace_id(uid), "VideoRestoration")
        return bool(result.decision.is_sampled())  # type: ignore[no-untyped-call]
