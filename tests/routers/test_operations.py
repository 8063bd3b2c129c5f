"""What an operator asks."""

import re
from datetime import timedelta
from html.parser import HTMLParser
from urllib.parse import urljoin

import asyncpg
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.demo import add_demo_data
from app.embedded import Endpoints
from app.main import create_app
from app.schema import Schema
from app.settings import Settings
from tests.eventually import eventually
from tests.routers.conftest import Contents
from tests.service import free_port


class References(HTMLParser):
    """What an HTML page loads and links to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href") and value is not None:
                (self.links if tag == "a" else self.loads).append(value)


async def test_the_first_page_needs_nothing_else_and_its_links_work_on_the_demo_data(
    client: httpx.AsyncClient, endpoints: Endpoints
) -> None:
    await add_demo_data(endpoints.database_url)
    page = await client.get("/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    found = References(page.text)
    assert found.loads == []
    assert len(found.links) > 5
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
    # And what the assets load themselves.
    css = (await client.get("/docs/assets/swagger-ui.css")).text
    for named in re.findall(r"(?:url\(|@import\s*)[\"']?([^\"')\s]+)", css):
        assert named.startswith("data:") or (await client.get(urljoin("/docs/assets/", named))).status_code == 200
    assert "/openapi.json" in page.text


async def test_the_strategies_are_told_apart_and_counted(client: httpx.AsyncClient, rows: Contents) -> None:
    for _ in range(4):
        await client.get("/users/1")
    await client.get("/products?sku=KETTLE-1&sku=NONE")
    users, products = (await client.get("/strategies")).json()
    assert (users["name"], users["resource"]) == ("cache-aside", "/users")
    assert (products["name"], products["resource"]) == ("read-through", "/products")
    for strategy in (users, products):
        assert {"reads_from", "writes_to", "staleness", "write_latency", "use_when", "avoid_when", "never_for"} <= {
            field for field, value in strategy.items() if value
        }
    assert users["live"] == {
        "hits": 3,
        "misses": 1,
        "collapsed": 0,
        "stale": 0,
        "bypassed": 0,
        "refused_fills": 0,
        "database_queries": 1,
        "hit_ratio": 0.75,
    }
    assert (products["live"]["misses"], products["live"]["database_queries"]) == (2, 1)


async def test_a_strategy_that_has_not_been_read_has_no_hit_ratio(client: httpx.AsyncClient) -> None:
    for strategy in (await client.get("/strategies")).json():
        assert strategy["live"]["hit_ratio"] is None


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


async def test_a_process_is_alive_whatever_its_stores_do(settings: Settings) -> None:
    settings = settings.model_copy(
        update={
            "redis_url": f"redis://127.0.0.1:{free_port()}",
            "database_url": f"postgresql://postgres@127.0.0.1:{free_port()}/postgres",
        }
    )
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://fourways") as client,
    ):
        alive = await client.get("/health/live")
        assert (alive.status_code, alive.json()) == (200, {"status": "alive"})
        for path in ("/", "/docs", "/openapi.json", "/strategies", "/metrics"):
            assert (await client.get(path)).status_code == 200


async def test_a_service_whose_parts_all_work_is_ready(client: httpx.AsyncClient) -> None:
    async def is_ready() -> bool:
        return bool((await client.get("/health/ready")).json()["status"] == "ready")

    await eventually(is_ready)
    answer = await client.get("/health/ready")
    assert (answer.status_code, answer.json()) == (
        200,
        {"status": "ready", "parts": {"redis": "ok", "postgres": "ok", "schema": Schema.CURRENT, "relay": "ok"}},
    )


@pytest.mark.parametrize(
    ("store", "url"), [("redis", "redis://127.0.0.1:{}"), ("postgres", "postgresql://postgres@127.0.0.1:{}/postgres")]
)
async def test_a_store_that_is_down_is_named_and_is_no_reason_to_take_the_instance_away(
    settings: Settings, store: str, url: str
) -> None:
    name = "redis_url" if store == "redis" else "database_url"
    settings = settings.model_copy(update={name: url.format(free_port()), "redis_timeout": timedelta(seconds=0.2)})
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://fourways") as client,
    ):
        answer = await client.get("/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["parts"][store] == "does not answer"


async def test_a_missing_migration_makes_the_instance_unready(
    client: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    version = await sql.fetchval("SELECT version_num FROM alembic_version")
    await sql.execute("DELETE FROM alembic_version")
    try:
        answer = await client.get("/health/ready")
        assert (answer.status_code, answer.json()["status"], answer.json()["parts"]["schema"]) == (
            503,
            "unready",
            Schema.OLDER,
        )
        await sql.execute("INSERT INTO alembic_version VALUES ('9999')")
        answer = await client.get("/health/ready")
        assert (answer.status_code, answer.json()["status"], answer.json()["parts"]["schema"]) == (
            200,
            "degraded",
            Schema.NEWER,
        )
    finally:
        await sql.execute("DELETE FROM alembic_version")
        await sql.execute("INSERT INTO alembic_version VALUES ($1)", version)
