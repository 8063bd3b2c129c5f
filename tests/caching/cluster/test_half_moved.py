"""The keys of a half-moved slot, one by one: what a load can do between two of them."""

from collections.abc import AsyncIterator

import pytest

from app.caching import Region
from app.caching.cluster import Call, Cluster
from app.caching.cluster.half_moved import Ask, invalidate_by_key, revoke_by_key
from app.caching.reading import Reading
from tests.caching.conftest import Thing

OLD = Thing(name="old", version=1)


@pytest.fixture
async def region(cluster: Cluster) -> AsyncIterator[Region[str, Thing]]:
    """A region, whose slots do not move."""
    async with Region[str, Thing](cluster, "things", Thing) as region:
        yield region


async def ask(cluster: Cluster, call: Call) -> None:
    """Makes a call."""
    (answer,) = await cluster.sending("things").send([call])
    assert not isinstance(answer, Exception)


def filling_between(cluster: Cluster, region: Region[str, Thing], key: str, token: str) -> Ask:
    """Returns what makes calls, and lets R fill the old row after the first one."""
    made = 0

    async def asked(call: Call) -> None:
        nonlocal made
        await ask(cluster, call)
        made += 1
        if made == 1:
            await region.fill(key, token, OLD)

    return asked


async def test_no_load_fills_the_old_value_while_a_value_is_invalidated_by_key(
    cluster: Cluster, region: Region[str, Thing]
) -> None:
    """R loads the old row under a lease       W removes the value
    R would fill the old value                 W removes the lease."""
    token = await region.claim("a")
    assert token is not None
    name = "things:{a}"
    assert await invalidate_by_key(filling_between(cluster, region, "a", token), name, name + ":lease") is None
    assert not isinstance(await region.lookup("a"), Reading)


async def test_no_load_fills_the_old_value_while_a_value_is_revoked_by_key(
    cluster: Cluster, region: Region[str, Thing]
) -> None:
    """The same: W takes over the lease in place of removing it."""
    token = await region.claim("a")
    assert token is not None
    name = "things:{a}"
    await revoke_by_key(filling_between(cluster, region, "a", token), name, name + ":lease", "writer-1")
    answer = await region.lookup("a")
    assert not isinstance(answer, Reading)
    assert answer.writers
