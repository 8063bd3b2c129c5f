"""Asks Postgres the same questions again and again, each on a connection that it keeps.

    rows = await poller.ask("outbox", LOOK)    one statement, and nothing before it

A pool first checks that a connection is alive: one more round trip, which costs Postgres a quarter of what the question
of a poll costs. A poller needs no check: each answer shows that the connection is alive. Without an answer it asks once
more, on a connection from its pool, which checks then.

When to use it: for what every process asks all the time, also when there is nothing to do.

What can go wrong: `DatabaseUnavailable`, as with any use of Postgres.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Executable, Row
from sqlalchemy.ext.asyncio import AsyncConnection

from app.availability import available
from app.pool import Pool


@dataclass(frozen=True, slots=True)
class Kept:
    """A connection that goes back to the pool when `stack` ends. It is of the `generation` of its poller."""

    connection: AsyncConnection
    stack: AsyncExitStack
    generation: int


class Poller:
    """Keeps one connection for each resource that is asked about. One task asks about a resource."""

    def __init__(self, url: str, *, resources: int, timeout: timedelta, counted: Callable[[str], None]) -> None:
        self._pool = Pool(url, connections=resources, timeout=timeout, counted=counted)
        self._within = timeout.total_seconds()
        self._kept: dict[str, Kept] = {}
        self._generation = 0

    async def ask(self, resource: str, question: Executable) -> Sequence[Row[*tuple[Any, ...]]]:
        """Returns the rows of a SELECT, counted for `resource`. Raises DatabaseUnavailable."""
        async with available(), asyncio.timeout(self._within):
            kept = self._kept.pop(resource, None)
            if kept is not None and kept.generation != self._generation:
                await kept.stack.aclose()
            elif kept is not None:
                with suppress(Exception):  # The connection may have broken since. The next attempt will tell.
                    return await self._ask_on(kept, resource, question)
            return await self._ask_on(await self._connected(resource), resource, question)

    def reconnect(self) -> None:
        """From now on asks only on connections that are made from now on."""
        self._generation += 1
        self._pool.reconnect()

    async def close(self) -> None:
        """Closes all connections."""
        for kept in self._kept.values():
            await kept.stack.aclose()
        await self._pool.close()

    async def _ask_on(self, kept: Kept, resource: str, question: Executable) -> Sequence[Row[*tuple[Any, ...]]]:
        """Asks on this connection, and keeps it only if it answers: nobody knows in what state it is otherwise."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(kept.stack.aclose)
            rows = (await kept.connection.execute(question)).all()
            self._kept[resource] = kept
            stack.pop_all()
            return rows

    async def _connected(self, resource: str) -> Kept:
        generation = self._generation
        async with AsyncExitStack() as stack:
            connection = await self._pool.connection(stack, writing=False)
            await connection.execution_options(resource=resource)
            return Kept(connection, stack.pop_all(), generation)


@asynccontextmanager
async def open_poller(
    url: str, *, resources: int, timeout: timedelta, counted: Callable[[str], None]
) -> AsyncIterator[Poller]:
    """Opens a poller for so many `resources`, and closes it when the block ends. `timeout` bounds each question."""
    poller = Poller(url, resources=resources, timeout=timeout, counted=counted)
    try:
        yield poller
    finally:
        await poller.close()
