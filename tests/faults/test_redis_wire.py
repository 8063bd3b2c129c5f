"""The proxy in front of Redis: what it counts, holds, loses, delays and refuses."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as TimedOut

from app.caching import open_redis
from app.caching.scripts import script
from app.embedded import Endpoints
from tests.eventually import PATIENCE, eventually
from tests.faults.redis_wire import RedisWire
from tests.faults.resp import Resp

SOON = 0.2
"""The timeout of a client that is meant to time out."""
FILL = ("schema", "life", "mine", 1, 10, 1000, 1000, "payload")
"""The arguments of the `fill` script, from the holder of the lease `mine`."""


@pytest.fixture
async def wire(endpoints: Endpoints) -> AsyncIterator[RedisWire]:
    async with RedisWire(endpoints.redis_url) as wire:
        yield wire


@pytest.fixture
async def client(wire: RedisWire) -> AsyncIterator[Redis]:
    """A patient client behind the wire, with as many connections as it needs at once."""
    async with client_of(wire, PATIENCE) as client:
        yield client


@pytest.fixture
async def hasty(wire: RedisWire) -> AsyncIterator[Redis]:
    """A client with a short timeout, whose only connection is already open."""
    async with client_of(wire, PATIENCE) as patient:
        await patient.ping()
    async with client_of(wire, SOON, connections=1) as client:

        async def answers() -> bool:
            with suppress(TimedOut):  # The machine may be busy.
                return bool(await client.ping())
            return False

        await eventually(answers)
        yield client


def client_of(wire: RedisWire, seconds: float, connections: int = 300) -> AbstractAsyncContextManager[Redis]:
    return open_redis(wire.url, timeout=timedelta(seconds=seconds), connections=connections)


async def has(redis: Redis, key: str, value: bytes | None) -> None:
    """Returns when Redis has this value."""

    async def it_has() -> bool:
        return bool(await redis.get(key) == value)

    await eventually(it_has)


async def stands(wire: RedisWire, connections: int) -> None:
    """Returns when `connections` connections are open."""

    async def it_stands() -> bool:
        return wire.connections == connections

    await eventually(it_stands)


async def test_a_command_counts_by_its_words_and_not_by_its_bytes(wire: RedisWire, client: Redis) -> None:
    await client.set("a", "*1\r\n$3\r\nDEL\r\n\r\nSET b")
    assert await client.get("a") == b"*1\r\n$3\r\nDEL\r\n\r\nSET b"
    await client.set(b"\xff", b"\x00")
    await client.client_setname("a")
    assert wire.count("^CLIENT SETNAME") == 1, "What a plain search for SET would have found as well."
    assert wire.count(r"^SET a ") == 1
    assert wire.count(r"^SET ") == 2
    assert wire.count(r"^SET \\xff \x00$") == 1
    assert wire.count(r"^DEL") == 0
    assert wire.count(lambda command: command == "GET a") == 1


async def test_a_script_is_matched_by_the_name_of_its_file(wire: RedisWire, client: Redis, redis: Redis) -> None:
    await redis.set("users:{1}:lease", "mine")
    answer = await script(client, "fill")(["users:{1}", "users:{1}:lease", "users:{1}:floor"], FILL)
    assert answer == [b"stored"]
    assert wire.count(r"^FILL 3 users:\{1\} users:\{1\}:lease ") == 1
    assert wire.count("EVALSHA|NOSCRIPT|SCRIPT LOAD") == 0, "Redis knew it from the beginning."


async def test_a_noscript_answer_is_not_the_answer_that_is_lost(wire: RedisWire, client: Redis, redis: Redis) -> None:
    await redis.script_flush()
    lost = wire.cut_after("^FILL ")
    await redis.set("lease", "mine")
    with pytest.raises(Disconnected):
        await script(client, "fill")(["value", "lease", "floor"], FILL)
    assert lost.dropped.is_set()
    assert await redis.exists("value")


async def test_pipelines_and_nested_and_large_answers_pass(wire: RedisWire, client: Redis) -> None:
    large = bytes(range(256)) * 4096
    async with client.pipeline(transaction=True) as pipeline:
        pipeline.set("large", large)
        pipeline.get("large")
        pipeline.rpush("list", *range(1000))
        pipeline.lrange("list", 0, -1)
        assert (await pipeline.execute())[1::2] == [large, [b"%d" % number for number in range(1000)]]
    async with client.pipeline(transaction=False) as pipeline:
        for number in range(500):
            pipeline.incr("count")
            pipeline.hset("hash", str(number), str(number))
            pipeline.mget("count", "nothing")
        answers = await pipeline.execute()
    assert answers[2::3] == [[b"%d" % number, None] for number in range(1, 501)]
    nested = await client.eval("return {1, {2, {3, {}, false}, 'x'}, redis.status_reply('fine')}", 0)
    assert nested == [1, [2, [3, [], None], b"x"], b"fine"]
    with pytest.raises(ResponseError, match=r"[Ww]rong number"):
        await client.eval("return redis.call('GET')", 0)
    assert wire.count("^INCR(BY)? count") == 500


async def test_answers_in_resp3_are_matched_to_their_commands(wire: RedisWire) -> None:
    async with Redis.from_url(wire.url, protocol=3, retry=None) as client:
        await client.hset("hash", mapping={"a": "1", "b": "2"})
        lost = wire.cut_after("^HGETALL")
        with pytest.raises(Disconnected):
            await client.hgetall("hash")
        assert lost.dropped.is_set()
        assert await client.hgetall("hash") == {b"a": b"1", b"b": b"2"}


async def test_hundreds_of_connections_can_be_held_at_once(wire: RedisWire, client: Redis) -> None:
    async with wire.holding("^INCR"):
        waiting = [asyncio.ensure_future(client.incr("count")) for _ in range(300)]
        await stands(wire, 300)
        assert wire.count("^INCR") == 0
    assert sorted(await asyncio.gather(*waiting)) == list(range(1, 301))


async def test_a_held_command_waits_and_others_overtake_it(wire: RedisWire, client: Redis, redis: Redis) -> None:
    async with wire.holding("^SET key first") as held:
        waiting = asyncio.ensure_future(client.set("key", "first"))
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        await client.set("key", "second")
        assert wire.count("^SET key first") == 0
        held.release()
        await asyncio.wait_for(waiting, PATIENCE)
    assert await redis.get("key") == b"first"


async def test_commands_after_a_held_one_on_its_connection_wait_too(
    wire: RedisWire, client: Redis, redis: Redis
) -> None:
    async with client.pipeline(transaction=False) as pipeline, wire.holding("^SET second") as held:
        for key in ("first", "second", "third"):
            pipeline.set(key, 1)
        waiting = asyncio.create_task(pipeline.execute())
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        await has(redis, "first", b"1")
        assert await redis.mget("second", "third") == [None, None]
        held.release()
        assert await asyncio.wait_for(waiting, PATIENCE) == [True, True, True]


async def test_a_held_command_arrives_after_its_client_timed_out(wire: RedisWire, hasty: Redis, redis: Redis) -> None:
    async with wire.holding("^SET late") as held:
        with pytest.raises(TimedOut):
            await hasty.set("late", "1")
        await stands(wire, 0)
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        assert await redis.get("late") is None
    await has(redis, "late", b"1")


async def test_a_command_whose_answer_is_held_has_been_executed(wire: RedisWire, client: Redis, redis: Redis) -> None:
    async with wire.holding_replies("^INCR") as held:
        waiting = asyncio.ensure_future(client.incr("count"))
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        assert await redis.get("count") == b"1"
        assert await client.get("count") == b"1"
        assert not waiting.done()
        held.release()
        assert await asyncio.wait_for(waiting, PATIENCE) == 1


async def test_exactly_one_answer_is_dropped_together_with_all_after_it(
    wire: RedisWire, hasty: Redis, client: Redis, redis: Redis
) -> None:
    lost = wire.drop_reply("^INCR")
    async with hasty.pipeline(transaction=False) as pipeline:
        pipeline.incr("count")
        pipeline.set("behind", 1)
        with pytest.raises(TimedOut):
            await pipeline.execute()
    await asyncio.wait_for(lost.dropped.wait(), PATIENCE)
    assert await redis.mget("count", "behind") == [b"1", b"1"]
    assert await client.incr("count") == 2


async def test_a_connection_is_cut_after_exactly_one_command(wire: RedisWire, client: Redis, redis: Redis) -> None:
    lost = wire.cut_after("^INCR")
    with pytest.raises(Disconnected):
        await client.incr("count")
    assert lost.dropped.is_set()
    assert await redis.get("count") == b"1"
    assert await client.incr("count") == 2


async def test_silence_delays_all_messages_until_healed(wire: RedisWire, client: Redis, redis: Redis) -> None:
    await client.ping()
    wire.silence()
    waiting = [asyncio.ensure_future(client.incr("count")) for _ in range(5)]
    await stands(wire, 5)
    assert wire.count("^INCR") == 0
    wire.heal()
    assert sorted(await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)) == [1, 2, 3, 4, 5]


async def test_silence_delivers_a_timed_out_command_late(
    wire: RedisWire, hasty: Redis, client: Redis, redis: Redis
) -> None:
    wire.silence()
    with pytest.raises(TimedOut):
        await hasty.set("late", "1")
    await stands(wire, 0)
    assert await redis.get("late") is None
    wire.heal()
    await has(redis, "late", b"1")
    assert await client.get("late") == b"1"


async def test_a_cut_loses_what_is_in_flight(wire: RedisWire, client: Redis, redis: Redis) -> None:
    async with wire.holding("^SET") as held:
        waiting = asyncio.ensure_future(client.set("lost", "1"))
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        wire.cut()
        with pytest.raises(Disconnected):
            await waiting
        await stands(wire, 0)
    assert await client.get("lost") is None


async def test_a_refused_client_can_connect_to_the_same_address_after_the_heal(wire: RedisWire, client: Redis) -> None:
    waiting = asyncio.ensure_future(client.blpop(["nothing"], timeout=0))
    await stands(wire, 1)
    wire.refuse()
    with pytest.raises(Disconnected):
        await waiting
    for _ in range(3):
        with pytest.raises(Disconnected, match="refused"):
            await client.ping()
    assert wire.connections == 0
    wire.heal()
    assert await client.ping()


async def test_a_delay_applies_in_both_directions_and_keeps_the_order(wire: RedisWire, client: Redis) -> None:
    await client.ping()
    wire.delay(0.05)
    began = time.monotonic()
    async with client.pipeline(transaction=False) as pipeline:
        for _ in range(50):
            pipeline.incr("count")
        assert await pipeline.execute() == list(range(1, 51))
    assert time.monotonic() - began >= 0.1


async def test_healing_delivers_delayed_commands(wire: RedisWire, hasty: Redis, redis: Redis) -> None:
    wire.delay(PATIENCE)
    with pytest.raises(TimedOut):
        await hasty.set("late", "1")
    assert wire.count("^SET") == 0
    wire.heal()
    await has(redis, "late", b"1")


async def test_the_database_in_the_url_is_used_behind_the_wire(endpoints: Endpoints) -> None:
    async with RedisWire(endpoints.redis_url.replace("db=0", "db=9")) as wire, client_of(wire, PATIENCE) as client:
        assert wire.url.startswith("unix:///"), "The settings take no other form."
        assert (await client.client_info())["db"] == 9


async def test_a_redis_on_a_port_is_reached_with_its_password_and_database() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        resp = Resp()
        while chunk := await reader.read(65_536):
            writer.writelines(b"+OK\r\n" for _ in resp.feed(chunk))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"redis://name:secret@127.0.0.1:{port}/3?client_name=shop"
        async with RedisWire(url) as wire, client_of(wire, PATIENCE) as client:
            assert await client.set("a", 1)
            assert all(wire.count(command) for command in ("^AUTH name secret$", "^SELECT 3$", "^SET a 1$"))
            assert "client_name=shop" in wire.url


async def test_a_connection_left_open_does_not_keep_the_proxy_open(endpoints: Endpoints) -> None:
    async with RedisWire(endpoints.redis_url) as wire:
        redis = Redis.from_url(wire.url, protocol=2)
        await redis.ping()
        wire.silence()
    assert wire.connections == 0
    await redis.aclose()
