"""Logs: JSON lines on standard error in a pod, readable ones in a terminal. A traceback is for the debug level only.

Everything passes through `secrets.cleaned`, whoever wrote it: lines of libraries, warnings, and the traceback of an
error that nobody caught.
"""

import logging
import os
import sys
import threading
from types import TracebackType
from typing import Any

import structlog

from restoration_runner import secrets
from restoration_runner.faults import unexpected

log = structlog.get_logger()


def configure(*, json: bool, default_level: str = "info") -> None:
    """Set up structlog; `VR_LOG_LEVEL` (`debug`, `info`, `warning`) decides what is written."""
    name = os.environ.get("VR_LOG_LEVEL", default_level).upper()
    level = logging.getLevelNamesMapping().get(name, logging.INFO)
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _clean,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.captureWarnings(True)
    logging.getLogger().handlers = [_Forward(level=logging.WARNING)]
    sys.excepthook = _uncaught
    threading.excepthook = lambda thrown: _uncaught(thrown.exc_type, thrown.exc_value, thrown.exc_traceback)


def _clean(logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {key: secrets.cleaned_values(value) for key, value in event.items()}


class _Forward(logging.Handler):
    """What libraries log with the standard library: urllib3 quotes whole URLs when it tries again."""

    def emit(self, record: logging.LogRecord) -> None:
        log.warning(record.getMessage(), library=record.name)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Instead of Python's own, which would write the traceback as it is."""
    if not issubclass(kind, KeyboardInterrupt):
        log.critical(unexpected(error or kind()))
        log.debug("traceback", exc_info=(kind, error, trace))
