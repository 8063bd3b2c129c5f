"""A Redis client that fails fast and repeats no command.

By default, redis-py repeats any command up to ten times, INCRBY included, and waits for minutes if Redis is silent.
Each setting below replaces one of its defaults:

    retries=0                a lost reply must not apply a command twice; the caller knows what may be retried
    socket_timeout           a silent Redis costs one short wait, not one per attempt
    a pool that waits        a burst waits for a connection; the ordinary pool raises at once when it is empty
    its own parser           a demoted server answers READONLY forever, on connections that stay open
    protocol=2               with RESP3, redis-py 8.1.0 hands out connections that Redis closed while they were idle
"""

import re
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import hiredis
from redis._parsers import _AsyncHiredisParser
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, Connection, RedisSSLContext, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import MovedError, NoPermissionError, ResponseError
from redis.utils import str_if_bytes

from .clock import RedisClock
from .errors import NoPrimary
from .identity import Identity
from .redis_tls import load_again
from .redis_url import read_redis_url
from .sentinel import Sentinels

WRONG_ROLE = re.compile(r"(?:^|-)(READONLY|UNBLOCKED|MASTERDOWN|LOADING|NOAUTH)\b")
"""Error codes of a server that is not, not yet or no longer a primary, or of one that requires a login. The error of a
script in Redis 6 has the code in the middle: `ERR Error running script (…): @user_script: 9: -READONLY You can't …`."""


class Parser(_AsyncHiredisParser):
    """Parses replies. If a server reports that it has the wrong role, the connection is closed when it returns to the
    pool: it would stay open by itself, and the next one may reach the right server. Errors within the replies of a
    pipeline or a transaction pass through here, too. Replies that are no errors cost nothing."""

    def on_connect(self, connection: AbstractConnection) -> None:
        """Remembers the connection that this parser reads."""
        self._connection = connection
        super().on_connect(connection)  # type: ignore[no-untyped-call]

    def parse_error(self, response: str) -> Exception:  # type: ignore[override]  # A classmethod in the base class.
        """Returns the exception for an error that Redis answered."""
        if WRONG_ROLE.search(response):
            self._connection.mark_for_reconnect()  # type: ignore[no-untyped-call]
        return cast("Exception", super().parse_error(response))  # type: ignore[no-untyped-call]


class Pool(BlockingConnectionPool):
    """A pool that waits for a connection only if it has to. redis-py's own pool takes a lock and starts a timer for
    each command, which is a quarter of the cost of a lone GET.

    It does not hand out a connection to another run of Redis than the one met last:

        the name now resolves to Y          old connections to X live on
        W invalidates on Y, and answers     R would hit the old value on X

    Nor does it hand out a connection to a server that the Sentinels no longer name. All its connections share one TLS
    context: to load the certificates takes milliseconds, in which this process does nothing else.
    """

    identity: Identity | None = None
    sentinels: Sentinels | None = None
    _tls: RedisSSLContext | None = None

    def make_connection(self) -> AbstractConnection:
        """Returns a new connection, which is not connected yet."""
        connection = cast("AbstractConnection", super().make_connection())  # type: ignore[no-untyped-call]
        if isinstance(connection, SSLConnection):
            connection.ssl_context = self._tls = self._tls or connection.ssl_context
        return connection

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> AbstractConnection:
        """Returns a connection, immediately if one is free."""
        if not self._available_connections:
            return cast("AbstractConnection", await super().get_connection())  # type: ignore[no-untyped-call]
        connection: AbstractConnection = self.get_available_connection()  # type: ignore[no-untyped-call]
        try:
            await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def release(self, connection: AbstractConnection) -> None:
        """Takes a connection back, without a lock if nobody waits for one. It would cost as much as to send a GET."""
        is_wanted = self._condition.locked() or self._condition._waiters
        if is_wanted or connection.should_reconnect():  # type: ignore[no-untyped-call]
            await super().release(connection)
            return
        self._in_use_connections.remove(connection)
        self._available_connections.append(connection)

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Connects a connection that is not connected, and reconnects one that leads elsewhere."""
        is_another_run = self.identity is not None and getattr(connection, "run", None) != self.identity.run
        if is_another_run or (self.sentinels is not None and self.sentinels.disown(connection)):
            await connection.disconnect()
        try:
            await super().ensure_connection(connection)
        except Exception as error:
            load_again(connection, error)
            raise


@asynccontextmanager
async def open_redis(
    url: str,
    *,
    timeout: timedelta,
    connections: int,
    clock: RedisClock | None = None,
    identity: Identity | None = None,
    marker: str = "run",
) -> AsyncIterator[Redis]:
    """Opens a client for `url` (`redis_url.py` says what it may be), and closes it at the end. It connects at its first
    command. Raises ValueError for a URL that is refused.

    `timeout` bounds connecting, each reply, and the wait for one of the `connections`. Each new connection asks for the
    time to set `clock`, and reports to `identity` which Redis it met. A Redis that does not report its run is
    identified by the key `marker`, which the first client to meet it creates. Restarts of such a Redis cannot be
    detected.
    """

    async def connected(connection: AbstractConnection) -> None:
        connection.pack_command = _packed  # type: ignore[assignment]
        await connection.on_connect()
        if clock is not None:
            await connection.send_command("TIME")
            seconds, microseconds = await connection.read_response()
            clock.set(int(seconds) * 1000 + int(microseconds) / 1000)
        info = "" if identity is None and sentinels is None else await _info(connection)
        if sentinels is not None and "role:slave" in info:
            raise NoPrimary("is a replica, although a Sentinel named it as the primary")
        if identity is not None:
            # A promoted replica keeps its run_id, and gets another replication id.
            run, lost = "-".join(re.findall(r"^(?:run_id|master_replid):(\w{8})", info, re.MULTILINE)), False
            if not run:
                run, lost = await _marked(connection, marker), hasattr(connection, "run")
            connection.run = run  # type: ignore[attr-defined]  # for the pool
            identity.meet(run, lost=lost)

    arguments = read_redis_url(url)
    if "nodes" in arguments:
        raise ValueError("The Redis URL names a cluster: open it with open_cluster.")
    discovery = arguments.pop("discovery", None)
    async with AsyncExitStack() as stack:
        sentinels = None if identity is None else identity.sentinels
        if discovery is not None:
            if sentinels is None:
                tls = {key: value for key, value in arguments.items() if key.startswith("ssl_")}
                sentinels = Sentinels(discovery, arguments.get("connection_class", Connection), tls, timeout)
                await stack.enter_async_context(sentinels.watched())
            if identity is not None:
                identity.sentinels = sentinels
            arguments |= {"connection_class": sentinels.connection_class, "sentinels": sentinels}
        pool = Pool(
            **arguments,
            max_connections=connections,
            timeout=timeout.total_seconds(),
            socket_timeout=timeout.total_seconds(),
            socket_connect_timeout=timeout.total_seconds(),
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            parser_class=Parser,
            redis_connect_func=connected,
            driver_info=None,  # No CLIENT SETINFO: it tells nothing of this service, and takes a right and a look-up.
        )
        pool.identity, pool.sentinels = identity, sentinels
        redis = Redis.from_pool(pool)
        stack.push_async_callback(redis.aclose)
        yield redis


async def _info(connection: AbstractConnection) -> str:
    """Returns what a server reports of itself: an empty string if INFO is not permitted or not supported."""
    await connection.send_command("INFO")
    try:
        return str(str_if_bytes(await connection.read_response()))
    except ResponseError:
        return ""


async def _marked(connection: AbstractConnection, marker: str) -> str:
    await connection.send_command("SET", marker, secrets.token_hex(8), "NX")
    try:
        await connection.read_response()
    except MovedError:
        raise NoPermissionError("NOPERM a node of a cluster must permit INFO, and this one does not") from None
    await connection.send_command("GET", marker)
    return str_if_bytes(await connection.read_response() or b"")


def _packed(command: str, *arguments: str | bytes | int | float) -> list[bytes]:
    """Returns a command in Redis' protocol, encoded by hiredis. redis-py's asyncio client does not use hiredis for
    this: it joins each argument to all that precede it."""
    return [hiredis.pack_command((*command.split(), *arguments))]  # type: ignore[arg-type]  # its stub knows one argument
