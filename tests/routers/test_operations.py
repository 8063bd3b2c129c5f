"""The calls for operators."""

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import asyncpg
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from app.caching.write_behind.batch_id import ulid
from app.caching.write_behind.shard import Shard, number
from app.demo import add_demo_data
from app.embedded import Endpoints
from app.settings import Settings
from tests.eventually import eventually
from tests.in_process import application
from tests.routers.conftest import Contents
from tests.service import free_port


class References(HTMLParser):
    """The files that an HTML page loads, and its links."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href") and value is not None:
                (self.links if tag == "a" else self.loads).append(value)


async def test_the_first_page_loads_nothing_else_and_its_links_work_on_the_demo_data(
    client: httpx.AsyncClient, endpoints: Endpoints
) -> None:
    await add_demo_data(endpoints.database_url)
    page = await client.get("/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    found = References(page.text)
    assert found.loads == []
    assert {"/users/1", "/products/KETTLE-1", "/inventory/KETTLE-1", "/page-views/home"} < {*found.links}
    for link in found.links:
        assert link.startswith("/")
        assert (await client.get(link)).status_code == 200


async def test_the_docs_work_offline(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.status_code == 200
    assert not re.search(r"https?://|[\"']//", page.text)
    assets = References(page.text).loads
    assert {asset.rpartition("/")[2] for asset in assets} == {"swagger-ui.css", "swagger-ui-bundle.js", "favicon.png"}
    for asset in assets:
        assert asset.startswith("/docs/assets/")
        assert (await client.get(asset)).status_code == 200
    # The files that the assets load must work, too.
    css = (await client.get("/docs/assets/swagger-ui.css")).text
    for named in re.findall(r"(?:url\(|@import\s*)[\"']?([^\"')\s]+)", css):
        assert named.startswith("data:") or (await client.get(urljoin("/docs/assets/", named))).status_code == 200
    assert "/openapi.json" in page.text


async def test_each_strategy_is_described_with_its_live_figures(client: httpx.AsyncClient, rows: Contents) -> None:
    for _ in range(4):
        await client.get("/users/1")
    await client.get("/products?sku=KETTLE-1&sku=NONE")
    users, products, inventory, page_views = (await client.get("/strategies")).json()
    assert (users["name"], users["resource"]) == ("cache-aside", "/users")
    assert (products["name"], products["resource"]) == ("read-through", "/products")
    assert (inventory["name"], inventory["resource"]) == ("write-through", "/inventory")
    assert (page_views["name"], page_views["resource"]) == ("write-behind", "/page-views")
    for strategy in (users, products, inventory, page_views):
        assert {"reads_from", "writes_to", "staleness", "write_latency", "use_when", "avoid_when", "never_for"} <= {
            field for field, value in strategy.items() if value
        }
    assert users["live"] == {
        "hits": 3,
        "misses": 1,
        "collapsed": 0,
        "stale": 0,
        "locked": 0,
        "bypassed": 0,
        "refused_fills": 0,
        "database_queries": 1,
        "hit_ratio": 0.75,
    }
    assert (products["live"]["misses"], products["live"]["database_queries"]) == (2, 1)


async def test_an_unused_strategy_has_no_ratio(client: httpx.AsyncClient) -> None:
    *readers, writer = (await client.get("/strategies")).json()
    assert [strategy["live"]["hit_ratio"] for strategy in readers] == [None] * 3
    assert writer["live"]["views_per_row"] is None


async def test_the_live_figures_of_write_through_count_reads_during_a_write(
    client: httpx.AsyncClient, sql: asyncpg.Connection, rows: Contents
) -> None:
    async with sql.transaction():
        await sql.execute("SELECT pg_advisory_xact_lock(stock_lock('KETTLE-1'))")
        await client.get("/inventory/KETTLE-1")
    for _ in range(3):
        await client.get("/inventory/KETTLE-1")
    live = (await client.get("/strategies")).json()[2]["live"]
    assert live == {
        "hits": 2,
        "misses": 1,
        "collapsed": 0,
        "stale": 0,
        "locked": 1,
        "bypassed": 0,
        "refused_fills": 0,
        "database_queries": 2,
        "hit_ratio": 0.5,
    }


async def test_the_live_figures_of_write_behind_show_the_coalescing(client: httpx.AsyncClient) -> None:
    for _ in range(3):
        await client.post("/page-views", json={"views": [{"page": "home", "count": 50}, {"page": "news", "count": 50}]})

    async def is_flushed() -> bool:
        return bool((await client.get("/strategies")).json()[3]["live"]["flushed"] == 300)

    await eventually(is_flushed)
    live = (await client.get("/strategies")).json()[3]["live"]
    assert (live["accepted"], live["flushed"], live["failed_flushes"]) == (live["backlog"] + 300, 300, 0)
    assert live["views_per_row"] == round(300 / live["rows_written"], 4) >= 50
    assert live["database_queries"] > 0


async def _advice(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    return [strategy["advice"] for strategy in (await client.get("/strategies")).json()]


async def test_without_traffic_only_the_needs_make_an_advice_sure(client: httpx.AsyncClient) -> None:
    users, products, inventory, page_views = await _advice(client)
    assert [each["configured"] for each in (users, products, inventory, page_views)] == [
        "cache-aside",
        "read-through",
        "write-through",
        "write-behind",
    ]
    assert [(each["reads"], each["writes"]) for each in (users, products, inventory, page_views)] == [(0, 0)] * 4
    assert (page_views["sure"], page_views["why"]) == ("low", "Nothing was read or written yet.")
    # For stock, the needs alone decide.
    assert (inventory["suggested"], inventory["sure"], inventory["loss"]) == ("write-through", "high", "revenue")
    assert inventory["verdict"] == "What is configured is what is suggested."


async def test_the_advice_shows_the_suggested_and_the_configured_strategy(
    client: httpx.AsyncClient, rows: Contents
) -> None:
    for _ in range(3):
        await client.get("/products/KETTLE-1")
    await client.post("/page-views", json={"views": [{"page": "home", "count": 50}, {"page": "news"}]})
    await client.get("/page-views/home")
    users, products, _inventory, page_views = await _advice(client)
    assert (users["suggested"], users["stale_seconds"], users["counts"]) == ("cache-aside", 0, False)
    assert (products["suggested"], products["reads"]) == ("cache-aside", 3)
    assert products["verdict"].startswith("The two cost the same: read-through is for")
    assert (page_views["suggested"], page_views["reads"], page_views["writes"]) == ("write-behind", 1, 51)
    assert page_views["reasons"][1].endswith("(1 reads to 51 writes.)")


async def test_counters_that_are_only_read_do_not_need_write_behind(client: httpx.AsyncClient) -> None:
    for _ in range(3):
        await client.get("/page-views/home")
    page_views = (await _advice(client))[3]
    assert (page_views["suggested"], page_views["sure"]) == ("cache-aside", "low")
    assert page_views["verdict"].startswith("With such traffic cache-aside would cost less than write-behind;")
    # The advice changes nothing.
    answer = await client.post("/page-views/home")
    assert answer.status_code == 202
    assert (await client.get("/strategies")).json()[3]["name"] == "write-behind"


async def test_only_committed_writes_are_counted(client: httpx.AsyncClient, rows: Contents) -> None:
    before = [each["writes"] for each in await _advice(client)]
    user = (await client.post("/users", json={"name": "Ada", "email": "ada@new.example"})).json()["id"]
    assert (await client.post("/users", json={"name": "Ada", "email": "ada@new.example"})).status_code == 409
    assert (await client.patch(f"/users/{user}", json={"name": "Bo"}, headers={"If-Match": '"1"'})).status_code == 412
    assert (await client.patch(f"/users/{user}", json={"name": "Bo"})).status_code == 200
    assert (await client.delete(f"/users/{user}")).status_code == 204
    assert (await client.delete(f"/users/{user}")).status_code == 404
    assert (await client.put("/inventory/NEW", json={"quantity": 3})).status_code == 201
    assert (await client.post("/inventory/NEW/adjustments", json={"delta": -4})).status_code == 409
    assert (await client.post("/inventory/NEW/adjustments", json={"delta": -3})).status_code == 200
    writes = [each["writes"] for each in await _advice(client)]
    assert [after - earlier for after, earlier in zip(writes, before, strict=True)] == [3, 0, 2, 0]


FIELDS = [
    "backlog",
    "backlog_bytes",
    "oldest_seconds",
    "flushed",
    "dead_letters",
    "parked",
    "consumers",
    "at_risk",
    "recovered",
    "lost",
]


async def test_the_backlog_is_reported_in_views(settings: Settings) -> None:
    settings = settings.model_copy(update={"flush_interval": timedelta(hours=1), "flush_views": 1_000_000})
    async with application(settings) as client:
        await client.post("/page-views/home", json={"count": 40})
        await client.post("/page-views", json={"views": [{"page": "news"}, {"page": "docs", "count": 2}]})
        await eventually(lambda: _has_a_flusher(client))
        status = (await client.get("/write-behind")).json()
        assert list(status) == FIELDS
        assert (status["backlog"], status["flushed"], status["dead_letters"], status["consumers"]) == (43, 0, 0, 1)
        assert 0 <= status["oldest_seconds"] < 60
        older = (await client.get("/write-behind")).json()["oldest_seconds"]
        assert older >= status["oldest_seconds"]
        live = (await client.get("/strategies")).json()[3]["live"]
        assert (live["accepted"], live["backlog"], live["flushed"], live["views_per_row"]) == (43, 43, 0, None)


async def _has_a_flusher(client: httpx.AsyncClient) -> bool:
    answer = await client.get("/write-behind")
    # For a moment, a stream exists without its group, and the flushers cannot be counted.
    return answer.status_code == 200 and answer.json()["consumers"] > 0


async def test_an_empty_backlog_has_no_oldest_entry(client: httpx.AsyncClient) -> None:
    await client.post("/page-views/home", json={"count": 40})

    async def is_empty() -> bool:
        answer = await client.get("/write-behind")
        return answer.status_code == 200 and answer.json()["backlog"] == 0

    await eventually(is_empty)
    status = (await client.get("/write-behind")).json()
    assert status == {
        "backlog": 0,
        "backlog_bytes": 0,
        "oldest_seconds": None,
        "flushed": 40,
        "dead_letters": 0,
        "parked": 0,
        "consumers": 1,
        "at_risk": {"fsync": "everysec", "views": 0},
        "recovered": 0,
        "lost": 0,
    }


async def test_an_entry_that_cannot_be_decoded_is_counted_as_a_dead_letter(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    await redis.xadd("views:{0}", {"nonsense": "x"})

    async def is_dead() -> bool:
        answer = await client.get("/write-behind")
        return answer.status_code == 200 and answer.json()["dead_letters"] == 1

    await eventually(is_dead)


@pytest.mark.parametrize("path", ["/write-behind", "/strategies"])
async def test_the_backlog_is_reported_while_postgres_is_away(settings: Settings, path: str) -> None:
    nowhere = f"postgresql://postgres@127.0.0.1:{free_port()}/postgres"
    async with application(settings.model_copy(update={"database_url": nowhere})) as client:
        await client.post("/page-views/home", json={"count": 40})
        told = (await client.get(path)).json()
    if path == "/write-behind":
        assert (told["backlog"], told["flushed"], told["dead_letters"]) == (40, 0, None)
    else:
        assert (told[3]["live"]["backlog"], told[3]["live"]["flushed"]) == (40, 0)


async def test_the_backlog_cannot_be_reported_without_redis(settings: Settings) -> None:
    async with application(settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}"})) as client:
        answer = await client.get("/write-behind")
        assert (answer.status_code, answer.json()["type"]) == (503, "cache-unavailable")
        assert answer.headers["retry-after"] == "1"
        live = (await client.get("/strategies")).json()[3]["live"]
        assert (live["accepted"], live["backlog"], live["flushed"]) == (None, None, 0)


HOME = Shard("views", number("home"))
LATER = timedelta(hours=1)


@asynccontextmanager
async def holding_back(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Yields a client of an application whose flusher flushes nothing before the end."""
    settings = settings.model_copy(update={"flush_interval": LATER, "flush_views": 1_000_000_000})
    async with application(settings) as client:
        yield client


async def status_of(client: httpx.AsyncClient) -> dict[str, Any]:
    """Returns the answer of /write-behind."""
    answer = await client.get("/write-behind")
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


async def gauges(client: httpx.AsyncClient) -> dict[str, float]:
    """Returns the samples of /metrics without labels, by their names without the prefix."""
    families = text_string_to_metric_families((await client.get("/metrics")).text)
    samples = [sample for family in families for sample in family.samples if not sample.labels]
    return {sample.name.removeprefix("fourways_"): sample.value for sample in samples}


async def taken_on(redis: Redis, ago: timedelta, views: int) -> None:
    """Adds views of home as if they had been accepted that long ago. Later views of this page can only be younger."""
    at = round((time.time() - ago.total_seconds()) * 1000)
    deltas = f'{{"home": {views}}}'
    await redis.xadd(HOME.stream, {"batch": ulid(at), "deltas": deltas, "views": views}, id=f"{at}-0")
    await redis.incrby(HOME.backlog, views)
    await redis.incrby(HOME.bytes, len(deltas))


async def test_views_of_the_last_second_are_at_risk(settings: Settings, redis: Redis) -> None:
    async with holding_back(settings) as client:
        # The machine may pause between the two calls.
        async def new_ones_are_at_risk() -> bool:
            await client.post("/page-views/home", json={"count": 40})
            at_risk = (await status_of(client))["at_risk"]
            assert at_risk["fsync"] == "everysec"
            assert at_risk["views"] % 40 == 0
            return bool(at_risk["views"])

        async def none_is_at_risk() -> bool:
            return bool((await status_of(client))["at_risk"]["views"] == 0)

        await eventually(new_ones_are_at_risk)
        waited = await eventually(none_is_at_risk)
        status = await status_of(client)
        assert status["backlog"] >= 40
        assert status["oldest_seconds"] > max(waited, 0.99)
        assert (await gauges(client))["views_at_risk"] == 0


async def test_only_the_younger_part_of_the_backlog_is_at_risk(settings: Settings, redis: Redis) -> None:
    # Redis' clock decides what is within the last second. The young entry stays young for an hour, and the old ones are
    # old from the start.
    await taken_on(redis, timedelta(seconds=30), 3)
    await taken_on(redis, timedelta(seconds=2), 5)
    await taken_on(redis, -LATER, 7)
    async with holding_back(settings) as client:
        status = await status_of(client)
        assert (status["backlog"], status["at_risk"]) == (15, {"fsync": "everysec", "views": 7})
        assert 30 <= status["oldest_seconds"] < 90
        told = await gauges(client)
        assert (told["views_backlog"], told["views_at_risk"]) == (15, 7)
        assert 30 <= told["views_backlog_oldest_seconds"] < 90


async def test_the_views_at_risk_depend_on_how_redis_syncs_its_file(settings: Settings, redis: Redis) -> None:
    await taken_on(redis, timedelta(seconds=30), 3)
    await taken_on(redis, -LATER, 5)
    async with holding_back(settings) as client:
        try:
            for fsync, views in (("always", 0), ("no", 8), ("everysec", 5)):
                await redis.config_set("appendfsync", fsync)
                assert (await status_of(client))["at_risk"] == {"fsync": fsync, "views": views}
                assert (await gauges(client))["views_at_risk"] == views
            await redis.config_set("appendonly", "no")
            assert (await status_of(client))["at_risk"] == {"fsync": "off", "views": 8}
            assert (await gauges(client))["views_at_risk"] == 8
        finally:
            await redis.config_set("appendfsync", "everysec")
            await redis.config_set("appendonly", "yes")

            async def is_written() -> bool:
                found = await redis.info("persistence")
                return not found["aof_rewrite_in_progress"] and not found["aof_rewrite_scheduled"]

            await eventually(is_written)


async def test_the_backlog_is_reported_in_bytes(settings: Settings) -> None:
    async with holding_back(settings) as client:
        await client.post("/page-views/home", json={"count": 40})
        assert (await status_of(client))["backlog_bytes"] == len('{"home":40}')
        # Add another shard, and a page that is longer as JSON than as text.
        assert number("docs") != HOME.number
        await client.post("/page-views", json={"views": [{"page": "docs", "count": 7}]})
        await client.post("/page-views/home%22", json={"count": 1})
        expected = len('{"home":40}' + '{"docs":7}' + '{"home\\"":1}')
        assert (await status_of(client))["backlog_bytes"] == expected
        told = await gauges(client)
        assert (told["views_backlog_bytes"], told["views_backlog"], told["views_accepted_total"]) == (expected, 48, 48)


async def test_the_metrics_show_how_full_the_fullest_shard_is(settings: Settings) -> None:
    # Each of the four shards may have ten entries, or a thousand bytes.
    limits = {"backlog_entries": 40, "backlog_bytes": 4_000}
    long = next(page for page in ("x" * length for length in range(900, 990)) if number(page) not in (0, 3))
    assert (number("home"), number("docs")) == (0, 3)
    async with holding_back(settings.model_copy(update=limits)) as client:
        assert (await gauges(client))["views_backlog_fill"] == 0
        for page, times, fill in (("home", 3, 0.3), ("docs", 5, 0.5), (long, 1, (len(long) + len('{"":1}')) / 1000)):
            for _ in range(times):
                assert (await client.post(f"/page-views/{page}")).status_code == 202
            assert (await gauges(client))["views_backlog_fill"] == pytest.approx(fill)


async def test_flushed_views_add_nothing_to_the_backlog(client: httpx.AsyncClient) -> None:
    await client.post("/page-views/home", json={"count": 40})

    async def is_empty() -> bool:
        return bool((await status_of(client))["backlog"] == 0)

    await eventually(is_empty)
    told = await gauges(client)
    assert told["views_backlog_bytes"] == told["views_backlog"] == told["views_at_risk"] == 0
    assert (told["views_accepted_total"], told["views_flushed_total"]) == (40, 40)


async def test_views_that_redis_lost_and_a_process_still_has_are_reported_as_recovered(
    settings: Settings, redis: Redis, sql: asyncpg.Connection
) -> None:
    async with holding_back(settings) as client:
        await client.post("/page-views/home", json={"count": 40})
        await redis.flushdb()

        async def is_recovered() -> bool:
            return bool((await status_of(client))["recovered"])

        await eventually(is_recovered)
        status = await status_of(client)
        assert (status["recovered"], status["lost"], status["backlog"]) == (40, 0, 40)
        told = await gauges(client)
        assert (told["views_recovered_total"], told["views_lost_total"], told["views_backlog"]) == (40, 0, 40)
    assert await sql.fetchval("SELECT views FROM page_views WHERE page = 'home'") == 40


async def test_views_that_redis_lost_and_nobody_has_are_reported_as_lost(
    settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.caching.write_behind.receipts.KEPT", 0)
    monkeypatch.setattr(
        "app.caching.write_behind.recovery.IN_HAND", timedelta(0)
    )  # Without the wait for a flusher that may already have read the entry.
    async with holding_back(settings) as client:
        await client.post("/page-views/home", json={"count": 40})
        await redis.flushdb()

        async def is_lost() -> bool:
            return bool((await status_of(client))["lost"])

        await eventually(is_lost)
        status = await status_of(client)
        assert (status["recovered"], status["lost"], status["backlog"]) == (0, 40, 0)
        told = await gauges(client)
        assert (told["views_recovered_total"], told["views_lost_total"]) == (0, 40)


async def test_dead_letters_and_their_views_are_reported(client: httpx.AsyncClient, sql: asyncpg.Connection) -> None:
    await sql.execute("ALTER TABLE page_views ADD CONSTRAINT refused CHECK (page <> 'home')")
    try:
        await client.post("/page-views", json={"views": [{"page": "home", "count": 40}, {"page": "news", "count": 2}]})

        async def is_told() -> bool:
            return bool((await status_of(client))["dead_letters"] == 1 and not (await status_of(client))["backlog"])

        await eventually(is_told)
    finally:
        await sql.execute("ALTER TABLE page_views DROP CONSTRAINT refused")
    told = await gauges(client)
    # Dead views do not count as flushed.
    assert (told["dead_letters"], told["views_dead_total"], told["views_flushed_total"]) == (1, 40, 2)
    assert (await client.post("/write-behind/dead-letters/1/replay")).status_code == 200
    assert ((await gauges(client))["dead_letters"], (await status_of(client))["dead_letters"]) == (0, 0)


@pytest.mark.parametrize(
    ("store", "url"), [("redis", "redis://127.0.0.1:{}"), ("postgres", "postgresql://postgres@127.0.0.1:{}/postgres")]
)
async def test_without_one_store_the_metrics_still_have_those_of_the_other(
    settings: Settings, store: str, url: str
) -> None:
    name = "redis_url" if store == "redis" else "database_url"
    async with holding_back(settings.model_copy(update={name: url.format(free_port())})) as client:
        told = await gauges(client)
    of_redis = {"views_backlog", "views_backlog_bytes", "views_backlog_oldest_seconds", "views_at_risk"}
    of_postgres = {"dead_letters"}
    # An unknown number is left out: 0 would say that all is well.
    expected = of_postgres if store == "redis" else of_redis
    assert (of_redis | of_postgres) & set(told) == expected
    assert {"views_accepted_total", "views_lost_total", "views_recovered_total", "breaker_open"} < set(told)


async def test_metrics_are_in_the_format_of_prometheus(client: httpx.AsyncClient, rows: Contents) -> None:
    for _ in range(2):
        await client.get("/users/1")
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, sample.labels.get("resource"), sample.labels.get("event")): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["fourways_cache_events_total", "users", "hit"] == 1
    assert samples["fourways_cache_events_total", "users", "stored"] == 1
    assert samples["fourways_database_queries_total", "users", None] == 1
    assert samples["fourways_load_seconds_count", "users", None] == 1


async def test_a_process_is_alive_even_without_its_stores(settings: Settings) -> None:
    settings = settings.model_copy(
        update={
            "redis_url": f"redis://127.0.0.1:{free_port()}",
            "database_url": f"postgresql://postgres@127.0.0.1:{free_port()}/postgres",
        }
    )
    async with application(settings) as client:
        alive = await client.get("/health/live")
        assert (alive.status_code, alive.json()) == (200, {"status": "alive"})
        for path in ("/", "/docs", "/openapi.json", "/strategies", "/metrics"):
            assert (await client.get(path)).status_code == 200
