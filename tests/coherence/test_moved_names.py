"""A name is moved to another server, while its former server lives on in another role.

Connections to the former server are not cut: they stay in the pools, and keep answering.
"""

from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from app.caching import CacheUnavailable, Outcome, TargetUnavailable
from app.embedded import Endpoints
from app.errors import DatabaseUnavailable, StandbyMet
from app.inventory.models import Adjustment
from tests.coherence.conftest import SOON, Instance, NewInstance
from tests.eventually import eventually
from tests.faults.name import Name
from tests.faults.replicating_redis import ReplicatingRedis
from tests.faults.standby import Standby
from tests.topologies.by_hand import by_hand

PAGE = "/a"


@pytest.fixture
async def two() -> AsyncIterator[tuple[ReplicatingRedis, ReplicatingRedis]]:
    """Two Redises."""
    async with ReplicatingRedis.started() as first, ReplicatingRedis.started() as second:
        yield first, second


@pytest.mark.not_on("cluster", because="a cluster has no name that leads elsewhere: its nodes say where they are")
async def test_views_are_accepted_again_after_a_primary_of_redis_becomes_a_replica(
    new_instance: NewInstance,
    endpoints: Endpoints,
    sql: asyncpg.Connection,
    two: tuple[ReplicatingRedis, ReplicatingRedis],
) -> None:
    """A has connections to X, a primary
    Y is promoted, the name leads to it, and X becomes its replica
    A asks X: it answers READONLY, which is an answer, and every PING succeeds: A would stay with it forever

    If a read of the flusher waited in X, it would be ended together with its connection. The new connection would lead
    to Y, and so A would learn of it. Hence no read waits here.
    """
    sent = accepted = 0

    async def views_are_accepted() -> bool:
        nonlocal sent, accepted
        sent += 1
        try:
            await a.resources.page_views.add(PAGE, 1)
        except CacheUnavailable:
            return False
        accepted += 1
        return True

    async def all_are_counted() -> bool:
        counted = await sql.fetchval("SELECT views FROM page_views WHERE page = $1", PAGE)
        return counted is not None and accepted <= counted <= sent  # One whose answer was lost may count.

    primary, replica = two
    await replica.follow(primary)
    with Name.leading_to(Path(primary.socket)) as name:
        a = await new_instance(endpoints=Endpoints(f"unix://{name.path}", endpoints.database_url))
        for _there_and_back in range(2):
            await a.believes()
            await eventually(views_are_accepted)
            # Accepted views may be lost with a primary, and be accepted again: that is not tested here.
            await eventually(all_are_counted)
            async with a.redis.holding("^XREADGROUP") as read:
                await read.arrived.wait()
                await replica.lead()
                name.lead_to(Path(replica.socket))
                await primary.follow(replica)
            assert await eventually(views_are_accepted) < SOON
            await eventually(all_are_counted)
            primary, replica = replica, primary


@pytest.fixture
def standby(endpoints: Endpoints, ada: int, cup: str, stock: None) -> Iterator[Standby]:
    """A standby that has Ada, the cup and its stock, and nothing later."""
    with Standby.started(endpoints.database_url) as standby:
        yield standby


@pytest.fixture
async def stock(sql: asyncpg.Connection) -> None:
    """Five cups in stock, and seven views."""
    await sql.execute("INSERT INTO stock (sku, quantity) VALUES ('CUP', 5)")
    await sql.execute("INSERT INTO page_views VALUES ($1, 7)", PAGE)
    await sql.execute("UPDATE outbox SET done_at = now()")


async def told(answer: Awaitable[object]) -> object:
    """Returns the answer, or "away" when the database is not available."""
    try:
        return await answer
    except (DatabaseUnavailable, TargetUnavailable):
        return "away"


async def total(instance: Instance) -> int:
    """Returns the views of the page."""
    return (await instance.resources.page_views.get(PAGE)).amount


async def test_an_instance_whose_name_leads_to_a_standby_answers_and_fills_nothing_from_it(
    new_instance: NewInstance, endpoints: Endpoints, ada: int, cup: str, standby: Standby, sql: asyncpg.Connection
) -> None:
    """A changes rows                           the standby lags
    B's connections break, and its name leads to the standby
    the cached values expire
    B would load old rows, and fill them        A would hit them
    """
    primary = urlsplit(endpoints.database_url)
    with Name.leading_to(Path(parse_qs(primary.query)["host"][0])) as name:
        a = await new_instance()
        b = await new_instance(
            endpoints=Endpoints(endpoints.redis_url, f"postgresql://fourways@/fourways?host={name.path}")
        )
        await a.believes()
        await b.believes()
        await a.rename(ada, "Ada King")
        await a.products.change(cup, {"price": "7.00"}, None)
        await a.resources.inventory.put(cup, Adjustment(delta=-3))
        await sql.execute("UPDATE page_views SET views = 9 WHERE page = $1", PAGE)
        await a.settles()
        await a.hits(ada)
        name.lead_to(standby.sockets)
        b.postgres.cut()
        # What is cached is new, and an instance that believes it may answer it.
        assert await told(b.name(ada)) in ("Ada King", "away")
        assert await a.name(ada) == "Ada King"
        async with by_hand(endpoints.redis_url) as redis:
            cached = [f"users:{{{ada}}}", "products:{CUP}", "stock:{CUP}"]
            for _ in range(5):
                await redis.delete(*cached, *[key async for key in redis.scan_iter("views:*")])
                assert await told(b.name(ada)) == "away"
                assert await told(b.price(cup)) == "away"
                assert await told(b.quantity(cup)) == "away"
                assert await told(total(b)) == "away"
                assert not await redis.exists(*cached)
        for pages in (b.resources.page_view_store.top(5), b.resources.page_view_store.dead_letters(5, 0)):
            with pytest.raises(StandbyMet):
                await pages
        with pytest.raises(DatabaseUnavailable, match=r"^Postgres is "):
            await b.rename(ada, "Nobody")
        assert (await a.name(ada), await a.price(cup), await a.quantity(cup)) == ("Ada King", "7.00", 2)
        await a.hits(ada)
        name.lead_to(Path(parse_qs(primary.query)["host"][0]))
        await b.believes()
        assert (await b.name(ada), await b.price(cup), await b.quantity(cup)) == ("Ada King", "7.00", 2)
        assert await total(b) == 9
        assert (await b.users.get(ada)).outcome is Outcome.HIT
