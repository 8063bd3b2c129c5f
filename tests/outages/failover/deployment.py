"""Three processes of the service on one Redis, and on a Postgres that an asynchronous standby follows."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import asyncpg

from tests.eventually import eventually
from tests.faults.postgres_wire import PostgresWire
from tests.faults.standby import Standby
from tests.faults.stores import Stores
from tests.histories.identity.state import State
from tests.outages.failover.two_histories import Failover
from tests.outages.instance import PATIENT
from tests.service import FOURWAYS, Service, serving
from tests.topologies.ways import Ways

INSTANCES, ROWS = 3, 4


class Deployment:
    """The stores, and the processes. Each has its own name for Postgres, which leads to the primary."""

    @classmethod
    @asynccontextmanager
    async def started(cls, ways: Ways) -> AsyncIterator["Deployment"]:
        """Starts everything, with some rows, and these ways to the stores. It ends with the block."""
        async with AsyncExitStack() as stack:
            stores = await asyncio.to_thread(lambda: stack.enter_context(Stores.started()))
            url = stores.endpoints.database_url
            made = Standby.started(url, follows=True)
            standby = await asyncio.to_thread(lambda: stack.enter_context(made))
            sql = await asyncpg.connect(url)
            for number in range(ROWS):
                await sql.execute("INSERT INTO users (name, email) VALUES ($1, $1)", f"u{number}@example.com")
                await sql.execute("INSERT INTO products (sku, name, price) VALUES ($1, $1, '1')", f"P{number}")
            beginning = await State.of(sql)
            await sql.close()
            names = [await stack.enter_async_context(ways.postgres(url)) for _ in range(INSTANCES)]
            redis_url = (await ways.named(stores.endpoints)).redis_url
            running = await stack.enter_async_context(AsyncExitStack())
            served = (serving(redis_url, name.url, command=FOURWAYS, workers=1, **PATIENT) for name in names)
            services = await asyncio.gather(*map(running.enter_async_context, served))
            yield cls(stores, standby, names, services, beginning, running)

    def __init__(
        self,
        stores: Stores,
        standby: Standby,
        names: Sequence[PostgresWire],
        services: Sequence[Service],
        beginning: State,
        running: AsyncExitStack,
    ) -> None:
        self.services, self.beginning = services, beginning
        self._stores, self._standby, self._names, self._running = stores, standby, names, running

    async def cut_off(self) -> tuple[float, State]:
        """Cuts the standby off from its primary. Returns a moment before which all commits have reached it, and what
        it has: it gets nothing more."""
        reached = time.monotonic()
        sql = await asyncpg.connect(self._stores.endpoints.database_url)
        position = await sql.fetchval("SELECT pg_current_wal_lsn()::text")
        await sql.close()
        await self._standby.catch_up(position)
        await self._standby.cut_off()
        return reached, await self.state(self._standby.url)

    async def state(self, url: str | None = None) -> State:
        """Returns what the primary has now."""
        sql = await asyncpg.connect(url or self._stores.endpoints.database_url)
        try:
            return await State.of(sql)
        finally:
            await sql.close()

    async def fail_over(
        self, kept: State, randomness: random.Random, before_promotion: Callable[[], Awaitable[None]]
    ) -> Failover:
        """Kills the primary, promotes the standby, which has `kept` this, and lets one name after the other lead
        there."""
        await self._stores.kill_postgres()
        dead = time.monotonic()
        await before_promotion()
        await self._standby.promote()
        sql = await asyncpg.connect(self._standby.url)
        # The position in the log does not show the loss: the new primary's is further than the old one's ever was.
        await sql.execute("SELECT pg_switch_wal()")
        await sql.close()
        moved = time.monotonic()
        for name in randomness.sample(list(self._names), len(self._names)):
            await name.move_to(self._standby.url)
            await asyncio.sleep(randomness.uniform(0, 0.3))
        return Failover(dead, moved, kept)

    async def counted(self, lacking: Callable[[State], object]) -> State:
        """Returns what the new primary has when it lacks nothing more, and the processes have ended."""

        async def all_are() -> bool:
            return not lacking(await self.state(self._standby.url))

        with suppress(AssertionError):  # The check says which ones are missing.
            await eventually(all_are)
        # Late answers, and views accepted again, come to an end with the processes.
        await self._running.aclose()
        return await self.state(self._standby.url)
