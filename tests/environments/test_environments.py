"""The main path of all four strategies where users run it: each Redis, each Postgres, and each shape of the service.

The service accepts, is stopped by SIGTERM before all is flushed, starts again, and has lost nothing.
"""

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Sequence

import asyncpg
import httpx
import pytest

from app.embedded import Endpoints
from tests.environments.stores import POSTGRESES, REDISES, Parts
from tests.eventually import eventually
from tests.faults.certificates import Certificates
from tests.service import FOURWAYS, Service, serving

READ_ONLY = ("unshare", "--mount", "sh", "-c", 'mount -o remount,bind,ro / && exec "$@"', "sh")
"""Runs a command with a root that nothing can write to."""
SHAPES: dict[str, tuple[int, Sequence[str]]] = {
    "1 worker": (1, ()),
    "3 workers": (3, ()),
    "read-only root": (2, READ_ONLY),
}
ALL = list(itertools.product(REDISES, POSTGRESES, SHAPES))
SAMPLE = [
    ("embedded", "pooled sessions", "1 worker"),
    ("embedded", "pooled transactions", "3 workers"),
    ("Debian", "DML only", "1 worker"),
    ("TLS", "TLS", "read-only root"),
    ("ACL", "Debian", "3 workers"),
]
"""Each Redis, each Postgres, and each shape at least once."""
CASES = [pytest.param(*case, marks=() if case in SAMPLE else pytest.mark.prove) for case in ALL]


@pytest.mark.parametrize(("redis", "postgres", "shape"), CASES)
async def test_the_main_path_of_all_four_strategies_loses_nothing(
    servers: Endpoints, certificates: Certificates, redis: str, postgres: str, shape: str
) -> None:
    workers, around = SHAPES[shape]
    if around and (os.geteuid() != 0 or shutil.which("unshare") is None):
        pytest.skip("Only root can make the root read-only for a process.")
    parts = Parts(servers, certificates)
    async with REDISES[redis](parts) as redis_url, POSTGRESES[postgres](parts) as database_url:
        for start in (1, 2):
            async with serving(
                redis_url, database_url, command=FOURWAYS, workers=workers, program=(*around, sys.executable)
            ) as service:
                await _main_path(service, start)
                service.process.send_signal(signal.SIGTERM)
                assert await service.ended() == 0
        async with serving(redis_url, database_url, command=FOURWAYS) as service, service.client() as client:
            assert (await client.get("/page-views/home")).json()["views"] == 2 * 5 * 7

            async def all_is_flushed() -> bool:
                return bool((await client.get("/write-behind")).json()["backlog"] == 0)

            await eventually(all_is_flushed)
            assert (await client.get("/write-behind")).json()["dead_letters"] == 0
        sql = await asyncpg.connect(database_url, statement_cache_size=0)
        assert await sql.fetchval("SELECT views FROM page_views WHERE page = 'home'") == 2 * 5 * 7
        await sql.close()


async def _main_path(service: Service, start: int) -> None:
    async with service.client() as client:
        user = await client.post("/users", json={"name": "Ada", "email": f"ada-{start}@example.com"})
        await client.post("/products", json={"sku": f"CUP-{start}", "name": "Cup", "price": "7.50"})
        await client.put(f"/inventory/CUP-{start}", json={"quantity": 9})
        rows = user.headers["location"], f"/products/CUP-{start}", f"/inventory/CUP-{start}"
        for row in rows:
            await eventually(lambda row=row: _is_hit(client, row))  # type: ignore[misc]
        assert (await client.patch(rows[0], json={"name": "Grace"})).status_code == 200
        assert (await client.patch(rows[1], json={"price": "8.00"})).status_code == 200
        taken = await client.post(
            f"{rows[2]}/adjustments", json={"delta": -2}, headers={"Idempotency-Key": f"order-{start}"}
        )
        assert taken.json()["quantity"] == 7
        for row, name, value in zip(rows, ("name", "price", "quantity"), ("Grace", "8.00", 7), strict=True):
            assert (await client.get(row)).json()[name] == value
        for _ in range(7):
            assert (await client.post("/page-views/home", json={"count": 5})).status_code == 202


async def _is_hit(client: httpx.AsyncClient, row: str) -> bool:
    answer = await client.get(row)
    assert answer.status_code == 200, answer.text
    return "; hit" in answer.headers["cache-status"]
