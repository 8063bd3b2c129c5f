"""The target of page views: what write-behind is told of Postgres, in the words of `app.caching`.

    load       the views of pages, and which batches the ledger has
    flush      count batches
    salvage    count what can be counted of an entry, and keep the rest as dead letters

What can go wrong: what `app.caching.write_behind.target` says.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from app.availability import said
from app.caching import Batch, NotDone, Pending, Refused, Standing, Target, TargetUnavailable, made_at
from app.errors import DatabaseUnavailable, TookTooLong, Uncountable
from app.page_views.models import Counted
from app.page_views.store import PageViewStore


def target(read: PageViewStore, flushed: PageViewStore) -> Target:
    """Totals are read from one store, and batches go to another one, so that neither waits for the other's
    connections."""

    async def load(pages: Sequence[str], batches: Sequence[str]) -> Standing:
        with _understood():
            return Standing(*await read.standing(pages, [(batch, made_at(batch)) for batch in batches]))

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
    """Says in the words of `app.caching` what the database has said."""
    try:
        yield
    except DatabaseUnavailable as error:
        # A COMMIT may take too long, too: whether it has counted, the ledger will show.
        slow = isinstance(error, TookTooLong) or isinstance(error.__cause__, TookTooLong)
        raise (NotDone if slow else TargetUnavailable)(str(error)) from error
    except Uncountable as error:
        raise Refused(str(error)) from error


@contextmanager
def _not_done() -> Iterator[None]:
    """Of an error that speaks neither of the database's state nor of the values: perhaps one entry is to blame."""
    try:
        yield
    except DBAPIError as error:
        raise NotDone(f"Postgres says: {said(error)}.") from error
