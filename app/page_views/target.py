"""The target of page views: adapts `PageViewStore` to the interface that write-behind expects.

    load       reads the views of pages, and which batches the ledger has
    flush      counts batches
    salvage    counts what can be counted of an entry, and keeps the rest as dead letters

What can go wrong: see `app.caching.write_behind.target`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from app.availability import misfit, said
from app.caching import Batch, NotDone, Pending, Refused, Standing, Target, TargetUnavailable, made_at
from app.errors import DatabaseUnavailable, TookTooLong, Uncountable, Unrepresentable
from app.page_views.models import Counted
from app.page_views.store import PageViewStore


def target(read: PageViewStore, flushed: PageViewStore) -> Target:
    """Creates the target. Totals are read from one store and batches go to another, so that neither waits for the
    other's connections."""

    async def load(pages: Sequence[str], batches: Sequence[str]) -> Standing:
        try:
            with _understood():
                return Standing(*await read.standing(pages, [(batch, made_at(batch)) for batch in batches]))
        except DBAPIError as error:
            if (why := misfit(error)) is None:
                raise
            raise Unrepresentable(f"Postgres says: {why}.") from error

    async def flush(batches: Sequence[Batch]) -> int:
        with _understood(), _not_done():
            return await flushed.apply([_counted(batch) for batch in batches])

    async def salvage(entry: Pending, reason: str, deliveries: int) -> tuple[int, int]:
        with _understood(), _not_done():
            if entry.batch is None:
                await flushed.keep_unreadable(entry.place, entry.raw, reason, deliveries)
                return 0, 0
            return await flushed.salvage(_counted(entry.batch), deliveries)

    return Target(load, flush, salvage)


def _counted(batch: Batch) -> Counted:
    return Counted(batch.id, batch.made_at, batch.amounts)


@contextmanager
def _understood() -> Iterator[None]:
    """Translates the database's errors into those of `app.caching`."""
    try:
        yield
    except DatabaseUnavailable as error:
        # A COMMIT may take too long, too. The ledger will show whether it counted.
        slow = isinstance(error, TookTooLong) or isinstance(error.__cause__, TookTooLong)
        raise (NotDone if slow else TargetUnavailable)(str(error)) from error
    except Uncountable as error:
        raise Refused(str(error)) from error


@contextmanager
def _not_done() -> Iterator[None]:
    """Turns errors that concern neither the database's state nor the values into NotDone: one entry may cause them."""
    try:
        yield
    except DBAPIError as error:
        raise NotDone(f"Postgres says: {said(error)}.") from error
