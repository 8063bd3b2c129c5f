"""Changes the stores in one way after another, determined by a seed, and heals each change."""

import asyncio
import math
import random
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from redis.asyncio import Redis

from app.caching import SETTLED, CacheError
from app.coherence.relay import POLL
from app.errors import DatabaseUnavailable
from app.schema import migrate
from tests.coherence.conftest import Instance
from tests.eventually import eventually
from tests.faults.dump import dumped, recreated, restored_into, restored_over
from tests.faults.nemesis import Strike
from tests.histories.identity.crowd import Crowd
from tests.histories.identity.deployment import Deployment
from tests.histories.identity.state import State

UNNOTICED = (SETTLED + POLL).total_seconds()
"""Seconds after which a Redis that silently went back has been noticed."""
KNOWN = 1.0
"""Seconds after the heal until what was lost must be gone everywhere."""
LEAST = 0.3
"""Seconds between two swaps: a Redis that goes back by less than a poll is not noticed."""
STEPS = timedelta(hours=-2.5), timedelta(hours=2), timedelta(hours=25)
NEEDS_STANDBY = frozenset({"standby met", "promoted", "promoted with loss"})
FAULTS = (
    "Redis moved",
    "Redis demoted",
    "Redis swapped",
    "clock stepped",
    "dropped and restored",
    "restored over",
    "standby met",
    "promoted",
    "promoted with loss",
    "read-only",
    "another deployment",
    "another Redis",
)

TERMINATED = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND application_name = 'fourways' AND pid <> pg_backend_pid()
"""


def drawn(randomness: random.Random, number: int) -> list[str]:
    """Draws up to `number` faults. A standby can be promoted only once, and is no standby after that."""
    faults = randomness.sample(FAULTS, number)
    if {"promoted", "promoted with loss"} <= set(faults):
        faults.remove("promoted")
    if "standby met" in faults:
        faults.sort(key=lambda fault: fault.startswith("promoted"))
    return faults


class Nemesis:
    """Injects faults into the stores of a deployment, and tells the checkers what each has lost."""

    def __init__(self, deployment: Deployment, crowd: Crowd, randomness: random.Random) -> None:
        self._deployment, self._crowd, self._randomness = deployment, crowd, randomness
        self._faults: Mapping[str, Callable[[], Awaitable[None]]] = {
            "Redis moved": self._move_redis,
            "Redis demoted": self._demote_redis,
            "Redis swapped": self._swap_redis,
            "clock stepped": self._step_clock,
            "dropped and restored": self._drop_and_restore,
            "restored over": self._restore_over,
            "standby met": self._meet_standby,
            "promoted": self._promote,
            "promoted with loss": self._promote_with_loss,
            "read-only": self._make_read_only,
            "another deployment": self._run_another_deployment,
            "another Redis": self._run_on_another_redis,
        }
        self.strikes: list[Strike] = []

    async def strike(self, faults: Sequence[str]) -> None:
        """Injects one fault after another."""
        for name in faults:
            await self._pause(0.1, 0.6)
            start = time.monotonic()
            await self._faults[name]()
            self.strikes.append(Strike(name, start, time.monotonic()))

    async def _pause(self, least: float, most: float) -> None:
        await asyncio.sleep(self._randomness.uniform(least, most))

    async def _end_sessions(self, sql: asyncpg.Connection) -> None:
        """Ends all sessions of the service on this server, and its connections: a pooler would keep those, and open
        other sessions there."""
        await sql.execute(TERMINATED)
        if self._deployment.ways.topology.database == "pooled":
            for each in self._deployment.instances.values():
                each.postgres.cut()

    def _shuffled(self) -> list[Instance]:
        instances = list(self._deployment.instances.values())
        self._randomness.shuffle(instances)
        return instances

    async def _move_redis(self) -> None:
        """The name leads to another Redis, for one instance after another, and back. Some connections live on.

        Answers are a little late, so that some connections are in use whenever idle ones are closed."""
        urls = self._deployment.first_redis, self._deployment.second_redis
        for each in self._deployment.instances.values():
            each.redis.delay(self._randomness.uniform(0.0, 0.02))
        for before, target in (urls, urls[::-1]):
            for each in self._shuffled():
                each.redis.move_to(target)
                await self._kill(before, self._randomness.choice((0.0, 0.5, 1.0)))
                await self._pause(0.0, 0.3)
            await self._pause(0.2, 0.7)
        for each in self._deployment.instances.values():
            each.redis.heal()
        await self._kill(urls[1], 1.0)

    async def _demote_redis(self) -> None:
        """A failover of Redis, and back: the replica is promoted, the name follows, and the old primary becomes its
        replica while connections to it live on."""
        primary, replica = self._deployment.redises
        for _there_and_back in range(2):
            await replica.follow(primary)
            await self._pause(0.1, 0.4)
            await replica.lead()
            for each in self._shuffled():
                each.redis.move_to(replica.url)
                await self._kill(primary.url, self._randomness.choice((0.0, 0.3)))
            # To connections that live on, it goes back to what the other one knew when it was promoted.
            async with self._going_back():
                await primary.follow(replica)
            await self._pause(0.3, 0.8)
            primary, replica = replica, primary
        await replica.lead()
        await self._kill(replica.url, 1.0)

    async def _step_clock(self) -> None:
        """The copy of Redis' clock of one instance is wrong for a while."""
        clock = self._deployment.clocks[self._randomness.choice(sorted(self._deployment.clocks))]
        clock.ahead = self._randomness.choice(STEPS)
        await self._pause(0.4, 1.0)
        clock.ahead = timedelta(0)

    async def _kill(self, redis_url: str, share: float) -> None:
        async with Redis.from_url(redis_url, protocol=2) as redis:
            for connection in await redis.client_list():
                if self._randomness.random() < share:
                    await redis.client_kill_filter(_id=connection["id"], skipme=True)

    async def _swap_redis(self) -> None:
        """Redis has other values for a while, and then the former ones again."""
        async with Redis.from_url(self._deployment.first_redis, protocol=2) as redis:
            for number in range(2):
                async with self._going_back():
                    await redis.swapdb(0, 1)
                if number == 0:
                    # An instance that has not polled meanwhile cannot notice.
                    await asyncio.gather(*(self._has_polled(each) for each in self._shuffled()))
                    await self._pause(LEAST, 0.7)

    @asynccontextmanager
    async def _going_back(self) -> AsyncIterator[None]:
        """Marks the time in which a Redis silently goes back: that need not be noticed at once."""
        exempt, since = self._crowd.ledger.exempt, time.monotonic()
        exempt.append((since, math.inf))
        yield
        exempt[-1] = since, time.monotonic() + UNNOTICED

    async def _has_polled(self, instance: Instance) -> None:
        before = instance.redis.count("^BEAT ")

        async def again() -> bool:
            return instance.redis.count("^BEAT ") >= before + 2

        await eventually(again)

    async def _dump(self) -> tuple[State, bytes]:
        sql = await asyncpg.connect(self._deployment.database_url)
        async with sql.transaction(isolation="repeatable_read", readonly=True):
            snapshot = await sql.fetchval("SELECT pg_export_snapshot()")
            kept = await State.of(sql)
            dump = await dumped(self._deployment.database_url, snapshot)
        await sql.close()
        return kept, dump

    @asynccontextmanager
    async def _losing(self, kept: State, *, without_triggers: bool = False) -> AsyncIterator[None]:
        """Marks the time in which the database becomes `kept`, and is healed."""
        crowd = self._crowd
        since = time.monotonic()
        crowd.ledger.loses(kept, without_triggers=without_triggers)
        yield
        await asyncio.sleep(KNOWN)
        looked = time.monotonic()
        sql = await asyncpg.connect(self._deployment.database_url)
        async with sql.transaction(isolation="repeatable_read", readonly=True):
            state = await State.of(sql)
        await sql.close()
        crowd.ledger.settled(state, looked)
        crowd.shelf.settled(since, looked, state)

    async def _drop_and_restore(self) -> None:
        """DROP DATABASE, CREATE DATABASE, and the restore of a recent dump."""
        deployment = self._deployment
        kept, dump = await self._dump()
        await self._pause(0.2, 0.6)
        async with self._losing(kept):
            sql = await asyncpg.connect(deployment.database_url)
            # A process that would count views waits for this lock, and is ended with all others.
            await sql.execute("BEGIN")
            await sql.execute("LOCK TABLE page_views, parked_views IN EXCLUSIVE MODE")
            had = await State.of(sql)
            await recreated(deployment.admin_url, deployment.database)
            await sql.close()
            await self._pause(0.0, 0.3)
            await restored_into(deployment.database_url, dump)
        self._crowd.views.lost(kept, had)

    async def _restore_over(self) -> None:
        """`pg_restore --clean`, while everybody keeps working."""
        kept, dump = await self._dump()
        await self._pause(0.2, 0.6)
        async with self._losing(kept, without_triggers=True):
            await eventually(lambda: self._is_restored_over(dump))
        self._crowd.views.lost(kept, None)

    async def _is_restored_over(self, dump: bytes) -> bool:
        try:
            await restored_over(self._deployment.database_url, dump)
        except subprocess.CalledProcessError:
            return False  # Something was in its way: a deadlock, or a new partition of the ledger.
        return True

    async def _meet_standby(self) -> None:
        """The name of Postgres leads to a lagging standby, for some instances, and back."""
        standby = self._deployment.standby
        assert standby is not None
        sql = await asyncpg.connect(standby.url)
        await sql.execute("SELECT pg_wal_replay_pause()")
        some = self._shuffled()[: self._randomness.randint(1, len(self._deployment.instances))]
        for each in some:
            await each.postgres.move_to(standby.url)
            if self._randomness.random() < 0.7:
                each.postgres.cut()
        await self._pause(0.3, 0.8)
        await sql.execute("SELECT pg_wal_replay_resume()")
        for each in some:
            await each.postgres.move_to(self._deployment.database_url)
        if self._randomness.random() < 0.5:
            await self._end_sessions(sql)
        await sql.close()

    async def _promote(self) -> None:
        """A switchover: the primary refuses writes, the standby catches up and is promoted, and the name follows."""
        standby, old = self._deployment.standby, self._deployment.database_url
        assert standby is not None
        sql = await asyncpg.connect(old)
        await sql.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await sql.execute("SELECT pg_reload_conf()")
        await self._end_sessions(sql)
        await standby.catch_up(await sql.fetchval("SELECT pg_switch_wal()::text"))
        await standby.promote()
        await self._lead_to(standby.url)
        await self._end_sessions(sql)
        await sql.close()

    async def _promote_with_loss(self) -> None:
        """A failover: the standby lacks the last commits. The old primary is alive, and accepts writes."""
        standby, old = self._deployment.standby, self._deployment.database_url
        assert standby is not None
        await standby.cut_off()
        await self._pause(0.2, 0.6)
        copy = await asyncpg.connect(standby.url)
        kept = await State.of(copy)
        await copy.close()
        sql = await asyncpg.connect(old)
        async with self._losing(kept):
            await standby.promote()
            await self._lead_to(standby.url)
            await self._end_sessions(sql)
        self._crowd.views.lost(kept, await State.of(sql))
        await sql.close()

    async def _lead_to(self, database_url: str) -> None:
        """The name leads there, for one instance after another. Some connections live on until the caller ends them.

        Only then may it be said that the name leads there."""
        for each in self._shuffled():
            await each.postgres.move_to(database_url)
            if self._randomness.random() < 0.5:
                each.postgres.cut()
            await self._pause(0.0, 0.4)
        self._deployment.database_url = database_url

    async def _make_read_only(self) -> None:
        """Sessions that begin meanwhile refuse writes, and keep refusing."""
        name = self._deployment.database
        sql = await asyncpg.connect(self._deployment.database_url)
        await sql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await self._end_sessions(sql)
        await self._pause(0.2, 0.6)
        await sql.execute("SET default_transaction_read_only = off")
        await sql.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await sql.close()

    async def _run_another_deployment(self) -> None:
        """Another database, with rows of the same keys, and an instance on it that leads to our Redis."""
        name = "another"
        sql = await asyncpg.connect(self._deployment.admin_url)
        await sql.execute(f"CREATE DATABASE {name}")
        await sql.close()
        url = urlunsplit(urlsplit(self._deployment.database_url)._replace(path=f"/{name}"))
        await asyncio.to_thread(migrate, url)
        keys = sorted(self._crowd.ledger.rows)
        sql = await asyncpg.connect(url)
        for key in keys:
            resource, _, row = key.partition("/")
            if resource == "users":
                await sql.execute(
                    "INSERT INTO users (id, name, email) OVERRIDING SYSTEM VALUE VALUES ($1, 'Eve', $2)", int(row), key
                )
            else:
                await sql.execute("INSERT INTO products (sku, name, price) VALUES ($1, 'Eve', '1')", row)
        async with self._deployment.instance(self._deployment.first_redis, url) as eve:
            until = time.monotonic() + self._randomness.uniform(0.3, 0.8)
            while time.monotonic() < until:
                for key in keys:
                    resource, _, row = key.partition("/")
                    try:
                        got = await (eve.users.get(int(row)) if resource == "users" else eve.products.get(row))
                    except (CacheError, DatabaseUnavailable):
                        continue
                    if got.value is None or got.value.name != "Eve":
                        self._crowd.ledger.wrong.append(f"{key} of another deployment was {got.value}.")
                try:
                    await eve.resources.page_views.add("/eve", 1)
                except CacheError:
                    continue
                self._crowd.ledger.wrong.append("Another deployment has taken a view on in our Redis.")
        if await sql.fetchval("SELECT count(*) FROM page_views"):
            self._crowd.ledger.wrong.append("Another deployment has counted our views.")
        await sql.close()

    async def _run_on_another_redis(self) -> None:
        """One more instance, on the same Postgres, and on its own Redis. Some of the believed instances are slow to
        notice: their answers from Postgres are late."""
        slow = self._shuffled()[: self._randomness.randint(0, len(self._deployment.instances))]
        for each in slow:
            each.postgres.delay(self._randomness.uniform(0.03, 0.09))
        async with self._deployment.with_another("on another Redis", self._deployment.second_redis):
            await self._pause(0.7, 1.2)
            for each in slow:
                each.postgres.heal()
