"""The format of log lines in every process: time, level, logger.

    2026-11-29T08:46:18.123Z WARNING app.connections: 10000 connections are open, and more are not allowed: …

What can go wrong: workers are new processes and do not inherit their supervisor's logging configuration. So `fourways
serve` passes them `LINES`. uvicorn's command line configures only its own loggers; others' lines would have no prefix.
"""

import logging
import time
from logging.config import dictConfig
from typing import Any


class Line(logging.Formatter):
    """Formats a line, with its time in UTC so that logs of several machines can be compared."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self.converter = time.gmtime


LINES: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": Line}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "WARNING", "handlers": ["stderr"]},
}
"""For `logging.config.dictConfig`."""


def speak_as_one() -> None:
    """Gives all loggers the same format, if uvicorn has configured its own loggers and nobody the root logger."""
    theirs = [*logging.getLogger("uvicorn").handlers, *logging.getLogger("uvicorn.access").handlers]
    if theirs and not logging.getLogger().handlers:
        dictConfig(LINES)
        for handler in theirs:
            handler.setFormatter(Line())
