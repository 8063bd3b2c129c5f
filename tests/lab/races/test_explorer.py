"""The explorer finds what was broken on purpose, takes the same turns each time, and leaves nothing behind."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import Batch, Revoke, TargetUnavailable
from app.embedded import Endpoints
from app.lab.anomaly import Anomaly
from app.lab.ours import CacheAside, Entry, ReadThrough, WriteThrough
from app.lab.races.cases import CASES, Actor, Case, Deed, Make
from app.lab.races.explorer import explore
from app.lab.races.relayed import Relayed
from app.lab.races.search import Progress, Result
from app.lab.races.stepped_write_behind import SteppedWriteBehind

LONG = timedelta(minutes=5)


def case(name: str) -> Case:
    """Returns the case of this name."""
    return next(case for case in CASES if case.name == name)


async def explored(case: Case, endpoints: Endpoints, *, most: int = 400, seed: int = 1) -> Result:
    """Explores a case, bounded by the number of schedules."""
    return await explore(
        case, redis_url=endpoints.redis_url, database_url=endpoints.database_url, budget=LONG, most=most, seed=seed
    )


LATE_READER = """\
reader           writer
GET k → nothing
SELECT → 0
                 UPDATE to 1 → 1
                 DEL k → 0
                 acknowledged
SET k 0 EX 300
answers 0

stale: In the end a read answers 0, and the database has 1."""


async def test_a_race_is_shown_as_people_draw_it(endpoints: Endpoints) -> None:
    result = await explored(case("cache-aside, as published"), endpoints)
    failure = result.failures[Anomaly.STALE]
    assert str(failure) == LATE_READER
    assert (failure.cost, failure.faults) == (1, 0)


@pytest.mark.parametrize("name", ["write-behind, list", "write-through"])
async def test_a_seed_takes_the_same_turns_each_time(name: str, endpoints: Endpoints) -> None:
    runs = [await explored(case(name), endpoints, most=40, seed=7) for _ in range(2)]
    assert runs[0] == runs[1]


# Strategies that are broken on purpose.


class ForgetsToInvalidate(CacheAside):
    """Its writes leave the cache as it is."""

    async def write(self, key: str, value: int) -> None:
        await self._table.save(key, value)


class InvalidatesBeforeItWrites(ReadThrough):
    """A reader loads the old row between the two."""

    async def write(self, key: str, value: int) -> None:
        await self._cache.invalidate(key, 1)
        await self._table.save(key, value)


class DoesNotRevoke(WriteThrough):
    """Its writes leave value and lease to the readers."""

    async def _save(self, key: str, value: int, revoke: Revoke) -> Entry | None:
        async def nothing() -> None:
            return None

        row = await self._table.save_locked(key, value, nothing)
        return None if row is None else Entry(value=row.value, version=row.version)


class WritesWithoutTheLock(WriteThrough):
    """Two writers remove the value, and then write in any order."""

    async def _save(self, key: str, value: int, revoke: Revoke) -> Entry | None:
        await revoke()
        row = await self._table.save(key, value)
        return None if row is None else Entry(value=row.value, version=row.version)


class HasNoLedger(SteppedWriteBehind):
    """What is flushed twice counts twice."""

    async def _apply(self, batches: Sequence[Batch]) -> int:
        try:
            for batch in batches:
                for key, delta in batch.amounts.items():
                    await self._table.add(key, delta)
        except OSError as error:
            raise TargetUnavailable(str(error)) from error
        return len(batches)


READER, WRITER = Actor("reader", (Deed.READ, Deed.READ)), Actor("writer", (Deed.WRITE,))
OTHER_WRITER, FLUSHER = Actor("other writer", (Deed.WRITE,)), Actor("flusher", (Deed.FLUSH, Deed.FLUSH))


@pytest.mark.parametrize(
    ("ours", "make", "actors", "anomaly"),
    [
        ("cache-aside", partial(Relayed, ForgetsToInvalidate), (READER, WRITER), Anomaly.STALE),
        ("read-through", partial(Relayed, InvalidatesBeforeItWrites), (READER, WRITER), Anomaly.STALE),
        ("write-through", partial(Relayed, DoesNotRevoke), (READER, WRITER), Anomaly.STALE),
        ("write-through", partial(Relayed, WritesWithoutTheLock), (WRITER, OTHER_WRITER, READER), Anomaly.STALE),
        ("write-behind", HasNoLedger, (WRITER, FLUSHER), Anomaly.DOUBLED),
    ],
)
async def test_a_deliberately_broken_strategy_is_detected(
    ours: str, make: Make, actors: tuple[Actor, ...], anomaly: Anomaly, endpoints: Endpoints
) -> None:
    whole = case(ours)
    broken = replace(whole, make=make, actors=actors, shows=frozenset({anomaly}))
    result = await explored(broken, endpoints, most=300)
    assert anomaly in result.failures
    sound = await explored(replace(broken, make=whole.make, shows=frozenset()), endpoints, most=60)
    assert not sound.failures


# Its bounds, and its end.


async def test_it_reports_each_schedule_and_ends_at_the_limit(endpoints: Endpoints) -> None:
    progress: list[Progress] = []
    result = await explore(
        case("cache-aside"),
        redis_url=endpoints.redis_url,
        database_url=endpoints.database_url,
        budget=LONG,
        most=12,
        seed=1,
        report=progress.append,
    )
    assert result.schedules == 12
    assert [each.schedules for each in progress] == list(range(1, 13))
    assert not progress[-1].found


async def test_it_ends_with_its_budget(endpoints: Endpoints) -> None:
    result = await explore(
        case("cache-aside"),
        redis_url=endpoints.redis_url,
        database_url=endpoints.database_url,
        budget=timedelta(0),
        most=1000,
        seed=1,
    )
    assert (result.schedules, result.exhausted) == (0, -1)


async def test_a_small_case_is_exhausted(endpoints: Endpoints) -> None:
    alone = replace(case("cache-aside"), actors=(Actor("reader", (Deed.READ,)),))
    result = await explored(alone, endpoints, most=2000)
    assert result.exhausted >= 1
    assert result.schedules < 2000


async def test_it_leaves_nothing_in_either_store(endpoints: Endpoints, redis: Redis, sql: asyncpg.Connection) -> None:
    await redis.set("users:{1}", "somebody's")
    await explored(case("cache-aside"), endpoints, most=10)
    assert await redis.keys("*") == [b"users:{1}"]
    assert not await sql.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'fourways_races%'")


async def test_an_interrupted_exploration_leaves_nothing_either(
    endpoints: Endpoints, redis: Redis, sql: asyncpg.Connection
) -> None:
    begun = asyncio.Event()
    task = asyncio.create_task(
        explore(
            case("write-through"),
            redis_url=endpoints.redis_url,
            database_url=endpoints.database_url,
            budget=LONG,
            most=1_000_000,
            seed=1,
            report=lambda progress: begun.set(),
        )
    )
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await redis.keys("*")
    assert not await sql.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'fourways_races%'")


async def test_an_unreachable_store_is_an_error(endpoints: Endpoints) -> None:
    with pytest.raises(OSError, match="Connect call failed"):
        await explore(
            case("cache-aside"),
            redis_url=endpoints.redis_url,
            database_url="postgresql://nobody@127.0.0.1:1/nowhere",
            budget=LONG,
            most=1,
            seed=1,
        )


@pytest.mark.parametrize("name", ["write-behind, list", "write-through", "write-behind"])
async def test_it_never_scans_a_redis_that_may_be_large(name: str, endpoints: Endpoints, redis: Redis) -> None:
    async def scans() -> int:
        return int((await redis.info("commandstats")).get("cmdstat_scan", {}).get("calls", 0))

    await redis.set("somebody's", 1)
    before = await scans()
    await explored(case(name), endpoints, most=20)
    assert await scans() == before
    assert await redis.keys("*") == [b"somebody's"]
