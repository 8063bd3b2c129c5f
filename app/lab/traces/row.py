"""What a reader finds in one line of a trace."""

from app.lab.traces.operation import Kind

Row = tuple[Kind, str, float | None]
"""The kind of operation, its key, and its time in seconds since any moment that the trace chose. A tuple, because there
are millions."""

LONGEST_KEY = 1_024
"""Bytes of a key in UTF-8. Redis allows more, but an index of Postgres does not allow much more."""
