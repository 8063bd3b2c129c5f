"""What a Redis may lose depends on its settings."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.caching import CacheUnavailable, Fsync, fitness, fsync, open_redis
from app.embedded import Endpoints
from tests.eventually import eventually
from tests.faults.another_redis import another_redis

SETTINGS = ("appendonly", "appendfsync", "maxmemory-policy")


@pytest.fixture
async def redis(redis: Redis) -> AsyncIterator[Redis]:
    """A Redis whose settings are restored at the end."""
    before = {name: str((await redis.config_get(name))[name]) for name in SETTINGS}
    yield redis
    for name, value in before.items():
        await redis.config_set(name, value)

    async def is_whole() -> bool:
        information = await redis.info("persistence")
        return not (information["aof_rewrite_in_progress"] or information["aof_rewrite_scheduled"])

    await eventually(is_whole)  # While Redis rewrites its file, it cannot be stopped.


@pytest.fixture
async def refusing(redis: Redis, endpoints: Endpoints) -> AsyncIterator[Redis]:
    """The same Redis, through a user that may not read its settings."""
    await redis.acl_setuser(
        "guest", enabled=True, passwords=["+secret"], keys=["*"], categories=["+@all"], commands=["-config"]
    )
    url = endpoints.redis_url.replace("unix://", "unix://guest:secret@")
    async with open_redis(url, timeout=timedelta(seconds=10), connections=1) as refusing:
        yield refusing
    await redis.acl_deluser("guest")


@pytest.mark.parametrize("policy", ["always", "everysec", "no"])
async def test_fsync_is_the_policy_that_redis_is_set_to(redis: Redis, policy: str) -> None:
    await redis.config_set("appendfsync", policy)
    assert await fsync(redis) == policy


async def test_without_an_append_only_file_fsync_is_off(redis: Redis) -> None:
    await redis.config_set("appendfsync", "always")
    await redis.config_set("appendonly", "no")
    assert await fsync(redis) is Fsync.OFF
    assert "appendonly is off" in (await fitness(redis))["persistence"]


async def test_a_redis_that_still_loads_its_file_is_not_reported_as_having_none() -> None:
    """While it reads its file, Redis reports that it has none. It serves its clients after every thousand commands that
    it has read, and is stopped in the middle."""
    async with (
        another_redis() as url,
        Redis.from_url(url, protocol=2) as redis,
        Redis.from_url(url, protocol=2) as other,
    ):
        pipeline = redis.pipeline(transaction=False)
        for number in range(20_000):
            pipeline.set(f"filler:{number}", "")
        await pipeline.execute()
        await redis.config_set("key-load-delay", 1)
        reads = asyncio.ensure_future(redis.execute_command("DEBUG", "LOADAOF"))  # type: ignore[no-untyped-call]
        while not (await other.info("persistence"))["loading"]:
            assert not reads.done()
        told, policy = await asyncio.gather(fitness(other), fsync(other))
        with pytest.raises(RedisError):
            await other.execute_command("SHUTDOWN", "NOSAVE")  # type: ignore[no-untyped-call]
        with pytest.raises(RedisError):
            await reads
        assert (told["persistence"], policy) == ("ok", Fsync.UNKNOWN)


async def test_fsync_is_unknown_when_redis_refuses_to_show_its_settings(refusing: Redis) -> None:
    assert await refusing.ping()
    assert await fsync(refusing) is Fsync.UNKNOWN
    assert set((await fitness(refusing)).values()) == {"ok"}


async def test_without_redis_fitness_and_fsync_raise() -> None:
    async with open_redis("unix:///nowhere/redis.sock", timeout=timedelta(seconds=1), connections=1) as nowhere:
        for question in (fsync, fitness):
            with pytest.raises(CacheUnavailable, match="Redis did not answer: it refuses connections"):
                await question(nowhere)


async def test_a_redis_that_may_evict_the_stream_or_the_records_of_calls_is_not_fit(redis: Redis) -> None:
    for policy, fit in {"noeviction": True, "volatile-lru": False, "allkeys-lru": False, "allkeys-lfu": False}.items():
        await redis.config_set("maxmemory-policy", policy)
        assert ((await fitness(redis))["eviction"] == "ok") is fit


def test_the_window_of_a_policy_is_what_a_crash_may_lose() -> None:
    second, nothing, anything = timedelta(seconds=1), timedelta(0), None
    assert {policy: policy.window for policy in Fsync} == {
        Fsync.ALWAYS: nothing,
        Fsync.EVERYSEC: second,
        Fsync.NO: anything,
        Fsync.OFF: anything,
        Fsync.UNKNOWN: anything,
    }


async def test_the_service_reports_the_current_fsync_policy(redis: Redis, client: httpx.AsyncClient) -> None:
    for policy in ("always", "no"):
        await redis.config_set("appendfsync", policy)
        assert (await client.get("/write-behind")).json()["at_risk"]["fsync"] == policy
    await redis.config_set("appendonly", "no")
    assert (await client.get("/write-behind")).json()["at_risk"]["fsync"] == "off"
