"""The format of log lines in every process: time, level, logger, and the id of the request that the line belongs to.

    text    2026-11-29T08:46:18.123Z WARNING app.routers.problems: [8f14e45f] GET '/users/1': Redis does not answer
    json    {"time": "…", "level": "WARNING", "logger": "…", "request_id": "8f14e45f", "message": "…"}

What can go wrong: workers are new processes and do not inherit their supervisor's logging configuration. So `fourways
serve` passes them `lines`. uvicorn's command line configures only its own loggers; others' lines would have no prefix.
"""

import json
import logging
import time
from logging.config import dictConfig
from typing import Any

from app.request_id import request_id
from app.settings import Settings

ACCESS = "app.access"
"""The logger of the access log."""


class WithRequest(logging.Filter):
    """Gives each record the id of the current request."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id()
        return True


class Line(logging.Formatter):
    """Formats a line, with its time in UTC so that logs of several machines can be compared."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(request)s%(message)s")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        known: str | None = getattr(record, "request_id", None)
        record.request = "" if known is None else f"[{known}] "
        return super().format(record)


class JsonLine(Line):
    """Formats a line as one JSON object, whatever is in the message. What is not known is left out."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "request_id": getattr(record, "request_id", None),
            "message": record.getMessage(),
            **getattr(record, "access", {}),
            "exception": self.formatException(record.exc_info) if record.exc_info else record.exc_text,
        }
        return json.dumps({name: value for name, value in fields.items() if value is not None})


FORMATS: dict[str, type[Line]] = {"text": Line, "json": JsonLine}


def lines(settings: Settings) -> dict[str, Any]:
    """Returns the configuration for `logging.config.dictConfig`."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request": {"()": WithRequest}},
        "formatters": {"line": {"()": FORMATS[settings.log_format]}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["request"]}},
        "root": {"level": settings.log_level.upper(), "handlers": ["stderr"]},
        # Whoever wants the access log wants it at every level.
        "loggers": {ACCESS: {"level": "INFO"}} if settings.access_log else {},
    }


def speak_as_one(settings: Settings) -> None:
    """Gives all loggers the same format, if uvicorn has configured its own loggers and nobody the root logger."""
    theirs = [*logging.getLogger("uvicorn").handlers, *logging.getLogger("uvicorn.access").handlers]
    if theirs and not logging.getLogger().handlers:
        dictConfig(lines(settings))
        for handler in theirs:
            handler.setFormatter(FORMATS[settings.log_format]())
            handler.addFilter(WithRequest())
