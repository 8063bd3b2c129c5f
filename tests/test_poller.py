"""A poller asks one statement a question, and gets over whatever happens to its connection between two questions."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import asyncpg
import pytest
from sqlalchemy import text

from app.embedded import Endpoints
from app.errors import DatabaseUnavailable
from app.poller import Poller, open_poller
from tests.faults.postgres_wire import PostgresWire

SESSION = text("SELECT pg_backend_pid()")
ANYTHING = ""
"""Matches every statement."""
ENDED = "SELECT pg_terminate_backend($1, 10000)"


@pytest.fixture
async def wire(endpoints: Endpoints) -> AsyncIterator[PostgresWire]:
    """A wire to Postgres."""
    async with PostgresWire(endpoints.database_url) as wire:
        yield wire


@pytest.fixture
def asked() -> list[str]:
    """The resources that statements were counted for."""
    return []


@pytest.fixture
async def poller(wire: PostgresWire, asked: list[str]) -> AsyncIterator[Poller]:
    """A poller behind it."""
    async with open_poller(wire.url, resources=2, timeout=timedelta(seconds=10), counted=asked.append) as poller:
        yield poller


async def session(poller: Poller, resource: str = "outbox") -> int:
    """Asks, and returns the session that answers."""
    (row,) = await poller.ask(resource, SESSION)
    return int(row[0])


async def test_a_question_is_one_statement_on_a_connection_that_stays(
    poller: Poller, wire: PostgresWire, asked: list[str]
) -> None:
    first = await session(poller)
    statements = wire.count(ANYTHING)
    assert {await session(poller) for _ in range(10)} == {first}
    assert (wire.count(ANYTHING) - statements, wire.connections) == (10, 1)
    assert asked == ["outbox"] * 11


async def test_each_resource_has_its_own_connection(poller: Poller, wire: PostgresWire) -> None:
    """A question that waits for a lock must not keep another one waiting."""
    outbox, views = await session(poller), await session(poller, "page_views")
    assert outbox != views
    assert (await session(poller), await session(poller, "page_views")) == (outbox, views)


async def cut(wire: PostgresWire, sql: asyncpg.Connection, session: int) -> None:
    """The network cuts the connection."""
    wire.cut()


async def ended(wire: PostgresWire, sql: asyncpg.Connection, session: int) -> None:
    """An operator ends the session."""
    assert await sql.fetchval(ENDED, session)


@pytest.mark.parametrize("breaks", [cut, ended])
async def test_a_connection_that_broke_between_two_questions_is_replaced_at_once(
    breaks: Callable[[PostgresWire, asyncpg.Connection, int], Awaitable[None]],
    poller: Poller,
    wire: PostgresWire,
    sql: asyncpg.Connection,
) -> None:
    first = await session(poller)
    await breaks(wire, sql, first)
    second = await session(poller)
    assert second != first
    assert await session(poller) == second


async def test_without_postgres_a_question_fails_until_it_is_back(poller: Poller, wire: PostgresWire) -> None:
    await session(poller)
    wire.refuse()
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            await session(poller)
    wire.heal()
    await session(poller)


async def test_after_reconnect_it_asks_on_new_connections_only(poller: Poller, wire: PostgresWire) -> None:
    """The name leads elsewhere, and the old connections live on: only new ones lead there."""
    first = {await session(poller), await session(poller, "page_views")}
    poller.reconnect()
    second = {await session(poller), await session(poller, "page_views")}
    assert not first & second
    assert {await session(poller), await session(poller, "page_views")} == second
    assert wire.connections == 2


async def test_an_answer_that_comes_too_late_is_not_taken_for_that_of_the_next_question(wire: PostgresWire) -> None:
    """A question times out, and its answer is on its way
    the next question goes out on the same connection, and would get it
    """
    async with open_poller(wire.url, resources=1, timeout=timedelta(seconds=1), counted=lambda resource: None) as hasty:

        async def answer(question: str) -> str:
            # On a busy machine, any question may time out.
            while True:
                with suppress(DatabaseUnavailable):
                    return str((await hasty.ask("outbox", text(f"SELECT '{question}'")))[0][0])

        assert await answer("first") == "first"
        async with wire.holding_replies("late") as held:
            while not held.arrived.is_set():
                with pytest.raises(DatabaseUnavailable):
                    await hasty.ask("outbox", text("SELECT 'late'"))
        assert await answer("next") == "next"
