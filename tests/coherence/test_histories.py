"""A Postgres that goes back in time: reads return what the database has, and nothing that it has lost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from app.caching import CacheError, Outcome
from app.embedded import Endpoints
from app.errors import DatabaseUnavailable, OtherHistory
from app.inventory.models import Setting
from tests.coherence.conftest import ADA, LOOKS, Instance, NewInstance
from tests.eventually import PATIENCE, eventually
from tests.faults.dump import dumped, recreated, restored_into, restored_over
from tests.faults.standby import Standby
from tests.faults.stores import Stores
from tests.migrated_database import migrated_database
from tests.topologies.ways import Ways

SESSIONS = "SELECT pid, query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
LOOKING = f"{SESSIONS} AND query LIKE '%max(id) FROM outbox%'"
"""The sessions of relays: their last question was that of a poll."""
ASKING = f"""
SELECT count(*) FROM ({SESSIONS}) AS every_one
WHERE query LIKE '%max(id) FROM outbox%' OR query LIKE 'SELECT EXISTS (SELECT FROM parked_views)%'
"""
"""How many sessions there are of relays, and of the parking."""


@pytest.fixture
async def own(endpoints: Endpoints, ways: Ways) -> AsyncIterator[Endpoints]:
    """A Redis and a database that belong to the test alone."""
    async with ways.another_redis() as redis_url, migrated_database(endpoints.database_url) as database_url:
        yield Endpoints(redis_url, database_url)


async def answers(instance: Instance, user_id: int, name: str, sku: str, quantity: int) -> None:
    """Returns when both reads are hits. Until the instance notices that Postgres has changed, they may be refused."""

    async def hits() -> bool:
        try:
            user, stock = await instance.users.get(user_id), await instance.resources.inventory.get(sku)
        except DatabaseUnavailable:
            return False
        same = user.value is not None and user.value.name == name
        same = same and stock.value is not None and stock.value.quantity == quantity
        return same and user.outcome is stock.outcome is Outcome.HIT

    await eventually(hits)


async def a_minute_passes(instance: Instance, stores: Endpoints) -> None:
    """Empties the outbox, as after a minute: a new epoch does not deliver earlier changes again."""
    await instance.settles()
    sql = await asyncpg.connect(stores.database_url)
    await sql.execute("DELETE FROM outbox")
    await sql.close()


@pytest.mark.parametrize("way", ["drop and create", "clean"])
async def test_rows_that_a_restored_database_has_lost_are_no_longer_read(
    way: str, new_instance: NewInstance, own: Endpoints, endpoints: Endpoints
) -> None:
    """pg_dump
    A commits a new row, invalidates, and answers; R hits it
    pg_restore: the database does not have that row any more, and gives its version to the next one
    R on A or B would hit the lost row until its TTL expires, and A's next change would keep it: it has the same version
    """
    a, b = await new_instance(endpoints=own), await new_instance(endpoints=own)
    ada = (await a.users.create(ADA)).id
    await a.resources.inventory.put("CUP", Setting(30))
    await a_minute_passes(a, own)
    dump = await dumped(own.database_url)
    lost = await a.rename(ada, "Ada King")
    await a.resources.inventory.put("CUP", Setting(20))
    for instance in (a, b):
        await answers(instance, ada, "Ada King", "CUP", 20)
    if way == "clean":
        await restored_over(own.database_url, dump)
    else:
        await recreated(endpoints.database_url, urlsplit(own.database_url).path[1:])
        await restored_into(own.database_url, dump)
    for instance in (a, b):
        await answers(instance, ada, ADA.name, "CUP", 30)
    for number in range(3):
        changed = await a.rename(ada, f"Ada {number}")
        assert [await a.name(ada), await b.name(ada)] == [f"Ada {number}"] * 2
        if number == 0:
            assert changed.version <= lost.version, "The sequence went back, too."


@asynccontextmanager
async def promoted(own: Endpoints) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """Starts a standby that lacks all commits from now on. The yielded call promotes it and returns its URL."""
    with Standby.started(own.database_url) as standby:

        async def promote() -> str:
            await standby.promote()
            return urlunsplit(urlsplit(standby.url)._replace(path=urlsplit(own.database_url).path))

        yield promote


async def test_rows_that_a_promoted_standby_lacks_are_no_longer_read(new_instance: NewInstance, own: Endpoints) -> None:
    """A standby has all that is committed now
    A commits a new row, invalidates, and answers; R hits it
    the primary is gone, and the standby is promoted: it has never received that row
    R on A or B would hit the lost row
    """
    a, b = await new_instance(endpoints=own), await new_instance(endpoints=own)
    ada = (await a.users.create(ADA)).id
    await a.resources.inventory.put("CUP", Setting(30))
    await a_minute_passes(a, own)
    async with promoted(own) as promote:
        await a.rename(ada, "Ada King")
        await a.resources.inventory.put("CUP", Setting(20))
        for instance in (a, b):
            await answers(instance, ada, "Ada King", "CUP", 20)
        for instance in (a, b):
            instance.postgres.refuse()
        address = await promote()
        for instance in (a, b):
            await instance.postgres.move_to(address)
            instance.postgres.heal()
        for instance in (a, b):
            await answers(instance, ada, ADA.name, "CUP", 30)
        await a.rename(ada, "Ada Byron")
        assert [await a.name(ada), await b.name(ada)] == ["Ada Byron"] * 2


async def test_a_read_on_a_promoted_standby_is_refused_before_a_poll_notices_it(
    new_instance: NewInstance, own: Endpoints
) -> None:
    """A standby has all that is committed now · A commits a new row, and answers
    the standby is promoted, and the name leads to it, while A's poll is in flight
    R on A, which has not cached the row, would read the old one: A still belongs to the history that has the new one
    """
    a = await new_instance(endpoints=own)
    ada = (await a.users.create(ADA)).id

    async def is_read() -> bool:
        try:
            return await a.name(ada) == ADA.name
        except DatabaseUnavailable:
            return False

    async with promoted(own) as promote:
        await a.rename(ada, "Ada King")
        await a.settles()
        address = await promote()
        async with a.postgres.holding(LOOKS) as held:
            await asyncio.wait_for(held.arrived.wait(), PATIENCE)
            await a.postgres.move_to(address)
            a.postgres.cut()
            with pytest.raises(OtherHistory, match="believes what it knew at timeline 1"):
                await a.users.get(ada)

        await eventually(is_read)


async def test_rows_that_a_restored_data_directory_has_lost_are_no_longer_read(
    new_instance: NewInstance, ways: Ways
) -> None:
    """Postgres is stopped, and its directory copied · A commits a new row, and answers; R hits it
    Postgres is stopped, and its directory put back: its identifier, timeline and oids are the same as before
    R on A would hit the lost row
    """
    async with AsyncExitStack() as stack:
        stores = await asyncio.to_thread(lambda: stack.enter_context(Stores.started()))
        redis_url = await stack.enter_async_context(ways.another_redis())
        a = await new_instance(endpoints=Endpoints(redis_url, stores.endpoints.database_url))
        ada = (await a.users.create(ADA)).id
        await a_minute_passes(a, stores.endpoints)
        async with stores.putting_postgres_back():
            await a.rename(ada, "Ada King")
            await a.hits(ada)
            # This poll tells Redis how far Postgres has come.
            await a.polls()

        async def is_what_the_database_has() -> bool:
            try:
                reading = await a.users.get(ada)
            except DatabaseUnavailable:
                return False
            return reading.outcome is Outcome.HIT and await a.name(ada) == ADA.name

        await eventually(is_what_the_database_has)
        a.postgres.refuse()


async def test_an_instance_left_on_a_live_old_primary_answers_nothing_from_it(
    new_instance: NewInstance, own: Endpoints
) -> None:
    """The standby is promoted, and the old primary lives on: A's name leads to the new one, and B's to the old one
    A commits a new row on the new primary, invalidates, and answers
    R on B would read the old row on the old primary, and fill it into the Redis that both share
    """
    a, b = await new_instance(endpoints=own), await new_instance(endpoints=own)
    ada = (await a.users.create(ADA)).id
    await b.resources.inventory.put("CUP", Setting(30))
    async with promoted(own) as promote:
        for instance in (a, b):
            await answers(instance, ada, ADA.name, "CUP", 30)
        address = await promote()
        await a.postgres.move_to(address)
        epoch = a.identity.epoch
        a.postgres.cut()

        async def next_epoch() -> bool:
            return a.identity.epoch != epoch and a.held

        await eventually(next_epoch)
        await a.rename(ada, "Ada King")
        await a.resources.inventory.put("CUP", Setting(20))
        with pytest.raises(DatabaseUnavailable, match="old primary"):
            await b.users.get(ada)
        with pytest.raises(DatabaseUnavailable, match="old primary"):
            await b.rename(ada, "Eve")

        async def is_told_why() -> bool:
            with pytest.raises(CacheError) as refused:
                await b.resources.page_views.add("home", 1)
            # On an overloaded machine trust lapses briefly, and that is the reason then.
            return "old primary" in str(refused.value)

        await eventually(is_told_why)
        await answers(a, ada, "Ada King", "CUP", 20)
        await b.postgres.move_to(address)
        b.postgres.cut()
        await answers(b, ada, "Ada King", "CUP", 20)


async def test_an_instance_asks_the_old_primary_nothing_more_once_its_name_leads_to_the_new_one(
    new_instance: NewInstance, own: Endpoints
) -> None:
    """The standby is promoted, and the names of A and B lead to it; the old primary lives on, and so do B's connections
    A connects, begins the next epoch, and commits a new row
    B would poll on the connection that it keeps, be told of an old primary forever, and look for parked views there
    """
    a, b = await new_instance(endpoints=own), await new_instance(endpoints=own)
    ada = (await a.users.create(ADA)).id
    await b.resources.inventory.put("CUP", Setting(30))
    old = await asyncpg.connect(own.database_url)

    async def are_in_the_next_epoch() -> bool:
        return all(instance.identity.epoch != epoch and instance.held for instance in (a, b))

    async def nobody_asks_the_old_primary() -> bool:
        return not await old.fetchval(ASKING)

    async with promoted(own) as promote:
        for instance in (a, b):
            await answers(instance, ada, ADA.name, "CUP", 30)
        epoch = b.identity.epoch
        address = await promote()
        for instance in (a, b):
            await instance.postgres.move_to(address)
        a.postgres.cut()
        await eventually(are_in_the_next_epoch)
        await a.rename(ada, "Ada King")
        await answers(b, ada, "Ada King", "CUP", 30)
        await eventually(nobody_asks_the_old_primary)
        for instance in (a, b):
            instance.postgres.refuse()
    await old.close()


async def test_an_instance_that_finds_the_next_epoch_begun_asks_the_old_primary_nothing_more(
    new_instance: NewInstance, own: Endpoints
) -> None:
    """The standby is promoted, and the names of A and B lead to it; the old primary lives on
    A begins the next epoch, while B's poll is on its way to Redis
    the connection of B's polls breaks, and a new one leads to the new primary: B finds itself in that epoch
    B would look for parked views on the old primary, on a connection that lives on
    """
    a, b = await new_instance(endpoints=own), await new_instance(endpoints=own)
    old = await asyncpg.connect(own.database_url)

    async def is_in_the_next_epoch(instance: Instance) -> bool:
        return instance.identity.epoch != epoch and instance.held

    async def nobody_asks_the_old_primary() -> bool:
        return not await old.fetchval(ASKING)

    async with promoted(own) as promote:
        for instance in (a, b):
            await instance.believes()
        epoch = b.identity.epoch
        async with b.redis.holding("^BEAT") as beat:
            await beat.arrived.wait()
            address = await promote()
            for instance in (a, b):
                await instance.postgres.move_to(address)
            a.postgres.cut()
            await eventually(lambda: is_in_the_next_epoch(a))
            await old.execute(f"SELECT pg_terminate_backend(pid, 10000) FROM ({LOOKING}) AS looking")
        await eventually(lambda: is_in_the_next_epoch(b))
        await eventually(nobody_asks_the_old_primary)
        for instance in (a, b):
            instance.postgres.refuse()
    await old.close()


async def test_a_write_into_a_restored_database_is_refused_before_a_poll_notices_it(
    new_instance: NewInstance, own: Endpoints
) -> None:
    """pg_dump · A commits a new row, R hits it · pg_restore, while A's poll is in flight
    W commits another row: it gets the lost row's version, and its invalidation would keep the value of that version
    R would hit the lost row after W was answered
    """
    a = await new_instance(endpoints=own)
    ada = (await a.users.create(ADA)).id
    dump = await dumped(own.database_url)
    await a.rename(ada, "Ada King")
    await a.hits(ada)
    async with a.postgres.holding(LOOKS) as held:
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        await restored_over(own.database_url, dump)
        with pytest.raises(OtherHistory, match="Postgres is another one than a moment ago"):
            await a.rename(ada, "Ada Byron")
        with pytest.raises(OtherHistory, match="Postgres is another one than a moment ago"):
            await a.users.delete(ada, None)

    async def is_read() -> bool:
        return await a.name(ada) == ADA.name

    await eventually(is_read)


async def test_an_absence_read_in_the_previous_epoch_is_not_kept_in_the_next_one(
    new_instance: NewInstance, own: Endpoints
) -> None:
    """pg_dump · a user is deleted · R on A reads that there is none, and stalls; A's poll is slow
    pg_restore: the user is back · B begins the next epoch · A's poll ends, and finds itself in it
    R would store the absence of the user in the next epoch
    """
    a, b = await new_instance(endpoints=own), await new_instance(endpoints=own)
    ada = (await a.users.create(ADA)).id
    await a.settles()
    sql = await asyncpg.connect(own.database_url)
    await sql.execute("DELETE FROM outbox")  # It was created long ago, and is not delivered again.
    await sql.close()
    dump = await dumped(own.database_url)
    await a.users.delete(ada, None)
    await a.settles()
    await a.believes()
    async with a.postgres.holding_replies("FROM users") as read:
        reader = asyncio.create_task(a.users.get(ada))
        await asyncio.wait_for(read.arrived.wait(), PATIENCE)
        async with a.redis.holding_replies("^BEAT ") as beat:
            await asyncio.wait_for(beat.arrived.wait(), PATIENCE)
            epoch = b.identity.epoch
            await restored_over(own.database_url, dump)

            async def next_epoch() -> bool:
                return b.identity.epoch != epoch and b.held

            await eventually(next_epoch)

        async def has_joined() -> bool:
            return a.identity.epoch == b.identity.epoch and a.held

        await eventually(has_joined)
    await asyncio.wait({reader})
    for instance in (a, b):
        assert await instance.name(ada) == ADA.name


async def test_a_flush_that_an_old_primary_commits_late_is_flushed_again(
    new_instance: NewInstance, own: Endpoints
) -> None:
    """A's flush is on its way to the old primary, which lives; the process that accepted the views has died
    the standby is promoted, and all instances are members of the next epoch
    the old primary commits the flush: if it were acknowledged now, no believed database would have the views
    """
    a, b = await new_instance(endpoints=own), await new_instance(endpoints=own)
    for instance in (a, b):
        await instance.believes()
    async with promoted(own) as promote:
        async with a.postgres.holding("WITH fresh") as by_a, b.postgres.holding("WITH fresh") as by_b:
            await a.resources.page_views.add("home", 7)
            arrivals = [asyncio.ensure_future(held.arrived.wait()) for held in (by_a, by_b)]
            done, waits = await asyncio.wait(arrivals, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) == 1
            for arrival in waits:
                arrival.cancel()
            for receipts in a.resources.page_views.receipts._receipts.values():
                receipts.clear()
            epoch, address = a.identity.epoch, await promote()
            for instance, held in ((a, by_a), (b, by_b)):
                await instance.postgres.move_to(address)
                if not held.arrived.is_set():
                    instance.postgres.cut()

            async def next_epoch() -> bool:
                return all(each.identity.epoch != epoch and each.held for each in (a, b))

            await eventually(next_epoch)
        sql = await asyncpg.connect(address)

        async def are_counted() -> bool:
            return bool(await sql.fetchval("SELECT sum(views) FROM page_views") == 7)

        await eventually(are_counted)
        await sql.close()


@pytest.mark.parametrize(("remembered", "total"), [(timedelta(hours=1), 7), (timedelta(0), 3)])
async def test_views_that_a_restored_database_has_lost_are_accepted_again_from_receipts(
    new_instance: NewInstance,
    own: Endpoints,
    endpoints: Endpoints,
    monkeypatch: pytest.MonkeyPatch,
    remembered: timedelta,
    total: int,
) -> None:
    """Three views are flushed to Postgres · pg_dump · four more are flushed, and the total is seven
    pg_restore: the total cached in Redis belongs to another history; the four are flushed once more if the process
    that accepted them still has their receipt
    """
    monkeypatch.setattr("app.caching.write_behind.recovery.AGAIN", remembered)
    a = await new_instance(endpoints=own)
    views = a.resources.page_views
    sql = await asyncpg.connect(own.database_url)

    async def stored(number: int) -> None:
        async def is_stored() -> bool:
            return bool(await sql.fetchval("SELECT views FROM page_views WHERE page = 'home'") == number)

        await eventually(is_stored)

    await views.add("home", 3)
    await stored(3)
    dump = await dumped(own.database_url)
    await views.add("home", 4)
    await stored(7)
    assert (await views.get("home")).amount == 7

    async def is_known() -> bool:
        return views.receipts.amount == 0

    await eventually(is_known)
    await sql.close()
    await recreated(endpoints.database_url, urlsplit(own.database_url).path[1:])
    await restored_into(own.database_url, dump)

    epoch = a.identity.epoch

    async def told() -> bool:
        try:
            told = await views.get("home")
        except CacheError:
            return False
        if a.identity.epoch != epoch:
            assert told.amount <= total
        return a.identity.epoch != epoch and told.amount == total

    await eventually(told)
    sql = await asyncpg.connect(own.database_url)
    await stored(total)
    await sql.close()
