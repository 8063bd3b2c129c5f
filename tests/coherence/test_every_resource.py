"""What holds for every resource that has its own service, whatever its strategy."""

import asyncio
from typing import Any

import asyncpg
import httpx
import pytest

from app.caching import Outcome
from tests.coherence.checked import Checked, all_of_them
from tests.coherence.conftest import Instance, NewInstance
from tests.eventually import eventually
from tests.faults.held import Held

pytestmark = pytest.mark.sampled("redis-pooled")


@pytest.fixture(params=all_of_them(), ids=lambda checked: checked.name)
def checked(request: pytest.FixtureRequest) -> Checked:
    """Each of these resources."""
    found: Checked = request.param
    return found


@pytest.fixture
async def key(checked: Checked, sql: asyncpg.Connection) -> Any:
    """The key of a row that every cache has learned of."""
    await sql.execute(f"DELETE FROM {checked.name}")
    key = await sql.fetchval(checked.insert)
    await sql.execute("UPDATE outbox SET done_at = now()")
    return key


async def read(instance: Instance, checked: Checked, key: Any) -> str | None:
    """Returns the field that a read answers."""
    row = (await getattr(instance.resources, checked.name).get(key)).value
    return None if row is None else str(getattr(row, checked.field))


async def change(instance: Instance, checked: Checked, key: Any) -> None:
    """Changes the field through an instance."""
    await getattr(instance.resources, checked.name).change(key, {checked.field: "new"}, None)


async def hits(instance: Instance, checked: Checked, key: Any) -> bool:
    """Whether a read is a hit."""
    reading = await getattr(instance.resources, checked.name).get(key)
    return bool(reading.outcome is Outcome.HIT)


async def filling(instance: Instance, checked: Checked, key: Any, held: Held) -> asyncio.Task[str | None]:
    """Starts a read whose fill is held. On a busy machine trust may lapse briefly: a read that bypasses is repeated."""
    arrival = asyncio.create_task(held.arrived.wait())
    while True:
        slow = asyncio.create_task(read(instance, checked, key))
        await asyncio.wait({slow, arrival}, return_when=asyncio.FIRST_COMPLETED)
        if arrival.done():
            return slow


async def test_a_row_that_was_read_becomes_a_hit_over_http(
    client: httpx.AsyncClient, checked: Checked, key: Any
) -> None:
    async def is_hit() -> bool:
        answer = await client.get(f"/{checked.name}/{key}")
        assert answer.json()[checked.field] == "old"
        return "; hit" in answer.headers["cache-status"]

    await eventually(is_hit)


@pytest.mark.sampled("sentinel-pooled")
async def test_a_write_is_seen_by_every_instance_when_it_is_answered(
    new_instance: NewInstance, checked: Checked, key: Any
) -> None:
    a, b = await new_instance(), await new_instance()
    for instance in (a, b):
        await eventually(lambda instance=instance: hits(instance, checked, key))  # type: ignore[misc]
    await change(a, checked, key)
    assert [await read(instance, checked, key) for instance in (a, b)] == ["new", "new"]


@pytest.mark.sampled("sentinel-pooled")
async def test_a_slow_reader_does_not_bring_an_old_row_back(
    new_instance: NewInstance, checked: Checked, key: Any
) -> None:
    """R on A misses, and reads the old row; its fill stays in flight for long
                                        W on B commits, invalidates, and answers
    the fill reaches Redis: every read until its TTL expires would get the old row
    """
    a, b = await new_instance(), await new_instance()
    async with a.redis.holding(rf"^FILL 3 {checked.name}:") as held:
        slow = await filling(a, checked, key, held)
        await change(b, checked, key)
        held.release()
        assert await slow == "old"
    assert [await read(instance, checked, key) for instance in (a, b, a, b)] == ["new"] * 4


async def test_a_change_and_a_removal_in_sql_are_seen(
    new_instance: NewInstance, checked: Checked, key: Any, sql: asyncpg.Connection
) -> None:
    a = await new_instance()
    await eventually(lambda: hits(a, checked, key))

    async def is_read(value: str | None) -> bool:
        return await read(a, checked, key) == value

    await sql.execute(f"UPDATE {checked.name} SET {checked.field} = 'new' WHERE {checked.key} = $1", key)
    await eventually(lambda: is_read("new"))
    await sql.execute(f"DELETE FROM {checked.name} WHERE {checked.key} = $1", key)
    await eventually(lambda: is_read(None))
