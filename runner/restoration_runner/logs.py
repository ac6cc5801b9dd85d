"""Logs: JSON lines on standard error in a pod, readable ones in a terminal. A traceback is for the debug level only."""

import logging
import os
import sys

import structlog


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
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
