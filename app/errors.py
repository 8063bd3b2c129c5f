"""The application's errors, with messages for the client. They are independent of HTTP: `app/routers/problems.py` maps
each to a status.

FourwaysError
├── NotFound               There is no such row.
├── Conflict               Another row already has this name.
├── PreconditionFailed     The row is no longer in the version that the client named.
├── OutOfStock             There is less stock than requested.
├── TooMuch                More pieces than can be counted.
├── KeyReused              An idempotency key that was used for another change.
├── Uncountable            Views that Postgres refuses, and will refuse again.
├── Unrepresentable        A value that the database has no way to represent.
├── UnreadableRow          A row in Postgres that this application cannot represent.
└── DatabaseUnavailable    Postgres does not answer, or not in time. Nothing was changed.
    ├── TookTooLong        A lock, a statement or a call took too long.
    ├── StandbyMet         A standby answered: its data may be old.
    ├── OtherHistory       Postgres has another history than the trusted one.
    └── OutcomeUnknown     The answer to a COMMIT was lost: the change may have been made.

The cache has its own tree, in `app/caching/errors.py`.
"""


class FourwaysError(Exception):
    """An error whose message is a sentence for the client, with the value that it concerns."""


class NotFound(FourwaysError):
    """There is no such row."""


class Conflict(FourwaysError):
    """Another row already has this name."""


class PreconditionFailed(FourwaysError):
    """The row is no longer in the version that the client named."""


class Uncountable(FourwaysError):
    """Views that Postgres refuses, and will refuse again."""


class Unrepresentable(FourwaysError, ValueError):
    """A value that the database has no way to represent. It is a ValueError, so a load of many keys is repeated by
    halves, and only its own key fails."""


class UnreadableRow(FourwaysError):
    """A row in Postgres that this application cannot represent. The error affects this row only."""

    def __init__(self, what: str, key: int | str, column: str) -> None:
        super().__init__(f"{what} {key} cannot be read: its {column} is no time of the years 1 to 9999.")
        self.key = key


class DatabaseUnavailable(FourwaysError):
    """Postgres does not answer, or not in time."""


class TookTooLong(DatabaseUnavailable):
    """A lock, a statement or a call took too long: perhaps Postgres is slow, or the work is too much."""


class StandbyMet(DatabaseUnavailable):
    """The connection leads to a standby, which may lack committed changes. Its answers are discarded."""


class OtherHistory(DatabaseUnavailable):
    """Postgres is at another timeline, or in another epoch, than the one that this process trusts."""


class OutcomeUnknown(DatabaseUnavailable):
    """The answer to a COMMIT was lost: the change may or may not have been made."""


class OutOfStock(FourwaysError):
    """There is less stock than requested."""

    def __init__(self, sku: str, available: int, requested: int) -> None:
        super().__init__(f"Only {available} of {sku} are left, and {requested} were asked for.")
        self.available, self.requested = available, requested


class TooMuch(FourwaysError):
    """More pieces than can be counted."""


class KeyReused(FourwaysError):
    """An idempotency key that was used for another change."""
