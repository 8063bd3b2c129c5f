"""The strategies on a cluster of real nodes: one value in each slot that a test cares for, and another process that
reads it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from app.caching import CacheAside, CacheUnavailable, NotInvalidated, Outcome, ReadThrough, Region, WriteThrough
from app.caching.cluster import Cluster, open_cluster
from app.caching.cluster.slot_map import slot_of as slot_of_name
from app.caching.write_through import Revoke
from tests.caching.cluster.conftest import opening, opening_through_wires, silent
from tests.caching.conftest import Source, Thing
from tests.eventually import PATIENCE, eventually
from tests.faults.redis_cluster import RedisCluster
from tests.faults.redis_node import RedisNode

OLD, NEW = Thing(name="old", version=1), Thing(name="new", version=2)


def slot_of(key: int) -> int:
    """Returns the slot of a key of the region `things`."""
    return slot_of_name(f"things:{{{key}}}")


async def keys_at(redis_cluster: RedisCluster, node: RedisNode, many: int = 1) -> list[int]:
    """Returns some keys whose slots a node owns."""
    found: list[int] = []
    key = 0
    while len(found) < many:
        key += 1
        if await redis_cluster.owner(slot_of(key)) is node:
            found.append(key)
    return found


@dataclass(slots=True)
class Process:
    """A process that caches things in a cluster."""

    region: Region[int, Thing]
    source: Source
    aside: CacheAside[int, Thing] = field(init=False)
    through: ReadThrough[int, Thing] = field(init=False)

    def __post_init__(self) -> None:
        self.aside = CacheAside(self.region)
        self.through = ReadThrough(self.region, self.source.get_many)

    async def get(self, key: int) -> tuple[str | None, Outcome]:
        """Returns the name that a reader gets, and how."""
        reading = await self.aside.get(key, self.source.get)
        return None if reading.value is None else reading.value.name, reading.outcome


@asynccontextmanager
async def process(cluster: Cluster, source: Source) -> AsyncIterator[Process]:
    """Opens the region of a process."""
    async with Region[int, Thing](cluster, "things", Thing) as region:
        yield Process(region, source)


@pytest.fixture
async def reader(redis_cluster: RedisCluster, source: Source) -> AsyncIterator[Process]:
    """A process of its own, which shares nothing but the nodes with `writer`."""
    async with opening(redis_cluster) as cluster, process(cluster, source) as one:
        yield one


@pytest.fixture
async def writer(redis_cluster: RedisCluster, source: Source) -> AsyncIterator[Process]:
    """Another one."""
    async with opening(redis_cluster) as cluster, process(cluster, source) as one:
        yield one


async def test_values_at_all_nodes_are_hits_until_another_process_invalidates_them(
    reader: Process, writer: Process, source: Source
) -> None:
    source.rows = dict.fromkeys(range(1, 31), OLD)
    assert {outcome for _, outcome in await asyncio.gather(*map(reader.get, source.rows))} == {Outcome.MISS}
    assert {await reader.get(key) for key in source.rows} == {("old", Outcome.HIT)}
    source.rows = dict.fromkeys(source.rows, NEW)
    await asyncio.gather(*(writer.aside.invalidate(key, 2) for key in source.rows))
    assert {await reader.get(key) for key in source.rows} == {("new", Outcome.MISS)}
    readings = await reader.through.get_many(list(source.rows))
    assert [reading.outcome for reading in readings if not isinstance(reading, Exception)] == [Outcome.HIT] * 30


async def test_a_slot_that_moves_takes_its_values_along_and_they_are_misses_there(
    redis_cluster: RedisCluster, reader: Process, writer: Process, source: Source
) -> None:
    """R caches the row                   the slot moves to Y, with the value
    W commits, and invalidates at Y       the slot moves back to X, with what Y has
    R reads: what X once had is gone."""
    x, y, _ = await redis_cluster.primaries()
    (key,) = await keys_at(redis_cluster, x)
    source.rows[key] = OLD
    assert await reader.get(key) == ("old", Outcome.MISS)
    await redis_cluster.move([slot_of(key)], y)
    assert await reader.get(key) == ("old", Outcome.MISS)
    assert await reader.get(key) == ("old", Outcome.HIT)
    source.rows[key] = NEW
    await writer.aside.invalidate(key, 2)
    assert await reader.get(key) == ("new", Outcome.MISS)
    await redis_cluster.move([slot_of(key)], x)
    assert await reader.get(key) == ("new", Outcome.MISS)


@pytest.mark.parametrize("moved", [(), ("",), ("", ":lease"), (":lease",)], ids=str)
async def test_an_invalidation_reaches_both_sides_of_a_half_moved_slot(
    redis_cluster: RedisCluster, reader: Process, writer: Process, source: Source, moved: tuple[str, ...]
) -> None:
    """R caches the row, and begins to load it anew      some of the value, its lease and its floor move
    W commits, and invalidates                          R would fill the old row under the lease, on either side."""
    x, y, _ = await redis_cluster.primaries()
    (key,) = await keys_at(redis_cluster, x)
    source.rows[key] = OLD
    await reader.get(key)
    token = await reader.region.claim(key)
    assert token is not None
    moving = await redis_cluster.moving(slot_of(key), y)
    await moving.move([f"things:{{{key}}}{part}" for part in moved])
    source.rows[key] = NEW
    await writer.aside.invalidate(key, 2)
    await reader.region.fill(key, token, OLD)
    assert (await reader.get(key))[0] == "new"
    await moving.finish()
    assert (await reader.get(key))[0] == "new"
    assert await reader.get(key) == ("new", Outcome.HIT)


async def test_values_are_hits_on_both_sides_of_a_half_moved_slot(
    redis_cluster: RedisCluster, reader: Process, source: Source
) -> None:
    x, y, _ = await redis_cluster.primaries()
    (key,) = await keys_at(redis_cluster, x)
    source.rows[key] = OLD
    await reader.get(key)
    moving = await redis_cluster.moving(slot_of(key), y)
    assert await reader.get(key) == ("old", Outcome.HIT)
    await moving.move([f"things:{{{key}}}"])
    assert (await reader.get(key))[0] == "old"
    await moving.finish()


async def test_write_through_revokes_key_by_key_in_a_half_moved_slot(
    redis_cluster: RedisCluster, reader: Process, source: Source
) -> None:
    x, y, _ = await redis_cluster.primaries()
    (key,) = await keys_at(redis_cluster, x)
    source.rows[key] = OLD

    async def save(key: int, name: str, revoke: Revoke) -> Thing:
        await revoke()
        source.rows[key] = Thing(name=name, version=source.rows[key].version + 1)
        return source.rows[key]

    through = WriteThrough[int, str, Thing](reader.region, source.get, save)
    await through.get(key)
    moving = await redis_cluster.moving(slot_of(key), y)
    await moving.move([f"things:{{{key}}}"])
    await through.put(key, "new")
    assert (await reader.get(key))[0] == "new"
    await moving.finish()
    assert (await reader.get(key))[0] == "new"


async def test_a_promoted_replica_that_lacks_an_invalidation_serves_no_old_value(
    source: Source,
) -> None:
    """R caches the old row at X             its replica Z has it
    W commits, invalidates at X, answers     X dies before it has told Z, which is promoted with the old value
    R would hit it. (The test puts it back at Z: no one can hold what X has sent already.)"""
    async with RedisCluster.started(3, replicas=1) as redis_cluster:
        x, y, _ = await redis_cluster.primaries()
        (z,) = redis_cluster.replicas_of(x)
        (key,), (other,) = await keys_at(redis_cluster, x), await keys_at(redis_cluster, y)
        source.rows = {key: OLD, other: OLD}
        async with opening(redis_cluster) as cluster, process(cluster, source) as one:
            await one.through.get_many([key, other])
            lost = await x.ask("GET", f"things:{{{key}}}")
            source.rows[key] = NEW
            await one.aside.invalidate(key, 2)
            await x.kill()
            assert await one.get(other) == ("old", Outcome.HIT)
            assert await one.get(key) == ("new", Outcome.BYPASSED)
            await redis_cluster.promoted(z)
            await z.ask("SET", f"things:{{{key}}}", lost)
            assert (await one.get(key))[0] == "new"
            await eventually(lambda: _is_hit(one, key))
            assert await one.get(key) == ("new", Outcome.HIT)
            assert await one.get(other) == ("old", Outcome.HIT)


async def test_a_dead_node_costs_a_list_only_its_own_keys(source: Source) -> None:
    async with (
        RedisCluster.started(3) as redis_cluster,
        opening(redis_cluster) as cluster,
        process(cluster, source) as one,
    ):
        dead, alive, _ = await redis_cluster.primaries()
        keys = [*await keys_at(redis_cluster, dead, 3), *await keys_at(redis_cluster, alive, 3)]
        source.rows = dict.fromkeys(keys, OLD)
        await one.through.get_many(keys)
        await dead.kill()
        readings = await one.through.get_many(keys)
        outcomes = [reading.outcome for reading in readings if not isinstance(reading, Exception)]
        assert outcomes == [Outcome.BYPASSED] * 3 + [Outcome.HIT] * 3


Ask = Callable[[Region[int, Thing], Sequence[int]], Awaitable[object]]

ASKED: Mapping[str, Ask] = {
    "a list": lambda region, keys: region.find_all(keys),
    "lookups": lambda region, keys: asyncio.gather(*map(region.lookup, keys)),
    "fills": lambda region, keys: asyncio.gather(*(region.fill(key, "token", OLD) for key in keys)),
    "invalidations": lambda region, keys: asyncio.gather(*(region.try_invalidate(key, 2) for key in keys)),
}


@pytest.mark.parametrize("asked", ASKED)
async def test_a_silent_node_delays_only_those_who_need_it(
    redis_cluster: RedisCluster, reader: Process, asked: str
) -> None:
    """One caller needs the silent node X and Y. In the same tick, another one needs Y and Z."""
    ask = ASKED[asked]
    x, y, z = await redis_cluster.primaries()
    (key,), (first, other), (last,) = [
        await keys_at(redis_cluster, node, many) for node, many in ((x, 1), (y, 2), (z, 1))
    ]
    with silent(x):
        waits = asyncio.ensure_future(ask(reader.region, [key, first]))
        await ask(reader.region, [other, last])
        assert not waits.done()
    await waits
    await redis_cluster.agreed()


@pytest.mark.parametrize("paused", ["before the lookup", "before the fill"])
async def test_a_reader_gets_the_row_although_its_primary_takes_no_writes(
    redis_cluster: RedisCluster, source: Source, monkeypatch: pytest.MonkeyPatch, paused: str
) -> None:
    """R misses, and reads the row      X makes all scripts wait: a replica has asked to take over, and gets no votes
    R's fill would wait until X gives up, which takes longer than R waits for a load."""
    monkeypatch.setattr("app.caching.cluster.cluster_values.LEASE", timedelta(hours=1))  # It has to be given back.
    x, *_ = await redis_cluster.primaries()
    (key,) = await keys_at(redis_cluster, x)
    source.rows[key] = OLD

    async def pause(module: str) -> None:
        await x.ask("CLIENT", "PAUSE", 60_000, "WRITE")
        monkeypatch.setattr(f"app.caching.{module}.LEASE", timedelta(milliseconds=300))

    async def load(key: int) -> Thing | None:
        if paused == "before the fill":
            await pause("single_flight")
        return await source.get(key)

    async with (
        open_cluster(redis_cluster.url, timeout=timedelta(hours=1)) as cluster,
        process(cluster, source) as one,
    ):
        try:
            if paused == "before the lookup":
                await pause("region")
            reading = await one.aside.get(key, load)
        finally:
            await x.ask("CLIENT", "UNPAUSE")
        assert (reading.value, reading.stored) == (OLD, False)
        assert reading.outcome is (Outcome.BYPASSED if paused == "before the lookup" else Outcome.MISS)

        async def is_free() -> bool:
            return not await x.ask("EXISTS", f"things:{{{key}}}:lease")

        await eventually(is_free)
    assert source.asked == {key: 1}


async def test_only_a_list_of_which_nothing_is_answered_fails(redis_cluster: RedisCluster, source: Source) -> None:
    """Two lists of one tick: X refuses connections, and Y has what the second one asks for besides."""
    async with opening_through_wires(redis_cluster) as (cluster, wires), process(cluster, source) as one:
        x, y, _ = await redis_cluster.primaries()
        (lost, other), (key,) = await keys_at(redis_cluster, x, 2), await keys_at(redis_cluster, y)
        source.rows[key] = OLD
        await one.get(key)
        wires[x].refuse()
        fails = asyncio.create_task(one.region.find_all([lost, other]))
        missing, found = await one.region.find_all([lost, key])
        assert missing is None
        assert found is not None
        assert found.value == OLD
        with pytest.raises(CacheUnavailable):
            await fails


async def test_a_process_that_owes_an_invalidation_reads_its_own_write(
    redis_cluster: RedisCluster, source: Source
) -> None:
    async with opening_through_wires(redis_cluster) as (cluster, wires), process(cluster, source) as one:
        x, *_ = await redis_cluster.primaries()
        (key,) = await keys_at(redis_cluster, x)
        source.rows[key] = OLD
        await one.get(key)
        wires[x].refuse()
        source.rows[key] = NEW
        with pytest.raises(NotInvalidated, match=f"things {key} is committed"):
            await one.aside.invalidate(key, 2)
        assert await one.get(key) == ("new", Outcome.BYPASSED)
        wires[x].heal()
        await eventually(lambda: _is_hit(one, key))
        assert await one.get(key) == ("new", Outcome.HIT)


async def test_a_read_that_began_while_an_invalidation_was_owed_returns_the_write(
    redis_cluster: RedisCluster, source: Source
) -> None:
    """W's invalidation fails                      R begins, and Redis answers the old value, which is late
    W's invalidation is retried, and succeeds     R gets its answer: nothing is owed any more."""
    async with opening_through_wires(redis_cluster) as (cluster, wires), process(cluster, source) as one:
        x, *_ = await redis_cluster.primaries()
        (key,) = await keys_at(redis_cluster, x)
        source.rows[key] = OLD
        await one.get(key)
        async with wires[x].holding("^INVALIDATE") as retry:
            write = asyncio.create_task(one.aside.invalidate(key, 2))
            await asyncio.wait_for(retry.arrived.wait(), PATIENCE)
            source.rows[key] = NEW
            wires[x].cut()
            with pytest.raises(NotInvalidated):
                await write
            async with wires[x].holding_replies(f"^GET things:[{{]{key}[}}]") as answer:
                read = asyncio.create_task(one.get(key))
                await asyncio.wait_for(answer.arrived.wait(), PATIENCE)
                retry.release()
                await eventually(lambda: _owes_nothing(cluster))
            assert (await read)[0] == "new"


@pytest.mark.parametrize("key", ["", "}", "}x", "{", "{}", "a}b", "{a}"])
async def test_any_text_is_a_key(cluster: Cluster, key: str) -> None:
    """Redis takes no hash tag from {}, so the three names of such a key would be in three slots."""
    row = OLD

    async def load(key: str) -> Thing:
        return row

    async with Region[str, Thing](cluster, "texts", Thing) as region:
        aside = CacheAside(region)
        assert (await aside.get(key, load)).outcome is Outcome.MISS
        assert (await aside.get(key, load)).outcome is Outcome.HIT
        row = NEW
        await aside.invalidate(key, 2)
        assert (await aside.get(key, load)).value == NEW


async def _is_hit(one: Process, key: int) -> bool:
    return (await one.get(key))[1] is Outcome.HIT


async def _owes_nothing(cluster: Cluster) -> bool:
    return len(cluster.owed) == 0
