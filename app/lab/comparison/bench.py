"""The stage: both stores, opened as the service opens them, and every contestant on a corner of its own.

    <run>/<contestant>/<key>                    a row in Postgres; `run` tells the replay from the drills
    fourways_lab:<run>:<contestant>…            what it keeps in Redis

Our strategies share one breaker and one relay, as the resources of the service do. What the relay does is counted by
itself: it costs the same, however many strategies live on it.

What can go wrong: a store that does not answer, `DatabaseUnavailable` or `LabError`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from redis.asyncio import Redis

from app.caching import Breaker, Record, RedisClock, open_redis
from app.caching.errors import REDIS_DOWN
from app.coherence.epochs import Epochs
from app.coherence.outbox import Outbox
from app.coherence.relay import Relay
from app.coherence.settling import Settling
from app.coherence.succession import Succession
from app.database import Database, open_database
from app.embedded import Endpoints
from app.lab.comparison.contestant import Contestant, Kind
from app.lab.comparison.contestants import STALE, Aside, Behind, Both, EntryRegion, NoCache, Through, open_region
from app.lab.comparison.oracle import Oracle, Verdict
from app.lab.comparison.table import LabError, LabTable, Pool, open_pool, read_journal
from app.lab.comparison.traffic import Traffic
from app.lab.strategy import Strategy
from app.page_views.parking import Parking
from app.page_views.store import PageViewStore

logger = logging.getLogger(__name__)

PREFIX = "fourways_lab:"
OF_VALUES: Mapping[str, Callable[[EntryRegion, LabTable], Strategy]] = {
    "cache-aside": Aside,
    "read-through": Through,
    "write-through": Both,
}
TIMEOUT = timedelta(seconds=10)
"""Generous: a busy machine must not look like a fault."""

WRITING: ContextVar[bool] = ContextVar("WRITING", default=False)
"""Whether what asks the database is a write: some of the published ones read before they write."""


@dataclass(slots=True)
class Costs:
    """What was used so far. `asked` is how many keys reads have asked the database for."""

    traffic: Traffic = field(default_factory=Traffic)
    reads: int = 0
    writes: int = 0
    asked: int = 0

    def count(self, keys: int | None) -> None:
        """A statement, as `LabTable` tells of it."""
        if keys is None:
            self.writes += 1
        else:
            self.reads += 1
            self.ask(keys)

    def ask(self, keys: int) -> None:
        """The database is asked for so many keys."""
        if not WRITING.get():
            self.asked += keys

    def reset(self) -> None:
        """From now on it is billed."""
        self.traffic.round_trips = self.traffic.bytes = self.reads = self.writes = self.asked = 0


@dataclass(frozen=True, slots=True)
class Entrant:
    """A contestant on the stage. `prefix` is of its rows, `name` of its keys in Redis."""

    contestant: Contestant
    strategy: Strategy
    redis: Redis
    prefix: str
    name: str
    costs: Costs


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict, what the database has at the end of each key that was written, and how many rows it wrote for that."""

    verdict: Verdict
    finals: dict[str, int]
    rows: int


@dataclass(frozen=True, slots=True)
class Bench:
    """The contestants of one run, and what belongs to none of them."""

    entrants: Sequence[Entrant]
    pool: Pool
    redis: Redis
    """The lab's own: what it says is not billed."""
    relay: Costs
    breaker: Breaker
    connections: int

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What works behind the strategies runs while the block lasts, and has carried on what was acknowledged when it
        ends."""
        async with AsyncExitStack() as stack:
            for entrant in self.entrants:
                await stack.enter_async_context(_running(entrant))
            # Connections are made before anybody is billed.
            await asyncio.gather(
                *(entrant.redis.ping() for entrant in self.entrants for _each in range(self.connections))
            )
            yield

    async def judge(self, entrant: Entrant, oracle: Oracle, clock: tuple[float, float]) -> Judged:
        """What was wrong, when everything has settled; `clock` is what `database_clock` has answered."""
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
    """Opens both stores, makes the contestants, and runs the relay. `endpoints` names the lab's schema; `flushed_url`,
    another way to the same database for the flusher of our write-behind."""
    clock, breaker = RedisClock(), Breaker(loads=connections)
    costs: dict[str, Costs] = {}

    def count(resource: str) -> None:
        name, _blank, kind = resource.rpartition(" ")
        if name in costs:
            if kind == "reads":
                costs[name].reads += 1
            else:
                costs[name].writes += 1

    async with AsyncExitStack() as stack:

        async def redis(traffic: Traffic | None = None, most: int = connections, *, waits: float = 0) -> Redis:
            client = await stack.enter_async_context(
                open_redis(
                    endpoints.redis_url,
                    timeout=TIMEOUT + timedelta(seconds=waits),
                    connections=most,
                    clock=clock,
                    breaker=breaker,
                )
            )
            if traffic is not None:
                traffic.meter(client)
            return client

        async def database(most: int, kind: str) -> Database:
            """A pool, all of whose statements are counted as this kind."""
            return await stack.enter_async_context(
                open_database(
                    (flushed_url or endpoints.database_url)
                    if kind == "write-behind writes"
                    else endpoints.database_url,
                    connections=most,
                    timeout=TIMEOUT,
                    within=TIMEOUT,
                    counted=lambda resource: count(kind),
                )
            )

        own = await redis(most=4)
        try:
            await own.ping()
        except REDIS_DOWN as error:
            raise LabError(f"Redis does not answer at {endpoints.redis_url.rpartition('@')[2]}: {error}") from error
        pool = await stack.enter_async_context(open_pool(endpoints.database_url, connections))
        settling = Settling(Outbox(await database(2, "relay reads")))
        regions: dict[str, EntryRegion] = {}
        entrants: list[Entrant] = []
        for contestant in contestants:
            name, prefix = f"{PREFIX}{run}:{contestant.name}", f"{run}/{contestant.name}/"
            costs[contestant.name] = billed = Costs()
            client = await redis(billed.traffic)
            cached = contestant.kind is Kind.OURS
            table = LabTable(pool, prefix, cached=cached, count=billed.count)
            strategy: Strategy
            if contestant.make is not None:
                strategy = contestant.make(client, table, name, ttl)
            elif contestant.name == "no cache":
                strategy = NoCache(table)
            elif contestant.name == "write-behind":
                written = await database(3, "write-behind writes")
                strategy = Behind(
                    client,
                    await redis(billed.traffic, 2, waits=2),
                    name,
                    prefix,
                    views=PageViewStore(await database(4, "write-behind reads")),
                    flushed_views=PageViewStore(written),
                    parking=Parking(written, lambda dead: None),
                    clock=clock,
                    breaker=breaker,
                    asked=billed.ask,
                )
            else:
                regions[prefix] = region = open_region(
                    client,
                    name,
                    ttl,
                    # Nobody may act on an old number, so write-through keeps none to be served when a load fails.
                    stale=timedelta(0) if contestant.name == "write-through" else STALE,
                    clock=clock,
                    breaker=breaker,
                    settled=partial(_settled, settling, prefix),
                )
                strategy = OF_VALUES[contestant.name](region, table)
            entrants.append(Entrant(contestant, strategy, client, prefix, name, billed))

        async def forget(key: str, version: int) -> None:
            prefix = "/".join(key.split("/", 2)[:2]) + "/"
            if prefix in regions:  # Else it is of another run, whose caches are no more.
                await regions[prefix].try_invalidate(key[len(prefix) :], version)

        costs["relay"] = Costs()
        told, looked_at = await redis(costs["relay"].traffic, 2), await database(2, "relay reads")
        relay = Relay(
            Outbox(looked_at),
            {"entries": forget},
            succession=Succession(
                Epochs(looked_at), Record(told, f"{PREFIX}{run}:epoch", clock), told, breaker, looked_at
            ),
            breaker=breaker,
            counted=lambda carried, failed: None,
        )
        await stack.enter_async_context(relay.running())
        yield Bench(entrants, pool, own, costs["relay"], breaker, connections)


@asynccontextmanager
async def _running(entrant: Entrant) -> AsyncIterator[None]:
    try:
        async with entrant.strategy.running():
            yield
    except Exception:
        # A published flusher may end on its own error: that is a finding, and no reason to tear the others down.
        logger.exception("What works behind %s has failed.", entrant.contestant.name)


async def _settled(settling: Settling, prefix: str, key: str) -> None:
    await settling.wait("entries", prefix + key)


async def remove_keys(redis_url: str) -> int:
    """Removes everything that the lab has kept in Redis, and answers how many keys that were."""
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
