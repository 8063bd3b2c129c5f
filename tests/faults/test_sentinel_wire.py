"""A Sentinel's answer leads through the wire, and what the wire does to connections is what the client sees."""

from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from app.caching import open_redis
from app.caching.words import said
from app.embedded import Endpoints
from tests.faults.sentinel_wire import SentinelWire


async def test_a_wire_that_a_sentinel_names_refuses_cuts_and_heals(endpoints: Endpoints) -> None:
    async with SentinelWire(endpoints.redis_url.replace("db=0", "db=9")) as wire:
        assert urlsplit(wire.url).scheme == "redis+sentinel"
        async with open_redis(wire.url, timeout=timedelta(seconds=10), connections=1) as redis:
            assert (await redis.client_info())["db"] == 9
            before = wire.count("^PING")
            for _ in range(2):
                wire.refuse()
                for why in ("has closed the connection", "refuses connections"):
                    with pytest.raises(RedisConnectionError) as refused:
                        await redis.ping()
                    assert said(refused.value) == why
                wire.heal()
                await redis.ping()
            wire.cut()
            with pytest.raises(RedisConnectionError):
                await redis.ping()
            await redis.ping()
            assert wire.count("^PING") >= before + 3
