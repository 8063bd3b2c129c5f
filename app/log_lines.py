"""How a line of the log begins, in each process: when, how grave, and who says it.

    2026-11-29T08:46:18.123Z WARNING app.connections: 10000 connections are open, and more are not allowed: …

What can go wrong: workers are new processes, which know nothing of what their supervisor has set up. So `fourways
serve` gives them `LINES`. The command line of uvicorn sets up its own lines only, and those of others would be bare.
"""

import logging
import time
from logging.config import dictConfig
from typing import Any


class Line(logging.Formatter):
    """In universal time, as that of another machine is."""

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
    """Where uvicorn has set up its own lines, and nobody those of all: lets all begin alike."""
    theirs = [*logging.getLogger("uvicorn").handlers, *logging.getLogger("uvicorn.access").handlers]
    if theirs and not logging.getLogger().handlers:
        dictConfig(LINES)
        for handler in theirs:
            handler.setFormatter(Line())
