"""What can go wrong, in words for the client. None of it knows HTTP: `app/routers/problems.py` maps each to a status.

FourwaysError
├── NotFound               There is no such row.
├── Conflict               Another row already has this name.
├── PreconditionFailed     The row is no longer in the version that the client named.
└── DatabaseUnavailable    Postgres does not answer, or not in time.

The cache has its own tree, in `app/caching/errors.py`.
"""


class FourwaysError(Exception):
    """A sentence for the client, with the value that it is about."""


class NotFound(FourwaysError):
    """There is no such row."""


class Conflict(FourwaysError):
    """Another row already has this name."""


class PreconditionFailed(FourwaysError):
    """The row is no longer in the version that the client named."""


class DatabaseUnavailable(FourwaysError):
    """Postgres does not answer, or not in time."""
