"""Some instances of the service in this process, each behind its own wires, and the stores that they lead to."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import pytest

from app.caching import RedisClock
from app.metrics import Metrics
from app.settings import Settings
from app.wiring import open_resources
from tests.coherence.conftest import Instance
from tests.eventually import eventually
from tests.faults.replicating_redis import ReplicatingRedis
from tests.faults.standby import Standby
from tests.faults.stores import Stores
from tests.topologies.ways import Ways


class SteppedClock(RedisClock):
    """An instance's copy of Redis' clock, which may be wrong."""

    ahead = timedelta(0)

    def set(self, now: float) -> None:
        """Sets the clock to `now`, which Redis has reported, plus the error."""
        super().set(now + self.ahead / timedelta(milliseconds=1))


class Deployment:
    """The instances that clients call, two Redises, a Postgres, and a standby of it."""

    @classmethod
    @asynccontextmanager
    async def started(cls, ways: Ways, instances: int, *, standby: bool) -> AsyncIterator[Self]:
        """Starts new servers, and instances that lead to the first Redis. All of them end with the block."""
        async with AsyncExitStack() as stack:
            stores = await asyncio.to_thread(lambda: stack.enter_context(Stores.started()))
            redises = [await stack.enter_async_context(ReplicatingRedis.started()) for _ in range(2)]
            copy = None
            if standby:
                made = Standby.started(stores.endpoints.database_url, follows=True)
                copy = await asyncio.to_thread(lambda: stack.enter_context(made))
            deployment = cls(ways, redises, stores.endpoints.database_url, copy)
            try:
                for name in "ABC"[:instances]:
                    clock = deployment.clocks[name] = SteppedClock()
                    begun = deployment.instance(deployment.first_redis, deployment.database_url, clock)
                    deployment.instances[name] = await deployment._running.enter_async_context(begun)
                yield deployment
            finally:
                await deployment.stop()

    def __init__(
        self, ways: Ways, redises: Sequence[ReplicatingRedis], database_url: str, standby: Standby | None
    ) -> None:
        self.redises = redises
        self.first_redis, self.second_redis = (redis.url for redis in redises)
        self.database_url = database_url
        """URL of the Postgres to which all names lead, or are to lead."""
        self.standby = standby
        self.instances: dict[str, Instance] = {}
        self.clocks: dict[str, SteppedClock] = {}
        self._calls: Counter[str] = Counter()
        self._running = AsyncExitStack()
        self.ways = ways

    @property
    def admin_url(self) -> str:
        """URL of another database of that Postgres."""
        return urlunsplit(urlsplit(self.database_url)._replace(path="/postgres"))

    @property
    def database(self) -> str:
        """Name of the database."""
        return urlsplit(self.database_url).path[1:]

    @contextmanager
    def called(self, randomness: random.Random) -> Iterator[tuple[str, Instance]]:
        """Picks one of the instances, which stays open at least until the block ends."""
        name = randomness.choice(list(self.instances))
        self._calls[name] += 1
        try:
            yield name, self.instances[name]
        finally:
            self._calls[name] -= 1

    @asynccontextmanager
    async def with_another(self, name: str, redis_url: str) -> AsyncIterator[Instance]:
        """Runs one more instance, which clients call while the block lasts."""
        async with self.instance(redis_url, self.database_url) as another:
            self.instances[name] = another
            try:
                yield another
            finally:
                del self.instances[name]
                await eventually(lambda: self._is_idle(name))
                # It has to flush what it accepted itself: nobody else uses its Redis.
                await eventually(lambda: _has_carried(another))

    @asynccontextmanager
    async def instance(
        self, redis_url: str, database_url: str, clock: RedisClock | None = None
    ) -> AsyncIterator[Instance]:
        """Runs an instance behind wires to these stores."""
        async with (
            self.ways.redis(redis_url) as redis,
            self.ways.postgres(database_url) as postgres,
            AsyncExitStack() as stack,
        ):
            settings = Settings(
                _env_file=None,
                redis_url=redis.url,
                database_url=postgres.url,
                # Longer than a busy machine takes, and shorter than what a test waits for.
                redis_timeout=timedelta(seconds=2),
                database_timeout=timedelta(seconds=2),
            )
            with pytest.MonkeyPatch.context() as patch:
                if clock is not None:
                    patch.setattr("app.caching.cache.RedisClock", lambda: clock)
                resources = await stack.enter_async_context(open_resources(settings, Metrics()))
            yield Instance(resources, redis, postgres)

    async def stop(self) -> None:
        """Stops the instances. The stores keep running."""
        await self._running.aclose()

    async def _is_idle(self, name: str) -> bool:
        return not self._calls[name]


async def _has_carried(instance: Instance) -> bool:
    return not instance.resources.page_views.receipts.amount
