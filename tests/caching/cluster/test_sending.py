"""Calls reach the owners of their slots, however these move, and none is executed twice."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from app.caching import CacheUnavailable, Trust
from app.caching.cluster import Address, Answer, Call, Cluster, open_cluster
from app.caching.cluster.slot_map import SLOTS
from app.caching.errors import NotAsked
from app.caching.moment import Moment
from app.caching.scripts import Script
from tests.caching.cluster.conftest import TIMEOUT, opening, opening_through_wires
from tests.eventually import eventually
from tests.faults.redis_cluster import RedisCluster
from tests.faults.redis_node import RedisNode
from tests.faults.slot_names import named, spread

COUNT = Script(Redis(), b"return redis.call('INCRBY', KEYS[1], ARGV[1])")
BOTH = Script(Redis(), b"redis.call('INCR', KEYS[1]) return redis.call('INCR', KEYS[2])")
MIDDLE = 1_000
"""A slot of the first primary."""


async def ask(cluster: Cluster, calls: Iterable[Call], *, believed: bool = True, persistent: bool = False) -> list[Any]:
    """Returns the answers, with errors in their place."""
    answers = await cluster.sending("things").send(calls, believed=believed, persistent=persistent)
    return [answer.reply if isinstance(answer, Answer) else answer for answer in answers]


async def fill(cluster: Cluster, names: Sequence[str]) -> None:
    """Sets each of these names to itself."""
    assert await ask(cluster, [Call.of(name, "SET", name, name) for name in names]) == [b"OK"] * len(names)


@contextmanager
def unrenewed(trust: Trust) -> Iterator[Callable[[int, Moment], None]]:
    """Nothing but what it yields grants the trust while the block lasts."""
    grant = trust.grant
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trust, "grant", lambda losses, began: None)
        yield grant


async def errors(node: RedisNode, word: str) -> int:
    """Returns how often a node has answered this error."""
    told: dict[str, dict[str, int]] = await node.redis.info("errorstats")
    return told.get(f"errorstat_{word}", {"count": 0})["count"]


async def test_answers_come_in_the_order_of_the_calls_each_from_the_owner(
    redis_cluster: RedisCluster, cluster: Cluster
) -> None:
    names = spread(range(0, 16_384, 80))
    await fill(cluster, names)
    answers = await cluster.sending("things").send(map(Call.get, names))
    ports = set()
    for name, answer in zip(names, answers, strict=True):
        assert isinstance(answer, Answer)
        assert answer.reply == name.encode()
        ports.add(answer.node.address.port)
    assert ports == {node.port for node in redis_cluster.nodes}


async def test_all_calls_to_a_node_leave_in_one_write(redis_cluster: RedisCluster) -> None:
    """Each write takes one connection of the pool, and each node needs only one for 300 calls."""
    async with opening_through_wires(redis_cluster) as (cluster, wires):
        before = [wire.count("^GET ") for wire in wires.values()]
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(ask(cluster, map(Call.get, spread(range(0, 16_384, 164)))))
        counts = [wire.count("^GET ") - b for wire, b in zip(wires.values(), before, strict=True)]
        assert sum(counts) == 300
        assert all(wire.connections <= 5 for wire in wires.values())


@pytest.mark.parametrize("idle", [1, 8])
@pytest.mark.parametrize("together", [False, True])
async def test_a_half_moved_slot_answers_64_gets_right(
    redis_cluster: RedisCluster, cluster: Cluster, idle: int, together: bool
) -> None:
    """Some keys are at the new owner, some at the old one, and some nowhere. Others ask the new owner all the time.

    ASKING on connection 1      another GET on connection 1
                                its command on connection 2: MOVED to the old owner, which answers ASK, and so on
    """
    names = [named(MIDDLE, number) for number in range(64)]
    await fill(cluster, names[:48])
    moving = await redis_cluster.moving(MIDDLE, redis_cluster.nodes[1])
    await moving.move(names[:24])
    for node in cluster.nodes.all:
        # Each of them takes a connection, and gives it back.
        await asyncio.gather(*(node.cache.redis.ping() for _ in range(idle)))
    expected = [name.encode() for name in names[:48]] + [None] * 16
    calls = [Call.get(name) for name in names]
    ended = asyncio.Event()

    async def ask_for_others() -> None:
        while not ended.is_set():
            assert await ask(cluster, [Call.get(named(8_000))]) == [None]

    async with asyncio.TaskGroup() as group:
        for _ in range(idle):
            group.create_task(ask_for_others())
        parts = [calls] if together else [[call] for call in calls]
        found = await asyncio.gather(*(ask(cluster, part) for part in parts))
        assert [reply for part in found for reply in part] == expected
        ended.set()
    assert cluster.topology.map.owner(MIDDLE) == ("127.0.0.1", redis_cluster.nodes[0].port), "ASK moves no slot."
    await moving.finish()
    assert await ask(cluster, calls) == expected
    assert cluster.topology.map.owner(MIDDLE) == ("127.0.0.1", redis_cluster.nodes[1].port)


@pytest.mark.prove
async def test_each_answered_script_is_executed_once_while_slots_move(
    redis_cluster: RedisCluster, cluster: Cluster
) -> None:
    """A hundred slots move to another node and back, while scripts count in each of them.

    S asks the old owner                        the key moves
    ASK: S was not executed there, and goes to the new owner, once
    """
    slots = range(MIDDLE, MIDDLE + 100)
    names = spread(slots)
    counted: Counter[str] = Counter()
    moved = asyncio.Event()

    async def count(own: Sequence[str]) -> None:
        while not moved.is_set():
            for reply in await ask(cluster, [Call.run(COUNT, [name], [1]) for name in own]):
                assert isinstance(reply, int), reply
            counted.update(own)

    async with asyncio.TaskGroup() as group:
        for place in range(4):
            group.create_task(count(names[place::4]))
        await redis_cluster.move(slots, redis_cluster.nodes[1])
        await redis_cluster.move(slots, redis_cluster.nodes[0])
        moved.set()
    assert min(counted.values()) > 0
    assert await ask(cluster, map(Call.get, names)) == [str(counted[name]).encode() for name in names]


async def test_a_script_that_its_node_has_forgotten_is_sent_again(
    redis_cluster: RedisCluster, cluster: Cluster
) -> None:
    """Also to a node that may execute it only after ASKING."""
    at_rest, on_its_way = named(0), named(MIDDLE)
    moving = await redis_cluster.moving(MIDDLE, redis_cluster.nodes[1])
    for _ in range(2):
        for node in redis_cluster.nodes:
            await node.ask("SCRIPT", "FLUSH")
        calls = [Call.run(COUNT, [name], [1]) for name in (at_rest, on_its_way, at_rest)]
        await ask(cluster, calls)
    assert await ask(cluster, map(Call.get, (at_rest, on_its_way))) == [b"4", b"2"]
    await moving.finish()


async def test_a_script_with_keys_on_both_sides_fails_alone(redis_cluster: RedisCluster, cluster: Cluster) -> None:
    """Its slot is half moved. The other calls of the same write are answered."""
    here, there = named(MIDDLE, "here"), named(MIDDLE, "there")
    await fill(cluster, [here, there, named(0)])
    moving = await redis_cluster.moving(MIDDLE, redis_cluster.nodes[1])
    await moving.move([there])
    first, failed, last = await ask(
        cluster, [Call.get(here), Call.run(BOTH, [here, there]), Call.run(COUNT, [named(0, "count")], [1])]
    )
    assert (first, last) == (here.encode(), 1)
    assert isinstance(failed, CacheUnavailable)
    assert str(failed) == (
        f"Redis answered with an error for things, slot {MIDDLE}: TRYAGAIN Multiple keys request during rehashing of "
        "slot."
    )
    await moving.finish()


async def test_a_persistent_call_waits_for_the_end_of_a_move(
    redis_cluster: RedisCluster, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.caching.cluster.sending.PATIENCE", timedelta(seconds=60))
    here, there = named(MIDDLE, "here"), named(MIDDLE, "there")
    assert await ask(cluster, [Call.run(BOTH, [here, there])]) == [1]
    moving = await redis_cluster.moving(MIDDLE, redis_cluster.nodes[1])
    await moving.move([there])
    before = await errors(redis_cluster.nodes[1], "TRYAGAIN")

    async def was_refused() -> bool:
        return await errors(redis_cluster.nodes[1], "TRYAGAIN") > before + 1

    waiting = asyncio.create_task(ask(cluster, [Call.run(BOTH, [here, there])], persistent=True))
    await eventually(was_refused)
    await moving.finish()
    assert await waiting == [2]


async def test_nodes_that_redirect_to_each_other_end_in_an_error(redis_cluster: RedisCluster, cluster: Cluster) -> None:
    """Two nodes say of each other that they own the slot. The sentence names the slot, and no address."""
    one, other = redis_cluster.nodes[:2]
    await one.ask("CLUSTER", "SETSLOT", MIDDLE, "NODE", other.id)
    (failed,) = await ask(cluster, [Call.get(named(MIDDLE))])
    assert isinstance(failed, CacheUnavailable)
    assert str(failed) == (
        f"A call for things was redirected 5 times: the nodes do not agree on who owns slot {MIDDLE}."
    )
    await one.ask("CLUSTER", "SETSLOT", MIDDLE, "NODE", one.id)
    assert await ask(cluster, [Call.get(named(MIDDLE))]) == [None]


async def test_a_script_over_two_slots_fails_alone(cluster: Cluster) -> None:
    failed, answered = await ask(cluster, [Call.run(BOTH, [named(1), named(2)]), Call.run(COUNT, [named(1)], [1])])
    assert isinstance(failed, CacheUnavailable)
    assert "CROSSSLOT" in str(failed)
    assert answered == 1


async def test_each_node_is_believed_by_itself(redis_cluster: RedisCluster, cluster: Cluster) -> None:
    """The trust in one of three is lost. Its calls fail, and so do those that are redirected to it."""
    second = redis_cluster.nodes[1]
    moving = await redis_cluster.moving(MIDDLE, second)
    lost = await cluster.nodes.at(Address("127.0.0.1", second.port))
    calls = [Call.get(named(slot)) for slot in (0, MIDDLE, 8_000, 16_000)]
    assert await ask(cluster, calls) == [None] * 4
    with unrenewed(lost.cache.trust):
        lost.cache.trust.lose("an invalidation failed")
        here, redirected, there, elsewhere = await ask(cluster, calls)
        assert [here, elsewhere] == [None, None]
        assert str(redirected) == str(there) == "Redis is not asked for things: an invalidation failed."
        # A relay must reach it all the same.
        assert await ask(cluster, calls, believed=False) == [None] * 4
    await moving.finish()


async def test_an_answer_counts_only_if_its_node_is_still_believed(redis_cluster: RedisCluster) -> None:
    """The trust in a node is lost between its question and its answer. The other nodes' answers count."""
    async with opening_through_wires(redis_cluster) as (cluster, wires):
        node = await cluster.nodes.at(Address("127.0.0.1", redis_cluster.nodes[1].port))
        with unrenewed(node.cache.trust):
            async with wires[redis_cluster.nodes[1]].holding_replies("^GET ") as held:
                asking = asyncio.create_task(ask(cluster, [Call.get(named(slot)) for slot in (0, 8_000, 16_000)]))
                await held.arrived.wait()
                node.cache.trust.lose("it has restarted or was replaced")
            here, there, elsewhere = await asking
        assert [here, elsewhere] == [None, None]
        assert str(there) == "Redis is not believed for things: it has restarted or was replaced."


async def test_a_node_whose_trust_has_lapsed_is_asked_when_it_is_renewed(
    redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call was redirected there, so its caller could not know.

    trust in B has lapsed       W's invalidation has not reached B
    R asks A, and is redirected to B; it would read the old value
    """
    monkeypatch.setattr("app.caching.trust.NEWS", timedelta(seconds=60))
    async with opening_through_wires(redis_cluster) as (cluster, wires):
        first, second, _third = redis_cluster.nodes
        moving = await redis_cluster.moving(MIDDLE, second)
        trust = (await cluster.nodes.at(Address("127.0.0.1", second.port))).cache.trust
        with unrenewed(trust) as grant:
            monkeypatch.setattr("app.caching.trust.TRUST", timedelta(0))
            grant(trust.losses, Moment.now())
            monkeypatch.setattr("app.caching.trust.TRUST", timedelta(seconds=20))
            before = await errors(first, "ASK")
            asking = asyncio.create_task(ask(cluster, [Call.get(named(MIDDLE))]))

            async def was_redirected() -> bool:
                return await errors(first, "ASK") == before + 1

            await eventually(was_redirected)
            for _ in range(10):
                await second.ask("PING")
            assert wires[second].count("^GET ") == 0
            grant(trust.losses, Moment.now())
            assert await asking == [None]
        await moving.finish()


async def test_a_call_whose_answer_was_lost_is_not_sent_again(redis_cluster: RedisCluster) -> None:
    """The node has executed it, and its connection is lost before the answer arrives. The calls to others succeed."""
    async with opening_through_wires(redis_cluster) as (cluster, wires):
        wire = wires[redis_cluster.nodes[0]]
        assert await ask(cluster, [Call.run(COUNT, [named(MIDDLE)], [1])]) == [1]
        lost = wire.cut_after("^EVALSHA ")
        failed, answered = await ask(cluster, [Call.run(COUNT, [named(slot)], [1]) for slot in (MIDDLE, 16_000)])
        await lost.dropped.wait()
        assert isinstance(failed, CacheUnavailable)
        assert answered == 1
        assert await ask(cluster, [Call.get(named(MIDDLE))]) == [b"2"]


@pytest.mark.prove
async def test_a_promoted_replica_answers_instead_of_its_primary() -> None:
    """The old primary lives on as a replica, and answers MOVED on old connections. New ones detect that it is not what
    it was: then the call is not sent, and fails. Another primary is killed.
    """
    started = RedisCluster.started(3, replicas=1)
    async with started as redis_cluster, opening(redis_cluster) as cluster:
        names = spread(range(0, 16_384, 500))
        assert await ask(cluster, [Call.run(COUNT, [name], [1]) for name in names]) == [1] * len(names)
        first, second, _third = redis_cluster.nodes[:3]
        await redis_cluster.fail_over(redis_cluster.replicas_of(first)[0])
        waiting = set(names)

        async def all_counted() -> bool:
            now = list(waiting)
            replies = await ask(cluster, [Call.run(COUNT, [name], [1]) for name in now])
            waiting.difference_update(name for name, reply in zip(now, replies, strict=True) if reply == 2)
            return not waiting

        await eventually(all_counted)
        await redis_cluster.replicated(second)
        await second.kill()
        await redis_cluster.promoted(redis_cluster.replicas_of(second)[0])
        wrong: dict[str, Any] = {}

        async def all_answer() -> bool:
            replies = await ask(cluster, map(Call.get, names))
            wrong.clear()
            wrong.update((name, reply) for name, reply in zip(names, replies, strict=True) if reply != b"2")
            return not wrong

        await eventually(all_answer)


async def test_a_dead_primary_makes_only_its_slots_unavailable() -> None:
    async with RedisCluster.started(3) as redis_cluster, opening(redis_cluster) as cluster:
        await redis_cluster.nodes[0].kill()
        for _ in range(10):
            failed, *answered = await ask(cluster, [Call.get(named(slot)) for slot in (MIDDLE, 8_000, 16_000)])
            assert answered == [None, None]
            assert isinstance(failed, CacheUnavailable)
            assert "127.0.0.1" not in str(failed)
            assert str(redis_cluster.nodes[0].port) not in str(failed)


async def test_a_node_comes_and_goes_while_calls_are_made() -> None:
    """It takes over ten slots that are counted in, and gives them back. Each answered call was executed once, and no
    other one was: without slots the node becomes a replica, and a new connection to it detects that before it sends.
    """
    async with RedisCluster.started(3) as redis_cluster, opening(redis_cluster) as cluster:
        slots = range(MIDDLE, MIDDLE + 10)
        names = [*spread(slots), named(8_000), named(16_000)]
        counted: Counter[str] = Counter()
        gone = asyncio.Event()

        async def count() -> None:
            while not gone.is_set():
                calls = [Call.run(COUNT, [name], [1]) for name in names]
                # Otherwise an answer would not count if another connection detects the replica before it arrives.
                replies = await ask(cluster, calls, believed=False)
                counted.update(name for name, reply in zip(names, replies, strict=True) if isinstance(reply, int))

        async def came_by(node: RedisNode) -> bool:
            return any(each.address.port == node.port for each in cluster.nodes.all)

        async with asyncio.TaskGroup() as group:
            group.create_task(count())
            added = await redis_cluster.add()
            await redis_cluster.move(slots, added)
            await eventually(lambda: came_by(added))
            await redis_cluster.move(slots, redis_cluster.nodes[0])
            await redis_cluster.remove(added)
            gone.set()

        async def all_answer() -> bool:
            return all(isinstance(reply, bytes) for reply in await ask(cluster, map(Call.get, names)))

        await eventually(all_answer)
        assert await ask(cluster, map(Call.get, names)) == [str(counted[name]).encode() for name in names]


async def test_a_persistent_call_waits_until_a_relay_has_found_out_what_its_node_is(
    redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X has just been opened: a slot has moved there, or it has taken the place of another node

    W's revocation goes to X, of which nothing is known: nothing is sent
    the relay's next poll finds out that X is to be believed: W need not have failed
    """
    monkeypatch.setattr("app.caching.cluster.sending.PATIENCE", timedelta(seconds=60))
    async with open_cluster(redis_cluster.url, timeout=TIMEOUT, relayed=True) as cluster:
        assert cluster.holds is not None
        name = named(MIDDLE)
        node = next(node for node in cluster.nodes.all if node.address == cluster.topology.map.owner(MIDDLE))
        cluster.holds.become([node] * SLOTS)
        cluster.holds.told([node])
        (at_once,) = await ask(cluster, [Call.get(name)])
        assert isinstance(at_once, NotAsked)
        waiting = asyncio.create_task(ask(cluster, [Call.get(name)], persistent=True))
        await asyncio.wait({waiting}, timeout=0.1)  # Long enough for it to fail, if it were not to wait.
        node.cache.breaker.reachable = True
        node.cache.trust.grant(node.cache.trust.losses, Moment.now())
        assert await waiting == [None]
