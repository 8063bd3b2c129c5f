"""A client whose URL names Sentinels finds the primary, and follows them when they switch."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.caching import Identity, open_cache, open_redis
from app.caching.words import unavailable
from app.embedded import Endpoints
from tests.eventually import eventually
from tests.faults.certificates import Certificates
from tests.faults.redis_process import PASSWORD, RedisProcess
from tests.faults.tls_front import tls_front
from tests.faults.watched_redis import NAME, WatchedRedis, lone_sentinel
from tests.service import free_port

A_WHILE = timedelta(seconds=10)
SOON = timedelta(seconds=2)


@pytest.fixture
async def watched() -> AsyncIterator[WatchedRedis]:
    """A primary, a replica, and three Sentinels."""
    async with WatchedRedis.started() as watched:
        yield watched


async def port(redis: Redis) -> int:
    """Returns the port of the server that answers."""
    return int((await redis.info("server"))["tcp_port"])


async def leads_to(redis: Redis, server: RedisProcess) -> bool:
    """Whether a command reaches this server. Commands may fail while Sentinels and servers change their minds."""
    try:
        return await port(redis) == server.port
    except RedisError:
        return False


async def why_not(url: str, timeout: timedelta = SOON) -> str:
    """Returns why no command reaches a Redis at this URL."""
    async with open_redis(url, timeout=timeout, connections=1) as redis:
        with pytest.raises(RedisError) as refused:
            await redis.ping()
    return str(unavailable(refused.value))


async def test_connections_follow_the_sentinels_although_the_former_primary_is_alive_and_answers(
    watched: WatchedRedis,
) -> None:
    """The Sentinels lose X, and switch to Y      X stays a primary, and nothing ends the connections to it
    a client that asks the Sentinels only when it connects, or when a command fails, would stay with X forever
    """
    async with open_redis(watched.url, timeout=A_WHILE, connections=4) as redis:
        await asyncio.gather(*(redis.set(f"key {number}", "1") for number in range(50)))
        assert await port(redis) == watched.primary.port
        await watched.part_from_primary()
        await watched.switched()
        await eventually(lambda: leads_to(redis, watched.replica))
        # Not one of the four connections leads to the former primary.
        ports = await asyncio.gather(*(port(redis) for _ in range(50)))
        assert set(ports) == {watched.replica.port}


async def test_a_command_that_failed_at_the_former_primary_succeeds_at_the_new_one(watched: WatchedRedis) -> None:
    async with open_redis(watched.url, timeout=A_WHILE, connections=1) as redis:
        assert await port(redis) == watched.primary.port
        await watched.primary.kill()

        async def is_written() -> bool:
            try:
                return bool(await redis.set("key", "1"))
            except RedisError:
                return False

        await asyncio.gather(watched.switched(), eventually(is_written))
        assert await watched.replica.ask("GET", "key") == b"1"


async def test_the_sentinel_with_the_newest_configuration_is_believed(watched: WatchedRedis) -> None:
    """The Sentinels switch from X to Y      one was cut off before, answers as fast as the others, and names X"""
    async with lone_sentinel(watched.primary.port) as lone:
        url = watched.url.replace(watched.hosts, f"127.0.0.1:{lone.port},{watched.hosts}")
        async with open_redis(url, timeout=A_WHILE, connections=2) as redis:
            assert await port(redis) == watched.primary.port
            await watched.switch()
            await eventually(lambda: leads_to(redis, watched.replica))
            assert {await port(redis) for _ in range(50)} == {watched.replica.port}
            _, named = await lone.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
            assert int(named) == watched.primary.port


async def test_nobody_goes_back_while_the_sentinels_that_know_of_the_switch_are_silent(watched: WatchedRedis) -> None:
    """The Sentinels switch from X to Y, all but one that was cut off with X      they are silent for a while"""
    async with lone_sentinel(watched.primary.port) as lone:
        url = watched.url.replace(watched.hosts, f"127.0.0.1:{lone.port},{watched.hosts}")
        async with open_redis(url, timeout=SOON, connections=1) as redis:
            await watched.switch()
            await eventually(lambda: leads_to(redis, watched.replica))
            for sentinel in watched.sentinels:
                sentinel.pause()
            sentinels = redis.connection_pool.sentinels  # type: ignore[attr-defined]
            assert await sentinels.silent() == 3
            assert {await port(redis) for _ in range(5)} == {watched.replica.port}
            await redis.connection_pool.disconnect()
            assert await port(redis) == watched.replica.port


async def test_connections_stay_in_use_while_no_sentinel_answers(watched: WatchedRedis) -> None:
    async with open_redis(watched.client_url, timeout=SOON, connections=1) as redis:
        assert await port(redis) == watched.primary.port
        for sentinel in watched.sentinels:
            await sentinel.cut_off("client")
        sentinels = redis.connection_pool.sentinels  # type: ignore[attr-defined]
        assert await sentinels.silent() == 3
        assert await port(redis) == watched.primary.port
        await redis.connection_pool.disconnect()
        with pytest.raises(RedisError, match="because a Sentinel says WRONGPASS"):
            await redis.ping()
        for sentinel in watched.sentinels:
            await sentinel.let_in("client")
        await eventually(lambda: leads_to(redis, watched.primary))


async def test_a_sentinel_that_hangs_holds_up_nobody(watched: WatchedRedis) -> None:
    watched.sentinels[0].pause()
    async with open_redis(watched.url, timeout=timedelta(hours=1), connections=2) as redis:
        assert await port(redis) == watched.primary.port


async def test_pools_of_one_redis_follow_the_same_answers(watched: WatchedRedis, identity: Identity) -> None:
    async with (
        open_redis(watched.url, timeout=A_WHILE, connections=1, identity=identity) as redis,
        open_redis(watched.url, timeout=A_WHILE, connections=1, identity=identity) as waiting,
    ):
        assert await port(redis) == await port(waiting) == watched.primary.port
        assert redis.connection_pool.sentinels is waiting.connection_pool.sentinels  # type: ignore[attr-defined]


async def test_the_primary_and_the_sentinels_have_logins_of_their_own(watched: WatchedRedis) -> None:
    await watched.primary.ask("ACL", "SETUSER", "me", "on", ">mine", "~*", "&*", "+@all")
    url = watched.client_url.replace(f"//:{PASSWORD}@", "//me:mine@").replace(f"/{NAME}", f"/{NAME}/3")
    async with open_redis(url, timeout=A_WHILE, connections=1) as redis:
        assert await redis.acl_whoami() == "me"
        assert (await redis.client_info())["db"] == 3


async def test_the_sentinels_and_the_primary_speak_tls(
    endpoints: Endpoints, certificates: Certificates, tmp_path: Path
) -> None:
    """Each has a front that speaks TLS: the Redis here is built without."""
    async with tls_front(Path(urlsplit(endpoints.redis_url).path), certificates) as primary:
        socket = tmp_path / "sentinel.sock"
        async with (
            lone_sentinel(primary.port, f"unixsocket {socket}"),
            tls_front(socket, certificates) as sentinel,
        ):
            url = f"rediss+sentinel://localhost:{sentinel.port}/{NAME}?ssl_ca_certs={certificates.path('ca.crt')}"
            async with open_redis(url, timeout=A_WHILE, connections=2) as redis:
                await asyncio.gather(*(redis.set(f"key {number}", "1") for number in range(10)))
            assert (sentinel.encrypted, primary.encrypted) == (1, 2)


async def test_trouble_with_sentinels_is_named(watched: WatchedRedis) -> None:
    nowhere = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{free_port()}/{NAME}"
    assert await why_not(nowhere) == "Redis did not answer: it cannot be found, because no Sentinel answers."
    unknown = watched.url.replace(f"/{NAME}", "/another")
    assert await why_not(unknown) == (
        "Redis did not answer: it cannot be found, because its Sentinels do not monitor that name."
    )
    assert "because a Sentinel says WRONGPASS" in await why_not(f"{watched.client_url}1")
    no_sentinel = f"{watched.primary_url.replace('redis', 'redis+sentinel')}/{NAME}"
    assert "because a Sentinel says ERR unknown command" in await why_not(no_sentinel)
    async with lone_sentinel(watched.replica.port) as lone:
        replica = f"redis+sentinel://:{PASSWORD}@127.0.0.1:{lone.port}/{NAME}"
        assert await why_not(replica) == (
            "Redis did not answer: it is a replica, although a Sentinel named it as the primary."
        )


async def test_a_cache_whose_sentinels_are_away_opens_and_is_used_when_they_are_back(watched: WatchedRedis) -> None:
    for sentinel in watched.sentinels:
        await sentinel.cut_off("client")
    async with open_cache(watched.client_url, timeout=SOON) as cache:
        assert cache.trust.lost
        assert "because a Sentinel says WRONGPASS" in cache.trust.why
        for sentinel in watched.sentinels:
            await sentinel.let_in("client")

        async def is_believed() -> bool:
            return cache.trust.held

        await eventually(is_believed)
