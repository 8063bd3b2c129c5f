"""The two stores of a bench: clients are opened as the service opens them, and each is billed."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta

from redis.asyncio import Redis

from app.caching import Breaker, Bulkhead, Cache, Identity, RedisClock, Trust, open_redis
from app.database import Database, open_database
from app.embedded import Endpoints
from app.lab.comparison.traffic import Traffic
from app.poller import Poller, open_poller

TIMEOUT = timedelta(seconds=10)
"""Generous: a busy machine must not look like a fault."""


class Stores:
    """Opens clients, which are closed with `stack`. All Redis clients share what this process knows of Redis."""

    def __init__(self, endpoints: Endpoints, stack: AsyncExitStack, connections: int) -> None:
        self.endpoints, self.connections = endpoints, connections
        self.clock, self.trust, self.bulkhead = RedisClock(), Trust(), Bulkhead(connections)
        self.breaker, self.identity = Breaker(self.trust), Identity(self.trust)
        self._stack = stack

    async def redis(
        self, traffic: Traffic | None = None, most: int | None = None, *, waits: timedelta = timedelta(0)
    ) -> Redis:
        """Opens a client with at most `most` connections, billed to `traffic`. Some of its calls may block for
        `waits`."""
        client = await self._stack.enter_async_context(
            open_redis(
                self.endpoints.redis_url,
                timeout=TIMEOUT + waits,
                connections=most or self.connections,
                clock=self.clock,
                identity=self.identity,
            )
        )
        if traffic is not None:
            traffic.meter(client)
        return client

    def cache(self, redis: Redis) -> Cache:
        """Returns the cache over one of the clients."""
        return Cache(redis, self.clock, self.trust, self.breaker, self.identity, bulkhead=self.bulkhead)

    async def database(self, most: int, counted: Callable[[str], None], url: str | None = None) -> Database:
        """Opens at most `most` connections, to `url` or to the default address. `counted` is called for each
        statement."""
        return await self._stack.enter_async_context(
            open_database(
                url or self.endpoints.database_url,
                connections=most,
                timeout=TIMEOUT,
                within=TIMEOUT,
                counted=counted,
            )
        )

    async def poller(self, counted: Callable[[str], None], url: str | None = None) -> Poller:
        """Opens a poller for one resource. `counted` is called for each question."""
        return await self._stack.enter_async_context(
            open_poller(url or self.endpoints.database_url, resources=1, timeout=TIMEOUT, counted=counted)
        )
