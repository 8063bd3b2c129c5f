"""A Redis client that fails fast and does nothing twice.

The defaults of redis-py repeat any command up to ten times, INCRBY included, and wait for minutes when Redis is silent.
Each value below is chosen against one of those defaults:

    retries=0                a lost reply must not apply a command twice; who may retry knows it better than the client
    socket_timeout           a silent Redis costs one short wait, not one per attempt
    a pool that waits        a burst waits for a connection; the ordinary pool raises at once when it is empty
    a parser of our own      a server that was demoted answers READONLY for ever, on connections that live
    protocol=2               with RESP3, redis-py 8.1.0 hands out connections that Redis closed while they were idle
"""

import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import hiredis
from redis import DriverInfo
from redis._parsers import _AsyncHiredisParser
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.utils import str_if_bytes

from .breaker import Breaker
from .clock import RedisClock

WRONG_ROLE = re.compile(r"(?:^|-)(READONLY|UNBLOCKED|MASTERDOWN|LOADING|NOAUTH)\b")
"""What a server answers that is not, or not yet, or not any more, the primary of those who have logged in. A script of
Redis 6 has it in the middle: `ERR Error running script (…): @user_script: 9: -READONLY You can't write …`."""


class Parser(_AsyncHiredisParser):
    """Reads answers. A connection whose server says that it is in the wrong role is closed when it is given back, for
    it lives on by itself; the next one may be led to the right server. Errors in the answers of a pipeline and of a
    transaction come by here, too, and an answer that is none costs nothing."""

    def on_connect(self, connection: AbstractConnection) -> None:
        """A connection was made, and is to be read."""
        self._connection = connection
        super().on_connect(connection)  # type: ignore[no-untyped-call]

    def parse_error(self, response: str) -> Exception:  # type: ignore[override]  # It is a classmethod there.
        """The exception for an error that Redis has answered."""
        if WRONG_ROLE.search(response):
            self._connection.mark_for_reconnect()  # type: ignore[no-untyped-call]
        return cast("Exception", super().parse_error(response))  # type: ignore[no-untyped-call]


class Pool(BlockingConnectionPool):
    """A pool that waits for a connection only where it has to. redis-py's own takes a lock and starts a timer for each
    command, which is a quarter of what a lone GET costs.

    A connection that leads to another run of Redis than the one which was met last is not given out:

        the name comes to lead to R2        old connections to R1 live on
        W invalidates on R2, and answers    R would hit the old value on R1
    """

    breaker: Breaker | None = None

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> AbstractConnection:
        """A connection: at once, where one is free."""
        if not self._available_connections:
            return cast("AbstractConnection", await super().get_connection())  # type: ignore[no-untyped-call]
        connection: AbstractConnection = self.get_available_connection()  # type: ignore[no-untyped-call]
        try:
            await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Connects it, if it is not connected, or leads to another run."""
        if self.breaker is not None and getattr(connection, "run", None) != self.breaker.run:
            await connection.disconnect()
        await super().ensure_connection(connection)


@asynccontextmanager
async def open_redis(
    url: str,
    *,
    timeout: timedelta,
    connections: int,
    clock: RedisClock | None = None,
    breaker: Breaker | None = None,
    marker: str = "run",
) -> AsyncIterator[Redis]:
    """A client for `url` (redis://, rediss:// or unix://), closed at the end. It connects at its first command.

    `timeout` bounds connecting, each reply, and the wait for one of the `connections`. Each new connection asks for the
    time and sets `clock`, and tells `breaker` which Redis it has met. A Redis that does not tell its run is known by
    the key `marker`, which the first one to meet it makes; whether it has restarted, nobody knows then.
    """

    async def connected(connection: AbstractConnection) -> None:
        connection.pack_command = _packed  # type: ignore[assignment]
        await connection.on_connect()
        if clock is not None:
            await connection.send_command("TIME")
            seconds, microseconds = await connection.read_response()
            clock.set(int(seconds) * 1000 + int(microseconds) / 1000)
        if breaker is not None:
            run, lost = await _run(connection), False
            if not run:
                run, lost = await _marked(connection, marker), hasattr(connection, "run")
            connection.run = run  # type: ignore[attr-defined]  # for the pool
            breaker.meet(run, lost=lost)

    pool = Pool.from_url(
        url,
        max_connections=connections,
        timeout=timeout.total_seconds(),
        socket_timeout=timeout.total_seconds(),
        socket_connect_timeout=timeout.total_seconds(),
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        parser_class=Parser,
        redis_connect_func=connected,
        driver_info=DriverInfo(),  # Else each connection would look into redis-py's package for its version.
    )
    pool.breaker = breaker
    redis = Redis.from_pool(pool)
    try:
        yield redis
    finally:
        await redis.aclose()


async def _run(connection: AbstractConnection) -> str:
    """Which run of which Redis this is; nothing, where it does not tell."""
    await connection.send_command("INFO")
    try:
        info = str_if_bytes(await connection.read_response())
    except ResponseError:  # Not permitted, or not known there.
        return ""
    # A replica that is promoted keeps its run_id, and gets another replication id.
    return "-".join(re.findall(r"^(?:run_id|master_replid):(\w{8})", info, re.MULTILINE))


async def _marked(connection: AbstractConnection, marker: str) -> str:
    await connection.send_command("SET", marker, secrets.token_hex(8), "NX")
    await connection.read_response()
    await connection.send_command("GET", marker)
    return str_if_bytes(await connection.read_response() or b"")


def _packed(command: str, *arguments: str | bytes | int | float) -> list[bytes]:
    """A command in Redis' protocol. redis-py lets hiredis write it, too, but not in its asyncio client, where each
    argument is joined to all that stand before it."""
    return [hiredis.pack_command((*command.split(), *arguments))]  # type: ignore[arg-type]  # its stub knows one argument
