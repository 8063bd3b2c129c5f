"""The comparison: the published show their defects and ours none, in one run; figures are those of the files."""

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
from app.lab.comparison.bench import PREFIX
from app.lab.comparison.compare import Comparison, Plan, compare
from app.lab.comparison.contestant import CONTESTANTS, Contestant, Kind
from app.lab.comparison.contestants import NoCache
from app.lab.comparison.table import SCHEMA, LabError, LabTable, lab_schema
from app.lab.strategy import Strategy, Table
from app.lab.traces.operation import Kind as OperationKind
from app.lab.traces.trace import read_trace
from app.lab.traces.workload import make
from tests.service import REPOSITORY

DATA = REPOSITORY.parent / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason=f"The real data is not here: {DATA} does not exist.")

OURS = [contestant for contestant in CONTESTANTS if contestant.kind is Kind.OURS]
QUICK = Plan(drills=False)
POINT = 0.01


def named(*names: str) -> list[Contestant]:
    return [contestant for contestant in CONTESTANTS if contestant.name in names]


async def is_as_before(sql: asyncpg.Connection, redis: Redis) -> bool:
    """Whether the lab has left nothing behind."""
    schemas = await sql.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = $1", SCHEMA)
    return schemas == 0 and not [key async for key in redis.scan_iter(match=f"{PREFIX}*")]


async def test_the_published_show_their_defects_and_ours_none(
    endpoints: Endpoints, sql: asyncpg.Connection, redis: Redis
) -> None:
    trace = make("ycsb-a", requests=400, keys=60, seed=3)
    comparison = await compare(endpoints, trace, Plan(seed=3))
    assert comparison.complete
    assert [bill.name for bill in comparison.bills] == [contestant.name for contestant in CONTESTANTS]
    for bill in comparison.bills:
        whole = bill.whole
        wrong = {"stale": whole.stale, "uncommitted": whole.uncommitted, "lost": whole.lost, "doubled": whole.doubled}
        if bill.contestant.kind is Kind.PUBLISHED:
            assert sum(wrong.values()) > 0, bill.name
        else:
            assert set(wrong.values()) == {0}, (bill.name, wrong)
        assert bill.errors == 0, (bill.name, bill.first_error)
        assert (bill.reads, bill.writes) == (trace.reads, trace.writes)
    bills = {bill.name: bill for bill in comparison.bills}
    assert bills["write-through, concurrent"].whole.uncommitted > 0
    # What it had popped when it was killed is nowhere; what the repaired one had moved is carried by the next.
    assert bills["write-behind, list"].crash.lost > 0  # type: ignore[union-attr]
    assert bills["write-behind, stream"].crash.lost > 0  # type: ignore[union-attr]
    assert bills["write-behind, dirty keys"].lost > 0
    assert await is_as_before(sql, redis)


async def test_at_the_end_the_database_has_what_was_written(endpoints: Endpoints) -> None:
    trace = make("ycsb-a", requests=600, keys=50)
    comparison = await compare(endpoints, trace, QUICK)
    written = Counter(operation.key for operation in trace.operations if operation.kind is OperationKind.WRITE)
    for bill in comparison.bills:
        if bill.name in ("write-behind", "write-behind, dirty keys compared"):
            assert bill.finals == written, bill.name
        assert bill.finals.keys() == written.keys(), bill.name


async def test_costs_are_what_each_strategy_does(endpoints: Endpoints) -> None:
    trace = make("ycsb-a", requests=600, keys=50)
    bills = {bill.name: bill for bill in (await compare(endpoints, trace, QUICK)).bills}
    plain, behind = bills["no cache"], bills["write-behind"]
    assert (plain.database_reads, plain.database_writes) == (trace.reads, trace.writes)
    assert (plain.hit_ratio, plain.redis_round_trips, plain.redis_bytes) == (0.0, 0, 0)
    assert bills["cache-aside"].database_writes == trace.writes
    assert bills["write-through"].database_writes == 2 * trace.writes
    assert behind.database_writes < trace.writes
    assert (behind.coalescing or 0) > 1
    assert (bills["cache-aside, TTL only"].hit_ratio or 0) > (bills["cache-aside"].hit_ratio or 0) > 0


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


async def test_told_to_stop_it_answers_what_it_has_and_leaves_nothing_behind(
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
@pytest.mark.parametrize("file", ["kv_ecommerce_orm_busy.csv.gz", "kv_recommendations_scarab_a.csv.gz"])
async def test_the_hit_ratio_is_that_of_an_lru_of_the_same_size(endpoints: Endpoints, file: str) -> None:
    trace = read_trace(DATA / file, 20_000)
    keys = [operation.key for operation in trace.operations]
    size = len(set(keys)) // 10
    (bill,) = (
        await compare(
            endpoints, trace, Plan(clients=4, cache_size=size, drills=False), contestants=named("read-through")
        )
    ).bills
    assert bill.hit_ratio == pytest.approx(simulated(keys, size), abs=POINT)


def simulated(keys: Iterable[str], size: int) -> float:
    """The hit ratio of an LRU, written down once more."""
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
"""What an independent look takes from a row: the key, and whether it is a write."""


@real
@pytest.mark.parametrize(
    ("file", "look", "views"),
    [
        ("kv_readwrite_cloudphysics_hour1.csv.gz", lambda row: (row["key"], row["op"] == "set"), False),
        ("kv_ecommerce_orm_busy.csv.gz", lambda row: (row["key"], False), False),
        ("pageviews_nasa_1995_07_01.csv.gz", lambda row: (row["path"], True), True),
        ("orders_online_retail_2010_12__2011_04.csv.gz", lambda row: (row["stock_code"], True), False),
    ],
)
async def test_the_figures_of_real_traces_are_those_of_the_files(
    endpoints: Endpoints, file: str, look: Rows, views: bool
) -> None:
    rows = list(rows_of(DATA / file, look))
    trace = read_trace(DATA / file, 600, views=views)
    comparison = await compare(endpoints, trace, QUICK, contestants=[*named("no cache"), *OURS])
    told = comparison.as_json()["trace"]
    writes = sum(write for _key, write in rows)
    assert isinstance(told, dict)
    assert (told["reads"], told["writes"], told["keys"]) == (
        len(rows) - writes,
        writes,
        len({key for key, _write in rows}),
    )
    written = Counter(key for key, write in rows[:600] if write)
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


async def test_the_collector_of_garbage_looks_at_nothing_old_while_somebody_is_measured(endpoints: Endpoints) -> None:
    """A look at all that there is takes a fifth of a second, which would be somebody's slowest read."""
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
    """As it is published, each write of a batch is an UPDATE: nothing protects the database from a storm of them."""
    trace = make("counter-storm", requests=200)
    published, repaired = (
        await compare(endpoints, trace, QUICK, contestants=named("write-behind, list", "write-behind, list moved"))
    ).bills
    assert (published.database_writes, published.coalescing) == (trace.writes, 1.0)
    assert repaired.database_writes < trace.writes


async def test_a_second_comparison_takes_nothing_away_from_the_first(endpoints: Endpoints, redis: Redis) -> None:
    async with lab_schema(endpoints.database_url):
        await redis.set(f"{PREFIX}replay:write-behind", 1)
        with pytest.raises(LabError, match="Another comparison runs"):
            await compare(endpoints, make("ycsb-c", requests=1), QUICK)
        assert await redis.exists(f"{PREFIX}replay:write-behind")


async def test_that_the_database_has_several_hosts_is_told_before_anything_is_played(endpoints: Endpoints) -> None:
    several = Endpoints(endpoints.redis_url, "postgresql://somebody@one.invalid,two.invalid/somewhere")
    with pytest.raises(LabError, match="DATABASE_URL names several hosts"):
        await compare(several, make("ycsb-c", requests=1), Plan())
