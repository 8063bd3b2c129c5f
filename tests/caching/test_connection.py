"""A client that fails fast and sends nothing twice."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from redis.asyncio import Connection, Redis
from redis.exceptions import RedisError

from app.caching import RedisClock, open_redis
from app.caching.connection import _packed
from app.embedded import Endpoints
from tests.eventually import eventually


async def test_a_burst_of_commands_waits_for_a_connection_and_does_not_fail(endpoints: Endpoints) -> None:
    async with open_redis(endpoints.redis_url, timeout=timedelta(seconds=10), connections=2) as redis:
        await asyncio.gather(*(redis.get(f"key {number}") for number in range(500)))

        async def only_ours() -> bool:  # Redis may not have noticed yet that the previous test's connections closed.
            return sum(client["db"] == "0" for client in await redis.client_list()) <= 2

        await eventually(only_ours)


async def test_idle_connections_closed_by_redis_fail_no_request(redis: Redis) -> None:
    await asyncio.gather(*(redis.get(f"key {number}") for number in range(50)))
    for client in await redis.client_list():
        if client["cmd"] != "client|list":
            await redis.client_kill_filter(_id=client["id"])
    await asyncio.gather(*(redis.get(f"key {number}") for number in range(50)))


async def test_a_silent_redis_costs_one_timeout_and_no_command_is_sent_twice(tmp_path: Path) -> None:
    received: list[bytes] = []
    closed = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            received.append(data)
            if b"CLIENT" in data or b"SELECT" in data:
                writer.write(b"+OK\r\n" * data.count(b"*"))
        writer.close()
        closed.set()

    server = await asyncio.start_unix_server(silent, tmp_path / "redis.sock")
    async with open_redis(f"unix://{tmp_path}/redis.sock", timeout=timedelta(milliseconds=50), connections=1) as redis:
        with pytest.raises(RedisError):
            await redis.incrby("counter", 1)
        await asyncio.wait_for(closed.wait(), 10)
    server.close()
    await server.wait_closed()
    assert b"".join(received).count(b"INCRBY") == 1


async def test_each_new_connection_sets_the_clock(endpoints: Endpoints) -> None:
    clock = RedisClock()
    clock.set(0)
    async with open_redis(endpoints.redis_url, timeout=timedelta(seconds=10), connections=1, clock=clock) as redis:
        await redis.ping()
        seconds, _ = await redis.time()
    assert abs(clock.now() / 1000 - seconds) < 10


def test_a_command_is_packed_byte_for_byte_as_redis_py_packs_it() -> None:
    commands: list[tuple[str | bytes | int | float, ...]] = [
        ("GET", "a"),
        ("SCRIPT LOAD", "return 1"),
        ("MSET", "é ☕", b"\x00\xff\r\n", "", b""),
        ("SET", "n", -(2**63), "PX", 2**53),
        ("INCRBYFLOAT", "n", 0.1),
        ("SET", "long", "x" * 20_000),
        ("EVALSHA", "0" * 40, 3, *(f"key:{{{place}}}" for place in range(500))),
    ]
    plain = Connection()
    for command in commands:
        assert b"".join(_packed(*command)) == b"".join(plain.pack_command(*command))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "ends"),
    [
        ("READONLY You can't write against a read only replica.", True),
        ("ERR Error running script (call to f_1): @user_script:9: @user_script: 9: -READONLY You can't write.", True),
        ("UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)", True),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", True),
        ("LOADING Redis is loading the dataset in memory", True),
        ("NOAUTH Authentication required.", True),
        ("ERR unknown command 'READONLY'", False),
        ("OOM command not allowed when used memory > 'maxmemory'.", False),
    ],
)
@pytest.mark.parametrize("in_transaction", [False, True])
async def test_a_connection_whose_server_is_in_the_wrong_role_is_dropped(
    answer: str, ends: bool, in_transaction: bool, tmp_path: Path
) -> None:
    connections = 0

    async def wrong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while data := await reader.read(65536):
            if b"GET" not in data:
                writer.write(b"+OK\r\n" * data.count(b"*"))
            elif b"EXEC" in data:
                writer.write(b"+OK\r\n+QUEUED\r\n*1\r\n-" + answer.encode() + b"\r\n")
            else:
                writer.write(b"-" + answer.encode() + b"\r\n")
        writer.close()

    server = await asyncio.start_unix_server(wrong, tmp_path / "redis.sock")
    async with open_redis(f"unix://{tmp_path}/redis.sock", timeout=timedelta(seconds=10), connections=1) as redis:
        for _ in range(3):
            with pytest.raises(RedisError):
                await (pipelined(redis) if in_transaction else redis.get("a"))
    server.close()
    await server.wait_closed()
    assert connections == (3 if ends else 1)


async def pipelined(redis: Redis) -> None:
    """Runs GET between MULTI and EXEC."""
    async with redis.pipeline() as pipeline:
        pipeline.get("a")
        await pipeline.execute()
