"""The comparison: how it is played, how it ends, and that its figures are those of the files."""

import asyncio
import csv
import gc
import gzip
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from app.embedded import Endpoints
from app.lab.comparison.compare import compare
from app.lab.comparison.comparison import Comparison
from app.lab.comparison.contestant import CONTESTANTS, Contestant, Kind
from app.lab.comparison.entrant import PREFIX
from app.lab.comparison.lab_error import LabError
from app.lab.comparison.lab_table import LabTable
from app.lab.comparison.no_cache import NoCache
from app.lab.comparison.plan import Plan
from app.lab.comparison.schema import SCHEMA, lab_schema
from app.lab.strategy import Strategy, Table
from app.lab.traces.trace import read_trace
from app.lab.traces.workload import make
from tests.service import REPOSITORY

DATA = REPOSITORY.parent / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason=f"The real data is not here: {DATA} does not exist.")

OURS = [contestant for contestant in CONTESTANTS if contestant.kind is Kind.OURS]
QUICK = Plan(drills=False)
POINT = 0.01
FULL = [pytest.mark.prove, pytest.mark.timeout(900)]


def named(*names: str) -> list[Contestant]:
    return [contestant for contestant in CONTESTANTS if contestant.name in names]


async def is_as_before(sql: asyncpg.Connection, redis: Redis) -> bool:
    """Returns whether the lab has left nothing behind."""
    schemas = await sql.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = $1", SCHEMA)
    return schemas == 0 and not [key async for key in redis.scan_iter(match=f"{PREFIX}*")]


async def test_a_warm_up_is_played_and_not_billed(endpoints: Endpoints) -> None:
    trace = make("ycsb-c", requests=400, keys=20)
    contestants = named("no cache", "read-through")
    plain, cached = (await compare(endpoints, trace, Plan(warm_up=300, drills=False), contestants=contestants)).bills
    assert plain.database_reads == plain.reads == cached.reads == 100
    assert cached.hit_ratio is not None
    assert cached.hit_ratio > 0.9


async def test_an_open_loop_plays_everything(endpoints: Endpoints) -> None:
    trace = make("ycsb-b", requests=200, keys=20)
    comparison = await compare(
        endpoints, trace, Plan(rate=1_000, drills=False), contestants=named("no cache", "cache-aside")
    )
    assert [(bill.reads, bill.writes) for bill in comparison.bills] == [(trace.reads, trace.writes)] * 2


async def test_when_stopped_it_returns_what_it_has_and_leaves_nothing_behind(
    endpoints: Endpoints, sql: asyncpg.Connection, redis: Redis
) -> None:
    stop = asyncio.Event()

    def progress(what: str, done: int, total: int) -> None:
        if done >= 1_000:
            stop.set()

    trace = make("ycsb-b", requests=4_000)
    comparison = await compare(endpoints, trace, QUICK, stop=stop, progress=progress)
    assert not comparison.complete
    assert 1_000 <= sum(bill.reads + bill.writes for bill in comparison.bills) < 4_000 * len(CONTESTANTS)
    assert comparison.as_json()["replayed"]["complete"] is False  # type: ignore[index]
    assert await is_as_before(sql, redis)


@real
@pytest.mark.parametrize("most", [4_000, pytest.param(20_000, marks=FULL)])
@pytest.mark.parametrize("file", ["kv_ecommerce_orm_busy.csv.gz", "kv_recommendations_scarab_a.csv.gz"])
async def test_the_hit_ratio_is_that_of_an_lru_of_the_same_size(endpoints: Endpoints, file: str, most: int) -> None:
    trace = read_trace(DATA / file, most, most_lines=most)
    keys = [operation.key for operation in trace.operations]
    size = len(set(keys)) // 10
    (bill,) = (
        await compare(
            endpoints, trace, Plan(clients=4, cache_size=size, drills=False), contestants=named("read-through")
        )
    ).bills
    assert bill.hit_ratio == pytest.approx(simulated(keys, size), abs=POINT)
    # A cache that keeps everything would be detected.
    assert simulated(keys, len(keys)) > simulated(keys, size) + 3 * POINT


def simulated(keys: Iterable[str], size: int) -> float:
    """Returns the hit ratio of an independently written LRU."""
    cache: OrderedDict[str, bool] = OrderedDict()
    hits = reads = 0
    for key in keys:
        reads += 1
        if key in cache:
            hits += 1
            cache.move_to_end(key)
        else:
            cache[key] = True
            if len(cache) > size:
                cache.popitem(last=False)
    return hits / reads


Rows = Callable[[dict[str, str]], tuple[str, bool]]
"""What an independent reader takes from a row: the key, and whether it is a write."""

LOOKS: list[tuple[str, Rows, bool]] = [
    ("kv_readwrite_cloudphysics_hour1.csv.gz", lambda row: (row["key"], row["op"] == "set"), False),
    ("kv_ecommerce_orm_busy.csv.gz", lambda row: (row["key"], False), False),
    ("pageviews_nasa_1995_07_01.csv.gz", lambda row: (row["path"], True), True),
    ("orders_online_retail_2010_12__2011_04.csv.gz", lambda row: (row["stock_code"], True), False),
]
"""Real traces, each with its reader, and whether its reads count as views."""


@real
@pytest.mark.parametrize(
    ("file", "look", "views", "most"),
    [
        # All rows are counted, and this many are played. A million rows take long to count.
        *((*each, 300) for each in LOOKS if each[0] != "kv_ecommerce_orm_busy.csv.gz"),
        *(pytest.param(*each, 4_000, marks=FULL) for each in LOOKS),
    ],
)
async def test_the_figures_of_real_traces_are_those_of_the_files(
    endpoints: Endpoints, file: str, look: Rows, views: bool, most: int
) -> None:
    rows = list(rows_of(DATA / file, look))
    trace = read_trace(DATA / file, most, views=views)
    comparison = await compare(endpoints, trace, QUICK, contestants=[*named("no cache"), *OURS])
    told = comparison.as_json()["trace"]
    writes = sum(write for _key, write in rows)
    assert isinstance(told, dict)
    assert (told["reads"], told["writes"], told["keys"]) == (
        len(rows) - writes,
        writes,
        len({key for key, _write in rows}),
    )
    written = Counter(key for key, write in rows[:most] if write)
    by_name = {bill.name: bill for bill in comparison.bills}
    assert by_name["write-behind"].finals == written
    assert all(bill.finals.keys() == written.keys() for bill in comparison.bills)
    assert all(bill.errors == 0 and is_right(bill.name, comparison) for bill in comparison.bills)


def rows_of(path: Path, look: Rows) -> Iterator[tuple[str, bool]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        yield from map(look, csv.DictReader(file))


def is_right(name: str, comparison: Comparison) -> bool:
    whole = next(bill for bill in comparison.bills if bill.name == name).whole
    return whole.stale == whole.uncommitted == whole.lost == whole.doubled == 0


async def test_the_garbage_collector_scans_no_old_objects_during_a_measurement(endpoints: Endpoints) -> None:
    """A scan of all objects takes a fifth of a second, which would be some strategy's slowest read."""
    looked_at: list[int] = []

    class Watching(NoCache):
        async def read(self, key: str) -> int | None:
            looked_at.append(len(gc.get_objects()))
            return await super().read(key)

    def make_watching(redis: Redis, table: Table, prefix: str, ttl: timedelta) -> Strategy:
        assert isinstance(table, LabTable)
        return Watching(table)

    everything = len(gc.get_objects())
    watching = Contestant("watching", Kind.PUBLISHED, "It looks at the collector.", False, make_watching)
    await compare(endpoints, make("ycsb-c", requests=40), QUICK, contestants=[watching])
    assert len(looked_at) == 40
    assert max(looked_at) < everything / 2
    assert len(gc.get_objects()) > everything / 2


async def test_the_published_list_merges_nothing_and_the_repaired_one_does(endpoints: Endpoints) -> None:
    """As published, each write of a batch is an UPDATE: nothing protects the database from a storm of writes."""
    trace = make("counter-storm", requests=200)
    published, repaired = (
        await compare(endpoints, trace, QUICK, contestants=named("write-behind, list", "write-behind, list moved"))
    ).bills
    assert (published.database_writes, published.coalescing) == (trace.writes, 1.0)
    assert repaired.database_writes < trace.writes


async def test_a_second_comparison_does_not_disturb_the_first(endpoints: Endpoints, redis: Redis) -> None:
    async with lab_schema(endpoints.database_url):
        await redis.set(f"{PREFIX}replay:write-behind", 1)
        with pytest.raises(LabError, match="Another comparison runs"):
            await compare(endpoints, make("ycsb-c", requests=1), QUICK)
        assert await redis.exists(f"{PREFIX}replay:write-behind")


async def test_a_database_url_with_several_hosts_is_refused_before_anything_is_played(endpoints: Endpoints) -> None:
    several = Endpoints(endpoints.redis_url, "postgresql://somebody@one.invalid,two.invalid/somewhere")
    with pytest.raises(LabError, match="DATABASE_URL names several hosts"):
        await compare(several, make("ycsb-c", requests=1), Plan())
