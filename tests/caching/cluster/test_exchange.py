"""Many commands leave in one write, and each answer belongs to its command."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app.caching import open_redis
from app.caching.cluster.call import packed
from app.caching.cluster.exchange import exchange
from app.caching.errors import REDIS_DOWN
from app.embedded import Endpoints
from tests.faults.redis_wire import RedisWire

GET_A, GET_B = packed(("GET", "a")), packed(("GET", "b"))


@pytest.fixture
async def wire(endpoints: Endpoints) -> AsyncIterator[RedisWire]:
    async with RedisWire(endpoints.redis_url) as wire:
        yield wire


@pytest.fixture
async def lone(wire: RedisWire) -> AsyncIterator[Redis]:
    """A client with one connection, through the wire."""
    async with open_redis(wire.url, timeout=timedelta(seconds=10), connections=1) as redis:
        await redis.mset({"a": "1", "b": "2"})
        yield redis


async def test_an_error_stands_in_the_place_of_its_answer(lone: Redis) -> None:
    first, failed, last = await exchange(lone, [GET_A, packed(("LPUSH", "a", "x")), GET_B])
    assert (first, last) == (b"1", b"2")
    assert isinstance(failed, ResponseError)


async def test_a_thousand_long_answers_come_in_order(lone: Redis) -> None:
    names = [f"long {number}" for number in range(1_000)]
    await exchange(lone, [packed(("SET", name, name * 1_000)) for name in names])
    answers = await exchange(lone, [packed(("GET", name)) for name in names])
    assert answers == [(name * 1_000).encode() for name in names]


async def test_answers_to_one_who_went_away_go_to_nobody(wire: RedisWire, lone: Redis) -> None:
    """A is cancelled before its answer arrives         B takes the connection, and would read the answer to A"""
    async with wire.holding_replies("^GET a") as held:
        gone = asyncio.create_task(exchange(lone, [GET_A]))
        await held.arrived.wait()
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
    assert await exchange(lone, [GET_B]) == [b"2"]


async def test_a_connection_that_is_lost_between_two_answers_is_not_used_again(wire: RedisWire, lone: Redis) -> None:
    """It fails as a whole, and the commands are not sent again."""
    before = wire.count("^INCR ")
    wire.cut_after("^INCR b")
    with pytest.raises(REDIS_DOWN):
        await exchange(lone, [packed(("INCR", name)) for name in ("a", "b", "a")])
    assert wire.count("^INCR ") - before == 3
    assert await exchange(lone, [GET_B]) == [b"3"]
