"""The service on a cluster: at most one node is believed about a slot, and only what it holds is lost with it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import asyncpg
import pytest

from app.caching import Cache, Outcome, open_cache
from app.caching.cluster import Address, Cluster, open_cluster
from app.caching.cluster.slot_map import slot_of
from app.coherence.holders.view import View
from app.embedded import Endpoints
from app.metrics import Metrics
from app.settings import Settings
from app.wiring import Resources, open_resources
from tests.eventually import eventually
from tests.faults.redis_cluster import RedisCluster
from tests.faults.redis_node import HOST, RedisNode
from tests.faults.redis_wire import RedisWire

USERS = 30
TIMEOUT = timedelta(seconds=5)
AGES = 120_000
"""A node timeout, in milliseconds: no node finds out by itself that it was cut off."""


@dataclass(frozen=True, slots=True)
class Instance:
    """The service as one process runs it, and its wires to the nodes."""

    resources: Resources
    wires: Mapping[RedisNode, RedisWire]

    async def name(self, user_id: int) -> str:
        """Returns the name of a user that a read answers."""
        user = (await self.resources.users.get(user_id)).value
        assert user is not None
        return user.name

    async def rename(self, user_id: int, name: str) -> None:
        """Renames a user through this instance."""
        await self.resources.users.change(user_id, {"name": name}, None)

    async def hits(self, *users: int) -> None:
        """Returns when a read of each user is a hit."""
        await eventually(lambda: self._is_hit(users))

    async def bypasses(self, user_id: int) -> None:
        """Returns when a read of this user queries the database."""

        async def does() -> bool:
            return (await self.resources.users.get(user_id)).outcome is Outcome.BYPASSED

        await eventually(does)

    async def polls(self) -> None:
        """Returns when its relay has made a whole poll, from beginning to end."""
        before = self._polled()

        async def has_polled() -> bool:
            return self._polled() >= before + 2

        await eventually(has_polled)

    def _polled(self) -> int:
        return max(wire.count("^CLUSTER NODES") for wire in self.wires.values())

    async def _is_hit(self, users: tuple[int, ...]) -> bool:
        return all([(await self.resources.users.get(user_id)).outcome is Outcome.HIT for user_id in users])


@pytest.fixture
async def redis_cluster() -> AsyncIterator[RedisCluster]:
    """Three primaries with a replica each, which do not fail over by themselves."""
    async with RedisCluster.started(3, replicas=1, node_timeout=AGES, partitions=True) as redis_cluster:
        yield redis_cluster


NewInstance = Callable[[], Awaitable[Instance]]


@pytest.fixture
async def new_instance(
    redis_cluster: RedisCluster, endpoints: Endpoints, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[NewInstance]:
    """Opens instances that reach each node through a wire of their own."""
    monkeypatch.setattr("app.coherence.holders.cluster_nodes.PATIENCE", TIMEOUT)  # A busy machine is no silent node.
    monkeypatch.setattr("app.coherence.candidacy.SETTLED", timedelta(seconds=3))  # Nor does it refute at once.
    await sql.execute("TRUNCATE epochs")
    async with AsyncExitStack() as stack:

        async def new() -> Instance:
            wires = {
                node: await stack.enter_async_context(RedisWire(f"redis://{HOST}:{node.port}"))
                for node in redis_cluster.nodes
            }
            urls = {f"redis://{HOST}:{node.port}": wire.url for node, wire in wires.items()}

            def opened(url: str, **arguments: Any) -> AbstractAsyncContextManager[Cache]:
                return open_cache(urls[url], **arguments)

            monkeypatch.setattr("app.stores.open_cluster", partial(open_cluster, opened=opened))
            settings = Settings(
                _env_file=None,
                redis_url=redis_cluster.url,
                database_url=endpoints.database_url,
                redis_timeout=TIMEOUT,
                database_timeout=timedelta(seconds=20),
            )
            resources = await stack.enter_async_context(open_resources(settings, Metrics()))
            for wire in wires.values():
                stack.callback(wire.heal)
            return Instance(resources, wires)

        yield new


@pytest.fixture
async def users(sql: asyncpg.Connection) -> Mapping[int, int]:
    """Users whose creation every cache has learned of: the id of one for each primary, by its place."""
    made = await sql.fetch(
        "INSERT INTO users (name, email) SELECT 'Old', n || '@example.com' FROM generate_series(1, $1) n RETURNING id",
        USERS,
    )
    await sql.execute("UPDATE outbox SET done_at = now()")
    places = {slot_of(f"users:{{{row['id']}}}") * 3 // 16384: int(row["id"]) for row in made}
    assert len(places) == 3
    return places


async def view(sql: asyncpg.Connection) -> View:
    """Returns what Postgres says of the holders."""
    found = View.read(await sql.fetchval("SELECT run FROM epochs ORDER BY n DESC LIMIT 1"))
    assert found is not None
    return found


async def held(sql: asyncpg.Connection, user_id: int, node: RedisNode) -> None:
    """Returns when Postgres names this node as the holder of a user."""

    async def is_holder() -> bool:
        return (await view(sql)).holders[slot_of(f"users:{{{user_id}}}")] == node.id

    await eventually(is_holder)


async def test_of_two_nodes_that_own_a_slot_only_the_one_that_postgres_names_is_believed(
    redis_cluster: RedisCluster, new_instance: NewInstance, users: Mapping[int, int], sql: asyncpg.Connection
) -> None:
    """X is cut off from the cluster, and owns its slots by its own word; Y, its replica, has taken its place

    A reaches X, and not Y                          B reaches Y, and not X: it claims, and A refutes
    R on A hits on X                                R on B queries Postgres; W on B waits for A's relay, which tells X
    A loses X, and its trust ends                   B's claim stands: Y holds the slots, and gets another change
    A reaches X again, and nobody else: R on A would read and fill there, and hit that after the next W on B
    """
    a, b = await new_instance(), await new_instance()
    x, (y,), user = redis_cluster.nodes[0], redis_cluster.replicas_of(redis_cluster.nodes[0]), users[0]
    await asyncio.gather(a.hits(*users.values()), b.hits(*users.values()))
    a.wires[y].refuse()
    redis_cluster.cut_off(x)
    await y.ask("CLUSTER", "FAILOVER", "TAKEOVER")
    b.wires[x].refuse()
    await b.bypasses(user)
    await b.hits(users[1], users[2])
    await b.rename(user, "New")
    assert await a.name(user) == "New"
    await a.hits(user)
    assert (await view(sql)).holders[slot_of(f"users:{{{user}}}")] == x.id
    a.wires[x].refuse()
    await held(sql, user, y)
    await b.hits(user)
    await b.rename(user, "Newer")
    for node, wire in a.wires.items():
        (wire.heal if node is x else wire.refuse)()
    await a.polls()
    assert isinstance(a.resources.cache, Cluster)
    await a.resources.cache.topology.read()
    assert a.resources.cache.topology.map.owner(slot_of(f"users:{{{user}}}")) == Address(HOST, x.port)
    assert b"cluster_state:ok" in await x.ask("CLUSTER", "INFO"), "X would answer."
    assert [await a.name(user), await a.name(user)] == ["Newer"] * 2
    await b.rename(user, "Newest")
    assert await a.name(user) == "Newest"


async def test_a_slot_that_moves_is_handed_over_at_once_and_all_others_stay_hits(
    redis_cluster: RedisCluster, new_instance: NewInstance, users: Mapping[int, int], sql: asyncpg.Connection
) -> None:
    a, b = await new_instance(), await new_instance()
    user, target = users[0], redis_cluster.nodes[1]
    await asyncio.gather(a.hits(*users.values()), b.hits(*users.values()))
    losses = [cache.trust.losses for cache in a.resources.cache.caches]
    await redis_cluster.move([slot_of(f"users:{{{user}}}")], target)
    await held(sql, user, target)
    await a.hits(*users.values())
    assert losses == [cache.trust.losses for cache in a.resources.cache.caches], "No node was distrusted."
    assert set((await view(sql)).terms.values()) == {0}, "There was no claim."
    await a.rename(user, "New")
    assert await b.name(user) == "New"
    await b.hits(*users.values())


@pytest.mark.prove
async def test_only_what_a_dead_node_held_is_lost_and_its_replica_begins_without_it(
    redis_cluster: RedisCluster, new_instance: NewInstance, users: Mapping[int, int], sql: asyncpg.Connection
) -> None:
    """W on A is told X, which dies before its replica Y has heard of it; Y is promoted, and has the old value."""
    a, b = await new_instance(), await new_instance()
    x, (y,), user = redis_cluster.nodes[0], redis_cluster.replicas_of(redis_cluster.nodes[0]), users[0]
    await asyncio.gather(a.hits(*users.values()), b.hits(*users.values()))
    await redis_cluster.replicated(x)
    await y.ask("CLIENT", "KILL", "TYPE", "master")
    await y.ask("CLUSTER", "FAILOVER", "TAKEOVER")
    await a.rename(user, "New")
    await x.kill()
    await held(sql, user, y)
    for each in (a, b):
        assert await each.name(user) == "New"
        await each.hits(*users.values())
    terms = (await view(sql)).terms
    assert terms[x.id] == terms[y.id] == 1


@pytest.mark.prove
async def test_changes_for_a_dead_node_wait_and_those_behind_them_are_delivered(
    redis_cluster: RedisCluster, new_instance: NewInstance, users: Mapping[int, int], sql: asyncpg.Connection
) -> None:
    """Rows of the outbox are for X, which is dead; those behind them are for others, which must not wait."""
    a = await new_instance()
    await a.hits(*users.values())
    await redis_cluster.nodes[0].kill()
    await a.bypasses(users[0])
    await sql.execute("UPDATE users SET name = 'SQL' WHERE id = $1", users[0])
    await sql.execute("UPDATE users SET name = 'SQL' WHERE id = $1", users[1])

    async def left() -> bool:
        undone = await sql.fetch("SELECT key FROM outbox WHERE done_at IS NULL")
        return [row["key"] for row in undone] == [str(users[0])]

    await eventually(left)
    assert [await a.name(user_id) for user_id in users.values()].count("SQL") == 2
    await a.hits(users[1], users[2])


async def test_a_claim_whose_holder_has_given_the_slot_away_meanwhile_stands_in_nobodys_way(
    redis_cluster: RedisCluster, new_instance: NewInstance, users: Mapping[int, int], sql: asyncpg.Connection
) -> None:
    """X gives a slot to Y, and hangs before it has heard of the end: B claims the slot, which Y owns, and ends
    X goes on, and says that it has given the slot away: nobody refutes the claim for it, and nobody is to promote it
    A would hand over neither this slot nor any other while the claim stands
    """
    user, target = users[0], redis_cluster.nodes[1]
    slot = slot_of(f"users:{{{user}}}")
    a = await new_instance()
    await a.hits(*users.values())
    now = await view(sql)
    async with sql.transaction():
        # A's polls wait for this row, or find what they have read changed.
        await sql.execute("LOCK TABLE epochs IN ACCESS EXCLUSIVE MODE")
        await redis_cluster.move([slot], target)
        claimed = View([target.id if place == slot else holder for place, holder in enumerate(now.holders)], now.terms)
        await sql.execute("UPDATE epochs SET claim = 'of B', claimed_run = $1", str(claimed))
    await held(sql, user, target)
    assert await sql.fetchval("SELECT claim FROM epochs ORDER BY n DESC LIMIT 1") is None
    await a.hits(*users.values())
