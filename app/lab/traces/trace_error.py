"""What is wrong with a trace."""

from app.errors import FourwaysError


class TraceError(FourwaysError):
    """A file that is no trace, or is broken: a sentence that names the line."""
