"""Write-behind on a cluster: each shard is at the node of its slot, wherever that moves, and depends on no other."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial

import asyncpg
import pytest
from redis.exceptions import RedisError

from app.caching import CacheUnavailable, Flow
from app.caching.cluster import Cluster, open_cluster
from app.caching.write_behind import gathering
from app.caching.write_behind.cluster_clock import ClusterClock
from app.caching.write_behind.shard import GROUP
from app.database import Database
from tests.caching.cluster.conftest import opening, opening_through_wires
from tests.caching.cluster.counting import PAGES, SHARDS, Counting, counted, counting, shards_of, slot, succeeds
from tests.eventually import eventually
from tests.faults.redis_cluster import RedisCluster

SHARD, PAGE = SHARDS[3], PAGES[3]
"""A shard of the first primary, and a page of it."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes flushers wait only briefly for additions that do not come."""
    monkeypatch.setattr(gathering, "BLOCK", timedelta(milliseconds=5))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call waits for a slot that moves, however busy the machine is."""
    monkeypatch.setattr("app.caching.cluster.sending.PATIENCE", timedelta(seconds=60))


@pytest.fixture
async def views(cluster: Cluster, database: Database) -> AsyncIterator[Counting]:
    """A process on the cluster."""
    async with counting(cluster, database) as views:
        yield views


async def add_to_all(views: Counting, amount: int) -> None:
    """Adds to a page of each shard."""
    await asyncio.gather(*(views.counters.add(page, amount) for page in PAGES.values()))


async def test_additions_at_all_nodes_are_accepted_read_and_counted(
    redis_cluster: RedisCluster, views: Counting, sql: asyncpg.Connection
) -> None:
    assert len(PAGES) == 4
    assert [len(await shards_of(redis_cluster, node)) for node in redis_cluster.nodes] == [1, 2, 1]
    for page in PAGES.values():
        assert await views.counters.add(page, 5, "click-1") is None
        assert await views.counters.add(page, 5, "click-1") is None
        assert await views.total(page) == 5
        assert await views.counters.add(page, 2) == 7
    await views.counters.add_many(dict.fromkeys(PAGES.values(), 1), "call-1")
    await views.counters.add_many(dict.fromkeys(PAGES.values(), 1), "call-1")
    backlog = await views.counters.backlog()
    assert (backlog.amount, backlog.young) == (32, 32)
    assert backlog.oldest is not None
    await views.carry()
    assert await counted(sql) == dict.fromkeys(PAGES.values(), 8)
    assert [(await views.counters.get(page)).cached for page in PAGES.values()] == [True] * 4
    backlog = await views.counters.backlog()
    assert (backlog.amount, backlog.oldest, backlog.flushers) == (0, None, 1)
    await views.counters.forget(PAGE)
    total = await views.counters.get(PAGE)
    assert (total.amount, total.cached) == (8, False)


@pytest.mark.prove
async def test_a_node_that_has_forgotten_the_scripts_is_sent_them_again(
    redis_cluster: RedisCluster, views: Counting, sql: asyncpg.Connection
) -> None:
    for node in redis_cluster.nodes:
        await node.ask("SCRIPT", "FLUSH")
    await add_to_all(views, 1)
    await views.carry()
    assert await counted(sql) == dict.fromkeys(PAGES.values(), 1)


# Slots that move.


async def test_a_total_is_not_read_again_after_its_slot_has_gone_and_come_back(
    redis_cluster: RedisCluster, views: Counting, sql: asyncpg.Connection
) -> None:
    """Node A has cached a total       the slot moves to B, and the total with it
    B accepts 5 more                   under a name with B's life, they would not touch the total of A
    the slot moves back to A           A's life never ended, and its total lacks the 5
    """
    first, second, _ = redis_cluster.nodes
    await views.counters.add(PAGE, 1)
    assert await views.total(PAGE) == 1
    assert (await views.counters.get(PAGE)).cached
    await redis_cluster.move([slot(SHARD)], second)
    await views.counters.add(PAGE, 2)  # A redirects this one. From then on, this process knows B.
    await views.counters.add(PAGE, 5)
    await redis_cluster.move([slot(SHARD)], first)
    assert await views.total(PAGE) == 8
    await views.carry()
    assert await counted(sql) == {PAGE: 8}
    assert await views.total(PAGE) == 8


@pytest.mark.prove
async def test_an_addition_through_an_old_map_is_counted_once_and_in_every_total(
    redis_cluster: RedisCluster, cluster: Cluster, views: Counting, database: Database, sql: asyncpg.Connection
) -> None:
    """Both processes know A as the owner       the slot moves to B
    one adds 5: A redirects the call to B       B runs it for A's life
    it asks B again, for B's life, and so does everyone else
    """
    async with opening(redis_cluster) as other_cluster, counting(other_cluster, database) as other:
        await views.counters.add(PAGE, 1)
        assert await views.total(PAGE) == await other.total(PAGE) == 1
        await redis_cluster.move([slot(SHARD)], redis_cluster.nodes[1])
        await views.counters.add(PAGE, 5)
        assert await other.total(PAGE) == await views.total(PAGE) == 6
        await other.carry()
        assert await counted(sql) == {PAGE: 6}
        assert await other.total(PAGE) == await views.total(PAGE) == 6


async def test_an_addition_waits_for_a_half_moved_slot_and_those_to_other_shards_do_not(
    redis_cluster: RedisCluster, views: Counting, sql: asyncpg.Connection, waits: None
) -> None:
    """The stream is at its new node, its counters are not: Redis refuses the script (TRYAGAIN), and runs it once, after
    the move. A cached total can be read on both sides."""
    await add_to_all(views, 1)
    assert [await views.total(page) for page in PAGES.values()] == [1] * 4
    moving = await redis_cluster.moving(slot(SHARD), redis_cluster.nodes[1])
    await moving.move([SHARD.stream])
    adding = asyncio.create_task(views.counters.add(PAGE, 5))
    for number, page in PAGES.items():
        if number != SHARD.number:
            assert await views.counters.add(page, 5) == 6
    assert (await views.counters.get(PAGE)).cached
    await moving.move([SHARD.total(PAGE, "cluster")])
    assert (await views.counters.get(PAGE)).cached
    assert not adding.done()
    await moving.finish()
    await adding
    await views.carry()
    assert await counted(sql) == dict.fromkeys(PAGES.values(), 6)


@pytest.mark.prove
async def test_a_half_moved_slot_refuses_only_its_own_additions_if_its_move_takes_long(
    redis_cluster: RedisCluster, views: Counting, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis refuses its scripts. Its stream can be read at its new node, so what is pending is counted; it is removed
    after the move."""
    monkeypatch.setattr("app.caching.cluster.sending.PATIENCE", timedelta(milliseconds=1))
    await views.carry()
    await add_to_all(views, 1)
    moving = await redis_cluster.moving(slot(SHARD), redis_cluster.nodes[1])
    await moving.move([SHARD.stream])
    said = await asyncio.gather(*(views.counters.add(page, 5) for page in PAGES.values()), return_exceptions=True)
    refused = [number for number, answer in zip(PAGES, said, strict=True) if isinstance(answer, CacheUnavailable)]
    assert refused == [SHARD.number]
    with pytest.raises(CacheUnavailable, match="TRYAGAIN"):
        await views.flusher.round()
    assert await counted(sql) == {page: 1 if page == PAGE else 6 for page in PAGES.values()}
    await moving.finish()
    await views.carry()
    assert await counted(sql) == {page: 1 if page == PAGE else 6 for page in PAGES.values()}
    assert await views.total(PAGE) == 1


async def test_a_flusher_that_waits_for_a_stream_follows_it_to_its_new_node(
    redis_cluster: RedisCluster, views: Counting, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flusher waits at A for entries       the slot moves to B: A answers its clients MOVED
    B accepts                                   the flusher reads from B
    """
    first, second, _ = redis_cluster.nodes
    await views.carry()
    monkeypatch.setattr(gathering, "BLOCK", timedelta(seconds=5))
    flushing = asyncio.create_task(views.flusher._flushings[SHARD.number].round())

    async def waits_at_first() -> bool:
        return bool((await first.redis.info("clients"))["blocked_clients"])

    await eventually(waits_at_first)
    await redis_cluster.move([slot(SHARD)], second)
    await views.counters.add(PAGE, 5)
    assert await flushing == 1
    assert await counted(sql) == {PAGE: 5}


async def test_entries_that_a_flusher_holds_while_their_slot_moves_are_counted_once(
    redis_cluster: RedisCluster, views: Counting, database: Database, sql: asyncpg.Connection
) -> None:
    """A flusher has read an entry at A, and the group's pending entries move along to B: it counts the entry, and
    removes it at B. Another one dies with its entry: that is claimed at B."""
    await views.carry()
    await views.counters.add(PAGE, 1)
    flushing = views.flusher._flushings[SHARD.number]
    held = await flushing._gathering.read(0.001)
    flushing._held = held[:]
    await redis_cluster.move([slot(SHARD)], redis_cluster.nodes[1])
    await views.carry()
    assert await counted(sql) == {PAGE: 1}
    assert await redis_cluster.nodes[1].ask("XLEN", SHARD.stream) == 0

    await views.counters.add(PAGE, 5)
    assert len(await flushing._gathering.read(0.001)) == 1
    await redis_cluster.move([slot(SHARD)], redis_cluster.nodes[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathering, "ABANDONED", timedelta(0))
        flushing._gathering._claimed = 0.0
        await views.carry()
    assert await counted(sql) == {PAGE: 6}
    assert (await redis_cluster.nodes[0].redis.xpending(SHARD.stream, GROUP))["pending"] == 0


# Nodes that are down.


async def test_a_node_that_is_down_fails_only_its_own_shards(
    redis_cluster: RedisCluster, database: Database, sql: asyncpg.Connection
) -> None:
    async with opening_through_wires(redis_cluster) as (cluster, wires), counting(cluster, database) as views:
        await add_to_all(views, 1)
        await views.carry()
        dead = redis_cluster.nodes[1]
        its_own = await shards_of(redis_cluster, dead)
        wires[dead].refuse()
        said = await asyncio.gather(*(views.counters.add(page, 5) for page in PAGES.values()), return_exceptions=True)
        failed = {number for number, answer in zip(PAGES, said, strict=True) if isinstance(answer, CacheUnavailable)}
        assert failed == its_own
        for number, page in PAGES.items():
            if number in its_own:
                with pytest.raises(CacheUnavailable):
                    await views.total(page)
            else:
                assert await views.total(page) == 6
        with pytest.raises((CacheUnavailable, RedisError)):
            await views.flusher.round()
        assert await counted(sql) == {page: 1 if number in its_own else 6 for number, page in PAGES.items()}
        with pytest.raises(CacheUnavailable, match=r"What is pending in views:\{[12]\} is unknown\. Redis"):
            await views.counters.backlog()

        wires[dead].heal()
        again = partial(views.counters.add_many, {PAGES[number]: 5 for number in its_own}, "again")
        await eventually(lambda: succeeds(again))
        await views.carry()
        assert set((await counted(sql)).values()) == {6}


async def test_a_silent_node_delays_nothing_at_the_others(
    redis_cluster: RedisCluster, database: Database, sql: asyncpg.Connection
) -> None:
    """One node answers nothing: an addition, a read, the flusher and the check of receipts wait for it. Meanwhile the
    other nodes accept, are read and flushed, and what one of them lost is accepted again."""
    async with opening_through_wires(redis_cluster) as (cluster, wires), counting(cluster, database) as views:
        await add_to_all(views, 1)
        await views.carry()
        silent, other = redis_cluster.nodes[1], redis_cluster.nodes[0]
        its_own = await shards_of(redis_cluster, silent)
        await views.counters.add(PAGE, 7)
        await other.ask("DEL", SHARD.stream)
        wires[silent].silence()
        waiting = [
            asyncio.ensure_future(each)
            for each in (
                views.counters.add(PAGES[1], 5),
                views.counters.get(PAGES[2]),
                views.flusher._flushings[1].round(),
                views.check(),
            )
        ]
        for number, page in PAGES.items():
            if number not in its_own and page != PAGE:
                await views.counters.add(page, 5)

        async def is_back() -> bool:
            return bool(await other.ask("XLEN", SHARD.stream) == 1)

        await eventually(is_back)
        await views.carry(PAGES.keys() - its_own)
        assert await counted(sql) == {PAGES[0]: 6, PAGES[1]: 1, PAGES[2]: 1, PAGE: 8}
        assert not any(task.done() for task in waiting)
        wires[silent].heal()
        await asyncio.gather(*waiting)
        await views.carry()
        assert await counted(sql) == {PAGES[0]: 6, PAGES[1]: 6, PAGES[2]: 1, PAGE: 8}


async def test_a_node_that_may_not_be_written_to_is_drained_unless_another_deployment_owns_it(
    redis_cluster: RedisCluster, cluster: Cluster, views: Counting, sql: asyncpg.Connection
) -> None:
    await views.carry()
    await add_to_all(views, 1)
    (identity,) = {
        node.cache.identity for node in cluster.nodes.all if node.address.port == redis_cluster.nodes[0].port
    }
    identity.refused, identity.ours = "another deployment owns it", False
    with pytest.raises(CacheUnavailable, match="Nothing is flushed from this Redis: another deployment owns it"):
        await views.flusher.round()
    assert await counted(sql) == {page: 1 for page in PAGES.values() if page != PAGE}
    identity.refused, identity.ours = "it was told of another epoch", True
    for page in PAGES.values():
        assert await succeeds(partial(views.counters.add, page, 5)) is (page != PAGE)
    await views.carry()
    assert await counted(sql) == {page: 1 if page == PAGE else 6 for page in PAGES.values()}


@pytest.mark.prove
async def test_a_flusher_may_wait_for_entries_for_longer_than_a_node_may_be_silent(
    redis_cluster: RedisCluster, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "BLOCK", timedelta(seconds=3))
    async with (
        open_cluster(redis_cluster.url, timeout=timedelta(seconds=2)) as cluster,
        counting(cluster, database) as views,
    ):
        await views.flusher.round()
        await views.flusher.round()
        assert not any(node.cache.trust.losses for node in cluster.nodes.all)


async def test_what_one_node_has_lost_is_accepted_again_and_counted_once(
    redis_cluster: RedisCluster, views: Counting, sql: asyncpg.Connection
) -> None:
    await add_to_all(views, 5)
    lost = redis_cluster.nodes[1]
    await lost.ask("FLUSHALL")
    await views.check()
    assert views.flow[Flow.RECOVERED] == 10
    await views.carry()
    await views.check()
    assert await counted(sql) == dict.fromkeys(PAGES.values(), 5)
    assert views.counters.receipts.amount == 0


@pytest.mark.prove
async def test_an_addition_whose_answer_was_lost_counts_once(
    redis_cluster: RedisCluster, database: Database, sql: asyncpg.Connection
) -> None:
    """The script has run at its node · the answer is lost · the call is repeated there"""
    async with opening_through_wires(redis_cluster) as (cluster, wires), counting(cluster, database) as views:
        await views.counters.add(PAGE, 1)
        lost = wires[redis_cluster.nodes[0]].cut_after("^ACCEPT ")
        await views.counters.add(PAGE, 5)
        assert lost.dropped.is_set()
        await views.carry()
        assert await counted(sql) == {PAGE: 6}
        assert await views.total(PAGE) == 6


# Clocks.


async def test_ids_follow_the_middle_clock_of_the_nodes(cluster: Cluster) -> None:
    """One node is a day ahead: ids of its own shards would look old or new wherever a slot moves."""
    clocks = [node.cache.clock for node in cluster.nodes.all]
    now = clocks[0].now()
    day = timedelta(days=1) / timedelta(milliseconds=1)
    for clock, wrong in zip(clocks, (-2 * day, 0, day), strict=True):
        clock.set(now + wrong)
    assert abs(ClusterClock(cluster.nodes).now() - now) < day / 24
