"""Stock in Postgres: SQL only. A method is one transaction, committed when it returns.

Every change takes the advisory lock of its SKU with its first statement. Then the change and the cache's `revoke` run
concurrently, and both must finish before COMMIT.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Boolean, ColumnElement, bindparam, delete, func, literal_column, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.database import Database, Returning, Row
from app.errors import KeyReused, NotFound, OutOfStock, PreconditionFailed, TooMuch
from app.inventory.models import LARGEST, Adjustment, Change, Removal, Setting, Stock, stock, stock_adjustments
from app.look import Look
from app.readable import readable, unreadable
from app.row_tag import EPOCH

COLUMNS = (stock.c.sku, stock.c.quantity, stock.c.version, readable(stock.c.updated_at), EPOCH)

LOADED = func.load_stock(bindparam("wanted")).table_valued("unlocked", "sku", "quantity", "version", "updated_at")
LOAD = Look(
    select(LOADED.c.unlocked, LOADED.c.sku, LOADED.c.quantity, LOADED.c.version, readable(LOADED.c.updated_at), EPOCH)
)
STANDING = Look(select(stock.c.quantity, stock.c.version, EPOCH).where(stock.c.sku == bindparam("wanted")))
ADJUSTED = Look(
    select(
        stock_adjustments.c.sku,
        stock_adjustments.c.delta,
        stock_adjustments.c.quantity,
        stock_adjustments.c.version,
        readable(stock_adjustments.c.updated_at),
    ).where(stock_adjustments.c.sku == bindparam("wanted"), stock_adjustments.c.key == bindparam("used"))
)


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a load: the stock, and whether no writer was changing it."""

    stock: Stock | None
    unlocked: bool


class StockStore:
    """Reads and changes stock. Every method raises DatabaseUnavailable when Postgres does not answer in time."""

    def __init__(self, database: Database, waited: Callable[[timedelta], None] = lambda took: None) -> None:
        """`waited` is called with the time that each change waited for the lock of its SKU."""
        self._database, self._waited = database, waited

    async def load(self, sku: str) -> Found:
        """Reads the stock of `sku` after trying to share its writers' lock. Raises UnreadableRow."""
        (row,) = await self._database.look("inventory", LOAD, {"wanted": sku})
        unlocked = row.pop("unlocked")
        return Found(None if row["sku"] is None else _stock(row), unlocked)

    async def save(self, sku: str, change: Change, revoke: Callable[[], Awaitable[None]]) -> Stock | None:
        """Makes a change. Returns the stock after it, or None if it was removed.

        Raises NotFound, PreconditionFailed, OutOfStock, TooMuch and KeyReused, and what `revoke` raises: then nothing
        has changed. Raises OutcomeUnknown when the connection is lost during COMMIT.
        """
        async with self._database.writing("inventory") as connection:
            began = time.monotonic()
            await connection.execute(select(func.pg_advisory_xact_lock(func.stock_lock(sku))))
            self._waited(timedelta(seconds=time.monotonic() - began))
            if isinstance(change, Adjustment):
                return await self._adjust(connection, sku, change, revoke)
            statement = _statement(sku, change)
            row = await self._both(connection, statement, revoke)
            while row is None:
                await self._refuse(connection, sku, change)
                row = await self._database.change(connection, statement)
            return None if isinstance(change, Removal) else Stock(**row)

    async def _adjust(
        self, connection: AsyncConnection, sku: str, change: Adjustment, revoke: Callable[[], Awaitable[None]]
    ) -> Stock:
        if change.key is not None:
            done = await self._database.look_on(connection, ADJUSTED, {"wanted": sku, "used": change.key})
            for before in done:
                if before["delta"] != change.delta:
                    raise KeyReused(
                        f"The key {change.key} was used for {before['delta']:+} of {sku}, and not {change.delta:+}."
                    )
                return _stock({name: before[name] for name in ("sku", "quantity", "version", "updated_at")})
        sum_ = stock.c.quantity + change.delta
        fits = (
            update(stock)
            .where(stock.c.sku == sku, _as_expected(change), sum_.between(0, LARGEST))
            .values(quantity=sum_)
            .returning(*COLUMNS)
        )
        row = await self._both(connection, fits, revoke)
        while row is None:
            available = await self._refuse(connection, sku, change)
            assert available is not None, "Without stock it has raised."
            if available + change.delta < 0:
                raise OutOfStock(sku, available, -change.delta)
            if available + change.delta > LARGEST:
                raise TooMuch(f"There are {available} of {sku}; {change.delta} more are too many to count.")
            # By now it would fit: someone has written with SQL, without the lock. Retry, or the client would be told
            # "10 are left, and 5 were asked for".
            row = await self._database.change(connection, fits)
        adjusted = Stock(**row)
        if change.key is not None:
            result = adjusted.model_dump(include={"quantity", "version", "updated_at"})
            await connection.execute(
                insert(stock_adjustments).values(sku=sku, key=change.key, delta=change.delta, **result)
            )
        return adjusted

    async def _both(
        self, connection: AsyncConnection, statement: Returning, revoke: Callable[[], Awaitable[None]]
    ) -> Row | None:
        """Runs the change and the revocation concurrently. Waits for both, so that no ROLLBACK overtakes a running
        statement."""
        result, revoked = await asyncio.gather(
            self._database.change(connection, statement), revoke(), return_exceptions=True
        )
        for outcome in (revoked, result):
            if isinstance(outcome, BaseException):
                raise outcome
        assert not isinstance(result, BaseException)
        return result

    async def _refuse(self, connection: AsyncConnection, sku: str, change: Change) -> int | None:
        """Raises the reason why nothing was changed: no stock, or a precondition.

        Returns the quantity, or None for no stock, when neither is the reason, or it no longer holds because someone
        has written with SQL, without the lock."""
        standing = await self._database.look_on(connection, STANDING, {"wanted": sku})
        expected = change.expected
        if not standing:
            # A Setting that does not require stock creates it. So it existed a moment ago, and has just been removed.
            if isinstance(change, Setting) and (expected is None or not expected.existing):
                return None
            raise NotFound(f"There is no stock of {sku}.")
        if isinstance(change, Setting) and expected is not None and expected.absent:
            raise PreconditionFailed(f"There is stock of {sku} already.")
        version, epoch = standing[0]["version"], standing[0]["epoch"]
        if expected is not None and (refusal := expected.refusal(f"The stock of {sku}", version, epoch)) is not None:
            raise refusal
        return int(standing[0]["quantity"])


def _as_expected(change: Change) -> ColumnElement[bool]:
    return true() if change.expected is None else change.expected.holds(stock.c.version)


def _stock(row: Row) -> Stock:
    if (why := unreadable(row, "The stock of", row["sku"])) is not None:
        raise why
    return Stock(**row)


def _statement(sku: str, change: Setting | Removal) -> Returning:
    expected = change.expected
    if isinstance(change, Removal):
        return delete(stock).where(stock.c.sku == sku, _as_expected(change)).returning(stock.c.sku, EPOCH)
    if expected is not None and expected.existing:
        there = update(stock).where(stock.c.sku == sku, _as_expected(change))
        return there.values(quantity=change.quantity).returning(*COLUMNS)
    # An inserted row has no xmax. An updated one does, since ON CONFLICT locks the row first.
    created = literal_column("(xmax = 0)", Boolean).label("created")
    new = insert(stock).values(sku=sku, quantity=change.quantity)
    if expected is not None and expected.absent:
        new = new.on_conflict_do_nothing()
    else:
        new = new.on_conflict_do_update(
            index_elements=[stock.c.sku],
            set_={"quantity": change.quantity},
            where=None if expected is None else _as_expected(change),
        )
    return new.returning(*COLUMNS, created)
