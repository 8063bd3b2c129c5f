"""A database whose encoding is not UTF8: what it cannot represent is refused, or set aside, and delays nothing else.

Readiness says that the encoding is wrong; `test_readiness.py` has that.
"""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from app.embedded import Endpoints
from app.schema import migrate
from app.settings import Settings
from tests.eventually import eventually
from tests.faults.another_redis import another_redis
from tests.fresh_database import fresh_database
from tests.in_process import application


@pytest.fixture
async def latin(servers: Endpoints) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application on a database with the encoding LATIN1."""
    options = "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
    async with another_redis() as redis_url, fresh_database(servers.database_url, options) as database_url:
        await asyncio.to_thread(migrate, database_url)
        settings = Settings(_env_file=None, redis_url=redis_url, database_url=database_url)
        async with application(settings) as client:

            async def is_trusted() -> bool:
                return bool((await client.get("/health/ready")).json()["parts"]["breaker"] == "ok")

            await eventually(is_trusted)
            yield client


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/products/中", None),
        ("GET", "/products?after=中", None),
        ("DELETE", "/products/中", None),
        ("POST", "/products", {"sku": "CUP", "name": "中", "price": "1"}),
        ("POST", "/users", {"name": "中", "email": "ada@example.com"}),
        ("GET", "/inventory/中", None),
        ("PUT", "/inventory/中", {"quantity": 1}),
        ("POST", "/inventory/中/adjustments", {"delta": 1}),
        ("GET", "/page-views/中", None),
    ],
)
async def test_a_letter_that_the_database_has_no_code_for_is_a_422(
    latin: httpx.AsyncClient, method: str, path: str, body: dict[str, object] | None
) -> None:
    answer = await latin.request(method, path, json=body)
    assert (answer.status_code, answer.json()["type"]) == (422, "invalid")
    assert answer.json()["detail"].endswith('has no equivalent in encoding "LATIN1".')


async def test_a_page_that_the_database_has_no_code_for_stays_in_redis_and_delays_no_other(
    latin: httpx.AsyncClient,
) -> None:
    """Not even a dead letter can name it there. Once there is a database with the right encoding, it is counted."""
    assert (await latin.post("/page-views", json={"views": [{"page": "中"}, {"page": "home"}]})).status_code == 202
    assert (await latin.post("/page-views/中")).json() == {"page": "中", "views": None}
    assert (await latin.post("/page-views/about")).status_code == 202
    totals = await asyncio.gather(*(latin.get(f"/page-views/{page}") for page in ("中", "home", "中", "about")))
    assert [answer.status_code for answer in totals] == [422, 200, 422, 200]

    async def others_are_flushed() -> bool:
        said = (await latin.get("/health/ready")).json()["parts"]["flusher"]
        return (await latin.get("/write-behind")).json()["backlog"] == 2 and "has no equivalent" in said

    await eventually(others_are_flushed)
