"""The bench: both stores, opened as the service opens them, and every contestant in its own corner of them.

Our strategies share their trust in Redis and one relay, as the service's resources do. The relay's work is counted
separately: it costs the same however many strategies share it.

What can go wrong: a store does not answer: `DatabaseUnavailable` or `LabError`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from redis.asyncio import Redis

from app.caching import Identity, Record, open_redis
from app.caching.errors import REDIS_DOWN
from app.coherence.epochs import Epochs
from app.coherence.outbox import Outbox
from app.coherence.places import OneRedis
from app.coherence.relay import Relay
from app.coherence.settling import Settling
from app.coherence.succession import Succession
from app.embedded import Endpoints
from app.lab.comparison.contestant import Contestant
from app.lab.comparison.costs import Costs
from app.lab.comparison.entrant import PREFIX, Entrance, Entrant
from app.lab.comparison.journal import read_journal
from app.lab.comparison.lab_error import LabError
from app.lab.comparison.oracle import Oracle, Verdict
from app.lab.comparison.pool import Pool, open_pool
from app.lab.comparison.regions import RESOURCE, Regions
from app.lab.comparison.stores import TIMEOUT, Stores

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict, the database's final value of each written key, and how many rows it wrote for them."""

    verdict: Verdict
    finals: dict[str, int]
    rows: int


@dataclass(frozen=True, slots=True)
class Bench:
    """The entrants of one run, and what they share."""

    entrants: Sequence[Entrant]
    pool: Pool
    redis: Redis
    """The lab's own client: its traffic is not billed."""
    relay: Costs
    identity: Identity
    connections: int

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs the strategies' background work while the block lasts. At its end, the database has all that was
        acknowledged."""
        async with AsyncExitStack() as stack:
            for entrant in self.entrants:
                await stack.enter_async_context(_running(entrant))
            # Connections are opened before the billing begins.
            await asyncio.gather(
                *(entrant.redis.ping() for entrant in self.entrants for _each in range(self.connections))
            )
            yield

    async def judge(self, entrant: Entrant, oracle: Oracle, clock: tuple[float, float]) -> Judged:
        """Returns what was wrong, after everything has settled; `clock` is a result of `database_clock`."""
        journal = await read_journal(self.pool, entrant.prefix)
        finals = {key: noted[-1].value for key, noted in journal.items()}
        return Judged(oracle.judge(journal, finals, clock), finals, sum(map(len, journal.values())))


@asynccontextmanager
async def open_bench(
    endpoints: Endpoints,
    contestants: Sequence[Contestant],
    run: str,
    *,
    ttl: timedelta,
    connections: int = 16,
    flushed_url: str | None = None,
) -> AsyncIterator[Bench]:
    """Opens both stores, makes the contestants' strategies, and runs the relay. `endpoints` names the lab's schema;
    `flushed_url` is another address of the same database, for the flusher of our write-behind."""
    async with AsyncExitStack() as stack:
        stores, relayed = Stores(endpoints, stack, connections), Costs()
        own = await stores.redis(most=4)
        try:
            await own.ping()
        except REDIS_DOWN as error:
            raise LabError(f"Redis does not answer: {error}") from error
        pool = await stack.enter_async_context(open_pool(endpoints.database_url, connections))
        settling = Settling(Outbox(await stores.database(2, relayed.count_read)))
        regions = Regions(stores, settling, ttl)
        entrance = Entrance(run, stores, pool, regions, ttl=ttl, flushed_url=flushed_url)
        entrants = [await entrance.enter(contestant) for contestant in contestants]
        await stack.enter_async_context((await _relay(run, stores, regions, relayed)).running())
        yield Bench(entrants, pool, own, relayed, stores.identity, connections)


async def _relay(run: str, stores: Stores, regions: Regions, costs: Costs) -> Relay:
    redis, database = await stores.redis(costs.traffic, 2), await stores.database(2, costs.count_read)
    poller = await stores.poller(costs.count_read)
    cache, record = stores.cache(redis), Record(redis, f"{PREFIX}{run}:epoch", stores.clock)
    return Relay(
        Outbox(database),
        {RESOURCE: regions.forget},
        succession=Succession(Epochs(database, poller), OneRedis(cache, record), database),
        counted=lambda carried, failed: None,
    )


@asynccontextmanager
async def _running(entrant: Entrant) -> AsyncIterator[None]:
    try:
        async with entrant.strategy.running():
            yield
    except Exception:
        # A published flusher may end with its own error: that is a finding, and no reason to stop the others.
        logger.exception("What works behind %s has failed.", entrant.contestant.name)


async def remove_keys(redis_url: str) -> int:
    """Removes all of the lab's keys from Redis and returns how many there were."""
    removed = 0
    async with open_redis(redis_url, timeout=TIMEOUT, connections=1) as redis:
        some: list[bytes] = []
        async for key in redis.scan_iter(match=f"{PREFIX}*", count=1000):
            some.append(key)
            if len(some) == 500:
                removed += await redis.unlink(*some)
                some.clear()
        removed += await redis.unlink(*some) if some else 0
    return removed
