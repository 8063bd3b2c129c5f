"""A service on a copy of the database, with the Redis and the prefix of the service on the original."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import CacheUnavailable
from app.embedded import Endpoints
from app.readiness import readiness
from tests.coherence.conftest import Instance, NewInstance
from tests.eventually import PATIENCE, eventually
from tests.faults.dump import dumped, restored_into
from tests.fresh_database import fresh_database
from tests.migrated_database import migrated_database
from tests.topologies.ways import Ways

VIEWS = 20


@pytest.fixture
async def own(endpoints: Endpoints, ways: Ways) -> AsyncIterator[Endpoints]:
    """A Redis and a database that belong to the test alone."""
    async with ways.another_redis() as redis_url, migrated_database(endpoints.database_url) as database_url:
        yield Endpoints(redis_url, database_url)


@pytest.fixture
async def original(new_instance: NewInstance, own: Endpoints) -> Instance:
    """An instance on the original, which believes Redis."""
    instance = await new_instance(endpoints=own)
    await instance.believes()
    return instance


@pytest.fixture
async def copied(original: Instance, own: Endpoints, endpoints: Endpoints) -> AsyncIterator[Endpoints]:
    """A copy of the database beside it, and the same Redis."""
    async with fresh_database(endpoints.database_url) as database_url:
        await restored_into(database_url, await dumped(own.database_url))
        yield Endpoints(own.redis_url, database_url)


async def stored(database_url: str) -> int:
    """Returns the views in a database."""
    sql = await asyncpg.connect(database_url)
    views = await sql.fetchval("SELECT coalesce(sum(views), 0)::bigint FROM page_views")
    await sql.close()
    return int(views)


async def test_views_of_the_original_are_not_flushed_into_a_copy_of_its_database(
    new_instance: NewInstance, own: Endpoints, original: Instance, copied: Endpoints
) -> None:
    """A is on the original · pg_dump and pg_restore · B is started on the copy, and has the same Redis and deployment
    A accepts views, and A's flush stalls: B would flush them into the copy, and acknowledge them
    """
    async with original.postgres.holding("WITH fresh") as held:
        await original.resources.page_views.add("home", 1)
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        copy = await new_instance(endpoints=copied)
        for _ in range(VIEWS - 1):
            await original.resources.page_views.add("home", 1)
        for _ in range(3):
            await copy.polls()
        parts = (await readiness(copy.resources)).parts
        assert "give a copy of the database another FOURWAYS_PREFIX" in parts["epoch"]
        with pytest.raises(CacheUnavailable):
            await copy.resources.page_views.add("home", 1)
        with pytest.raises(
            CacheUnavailable,
            match=r"not known yet whether the entries in this Redis are ours|^Redis is not asked for counters",
        ):
            await copy.resources.flusher.round()
        assert await stored(copied.database_url) == 0

    async def is_stored() -> bool:
        return await stored(own.database_url) == VIEWS

    await eventually(is_stored)
    assert await stored(copied.database_url) == 0
    await original.believes()


async def test_a_copy_that_takes_the_place_of_the_database_gets_the_pending_views(
    new_instance: NewInstance, own: Endpoints, original: Instance, copied: Endpoints
) -> None:
    """A accepts views, and is gone before they are flushed · B, on the copy, claims, and nobody refutes it"""
    original.postgres.refuse()
    for _ in range(VIEWS):
        await original.resources.page_views.add("home", 1)
    copy = await new_instance(endpoints=copied)
    original.redis.refuse()
    await copy.believes()

    async def is_stored() -> bool:
        return await stored(copied.database_url) == VIEWS

    await eventually(is_stored)
    assert await stored(own.database_url) == 0
    copy.redis.refuse()
    original.postgres.heal()
    original.redis.heal()
    await original.believes()


@pytest.mark.prove
@pytest.mark.not_on("cluster", because="each node of a cluster has a record of its own")
async def test_views_left_in_an_old_redis_reach_a_restored_database_once_its_record_is_deleted(
    new_instance: NewInstance, ways: Ways, original: Instance, copied: Endpoints
) -> None:
    """A accepts views in X, and is gone before they are flushed · the database is restored, and B serves it with Y
    C is started on X: B refutes its claim, so X may be of another database, until an operator says that it is not
    """
    original.postgres.refuse()
    for _ in range(VIEWS):
        await original.resources.page_views.add("home", 1)
    original.redis.refuse()
    async with ways.another_redis() as redis_url, Redis.from_url(copied.redis_url) as old:
        await (await new_instance(endpoints=Endpoints(redis_url, copied.database_url))).believes()
        late = await new_instance(endpoints=copied)
        for _ in range(3):
            await late.polls()
        assert await stored(copied.database_url) == 0
        await old.delete("epoch")

        async def is_stored() -> bool:
            return await stored(copied.database_url) == VIEWS

        await eventually(is_stored)
        assert not late.held
