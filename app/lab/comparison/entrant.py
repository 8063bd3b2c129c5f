"""An entrant: a contestant with its strategy, in its own corner of both stores.

<run>/<contestant>/<key>                    a row in Postgres; `run` is the replay, or a drill
fourways_lab:<run>:<contestant>…            its keys in Redis
"""

from dataclasses import dataclass
from datetime import timedelta

from redis.asyncio import Redis

from app.caching import WriteBehind, WriteThrough
from app.lab.comparison.contestant import Contestant, Kind
from app.lab.comparison.costs import Costs
from app.lab.comparison.counted_views import CountedViews
from app.lab.comparison.lab_table import LabTable
from app.lab.comparison.no_cache import NoCache
from app.lab.comparison.pool import Pool
from app.lab.comparison.regions import STALE, Regions
from app.lab.comparison.stores import Stores
from app.lab.ours import OF_VALUES
from app.lab.strategy import Strategy
from app.page_views.parking import Parking
from app.page_views.store import PageViewStore

PREFIX = "fourways_lab:"
"""The prefix of all keys of the lab in Redis."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """A contestant on the bench. Its rows begin with `prefix`, and its keys in Redis with `name`."""

    contestant: Contestant
    strategy: Strategy
    redis: Redis
    prefix: str
    name: str
    costs: Costs


class Entrance:
    """Makes the entrants of a run. The flusher of our write-behind reaches the database by `flushed_url`."""

    def __init__(
        self, run: str, stores: Stores, pool: Pool, regions: Regions, *, ttl: timedelta, flushed_url: str | None
    ) -> None:
        self._run, self._stores, self._pool, self._regions = run, stores, pool, regions
        self._ttl, self._flushed_url = ttl, flushed_url

    async def enter(self, contestant: Contestant) -> Entrant:
        """Opens what the contestant needs, and makes its strategy."""
        name, prefix = f"{PREFIX}{self._run}:{contestant.name}", f"{self._run}/{contestant.name}/"
        costs = Costs()
        redis = await self._stores.redis(costs.traffic)
        table = LabTable(self._pool, prefix, cached=contestant.kind is Kind.OURS, count=costs.count)
        strategy: Strategy
        if contestant.make is not None:
            strategy = contestant.make(redis, table, name, self._ttl)
        elif contestant.name == "no cache":
            strategy = NoCache(table)
        elif contestant.name == WriteBehind.NAME:
            strategy = await self._write_behind(redis, name, prefix, costs)
        else:
            # Nobody may act on an old number, so write-through keeps none to serve when a load fails.
            stale = timedelta(0) if contestant.name == WriteThrough.NAME else STALE
            strategy = OF_VALUES[contestant.name](self._regions.add(redis, name, prefix, stale=stale), table)
        return Entrant(contestant, strategy, redis, prefix, name, costs)

    async def _write_behind(self, redis: Redis, name: str, prefix: str, costs: Costs) -> CountedViews:
        flushed = await self._stores.database(3, costs.count_write, self._flushed_url)
        return CountedViews(
            redis,
            # The flusher blocks until entries arrive.
            await self._stores.redis(costs.traffic, 2, waits=timedelta(seconds=2)),
            name,
            prefix,
            views=PageViewStore(await self._stores.database(4, costs.count_read)),
            flushed_views=PageViewStore(flushed),
            parking=Parking(
                flushed, await self._stores.poller(costs.count_write, self._flushed_url), lambda dead: None
            ),
            stores=self._stores,
            asked=costs.ask,
        )
