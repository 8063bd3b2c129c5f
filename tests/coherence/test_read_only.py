"""A Postgres that is read-only for a while, by a default that each session adopts when it starts."""

import asyncio
from urllib.parse import urlsplit

import asyncpg
import pytest

from app.embedded import Endpoints
from app.errors import DatabaseUnavailable
from app.schema import migrate
from tests.coherence.conftest import ADA, NewInstance
from tests.eventually import eventually
from tests.fresh_database import fresh_database

PAGE = "/a"


async def test_a_read_only_postgres_serves_reads_and_writes_resume_when_it_is_writable_again(
    new_instance: NewInstance, endpoints: Endpoints
) -> None:
    """Postgres becomes read-only, and ends its sessions
    requests, the relay and the flusher connect again
    it becomes writable: each of their connections would stay read-only for as long as it lives
    """
    async with fresh_database(endpoints.database_url) as url:
        await asyncio.to_thread(migrate, url)
        sql = await asyncpg.connect(url)
        name = urlsplit(url).path[1:]
        a = await new_instance(endpoints=Endpoints(endpoints.redis_url, url))
        ada = (await a.users.create(ADA)).id
        await a.believes()
        await sql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await sql.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await a.resources.page_views.add(PAGE, 3)
        for number in range(12):
            # Four at once: readers open connections that later writers get.
            assert all(await asyncio.gather(*(a.users.page(after=0, limit=5) for _ in range(4))))
            with pytest.raises(DatabaseUnavailable, match=r"^Postgres is read-only: cannot execute \w+ in a read-only"):
                await a.rename(ada, f"Ada {number}")

        async def flusher_is_refused() -> bool:
            return a.resources.metrics.totals("view_flushes").get("failed", 0) > 0

        await eventually(flusher_is_refused)
        await sql.execute("SET default_transaction_read_only = off")
        await sql.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        for number in range(12):
            assert (await a.rename(ada, f"Ada {number}")).name == f"Ada {number}"

        async def is_counted() -> bool:
            return bool(await sql.fetchval("SELECT views FROM page_views WHERE page = $1", PAGE) == 3)

        await eventually(is_counted)
        await a.settles()
        await sql.close()
