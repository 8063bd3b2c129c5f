"""Instances of the service, each behind its own wires to the same stores, in each topology."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import Cache, CacheUnavailable, Identity, Outcome, Record, Trust
from app.coherence.delivery import Forget
from app.coherence.epochs import Epochs
from app.coherence.outbox import LAST, Outbox
from app.coherence.places import OneRedis
from app.coherence.relay import Relay
from app.coherence.succession import Succession
from app.database import Database
from app.embedded import Endpoints
from app.metrics import Metrics
from app.poller import Poller
from app.products.models import NewProduct
from app.products.service import Products
from app.settings import Settings
from app.users.models import NewUser, User
from app.users.service import Users
from app.wiring import Resources, open_resources
from tests.eventually import eventually
from tests.faults.postgres_wire import PostgresWire
from tests.faults.redis_wire import RedisWire
from tests.topologies.by_hand import by_hand
from tests.topologies.suite import pytest_generate_tests as pytest_generate_tests
from tests.topologies.suite import topology as topology
from tests.topologies.suite import ways as ways
from tests.topologies.ways import Ways

ADA = NewUser(name="Ada Lovelace", email="ada@example.com")
CUP = NewProduct(sku="CUP", name="Cup", price="6.20")
UNDONE = "SELECT count(*) FROM outbox WHERE done_at IS NULL"

AGES = timedelta(seconds=30)
SOON = 10.0
"""Seconds: whatever took less than this was not settled by time."""

LOOKS = r"FROM outbox\), 0\), EXISTS"
"""The statement by which a relay reads Postgres at the beginning of a poll."""
TAKES = "^UPDATE outbox"
"""The statement by which a relay takes rows of the outbox."""


def succession(database: Database, poller: Poller, cache: Cache) -> Succession:
    """Returns what one more instance knows of the epochs."""
    return Succession(Epochs(database, poller), OneRedis(cache, Record(cache.redis, "epoch", cache.clock)), database)


async def joined(relay: Relay) -> None:
    """Polls until the relay is a member of an epoch: another test may have left an epoch of another Redis."""

    async def polled() -> bool:
        try:
            await relay.poll()
        except CacheUnavailable:
            return False
        return True

    await eventually(polled)


NewRelay = Callable[[Forget], Awaitable[Relay]]


@pytest.fixture
def new_relay(opened: Cache, database: Database, poller: Poller) -> NewRelay:
    """Makes relays that do not run: the test polls. Each has already joined an epoch."""

    async def new(forget: Forget) -> Relay:
        relay = Relay(
            Outbox(database),
            {"products": forget},
            succession=succession(database, poller, opened),
            counted=lambda changes, failures: None,
        )
        await joined(relay)
        return relay

    return new


@dataclass(frozen=True, slots=True)
class Instance:
    """The service as one process runs it, and its wires to the stores."""

    resources: Resources
    redis: RedisWire
    postgres: PostgresWire

    @property
    def users(self) -> Users:
        return self.resources.users

    @property
    def products(self) -> Products:
        return self.resources.products

    @property
    def trust(self) -> Trust:
        """The trust in its Redis. In a cluster, each node has its own."""
        (cache,) = self.resources.cache.caches
        return cache.trust

    @property
    def held(self) -> bool:
        """Whether it believes Redis: in a cluster, all nodes."""
        return bool(self._caches) and all(cache.trust.held for cache in self._caches)

    @property
    def lost(self) -> bool:
        """Whether it has lost the trust in Redis: in a cluster, in any node."""
        return any(cache.trust.lost for cache in self._caches)

    async def is_verified(self) -> bool:
        """Whether it believes Redis, and its hits are verified."""
        return self.held and all(cache.trust.verified for cache in self._caches)

    async def is_unverified(self) -> bool:
        """Whether it believes Redis, and its hits are not verified."""
        return self.held and not any(cache.trust.verified for cache in self._caches)

    @property
    def identity(self) -> Identity:
        return self.resources.cache.identity

    def happened(self, event: str, resource: str = "users") -> int:
        """Returns how often this event happened in the cache of a resource."""
        return int(self.resources.metrics.totals("cache_events", resource=resource).get(event, 0))

    async def name(self, user_id: int) -> str | None:
        """Returns the name of a user that a read answers."""
        user = (await self.users.get(user_id)).value
        return None if user is None else user.name

    async def price(self, sku: str) -> str | None:
        """Returns the price of a product that a read answers."""
        product = (await self.products.get(sku)).value
        return None if product is None else product.price

    async def quantity(self, sku: str) -> int | None:
        """Returns the stock of a SKU that a read answers."""
        stock = (await self.resources.inventory.get(sku)).value
        return None if stock is None else stock.quantity

    async def rename(self, user_id: int, name: str) -> User:
        """Renames a user through this instance."""
        return await self.users.change(user_id, {"name": name}, None)

    async def hits(self, user_id: int) -> None:
        """Returns when a read of this user is a hit."""
        await eventually(lambda: self._hits(user_id))

    async def settles(self) -> None:
        """Returns when no change is undone."""
        await eventually(self._is_settled)

    async def believes(self) -> None:
        """Returns when this instance believes Redis: in a cluster, all nodes."""
        await eventually(lambda: _is(self.held))

    async def believes_no_more(self) -> None:
        """Returns when this instance does not believe Redis: in a cluster, no node."""
        await eventually(lambda: _is(not any(cache.trust.held for cache in self._caches)))

    async def polls(self) -> None:
        """Returns when its relay has made a whole poll, from beginning to end."""
        before, enough = self.redis.count("^BEAT "), 3 * len(self._caches)

        async def has_polled() -> bool:
            return self.redis.count("^BEAT ") >= before + enough

        await eventually(has_polled)

    @property
    def _caches(self) -> Sequence[Cache]:
        return self.resources.cache.caches

    async def _is_settled(self) -> bool:
        return not await Outbox(self.resources.database).undone(LAST)

    async def _hits(self, user_id: int) -> bool:
        return (await self.users.get(user_id)).outcome is Outcome.HIT


class NewInstance(Protocol):
    """Opens an instance. `redis_timeout` is long, so that a busy machine does not look like a fault."""

    def __call__(
        self,
        *,
        redis_timeout: float = 10,
        database_timeout: float = 20,
        endpoints: Endpoints = ...,
        prefix: str = "",
    ) -> Awaitable[Instance]: ...


@pytest.fixture
async def endpoints(endpoints: Endpoints, ways: Ways) -> Endpoints:
    """The servers of the session, emptied; or a cluster instead of their Redis."""
    return await ways.stores(endpoints)


@pytest.fixture
async def hand(endpoints: Endpoints) -> AsyncIterator[Redis]:
    """Somebody with redis-cli: a client past the application."""
    async with by_hand(endpoints.redis_url) as redis:
        yield redis


@pytest.fixture
async def named(endpoints: Endpoints, ways: Ways) -> Endpoints:
    """What leads an instance without wires of its own to the stores."""
    return await ways.named(endpoints)


@pytest.fixture
async def new_instance(endpoints: Endpoints, ways: Ways) -> AsyncIterator[NewInstance]:
    """Opens instances, and closes them at the end, after healing their wires."""
    async with AsyncExitStack() as stack:

        async def new(
            *,
            redis_timeout: float = 10,
            database_timeout: float = 20,
            endpoints: Endpoints = endpoints,
            prefix: str = "",
        ) -> Instance:
            redis = await stack.enter_async_context(ways.redis(endpoints.redis_url))
            postgres = await stack.enter_async_context(ways.postgres(endpoints.database_url))
            settings = Settings(
                _env_file=None,
                redis_url=redis.url,
                database_url=postgres.url,
                redis_timeout=timedelta(seconds=redis_timeout),
                database_timeout=timedelta(seconds=database_timeout),
                prefix=prefix,
            )
            resources = await stack.enter_async_context(open_resources(settings, Metrics()))
            stack.callback(redis.heal)
            stack.callback(postgres.heal)
            return Instance(resources, redis, postgres)

        yield new


@pytest.fixture
async def ada(sql: asyncpg.Connection) -> int:
    """The id of a user whose creation every cache has learned of."""
    user_id: int = await sql.fetchval(
        "INSERT INTO users (name, email) VALUES ($1, $2) RETURNING id", ADA.name, ADA.email
    )
    await sql.execute("UPDATE outbox SET done_at = now()")
    return user_id


@pytest.fixture
async def cup(sql: asyncpg.Connection) -> str:
    """The SKU of a product whose creation every cache has learned of."""
    await sql.execute("INSERT INTO products (sku, name, price) VALUES ('CUP', 'Cup', '6.20')")
    await sql.execute("UPDATE outbox SET done_at = now()")
    return "CUP"


@pytest.fixture
def unbounded_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust does not expire, and time does not settle a write: only news can end either."""
    monkeypatch.setattr("app.caching.trust.TRUST", AGES)
    monkeypatch.setattr("app.coherence.settling.SETTLED", AGES)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that finds trust lapsed does not wait long for news."""
    monkeypatch.setattr("app.caching.trust.NEWS", timedelta(milliseconds=100))


async def _is(condition: bool) -> bool:
    return condition
