"""The bench: each contestant reads what it wrote, in its own corner, and is billed for what it did."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from app.embedded import Endpoints
from app.lab.comparison.bench import Bench, open_bench, remove_keys
from app.lab.comparison.contestant import CONTESTANTS, Contestant, Kind
from app.lab.comparison.entrant import PREFIX, Entrant
from app.lab.comparison.lab_error import LabError
from app.lab.comparison.lab_table import add_rows
from app.lab.comparison.pool import Pool
from app.lab.strategy import Holds
from tests.eventually import eventually

KEYS = ["a", "b", "c:{x}", "d/e f"]
TTL = timedelta(minutes=5)
OURS = [contestant for contestant in CONTESTANTS if contestant.kind is Kind.OURS]


@pytest.fixture
async def bench(lab_endpoints: Endpoints, pool: Pool) -> AsyncIterator[Bench]:
    """All contestants, with a row for each key."""
    async with opened(lab_endpoints, pool, CONTESTANTS) as bench, bench.running():
        yield bench


async def test_a_redis_that_is_away_is_reported_without_its_password(lab_endpoints: Endpoints) -> None:
    endpoints = Endpoints("redis://127.0.0.1:1?password=geheim", lab_endpoints.database_url)
    with pytest.raises(LabError, match=r"^Redis does not answer: .*127\.0\.0\.1:1") as refused:
        async with open_bench(endpoints, CONTESTANTS, "test", ttl=TTL):
            pass
    assert "geheim" not in str(refused.value)


def opened(endpoints: Endpoints, pool: Pool, contestants: Sequence[Contestant]) -> "Opened":
    return Opened(endpoints, pool, contestants)


class Opened:
    """A bench whose contestants have their rows."""

    def __init__(self, endpoints: Endpoints, pool: Pool, contestants: Sequence[Contestant]) -> None:
        self._pool, self._contestants = pool, contestants
        self._bench = open_bench(endpoints, contestants, "test", ttl=TTL, connections=4)

    async def __aenter__(self) -> Bench:
        for each in self._contestants:
            await add_rows(self._pool, f"test/{each.name}/", KEYS, cached=each.kind is Kind.OURS)
        return await self._bench.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await self._bench.__aexit__(None, None, None)


def of(bench: Bench, name: str) -> Entrant:
    return next(entrant for entrant in bench.entrants if entrant.contestant.name == name)


async def test_all_take_part_under_their_own_name() -> None:
    names = [contestant.name for contestant in CONTESTANTS]
    assert names[:5] == ["no cache", "cache-aside", "read-through", "write-through", "write-behind"]
    assert len(set(names)) == len(names) > 12


async def test_each_contestant_reads_its_own_writes_and_no_others(bench: Bench) -> None:
    promising = [
        entrant
        for entrant in bench.entrants
        if entrant.contestant.name not in ("cache-aside, TTL only", "write-behind, stream")
    ]
    answers = {
        entrant.prefix: 1 if entrant.strategy.holds is Holds.COUNTS else place + 1
        for place, entrant in enumerate(promising)
    }
    for place, entrant in enumerate(promising):
        for key in KEYS:
            assert await entrant.strategy.read(key) in (0, None)
            await entrant.strategy.write(key, place + 1)
            # At once: the relay would invalidate it soon.
            assert await entrant.strategy.read(key) == answers[entrant.prefix], entrant.contestant.name
    for entrant in promising:
        read = [await entrant.strategy.read(key) for key in KEYS]
        assert read == [answers[entrant.prefix]] * len(KEYS), entrant.contestant.name


async def test_acknowledged_writes_are_in_the_database_at_the_end(lab_endpoints: Endpoints, pool: Pool) -> None:
    async with opened(lab_endpoints, pool, CONTESTANTS) as bench:
        async with bench.running():
            await asyncio.gather(*(entrant.strategy.write("a", 1) for entrant in bench.entrants))
        for entrant in bench.entrants:
            value = await pool.fetchval(
                "SELECT value FROM journal WHERE key = $1 ORDER BY id DESC LIMIT 1", entrant.prefix + "a"
            )
            assert value == 1, entrant.contestant.name


@pytest.mark.parametrize("name", ["cache-aside", "read-through", "write-through"])
async def test_the_relay_invalidates_a_row_that_was_changed_in_sql(bench: Bench, name: str) -> None:
    entrant = of(bench, name)
    assert await entrant.strategy.read("a") == 0
    await bench.pool.execute("UPDATE entries SET value = 77 WHERE key = $1", entrant.prefix + "a")

    async def is_read() -> bool:
        return await entrant.strategy.read("a") == 77

    await eventually(is_read)


async def test_no_cache_is_billed_one_statement_per_operation_and_no_redis(bench: Bench) -> None:
    entrant = of(bench, "no cache")
    entrant.costs.reset()
    for _each in range(3):
        await entrant.strategy.read("a")
    await entrant.strategy.write("a", 1)
    assert (entrant.costs.reads, entrant.costs.writes, entrant.costs.asked) == (3, 1, 3)
    assert (entrant.costs.traffic.round_trips, entrant.costs.traffic.bytes) == (0, 0)


async def test_a_hit_is_billed_one_round_trip_and_no_statement(bench: Bench) -> None:
    for entrant in bench.entrants:
        if (
            entrant.contestant.kind in (Kind.NONE, Kind.PUBLISHED, Kind.REPAIRED)
            or entrant.strategy.holds is Holds.COUNTS
        ):
            continue
        await entrant.strategy.read("a")
        entrant.costs.reset()
        await entrant.strategy.read("a")
        costs = entrant.costs
        assert (costs.reads, costs.asked, costs.traffic.round_trips) == (0, 0, 1), entrant.contestant.name


async def test_the_labs_keys_are_removed_and_no_others(bench: Bench, redis: Redis, endpoints: Endpoints) -> None:
    await redis.set("users:{1}", "theirs")
    await of(bench, "cache-aside").strategy.read("a")
    assert [key async for key in redis.scan_iter(match=f"{PREFIX}*")]
    await remove_keys(endpoints.redis_url)
    left = [key async for key in redis.scan_iter(match=f"{PREFIX}*")]
    # The flusher of our write-behind runs, and may have recreated its streams by now.
    assert [key for key in left if b":write-behind:{" not in key] == []
    assert await redis.get("users:{1}") == b"theirs"
