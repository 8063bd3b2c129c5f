"""Real page views, one by one and in batches, across a restart and a crash: each is counted once."""

import asyncio
import csv
import gzip
import itertools
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from app.embedded import Endpoints
from tests.eventually import eventually
from tests.keyed import HUNG_UP, Keyed, keyed, kill
from tests.service import REPOSITORY, serving

DATA = REPOSITORY.parent / "shared" / "data"
NASA = DATA / "pageviews_nasa_1995_07_01.csv.gz"
PRODUCT_PAGES = DATA / "pageviews_product_pages_2012_12.csv.gz"
LOG_VIEWS = [(2_000, 498), pytest.param(9_999, 1_165, marks=pytest.mark.prove)]
PRODUCT_PAGE_VIEWS = [(10_000, 4_662), pytest.param(95_607, 13_756, marks=pytest.mark.prove)]
"""How many views of each file are posted, and how many pages they have: first a part of the file, then all of it."""
IN_A_CALL = 1_000
PATIENT = {"UVICORN_TIMEOUT_KEEP_ALIVE": "120", "FOURWAYS_DATABASE_TIMEOUT": "60", "FOURWAYS_REDIS_TIMEOUT": "30"}

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"The real data is not here: {DATA} does not exist.")

Views = Counter[str]


@pytest.mark.parametrize(("total", "distinct"), LOG_VIEWS)
async def test_each_view_of_a_real_log_is_counted_once_across_a_restart(
    endpoints: Endpoints,
    sql: asyncpg.Connection,
    redis: Redis,
    capsys: pytest.CaptureFixture[str],
    total: int,
    distinct: int,
) -> None:
    # The last views of the file, because some of their addresses contain a %.
    views = list(_column(NASA, "path"))[-total:]
    counts = Counter(views)
    assert (len(views), len(counts)) == (total, distinct)
    assert any("?" in page for page in counts)
    assert any("%" in page for page in counts)

    began = time.monotonic()
    posting = iter(views)
    async with (
        serving(endpoints.redis_url, endpoints.database_url, workers=1, **PATIENT) as service,
        keyed(service, 8) as connections,
    ):
        half = itertools.islice(posting, len(views) // 2)
        await asyncio.gather(*(_post(connection, half) for connection in connections))
    # The end of the block sent SIGTERM right after the last answer, when its view had just been accepted.
    async with (
        serving(endpoints.redis_url, endpoints.database_url, workers=1, **PATIENT) as service,
        keyed(service, 8) as connections,
    ):
        await asyncio.gather(*(_post(connection, posting) for connection in connections))
        took = time.monotonic() - began
        await _is_carried(connections[0], redis)
        await _tells(connections, counts, "write-behind; ")
        rows, flushed = await _flushed(connections[0])
    with capsys.disabled():
        print(f"\nNASA: {len(views):,} views, one a call, in {took:.1f} s; {rows / flushed:.2f} rows a view")
    assert await _stored(sql) == counts


@pytest.mark.parametrize(("total", "distinct"), PRODUCT_PAGE_VIEWS)
async def test_each_view_of_real_product_pages_is_counted_once_although_the_service_is_killed_midway(
    endpoints: Endpoints,
    sql: asyncpg.Connection,
    redis: Redis,
    capsys: pytest.CaptureFixture[str],
    total: int,
    distinct: int,
) -> None:
    pages = list(itertools.islice(_column(PRODUCT_PAGES, "page_id"), total))
    counts = Counter(pages)
    assert (len(pages), len(counts)) == (total, distinct)
    calls = deque((f"call-{begin}", pages[begin : begin + IN_A_CALL]) for begin in range(0, len(pages), IN_A_CALL))
    half, killed = len(calls) // 2, False
    began = time.monotonic()
    async with (
        serving(endpoints.redis_url, endpoints.database_url, workers=1, **PATIENT) as service,
        keyed(service, 4) as connections,
    ):

        async def post_until_killed(connection: Keyed) -> None:
            nonlocal killed
            try:
                while calls:
                    call = calls.popleft()
                    try:
                        await _post_many(connection, *call)
                    except HUNG_UP:
                        calls.appendleft(call)
                        raise
                    if len(calls) <= half and not killed:
                        killed = True  # Set before the kill, because another connection may come here meanwhile.
                        await kill(service)
            except HUNG_UP:
                assert len(calls) <= half + len(connections), "Nobody has killed it yet."

        await asyncio.gather(*(post_until_killed(connection) for connection in connections))
    left = len(calls)

    async with (
        serving(endpoints.redis_url, endpoints.database_url, workers=1, **PATIENT) as service,
        keyed(service, 4) as connections,
    ):

        async def post(connection: Keyed) -> None:
            while calls:
                await _post_many(connection, *calls.popleft())

        await asyncio.gather(*(post(connection) for connection in connections))
        posted = time.monotonic() - began
        # Totals are checked before and after the flush: they include waiting entries, and entries that the dead process
        # left pending.
        await _tells(connections, dict(counts.most_common(200)), "write-behind; ")
        carried = await _is_carried(connections[0], redis)
        # Only every fifth page, because all pages are checked in Postgres below.
        await _tells(connections, {page: counts[page] for page in list(counts)[::5]}, "write-behind; ")
        rows, flushed = await _flushed(connections[0])
        top = (await connections[0].ask("/page-views?top=20")).json()["items"]

    with capsys.disabled():
        print(
            f"\nProduct pages: {total:,} views, {IN_A_CALL:,} a call, posted in {posted:.1f} s, {left} calls after the "
            f"kill, carried {carried:.1f} s later; {rows / flushed:.2f} rows a view"
        )
    assert await _stored(sql) == counts
    by_views = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    assert [(item["page"], item["views"]) for item in top] == by_views[:20]


async def _post(connection: Keyed, pages: Iterable[str]) -> None:
    """Posts one view after the other, from an iterator that several connections share."""
    for page in pages:
        answer = await connection.ask(_path(page), method="POST")
        assert answer.status == 202, (page, answer.body)
        assert answer.json()["page"] == page


async def _post_many(connection: Keyed, key: str, pages: list[str]) -> None:
    answer = await connection.post("/page-views", {"views": [{"page": page} for page in pages]}, key=key)
    assert (answer.status, answer.body) == (202, b'{"accepted":%d}' % len(pages))


async def _tells(connections: list[Keyed], counts: dict[str, int], how: str) -> None:
    """Checks that a GET of each page returns its count."""
    pages = iter(counts)

    async def get(connection: Keyed) -> None:
        for page in pages:
            answer = await connection.ask(_path(page))
            assert answer.json() == {"page": page, "views": counts[page]}
            assert answer.headers["cache-status"].startswith(how)

    await asyncio.gather(*map(get, connections))


async def _is_carried(connection: Keyed, redis: Redis) -> float:
    """Waits until the backlog is empty, and returns how many seconds that took."""

    async def nothing_waits() -> bool:
        return bool((await connection.ask("/write-behind")).json()["backlog"] == 0)

    took = await eventually(nothing_waits)
    status: dict[str, Any] = (await connection.ask("/write-behind")).json()
    assert status["oldest_seconds"] is None
    assert status["dead_letters"] == 0
    for shard in range(4):
        stream = f"views:{{{shard}}}"
        assert await redis.xlen(stream) == 0
        assert (await redis.xpending(stream, "flushers"))["pending"] == 0
    return took


async def _flushed(connection: Keyed) -> tuple[float, float]:
    """Returns how many rows the process has written, and for how many views."""
    metrics = (await connection.ask("/metrics")).body.decode()
    samples = {
        sample.name: sample.value for family in text_string_to_metric_families(metrics) for sample in family.samples
    }
    return samples["fourways_view_rows_written_total"], samples["fourways_views_flushed_total"]


async def _stored(sql: asyncpg.Connection) -> dict[str, int]:
    return {row["page"]: row["views"] for row in await sql.fetch("SELECT page, views FROM page_views")}


def _column(file: Any, name: str) -> Iterator[str]:
    with gzip.open(file, "rt", encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows):
            yield row[name]


def _path(page: str) -> str:
    return f"/page-views/{quote(page, safe='')}"
