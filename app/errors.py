"""What can go wrong, in words for the client. None of it knows HTTP: `app/routers/problems.py` maps each to a status.

FourwaysError
├── NotFound               There is no such row.
├── Conflict               Another row already has this name.
├── PreconditionFailed     The row is no longer in the version that the client named.
├── OutOfStock             There is less than was asked for.
├── TooMuch                More pieces than can be counted.
├── KeyReused              An idempotency key that was used for another change.
├── Uncountable            Views that Postgres refuses, and will refuse again.
├── UnreadableRow          A row that Postgres holds, and this application cannot say.
└── DatabaseUnavailable    Postgres does not answer, or not in time. Nothing was changed.
    ├── TookTooLong        A lock, a statement or a call took longer than it may.
    ├── StandbyMet         A standby was asked: what it knows may be old.
    ├── OtherHistory       Postgres has become another one than the one that is believed.
    └── OutcomeUnknown     The answer to a COMMIT was lost: the change may be made, or not.

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


class Uncountable(FourwaysError):
    """Views that Postgres refuses, and will refuse again."""


class UnreadableRow(FourwaysError):
    """A row that Postgres holds, and this application cannot say. It is the row's own error, and no other's."""

    def __init__(self, what: str, key: int | str, column: str) -> None:
        super().__init__(f"{what} {key} cannot be read: its {column} is no time of the years 1 to 9999.")
        self.key = key


class DatabaseUnavailable(FourwaysError):
    """Postgres does not answer, or not in time."""


class TookTooLong(DatabaseUnavailable):
    """A lock, a statement or a call took longer than it may: perhaps Postgres is slow, or what it was to do is much."""


class StandbyMet(DatabaseUnavailable):
    """The connection leads to a standby, which may lack what was committed. Nothing that it says counts."""


class OtherHistory(DatabaseUnavailable):
    """Postgres is at another timeline than the one that this process believes."""


class OutcomeUnknown(DatabaseUnavailable):
    """The answer to a COMMIT was lost: the change may be made, or not."""


class OutOfStock(FourwaysError):
    """There is less than was asked for."""

    def __init__(self, sku: str, available: int, requested: int) -> None:
        super().__init__(f"Only {available} of {sku} are left, and {requested} were asked for.")
        self.available, self.requested = available, requested


class TooMuch(FourwaysError):
    """More pieces than can be counted."""


class KeyReused(FourwaysError):
    """An idempotency key that was used for another change."""
