"""The runner's part of a restoration's trace: the role, its stages, and of each segment computing, encoding, storing;
joining and verifying.

The operator's span is above (`TRACEPARENT`). Without a collector (`restoration_api.traces`) every span is `NONE`, which
does nothing. Attributes are numbers and words of our own: no addresses, no names of objects, nothing from a request.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from restoration_api import traces
from restoration_api.outcome import Outcome, Result, Stage
from restoration_runner.errors import RestorationError

if TYPE_CHECKING:
    from opentelemetry.trace import Span as Recorded
    from opentelemetry.trace import Tracer

Facts = Mapping[str, str | int | float | bool]


class Span:
    """A span that records nothing; also the interface of the one that does."""

    def child(self, name: str, *, begun_ns: int | None = None, facts: Facts | None = None) -> Span:
        """Begin a span below this one, now or at a moment before."""
        return self

    def end(self, *, at_ns: int | None = None, failed: str | None = None, facts: Facts | None = None) -> None:
        """End it, now or at a moment before; `failed` is a class of failure."""

    @contextmanager
    def around(self, name: str) -> Iterator[None]:
        """A span below this one, around what is done in it; a failure of a class marks it."""
        span = self.child(name)
        try:
            yield
        except RestorationError as error:
            span.end(failed=error.reason)
            raise
        except BaseException:
            span.end()
            raise
        span.end()


NONE = Span()


def now_ns() -> int:
    """The clock of spans: nanoseconds since 1970."""
    return time.time_ns()


class StageSpans:
    """One span after the other below the role's, as the work enters its stages; only one thread enters them."""

    def __init__(self, role: Span) -> None:
        self.role = role
        self.current = role
        self._entered: Stage | None = None

    def enter(self, stage: Stage) -> None:
        """The stage before is over. A stage that is entered again goes on."""
        if stage is self._entered:
            return
        self._leave()
        self._entered, self.current = stage, self.role.child(stage.value)

    def conclude(self, outcome: Outcome) -> None:
        """The work is over, in the way that it was reported."""
        failed = outcome.reason if outcome.result is Result.FAILED else None
        self._leave(failed)
        facts: Facts = {"vr.reason": str(outcome.reason), "vr.frames_restored": outcome.frames_restored}
        self.role.end(failed=failed, facts=facts)

    def _leave(self, failed: str | None = None) -> None:
        if self._entered is not None:
            self.current.end(failed=failed)
        self._entered, self.current = None, self.role


@contextmanager
def tracing(role: str, environment: Mapping[str, str] = os.environ) -> Iterator[StageSpans]:
    """Record a role, if a collector is named; what is recorded has been sent, or given up, at the end."""
    sender = traces.provider(environment, service="video-restoration-runner")
    if sender is None:
        yield StageSpans(NONE)
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    above = TraceContextTextMapPropagator().extract({"traceparent": environment.get(traces.TRACEPARENT, "")})
    tracer = sender.get_tracer("restoration_runner")
    try:
        yield StageSpans(_Recording(tracer, tracer.start_span(f"runner {role}", context=above)))
    finally:
        traces.send_the_rest(sender)


class _Recording(Span):
    """A span of the SDK."""

    def __init__(self, tracer: Tracer, recorded: Recorded) -> None:
        self._tracer, self._recorded = tracer, recorded

    def child(self, name: str, *, begun_ns: int | None = None, facts: Facts | None = None) -> Span:
        from opentelemetry.trace import set_span_in_context

        context: Any = set_span_in_context(self._recorded)
        return _Recording(
            self._tracer, self._tracer.start_span(name, context=context, start_time=begun_ns, attributes=facts)
        )

    def end(self, *, at_ns: int | None = None, failed: str | None = None, facts: Facts | None = None) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._recorded.set_attributes(facts or {})
        if failed is not None:
            self._recorded.set_status(Status(StatusCode.ERROR, failed))
        self._recorded.end(at_ns)
