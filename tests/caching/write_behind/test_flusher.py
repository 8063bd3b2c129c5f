"""The flusher flushes each view once, whatever dies. What cannot be counted is kept, and holds up nothing else."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import Cache, Flow, TargetUnavailable
from app.caching.write_behind import flushing, gathering
from app.caching.write_behind.shard import GROUP
from app.database import open_database
from app.embedded import Endpoints
from tests.caching.write_behind.views import HOME, Lost, Views, batch_of, drop_partitions, open_views, stored, sums
from tests.eventually import PATIENCE, eventually
from tests.faults.postgres_wire import PostgresWire

NOW, NEVER = timedelta(0), timedelta(days=1)
EVER = timedelta(milliseconds=-1)
"""An idle time that everybody has exceeded."""
MANY = 10**9

TRIGGER = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$;
CREATE TRIGGER {name} BEFORE INSERT OR UPDATE ON page_views FOR EACH ROW EXECUTE FUNCTION {name}();
"""
REFUSES = "IF NEW.page = 'poison' THEN RAISE EXCEPTION 'Nobody may count this.'; END IF;"

POISON: Mapping[str, tuple[str, int, str]] = {
    "a NUL": ("a\0b", 1, "no text that Postgres can keep"),
    "half of a pair": ("\ud800", 1, "no text that Postgres can keep"),
    "too many views": ("many", 2**63, "more than Postgres can count"),
    "a page that is too long": ("x" * 3000, 1, "page_length"),
    "what a trigger refuses": ("poison", 1, "Nobody may count this."),
}


@pytest.fixture
async def sql(sql: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """An operator's connection, as with psql. Its triggers are removed at the end."""
    yield sql
    await sql.execute("DROP FUNCTION IF EXISTS ill CASCADE")


@asynccontextmanager
async def views_over(endpoints: Endpoints, url: str, cache: Cache, timeout: timedelta) -> AsyncIterator[Views]:
    """Opens page views whose Postgres is at `url`, and must answer within `timeout`."""
    async with (
        open_database(url, connections=2, timeout=timeout, within=timeout, counted=lambda resource: None) as database,
        open_views(endpoints, cache, database) as views,
    ):
        yield views


@pytest.fixture
async def wire(endpoints: Endpoints) -> AsyncIterator[PostgresWire]:
    async with PostgresWire(endpoints.database_url) as wire:
        yield wire


@pytest.fixture
async def wired(endpoints: Endpoints, opened: Cache, wire: PostgresWire, impatient: None) -> AsyncIterator[Views]:
    """Page views whose Postgres is behind the wire."""
    async with views_over(endpoints, wire.url, opened, timedelta(seconds=10)) as views:
        yield views
        wire.heal()


@pytest.fixture
def abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes everything unacknowledged available for takeover at once."""
    monkeypatch.setattr(gathering, "ABANDONED", NOW)


async def ill(sql: asyncpg.Connection, body: str) -> None:
    """Makes Postgres run `body` for each row of page views from now on."""
    await sql.execute(TRIGGER.format(name="ill", body=body))


async def well(sql: asyncpg.Connection) -> None:
    """Undoes `ill`."""
    await sql.execute("DROP FUNCTION ill CASCADE")


async def wait(redis: Redis, *entries: Mapping[str, int] | bytes) -> list[str]:
    """Adds entries to the stream as the acceptance does, or bytes that are no entry. Returns the batches' names."""
    batches = [batch_of() for _ in entries]
    async with redis.pipeline(transaction=False) as pipeline:
        for batch, entry in zip(batches, entries, strict=True):
            deltas = entry if isinstance(entry, bytes) else json.dumps(entry)
            pipeline.xadd(HOME.stream, {"batch": batch, "deltas": deltas, "views": 1})
        await pipeline.execute()
    return batches


async def hold(dead: flushing.Flushing) -> int:
    """Makes a flusher read all that it gets, and die. Returns how many entries it holds."""
    count = 0
    while came := await dead._gathering.read(0.001):
        count += len(came)
    return count


async def held(flusher: flushing.Flushing) -> bool:
    """Whether the flusher holds anything."""
    return bool(flusher._held)


async def pending(redis: Redis) -> int:
    """Returns how many entries were delivered and not acknowledged."""
    return int((await redis.xpending(HOME.stream, GROUP))["pending"])


async def consumers(redis: Redis) -> dict[str, int]:
    """Returns the consumers that Redis knows, and how many entries each holds."""
    found: Any = await redis.xinfo_consumers(HOME.stream, GROUP)
    return {consumer["name"].decode(): consumer["pending"] for consumer in found}


async def letters(sql: asyncpg.Connection) -> list[asyncpg.Record]:
    return list(await sql.fetch("SELECT page, delta, batch, entry, reason, deliveries FROM dead_letters ORDER BY id"))


# Takeover of other flushers' entries.


async def test_more_entries_than_one_call_claims_are_all_taken_over(
    views: Views, redis: Redis, sql: asyncpg.Connection, abandoned: None
) -> None:
    await wait(redis, *({"home": 1} for _ in range(620)))
    assert await hold(views.new_flusher()) == 620
    heir = views.new_flusher(amount=MANY)
    assert [await heir.round() for _ in range(4)] == [200, 200, 200, 20]
    assert (await stored(sql), await pending(redis), await redis.xlen(HOME.stream)) == (620, 0, 0)


async def test_entries_of_an_active_flusher_are_not_taken_over(views: Views, redis: Redis) -> None:
    await wait(redis, {"home": 1})
    assert await hold(views.new_flusher()) == 1
    assert await views.new_flusher().round() == 0
    assert await pending(redis) == 1


@pytest.mark.parametrize("removed", [1, 3, 130])
async def test_pending_entries_removed_from_the_stream_are_acknowledged(
    views: Views, redis: Redis, sql: asyncpg.Connection, abandoned: None, removed: int
) -> None:
    """Redis 6.2 returns (None, None) for them, and transfers them; Redis 7 forgets them, and returns their ids."""
    await wait(redis, *({"home": 1} for _ in range(removed + 2)))
    assert await hold(views.new_flusher()) == removed + 2
    entries: Any = await redis.xrange(HOME.stream)
    await redis.xdel(HOME.stream, *(entry for entry, _fields in entries[1:-1]))
    await views.carry(views.new_flusher())
    assert (await pending(redis), await stored(sql), views.flow[Flow.GONE]) == (0, 2, removed)


async def test_removed_entries_in_the_third_part_of_a_redis_7_answer_are_counted_as_gone(
    views: Views, redis: Redis, sql: asyncpg.Connection, abandoned: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with the answer that Redis 7 would give: missing entries are neither among the entries nor pending."""
    autoclaim = views.waiting.xautoclaim
    third_parts: list[int] = []

    async def of_redis_7(stream: str, group: str, consumer: str, **more: Any) -> list[Any]:
        cursor, entries, *third = await autoclaim(stream, group, consumer, **more)
        if not third:
            ours = await redis.xpending_range(stream, group, "-", "+", 1000, consumer)
            there: Any = await redis.xrange(stream)
            ids = {entry for entry, _fields in there}
            gone = [each["message_id"] for each in ours if each["message_id"] not in ids]
            if gone:
                await redis.xack(stream, group, *gone)
            third = [gone]
        third_parts.append(len(third[0]))
        return [cursor, [entry for entry in entries if entry[0] is not None], *third]

    monkeypatch.setattr(views.waiting, "xautoclaim", of_redis_7)
    await wait(redis, *({"home": 1} for _ in range(5)))
    await hold(views.new_flusher())
    entries: Any = await redis.xrange(HOME.stream)
    await redis.xdel(HOME.stream, *(entry for entry, _fields in entries[1:-1]))
    await views.carry(views.new_flusher())
    assert sum(third_parts) == 3
    assert (await pending(redis), await stored(sql), views.flow[Flow.GONE]) == (0, 2, 3)


async def test_a_stream_trimmed_by_hand_leaves_nothing_pending(
    views: Views, redis: Redis, abandoned: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that accepted them is gone, together with its receipts."""
    await views.counters.add("home", 5)
    await hold(views.new_flusher())
    await redis.xtrim(HOME.stream, maxlen=0, approximate=False)
    await views.carry(views.new_flusher())
    backlog = await views.counters.backlog()
    assert (backlog.amount, backlog.bytes, backlog.oldest) == (0, 0, None)


async def test_views_accepted_before_the_group_existed_are_flushed(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    await redis.flushall()
    await views.counters.add("home", 5)
    assert await views.flusher.round() == 0
    assert await views.flusher.round() == 1
    assert await stored(sql) == 5


async def test_a_recreated_group_counts_nothing_twice(views: Views, redis: Redis, sql: asyncpg.Connection) -> None:
    """A flusher commits, and dies · somebody deletes the group: the deliveries are forgotten"""
    await views.counters.add("home", 5)
    await views.commit_without_acknowledging()
    await redis.xgroup_destroy(HOME.stream, GROUP)
    await views.carry(views.new_flusher())
    assert (await stored(sql), await pending(redis), await redis.xlen(HOME.stream)) == (5, 0, 0)


async def test_a_redelivered_entry_is_reported_as_flushed_once(
    views: Views, redis: Redis, sql: asyncpg.Connection, abandoned: None
) -> None:
    """One flusher commits, and stalls · another one flushes the entry · the first one resumes, and acknowledges"""
    await views.counters.add("home", 5)
    await views.commit_without_acknowledging()
    await views.carry(views.new_flusher())
    await views.carry()
    assert (await stored(sql), views.flow[Flow.FLUSHED]) == (5, 5)
    assert (await views.counters.backlog()).amount == 0


# Consumers come and go.


async def test_a_dead_consumer_without_entries_is_removed(
    views: Views, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await views.counters.add("home", 5)
    dead = views.new_flusher()
    await views.carry(dead)
    await views.new_flusher().round()
    assert dead._gathering.consumer in await consumers(redis), "It may be about to ask again."
    monkeypatch.setattr(gathering, "RETIRED", EVER)
    await views.new_flusher().round()
    assert dead._gathering.consumer not in await consumers(redis)


async def test_a_consumer_that_holds_entries_is_never_removed(
    views: Views, redis: Redis, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis would forget its entries together with the consumer."""
    monkeypatch.setattr(gathering, "RETIRED", EVER)
    await views.counters.add("home", 5)
    dead = views.new_flusher()
    assert await hold(dead) == 1
    for _ in range(2):
        await views.new_flusher().round()
    assert (await consumers(redis))[dead._gathering.consumer] == 1
    monkeypatch.setattr(gathering, "ABANDONED", NOW)
    await views.carry(views.new_flusher())
    assert await stored(sql) == 5
    await views.new_flusher().round()
    assert dead._gathering.consumer not in await consumers(redis)


async def test_a_flusher_that_stops_removes_its_consumer(views: Views, redis: Redis, sql: asyncpg.Connection) -> None:
    leaving = views.new_flusher()
    async with leaving:
        assert leaving.alive
        await views.counters.add("home", 5)
    assert not leaving.alive
    assert await stored(sql) == 5
    assert leaving._gathering.consumer not in await consumers(redis)


# Shutdown.


@pytest.mark.parametrize("drain", [NOW, timedelta(seconds=PATIENCE)])
async def test_a_stopping_flusher_drains_the_stream_within_its_time_limit(
    views: Views, redis: Redis, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, drain: timedelta
) -> None:
    """It is told to stop in the middle of its first flush, which it finishes."""
    monkeypatch.setattr(flushing, "DRAIN", drain)
    views.gathered.clear()
    views.commit.clear()
    await wait(redis, *({"home": 1} for _ in range(500)))
    last = views.new_flusher()
    await last.__aenter__()
    await views.gathered.wait()
    leaving = asyncio.create_task(last.__aexit__())
    await last._repeating._stop.wait()
    views.commit.set()
    await leaving
    left = await redis.xlen(HOME.stream)
    assert left == (450 if drain is NOW else 0)
    assert await stored(sql) == 500 - left
    assert await pending(redis) == 0


async def test_a_flusher_told_to_stop_flushes_at_once_what_it_has_gathered(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """Without the stop, it would wait a day for more views."""
    async with asyncio.timeout(PATIENCE):
        last = views.new_flusher(amount=MANY, interval=NEVER)
        async with last:
            await views.counters.add("home", 5)
            await eventually(partial(held, last))
        assert await stored(sql) == 5
    assert await redis.xlen(HOME.stream) == 0


async def test_without_the_database_a_flusher_stops_soon_and_leaves_its_entries_in_redis(
    wired: Views, wire: PostgresWire, redis: Redis, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flushing, "DRAIN", NEVER)
    wire.refuse()
    last = wired.new_flusher()
    async with asyncio.timeout(PATIENCE):
        async with last:
            await wired.counters.add("home", 5)
            await wired.gathered.wait()
            await wired.counters.add("home", 2)
    assert last._gathering.consumer in await consumers(redis)
    assert await redis.xlen(HOME.stream) == 2
    wire.heal()
    monkeypatch.setattr(gathering, "ABANDONED", NOW)
    heir = wired.new_flusher()
    async with asyncio.timeout(PATIENCE):
        while await redis.xlen(HOME.stream):
            try:
                await heir.round()
            except TargetUnavailable:
                await asyncio.sleep(0.01)
    assert await stored(sql) == 7


# Poison.


@pytest.mark.parametrize("name", POISON)
async def test_one_poison_page_holds_up_nothing_else(
    views: Views, redis: Redis, sql: asyncpg.Connection, name: str
) -> None:
    page, delta, reason = POISON[name]
    await ill(sql, REFUSES)
    deltas = {f"page {place}": place + 1 for place in range(499)}
    good = [{f"entry {place}": 2} for place in range(999)]
    batches = await wait(redis, *good[:340], {**deltas, page: delta}, *good[340:])
    await views.carry()
    assert await sums(sql) == deltas | {f"entry {place}": 2 for place in range(999)}
    (letter,) = await letters(sql)
    assert reason in letter["reason"]
    assert (letter["batch"], letter["deliveries"]) == (batches[340], 1)
    if letter["entry"] is None:
        assert (letter["page"], letter["delta"]) == (page, delta)
    else:
        assert json.loads(letter["entry"]) == {page: delta}
    assert (await pending(redis), await redis.xlen(HOME.stream)) == (0, 0)
    assert views.flow[Flow.DEAD] == delta
    if delta < 2**53:  # Redis cannot add up more, and never accepts more.
        assert views.flow[Flow.FLUSHED] == sum(deltas.values()) + 2 * 999
    assert views.flow[Flow.ROWS] == len(deltas) + 999
    assert len(views.flushes) < 50


@pytest.mark.parametrize("name", ["a NUL", "what a trigger refuses"])
async def test_a_process_that_dies_right_after_a_salvage_leaves_one_dead_letter(
    views: Views, redis: Redis, sql: asyncpg.Connection, abandoned: None, name: str
) -> None:
    """The salvage commits · its process dies · another one takes the entry over, and is refused in turn"""
    page, delta, _reason = POISON[name]
    await ill(sql, REFUSES)
    await wait(redis, *({"home": 1} for _ in range(20)), {"home": 3, page: delta}, *({"home": 1} for _ in range(20)))
    views.dies_after_salvage = True
    with pytest.raises(Lost):
        await views.carry()
    views.dies_after_salvage = False
    assert len(await letters(sql)) == 1
    await views.carry(views.new_flusher())
    assert len(await letters(sql)) == 1
    assert await sums(sql) == {"home": 43}
    assert (await pending(redis), await redis.xlen(HOME.stream)) == (0, 0)


async def test_a_stream_full_of_poison_is_worked_off(views: Views, redis: Redis, sql: asyncpg.Connection) -> None:
    await ill(sql, REFUSES)
    await wait(redis, *({"poison": 1, "home": 1} for _ in range(200)))
    await views.carry(views.new_flusher(amount=MANY, interval=NEVER))
    assert (len(await letters(sql)), await sums(sql)) == (200, {"home": 200})
    assert len(views.flushes) <= 200 + 8, "Each one alone, and those on the way down to it."


async def test_after_poison_flushes_grow_to_their_former_size(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    await ill(sql, REFUSES)
    carrying = views.new_flusher(amount=MANY, interval=NEVER)  # It gathers as many entries as it may.
    await wait(redis, {"poison": 1}, *({"home": 1} for _ in range(199)))
    await views.carry(carrying)
    assert views.flushes == [200, 100, 50, 25, 12, 6, 3, 1, 1, 2, 4, 8, 16, 32, 64, 72]
    await wait(redis, *({"home": 1} for _ in range(400)))
    await views.carry(carrying)
    assert views.flushes[16:] == [200, 200]


async def test_a_page_that_is_always_refused_does_not_hold_up_the_others(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """A page that is full refuses each new view, for as long as it is full."""
    await sql.execute("INSERT INTO page_views VALUES ('full', $1)", 2**53 - 1)
    await wait(redis, *({"home": 1, "full": 1} for _ in range(3)))
    await views.carry()
    assert await stored(sql) == 3
    assert [letter["page"] for letter in await letters(sql)] == ["full"] * 3
    assert views.flow[Flow.FLUSHED] == views.flow[Flow.DEAD] == 3


async def test_of_entries_that_overflow_only_together_the_first_is_counted(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """Two entries whose sum is more than Postgres can count: the first one fits."""
    await wait(redis, {"home": 2**52}, {"home": 2**52}, {"news": 1})
    await views.carry()
    assert await sums(sql) == {"home": 2**52, "news": 1}
    assert [letter["delta"] for letter in await letters(sql)] == [2**52]


@pytest.mark.parametrize(
    "raw",
    [b"\xff{", b"", b"[]", b'{"home": 1.5}', b'{"home": -1}', b'{"home": true}', b"[" * 50_000],
)
async def test_bytes_that_are_no_batch_become_one_dead_letter_and_the_rest_is_counted(
    views: Views, redis: Redis, sql: asyncpg.Connection, raw: bytes
) -> None:
    await wait(redis, {"home": 1}, raw, {"home": 1})
    entries: Any = await redis.xrange(HOME.stream)
    await views.carry(views.new_flusher(amount=MANY))
    (letter,) = await letters(sql)
    assert (letter["entry"], letter["reason"]) == (raw, "It is no batch.")
    assert letter["batch"] == f"{HOME.stream} {entries[1][0].decode()}"
    assert await stored(sql) == 2
    assert (await pending(redis), await redis.xlen(HOME.stream)) == (0, 0)


@pytest.mark.parametrize(
    "name", ["01ARZ3NDEKTSV4RRFFQ69G5FAI", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "01arz3ndektsv4rrffq69g5fav", "x"]
)
async def test_a_batch_with_an_invalid_name_is_not_counted_and_blocks_no_total(
    views: Views, redis: Redis, sql: asyncpg.Connection, name: str
) -> None:
    """A letter that no ULID has, a year after 9999, small letters, too short."""
    await redis.xadd(HOME.stream, {"batch": name, "deltas": '{"home": 5}'})
    await wait(redis, {"home": 1})
    assert await views.total() == 1
    await views.carry()
    assert [letter["entry"] for letter in await letters(sql)] == [b'{"home": 5}']
    assert await stored(sql) == await views.total() == 1


async def test_invalid_bytes_held_by_two_flushers_become_one_dead_letter(
    views: Views, redis: Redis, sql: asyncpg.Connection, abandoned: None
) -> None:
    await wait(redis, b"\xff{", {"home": 1})
    both = views.new_flusher(), views.new_flusher()
    for each in both:
        await each._gathering.gather(each._held)
        assert len(each._held) == 2
    await asyncio.gather(*(each.round() for each in both))
    assert (len(await letters(sql)), await stored(sql)) == (1, 1)
    assert (await pending(redis), await redis.xlen(HOME.stream)) == (0, 0)


async def test_invalid_bytes_after_an_entry_without_pages_become_a_dead_letter(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    await wait(redis, {}, b"\xff{", {"home": 1})
    await views.carry(views.new_flusher(amount=MANY))
    assert [letter["entry"] for letter in await letters(sql)] == [b"\xff{"]
    assert await stored(sql) == 1


async def test_an_entry_below_the_floor_of_the_ledger_becomes_dead_letters_once(
    views: Views, redis: Redis, sql: asyncpg.Connection, abandoned: None, ledger: None
) -> None:
    await sql.execute("UPDATE ledger_floor SET hour = date_trunc('hour', now())")
    batch = batch_of(timedelta(hours=1))
    await redis.xadd(HOME.stream, {"batch": batch, "deltas": '{"home": 5, "news": 2}'})
    await wait(redis, {"home": 1})
    views.dies_after_salvage = True
    with pytest.raises(Lost):
        await views.carry()
    views.dies_after_salvage = False
    await views.carry(views.new_flusher())
    assert await sums(sql) == {"home": 1}
    assert {(letter["page"], letter["delta"], letter["batch"]) for letter in await letters(sql)} == {
        ("home", 5, batch),
        ("news", 2, batch),
    }


async def test_an_entry_of_a_new_stream_is_not_removed_for_an_earlier_one_with_its_id(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """The flusher has gathered an entry · FLUSHALL · another entry gets its id, within the same ms · the first entry is
    counted, and its acknowledgement would remove the other one"""
    await wait(redis, {"home": 1})
    entries: Any = await redis.xrange(HOME.stream)
    await views.flusher._gathering.gather(views.flusher._held)
    await redis.flushall()
    await redis.xadd(HOME.stream, {"batch": batch_of(), "deltas": '{"home": 5}', "views": 5}, id=entries[0][0])
    await views.carry()
    assert await stored(sql) == 6


async def test_a_stream_lost_while_poison_is_in_flight_does_not_stop_the_flusher(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """The flusher has gathered poison · FLUSHALL: no group can tell how often the poison was delivered"""
    await ill(sql, REFUSES)
    await wait(redis, {"poison": 1, "home": 1})
    await views.flusher._gathering.gather(views.flusher._held)
    await redis.flushall()
    await views.counters.add("home", 5)
    await views.carry()
    assert (await stored(sql), len(await letters(sql))) == (6, 1)


# Errors that are not the views' fault.


@pytest.mark.parametrize("state", ["40P01", "08006"])
async def test_an_error_that_is_not_the_views_fault_makes_no_dead_letter(
    views: Views, redis: Redis, sql: asyncpg.Connection, state: str
) -> None:
    """A deadlock and a lost connection: all entries are retried together."""
    await ill(sql, f"RAISE EXCEPTION 'Not now.' USING ERRCODE = '{state}';")
    await wait(redis, *({"home": 1} for _ in range(4)))
    carrying = views.new_flusher(amount=MANY)
    for _ in range(3):
        with pytest.raises(TargetUnavailable):
            await carrying.round()
    assert views.flushes == [4, 4, 4]
    assert (await letters(sql), await pending(redis)) == ([], 4)
    await well(sql)
    await views.carry(carrying)
    assert (await letters(sql), await stored(sql)) == ([], 4)


@pytest.mark.parametrize("statement", ["INSERT INTO applied", "^COMMIT"])
async def test_a_broken_connection_makes_no_dead_letter_and_counts_nothing_twice(
    wired: Views, wire: PostgresWire, redis: Redis, sql: asyncpg.Connection, statement: str
) -> None:
    for _ in range(2):
        await wait(redis, {"home": 1})
        await wired.carry()
    await wait(redis, {"home": 5})
    lost = wire.cut_after(statement)
    with pytest.raises(TargetUnavailable):
        await wired.carry()
    assert lost.dropped.is_set()
    await wired.carry()
    assert (await letters(sql), await stored(sql)) == ([], 7)
    assert wired.flow[Flow.FLUSHED] == 7


async def test_a_missing_partition_makes_no_dead_letter(views: Views, redis: Redis, sql: asyncpg.Connection) -> None:
    """Somebody has dropped it, while the store believes that it exists."""
    await wait(redis, {"home": 1})
    await views.carry()
    await drop_partitions(sql)
    await wait(redis, *({"home": 1} for _ in range(9)))
    await views.carry(views.new_flusher(amount=MANY))
    assert (await letters(sql), await stored(sql)) == ([], 10)
