"""Redis holds values that are late, foreign, or of no row at all: tested over HTTP, through two processes."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from app.embedded import Endpoints
from tests.eventually import PATIENCE, eventually
from tests.faults.held import Held
from tests.keep_alive import Answer
from tests.keyed import Keyed
from tests.outages.instance import Instance, Pair, all_told
from tests.outages.rows import PIECES, is_relayed, made
from tests.topologies.by_hand import by_hand

RESOURCES = ["users", "products", "inventory"]
REGIONS = {"users": "users", "products": "products", "inventory": "stock"}
LOADS = {"users": r"\bFROM users\b", "products": r"\bFROM products\b", "inventory": r"\bload_stock\b"}
ASKED = 1000
CROWD = 500


@pytest.fixture
async def redis(stores: Endpoints) -> AsyncIterator[Redis]:
    """An operator's connection, as with redis-cli."""
    async with by_hand(stores.redis_url) as redis:
        yield redis


@pytest.mark.parametrize("resource", ["users", "products"])
async def test_a_fill_that_arrives_after_a_write_was_answered_is_not_kept(pair: Pair, resource: str) -> None:
    """R on A misses, and reads the old row; its fill stays in flight for long
                                        W on B commits, invalidates, and answers
    the fill reaches Redis: every read until its TTL expires would get the old row
    """
    reader, writer = pair
    rows = await made(writer.connection, f"late-{resource}", 1)
    path = rows.users[0] if resource == "users" else rows.products[0]
    async with reader.redis.holding(rf"^FILL 3 {resource}:") as held:
        slow = await _filling(reader, path, held)
        written = await writer.connection.ask(path, method="PATCH", body={"name": "New"})
        assert written.status == 200
        held.release()
        assert (await asyncio.wait_for(slow, PATIENCE)).json()["name"] != "New"
    for instance in pair:
        for _ in range(2):
            assert (await instance.connection.ask(path)).json() == written.json()


async def _filling(instance: Instance, path: str, held: Held) -> asyncio.Task[Answer]:
    """Starts a read whose fill is held. On a busy machine trust may lapse briefly, or Postgres be late: a read that is
    answered without a fill is repeated."""
    arrival = asyncio.create_task(held.arrived.wait())
    while True:
        read = asyncio.create_task(instance.connection.ask(path))
        done, _ = await asyncio.wait({read, arrival}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        assert done
        if arrival in done:
            return read


async def test_a_late_fill_of_the_first_of_two_writers_does_not_bring_its_value_back(
    pair: Pair, sql: asyncpg.Connection, redis: Redis
) -> None:
    first, second = pair
    (path,) = (await made(first.connection, "overtaken", 1)).stocks
    async with first.redis.holding(r"^FILL 3 stock:") as held:
        slow = asyncio.create_task(first.connection.post(f"{path}/adjustments", {"delta": -1}))
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        fast = await second.connection.post(f"{path}/adjustments", {"delta": -1})
        assert (fast.status, fast.json()["quantity"]) == (200, PIECES - 2)
        held.release()
        assert (await asyncio.wait_for(slow, PATIENCE)).json()["quantity"] == PIECES - 1
    assert await sql.fetchval("SELECT quantity FROM stock WHERE sku = 'overtaken-0'") == PIECES - 2
    for instance in pair:
        assert (await instance.connection.ask(path)).json() == fast.json()
    kept = await redis.get("stock:{overtaken-0}")
    assert isinstance(kept, bytes)
    assert int(kept.split(b" ")[1]) == fast.json()["version"]


async def test_five_hundred_readers_of_a_cold_stock_cost_one_query_in_all_processes(
    pair: Pair, redis: Redis, sql: asyncpg.Connection
) -> None:
    (path,) = (await made(pair[0].connection, "cold", 1)).stocks
    # A relay that has yet to deliver its creation would void the load, and another reader would load again.
    await all_told([instance.postgres for instance in pair], sql)
    while True:
        await redis.delete("stock:{cold-0}")
        before = [instance.postgres.count(LOADS["inventory"]) for instance in pair]
        answers = await _stampede(pair, path)
        assert {(answer.status, answer.json()["quantity"]) for answer in answers} == {(200, PIECES)}
        # On a busy machine trust may lapse in the middle, and then reads rightly bypass Redis.
        if not any("fwd=bypass" in answer.headers["cache-status"] for answer in answers):
            break
    assert sum(instance.postgres.count(LOADS["inventory"]) for instance in pair) - sum(before) == 1


async def _stampede(pair: Pair, path: str) -> Sequence[Answer]:
    connections = [await Keyed.to(pair[number % 2].service.url) for number in range(CROWD)]
    one, other = pair
    # The query is held until the last reader has asked, so none comes late.
    async with one.postgres.holding(LOADS["inventory"]) as held, other.postgres.holding(LOADS["inventory"]) as too:
        for connection in connections:
            await connection.send(path)
        arrivals = [asyncio.create_task(each.arrived.wait()) for each in (held, too)]
        arrived, late = await asyncio.wait(arrivals, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        assert arrived
        for task in late:
            task.cancel()
        held.release()
        too.release()
        answers = await asyncio.wait_for(asyncio.gather(*(each.answer() for each in connections)), PATIENCE)
    for connection in connections:
        await connection.close()
    return answers


@pytest.mark.parametrize("resource", RESOURCES)
async def test_a_thousand_reads_of_an_absent_row_cost_one_query_and_its_creation_is_seen_at_once(
    pair: Pair, sql: asyncpg.Connection, resource: str
) -> None:
    name = f"never-{resource}"
    next_id = 1 + await sql.fetchval("SELECT nextval('users_id_seq')")
    path = f"/users/{next_id}" if resource == "users" else f"/{resource}/{name}"
    before = [instance.postgres.count(LOADS[resource]) for instance in pair]
    assert (await pair[0].connection.ask(path)).status == 404
    connections = [await Keyed.to(instance.service.url) for instance in pair for _ in range(5)]
    for _ in range(ASKED // len(connections)):
        answers = await asyncio.gather(*(connection.ask(path) for connection in connections))
        assert {answer.status for answer in answers} == {404}
    for connection in connections:
        await connection.close()
    queries = [instance.postgres.count(LOADS[resource]) for instance in pair]
    assert sum(queries) - sum(before) == 1

    if resource == "users":
        created = await pair[0].connection.post("/users", {"name": name, "email": f"{name}@example.com"})
    elif resource == "products":
        created = await pair[0].connection.post("/products", {"sku": name, "name": name, "price": "1.00"})
    else:
        created = await pair[0].connection.ask(path, method="PUT", body={"quantity": 1})
    assert (created.status, created.headers["location"]) == (201, path)
    for instance in reversed(pair):
        read = await instance.connection.ask(path)
        assert (read.status, read.json()) == (200, created.json())


@pytest.mark.parametrize("resource", RESOURCES)
@pytest.mark.parametrize("rot", ["nothing", "garbage", "truncated", "changed", "older schema", "no numbers"])
async def test_a_foreign_or_corrupt_value_is_counted_and_loaded_again(
    pair: Pair, redis: Redis, sql: asyncpg.Connection, resource: str, rot: str
) -> None:
    instance = pair[0]
    rows = await made(instance.connection, f"rot-{resource}-{rot.replace(' ', '-')}", 1)
    path = rows.one_of_each[RESOURCES.index(resource)]
    # If the relay delivered the creation only now, it would void the lease of a load.
    await eventually(lambda: is_relayed(sql))
    key = f"{REGIONS[resource]}:{{{path.rpartition('/')[2]}}}"
    good = await instance.connection.ask(path)
    value = await redis.get(key)
    assert isinstance(value, bytes)
    schema, version, _stored, fresh, cost, checksum, payload = value.split(b" ", 6)
    rotten = {
        "nothing": b"",
        "garbage": b"\x00\xff not a value {",
        "truncated": value[:-5],
        "changed": value.replace(b'"version":', b'"versiom":'),
        "older schema": b" ".join([b"00000000", *value.split(b" ", 1)[1:]]),
        "no numbers": b" ".join([schema, version, b"yesterday", fresh, cost, checksum, payload]),
    }[rot]
    assert rotten != value
    counted = await _foreign(instance, resource)

    await redis.set(key, rotten)
    answer = await instance.connection.ask(path)
    assert (answer.status, answer.json()) == (200, good.json())
    assert "; fwd=miss; stored" in answer.headers["cache-status"]
    assert await _foreign(instance, resource) == counted + 1
    for each in pair:
        again = await each.connection.ask(path)
        assert (again.json(), "; hit; " in again.headers["cache-status"]) == (good.json(), True)


async def _foreign(instance: Instance, resource: str) -> float:
    """Returns how many foreign values the instance has reported."""
    text = (await instance.connection.ask("/metrics")).body.decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(
        sample.value
        for sample in samples
        if sample.name == "fourways_cache_events_total"
        and (sample.labels["resource"], sample.labels["event"]) == (resource, "foreign")
    )
