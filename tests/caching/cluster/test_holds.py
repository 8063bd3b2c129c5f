"""The holders of slots: who is believed about a slot, and since when."""

from datetime import timedelta

import pytest

from app.caching import CacheUnavailable, Region, WriteThrough
from app.caching.cluster import Cluster, Node, open_cluster
from app.caching.cluster.holds import Holds
from app.caching.cluster.slot_map import SLOTS
from app.caching.moment import Moment
from tests.caching.cluster.conftest import TIMEOUT
from tests.caching.conftest import Thing
from tests.faults.redis_cluster import RedisCluster

OLD = Thing(name="old", version=1)


async def test_a_gained_slot_is_believed_only_once_its_holder_was_told_of_every_change(cluster: Cluster) -> None:
    """Y has an old value from when it held the slot            X holds it, and is not told of a change
    Y, which is trusted for other slots, gets the slot back     R would hit the old value, before Y is told
    """
    x, y, _z = cluster.nodes.all
    holds = Holds()
    holds.become([x] * SLOTS)
    assert not holds.believes(7, x)
    holds.told([x, y])
    assert holds.believes(7, x)
    holds.become([y] * 8 + [x] * (SLOTS - 8))
    assert holds.holder(7) is y
    assert not holds.believes(7, y)
    assert not holds.believes(7, x)
    assert holds.believes(8, x), "Nothing has changed there."
    holds.told([x])
    assert not holds.believes(7, y)
    holds.told([y])
    assert holds.believes(7, y)


async def test_a_call_in_flight_for_a_slot_that_came_back_is_not_believed(cluster: Cluster) -> None:
    x, y, _z = cluster.nodes.all
    holds = Holds()
    holds.become([x] * SLOTS)
    before, mark = holds.changes, holds.mark(7)
    holds.become([y] * 8 + [x] * (SLOTS - 8))
    holds.become([x] * SLOTS)
    assert holds.mark(7) != mark
    assert holds.lost_since(before, [7, 8]) == {7}
    assert holds.lost_since(holds.changes, [7, 8]) == set()


def trust(node: Node, *, verified: bool) -> None:
    """Does what a relay does that has heard of Postgres, or of Redis alone."""
    node.cache.breaker.reachable, node.cache.identity.refused = True, None
    node.cache.trust.grant(node.cache.trust.losses, Moment.now())
    if not verified:
        node.cache.trust.renew(Moment.now())


@pytest.mark.parametrize("verified", [True, False])
async def test_a_write_settles_unless_it_is_verified_that_its_node_still_holds_the_slot(
    redis_cluster: RedisCluster, verified: bool
) -> None:
    """A hears X, and nothing from the database: its trust in X is only renewed

    B, which does not hear X, has made Y the holder, and has filled it with the old row: A could not object
    W on A revokes and invalidates on X, and would answer at once           R on B hits the old row on Y
    """
    settled: list[int] = []

    async def settle(key: int) -> None:
        settled.append(key)

    async def save(key: int, change: Thing, revoke: object) -> Thing:
        await revoke()  # type: ignore[operator]
        return change

    async def load(key: int) -> Thing | None:
        return OLD

    async with (
        open_cluster(redis_cluster.url, timeout=TIMEOUT, relayed=True) as cluster,
        Region[int, Thing](cluster, "things", Thing, settled=settle) as region,
    ):
        assert cluster.holds is not None
        owner_of = cluster.topology.map.owner
        cluster.holds.become(
            [cluster.nodes.get(owner_of(slot) or cluster.nodes.all[0].address) for slot in range(SLOTS)]
        )
        cluster.holds.told(cluster.nodes.all)
        for node in cluster.nodes.all:
            trust(node, verified=verified)
        await WriteThrough(region, load=load, save=save).put(1, OLD)
        await region.invalidate(2, 5)
        assert settled == ([] if verified else [1, 2])


async def test_a_write_to_a_slot_without_a_holder_is_refused_or_settles(
    redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.caching.cluster.sending.PATIENCE", timedelta(milliseconds=50))
    settled: list[int] = []

    async def settle(key: int) -> None:
        settled.append(key)

    async with (
        open_cluster(redis_cluster.url, timeout=TIMEOUT, relayed=True) as cluster,
        Region[int, Thing](cluster, "things", Thing, settled=settle) as region,
    ):
        for node in cluster.nodes.all:
            trust(node, verified=True)
        with pytest.raises(CacheUnavailable, match="no node is known to hold slot"):
            await region.revoke(1, "writer")
        await region.invalidate(2, 5)
        assert settled == [2]
