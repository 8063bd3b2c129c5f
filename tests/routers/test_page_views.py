"""Page views over HTTP."""

import asyncio
import json
from datetime import timedelta

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from app.caching.write_behind.batch_id import ulid
from app.caching.write_behind.shard import number, shards
from app.settings import Settings
from tests.caching.write_behind.views import HOME
from tests.eventually import eventually
from tests.in_process import application
from tests.routers.conftest import waiting
from tests.routers.wire import exchange, request
from tests.service import Service, free_port

NEARLY_TOO_MANY = 2**53 - 10
BESIDE_HOME = next(page for page in map(str, range(100)) if number(page) == HOME.number)
"""A page of the same shard."""

PAGES = [
    "home",
    "HOME",
    "home/",
    "home//",
    "/home",
    "/",
    "//",
    "docs/Intro.html",
    "a/../b",
    "a/./b",
    "...",
    "what?now=1&then",
    "?top=5",
    "100%",
    "%41",
    "%2F",
    "%00",
    "a#b",
    "a b",
    "a+b",
    " ",
    " home ",
    "\t",
    "home\n",
    "home\n\n",
    "\n",
    "a\r\nb",
    "\x01\x7f\x85",
    "grün",
    "茶",
    "\N{LATIN SMALL LETTER E WITH ACUTE}",
    "e\N{COMBINING ACUTE ACCENT}",
    "\\",
    '"quoted"',
    "{0}",
    "1",
    "null",
    "__proto__",
    "x" * 2048,
    "é" * 1024,
    "😀" * 512,
]


@pytest.fixture
def unflushed(settings: Settings) -> Settings:
    """Settings with which accepted views stay in Redis until the application ends."""
    return settings.model_copy(update={"flush_interval": timedelta(hours=1), "flush_views": 1_000_000})


@pytest.fixture
def without_postgres(settings: Settings) -> Settings:
    """Settings of an application that cannot reach Postgres."""
    return settings.model_copy(update={"database_url": f"postgresql://postgres@127.0.0.1:{free_port()}/postgres"})


@pytest.fixture
def without_redis(settings: Settings) -> Settings:
    """Settings of an application that cannot reach Redis."""
    return settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}"})


def encoded(page: str) -> str:
    """Returns a page with every byte percent-encoded."""
    return "".join(f"%{byte:02X}" for byte in page.encode())


async def view(client: httpx.AsyncClient, page: str, count: int | None = None, key: str | None = None) -> int | None:
    """Adds views of a page, and returns its total."""
    headers = {} if key is None else {"Idempotency-Key": key}
    body = None if count is None else {"count": count}
    answer = await client.post(f"/page-views/{encoded(page)}", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    assert list(answer.json()) == ["page", "views"]
    assert answer.json()["page"] == page
    views: int | None = answer.json()["views"]
    return views


async def view_many(client: httpx.AsyncClient, *items: object, key: str | None = None) -> httpx.Response:
    """Adds views of many pages."""
    headers = {} if key is None else {"Idempotency-Key": key}
    return await client.post("/page-views", json={"views": items}, headers=headers)


async def total(client: httpx.AsyncClient, page: str) -> int:
    """Reads the views of a page."""
    answer = await client.get(f"/page-views/{encoded(page)}")
    assert (answer.status_code, answer.json()["page"]) == (200, page)
    return int(answer.json()["views"])


async def in_postgres(sql: asyncpg.Connection, expected: dict[str, int]) -> None:
    """Waits until Postgres has exactly these views, and checks that it never has more."""

    async def there() -> bool:
        found = {row["page"]: row["views"] for row in await sql.fetch("SELECT page, views FROM page_views")}
        assert all(views <= expected[page] for page, views in found.items())
        return found == expected

    await eventually(there)


async def test_a_view_is_counted_at_once_and_is_in_postgres_soon(
    client: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    assert await total(client, "home") == 0
    assert await view(client, "home") == 1
    assert await view(client, "home", 3) == 4
    assert await total(client, "home") == 4
    await in_postgres(sql, {"home": 4})
    assert await total(client, "home") == 4
    assert await view(client, "home") == 5
    await in_postgres(sql, {"home": 5})


async def test_an_unknown_page_has_0_views_and_a_read_writes_nothing(
    client: httpx.AsyncClient, sql: asyncpg.Connection, redis: Redis
) -> None:
    for _ in range(2):
        answer = await client.get("/page-views/nowhere")
        assert (answer.status_code, answer.json()) == (200, {"page": "nowhere", "views": 0})
        assert answer.headers["etag"] == '"0"'
    assert await waiting(redis) == []
    assert await sql.fetchval("SELECT count(*) FROM page_views") == 0


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}])
@pytest.mark.parametrize("body", [None, b""])
async def test_a_view_needs_no_body(client: httpx.AsyncClient, headers: dict[str, str], body: bytes | None) -> None:
    answer = await client.post("/page-views/home", content=body, headers=headers)
    assert (answer.status_code, answer.json()) == (202, {"page": "home", "views": 1})


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([], None),
        ([], b""),
        ([(b"Content-Type", b"application/json")], None),
        ([(b"Content-Type", b"application/json")], b""),
        ([(b"Content-Type", b"application/json")], b"null"),
        ([(b"Content-Type", b"application/json")], b"{}"),
        ([(b"Content-Type", b"application/json; charset=utf-8")], b'{"count": 1}'),
    ],
)
async def test_a_view_needs_no_body_over_real_uvicorn(
    service: Service, headers: list[tuple[bytes, bytes]], body: bytes | None
) -> None:
    answer = await exchange(service, request("POST", b"/page-views/home", headers, body))
    assert (answer.status, json.loads(answer.body)) == (202, {"page": "home", "views": 1})


async def test_an_empty_chunked_body_counts_as_no_body(service: Service) -> None:
    head = request("POST", b"/page-views/home", [(b"Transfer-Encoding", b"chunked")])
    answer = await exchange(service, head + b"0\r\n\r\n")
    assert (answer.status, json.loads(answer.body)["views"]) == (202, 1)


@pytest.mark.parametrize("count", [1, 1_000_000])
async def test_the_limits_of_a_count_are_accepted(client: httpx.AsyncClient, count: int) -> None:
    assert await view(client, "home", count) == count
    assert (await view_many(client, {"page": "home", "count": count})).json() == {"accepted": count}
    assert await total(client, "home") == 2 * count


async def test_any_page_is_kept_unchanged(client: httpx.AsyncClient, sql: asyncpg.Connection, redis: Redis) -> None:
    for count, page in enumerate(PAGES, 1):
        assert await view(client, page, count) == count
    assert [await total(client, page) for page in PAGES] == list(range(1, len(PAGES) + 1))
    assert (await view_many(client, *({"page": page} for page in PAGES))).json() == {"accepted": len(PAGES)}
    expected = {page: count + 1 for count, page in enumerate(PAGES, 1)}
    await in_postgres(sql, expected)
    # Without cached totals, the pages come from Postgres.
    async for cached in redis.scan_iter("views:*:total:*"):
        await redis.delete(cached)
    assert {page: await total(client, page) for page in PAGES} == expected


async def test_any_page_is_kept_unchanged_over_real_uvicorn(service: Service, sql: asyncpg.Connection) -> None:
    async with service.client() as client:
        for count, page in enumerate(PAGES, 1):
            assert await view(client, page, count) == count
    for target, page in ((b"/page-views/.", "."), (b"/page-views/..", ".."), (b"/page-views/a/../b", "a/../b")):
        answer = await exchange(service, request("POST", target, []))
        assert (answer.status, json.loads(answer.body)["page"]) == (202, page)
    expected = {page: count for count, page in enumerate(PAGES, 1)}
    await in_postgres(sql, expected | {".": 1, "..": 1, "a/../b": expected["a/../b"] + 1})


async def test_a_query_is_not_part_of_the_page(client: httpx.AsyncClient) -> None:
    for path in ("/page-views/Docs/Intro/", "/page-views/Docs/Intro/?utm=x", "/page-views/Docs%2FIntro%2f"):
        assert (await client.post(path)).json()["page"] == "Docs/Intro/"
    assert (await client.get("/page-views/Docs/Intro/?top=5")).json() == {"page": "Docs/Intro/", "views": 3}


async def test_pages_of_a_batch_are_added_up(client: httpx.AsyncClient, sql: asyncpg.Connection) -> None:
    answer = await view_many(
        client,
        {"page": "home"},
        {"page": "news", "count": 3},
        {"page": "home", "count": 1_000_000},
        {"page": "home", "count": 1},
        {"page": "HOME"},
    )
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1_000_006})
    assert [await total(client, page) for page in ("home", "news", "HOME")] == [1_000_002, 3, 1]
    await in_postgres(sql, {"home": 1_000_002, "news": 3, "HOME": 1})


async def test_a_batch_has_up_to_10000_pages(client: httpx.AsyncClient, sql: asyncpg.Connection) -> None:
    items = [{"page": f"page/{number}", "count": 1 + number % 3} for number in range(10_000)]
    answer = await view_many(client, *items)
    assert (answer.status_code, answer.json()) == (202, {"accepted": sum(1 + number % 3 for number in range(10_000))})
    await in_postgres(sql, {f"page/{number}": 1 + number % 3 for number in range(10_000)})


async def test_a_batch_may_name_one_page_10000_times(client: httpx.AsyncClient) -> None:
    items = [{"page": "home", "count": 1_000_000}] * 10_000
    assert (await view_many(client, *items)).json() == {"accepted": 10_000_000_000}
    assert await total(client, "home") == 10_000_000_000


async def test_concurrent_and_repeated_views_count_once_and_totals_never_go_back(
    three_workers: Service, sql: asyncpg.Connection
) -> None:
    async with three_workers.client() as client:

        async def visitor() -> None:
            before = 0
            for _ in range(10):
                await view(client, "home")
                now = await total(client, "home")
                assert now > before
                before = now

        await asyncio.gather(*(visitor() for _ in range(30)))
        assert await total(client, "home") == 300
        await in_postgres(sql, {"home": 300})
        assert await total(client, "home") == 300

        answers = await asyncio.gather(*(view(client, "news", 2, "visit-1") for _ in range(30)))
        assert set(answers) == {2}
        assert await total(client, "news") == 2
        await in_postgres(sql, {"home": 300, "news": 2})


async def test_a_retry_with_the_same_key_is_not_counted_twice(
    client: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    assert await view(client, "home", 3, "visit-1") == 3
    assert await view(client, "home", 3, "visit-1") == 3
    assert await view(client, "home", 3, "visit-2") == 6
    assert await view(client, "home", 3) == 9
    assert await view(client, "home", 3, "VISIT-1") == 12
    await in_postgres(sql, {"home": 12})


async def test_a_key_belongs_to_its_page_and_is_the_same_for_both_calls(client: httpx.AsyncClient) -> None:
    assert await view(client, "home", 1, "visit-1") == 1
    assert await view(client, "news", 1, "visit-1") == 1
    # The key was already used for one page of this batch, so only the other page is new. The call is accepted anyway.
    both = await view_many(client, {"page": "home", "count": 5}, {"page": "docs", "count": 7}, key="visit-1")
    assert (both.status_code, both.json()) == (202, {"accepted": 12})
    assert [await total(client, page) for page in ("home", "news", "docs")] == [1, 1, 7]
    again = await view_many(client, {"page": "home", "count": 5}, {"page": "docs", "count": 7}, key="visit-1")
    assert again.json() == {"accepted": 12}
    assert await view(client, "docs", 7, "visit-1") == 7
    # Page and key are never confused, wherever one ends and the other begins.
    assert await view(client, "a b", 1, "k") == 1
    assert await view(client, "b", 1, "k") == 1
    assert await view(client, "b", 1, "a") == 2


async def test_pages_that_come_twice_in_a_batch_with_a_key_are_added_up(client: httpx.AsyncClient) -> None:
    for _ in range(2):
        await view_many(client, {"page": "home"}, {"page": "home", "count": 2}, key="visit-1")
        assert await total(client, "home") == 3


@pytest.mark.parametrize("key", ["1", "x" * 255, "!~", '"quoted"', "a,b;c=d", "%00"])
async def test_any_visible_ascii_is_a_key(client: httpx.AsyncClient, key: str) -> None:
    assert [await view(client, "home", 1, key) for _ in range(2)] == [1, 1]
    assert (await view_many(client, {"page": "home"}, key=key)).status_code == 202
    assert await total(client, "home") == 1


async def test_a_key_is_kept_for_a_day(client: httpx.AsyncClient, redis: Redis) -> None:
    await view(client, "home", 1, "visit-1")
    await view_many(client, {"page": "news"}, key="visit-2")
    for pattern in ("views:*:key:*", "views:*:call:*"):
        (kept,) = [key async for key in redis.scan_iter(pattern)]
        assert 86_000_000 < await redis.pttl(kept) <= 86_400_000


async def test_when_the_memory_for_keys_is_used_up_only_views_with_new_keys_are_refused(settings: Settings) -> None:
    async with application(settings.model_copy(update={"keys_bytes": 4 * 300})) as client:
        assert await view(client, "home", 1, "visit-1") == 1
        answers = [
            await client.post("/page-views/home", headers={"Idempotency-Key": "visit-2"}),
            await view_many(client, {"page": "home"}, key="visit-3"),
        ]
        for answer in answers:
            assert (answer.status_code, answer.json()["type"]) == (503, "keys-full")
            assert answer.json()["detail"] == (
                "The idempotency keys of a day take 1,200 bytes; nothing with a new one is accepted."
            )
            assert answer.headers["retry-after"] == "1"
        assert await view(client, "home", 1, "visit-1") == 1
        assert await view(client, "home", 1) == 2
        assert (await view_many(client, {"page": "home"})).status_code == 202
        assert await total(client, "home") == 3


async def test_a_worn_out_key_is_a_client_error_that_names_the_limit(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later retry with this key would not help."""
    monkeypatch.setattr("app.caching.write_behind.acceptance.MOST_BATCHES", 1)
    assert (await view_many(client, {"page": "home"}, key="visit-1")).status_code == 202
    answer = await view_many(client, {"page": "home"}, {"page": BESIDE_HOME}, key="visit-1")
    assert (answer.status_code, answer.json()["type"]) == (422, "key-worn")
    assert answer.json()["detail"].startswith("The idempotency key visit-1 was used 1 times for keys that it was not")
    assert "retry-after" not in answer.headers
    assert (await view_many(client, {"page": "home"}, key="visit-1")).status_code == 202
    assert (await view_many(client, {"page": BESIDE_HOME}, key="visit-2")).status_code == 202
    assert [await total(client, page) for page in ("home", BESIDE_HOME)] == [1, 1]


async def test_an_unreadable_record_of_a_key_is_a_problem_that_names_the_key(
    client: httpx.AsyncClient, redis: Redis
) -> None:
    for name in (HOME.record("home", "visit-1"), HOME.call("visit-1")):
        await redis.rpush(name, "theirs")
        answers = [
            await client.post("/page-views/home", headers={"Idempotency-Key": "visit-1"}),
            await view_many(client, {"page": "home"}, key="visit-1"),
        ]
        await redis.delete(name)
        for answer in answers:
            assert (answer.status_code, answer.json()["type"]) == (500, "unreadable-key")
            assert f"the idempotency key visit-1 cannot be told: what Redis has as {name} is" in answer.json()["detail"]
    assert await view(client, "home", 1, "visit-1") == 1


async def test_pending_views_count_in_cached_and_in_cold_totals(
    unflushed: Settings, sql: asyncpg.Connection, redis: Redis
) -> None:
    await sql.execute("INSERT INTO page_views (page, views) VALUES ('home', 40)")
    async with application(unflushed) as client:
        assert await view(client, "home") == 41
        assert await view(client, "home") == 42
        assert await sql.fetchval("SELECT views FROM page_views") == 40
        cached = await client.get("/page-views/home")
        assert (cached.json()["views"], cached.headers["cache-status"]) == (42, "write-behind; hit")
        async for total in redis.scan_iter("views:*:total:*:home"):
            await redis.delete(total)
        cold = await client.get("/page-views/home")
        assert (cold.json()["views"], cold.headers["cache-status"]) == (42, "write-behind; fwd=miss; stored")
        assert (await client.get("/page-views/home")).headers["cache-status"] == "write-behind; hit"
        assert await sql.fetchval("SELECT views FROM page_views") == 40
    # The application flushes pending views when it ends.
    assert await sql.fetchval("SELECT views FROM page_views") == 42


async def test_the_tag_is_the_number_of_views(client: httpx.AsyncClient) -> None:
    await view(client, "home", 7)
    full = await client.get("/page-views/home")
    assert full.headers["etag"] == '"7"'
    for tags in ('"7"', 'W/"7"', '"1", "7"', "*", " * "):
        answer = await client.get("/page-views/home", headers={"If-None-Match": tags})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"7"')
        assert answer.headers["cache-status"] == "write-behind; hit"
    for tags in ('"8"', '"07"', '""', '"x"'):
        answer = await client.get("/page-views/home", headers={"If-None-Match": tags})
        assert (answer.status_code, answer.json()["views"]) == (200, 7)
    await view(client, "home")
    more = await client.get("/page-views/home", headers={"If-None-Match": '"7"'})
    assert (more.status_code, more.headers["etag"]) == (200, '"8"')


async def test_head_is_a_get_without_its_body(service: Service) -> None:
    async with service.client() as client:
        await view(client, "home", 7)
        head = await client.head("/page-views/home")
        assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", '"7"')
        assert head.headers["content-length"] == str(len((await client.get("/page-views/home")).content))
        assert head.headers["cache-status"] == "write-behind; hit"
        assert (await client.head("/page-views?top=1")).status_code == 200


@pytest.mark.parametrize("path", ["/page-views", "/page-views/home", "/page-views/home/", "/page-views/a/b"])
async def test_a_405_lists_the_allowed_methods(client: httpx.AsyncClient, path: str) -> None:
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        answer = await client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST, HEAD")


async def test_the_pages_with_the_most_views_come_first(client: httpx.AsyncClient, sql: asyncpg.Connection) -> None:
    assert (await client.get("/page-views")).json() == {"items": []}
    await sql.execute("INSERT INTO page_views SELECT 'page/' || n, n FROM generate_series(1, 250) AS n")
    await sql.execute("INSERT INTO page_views VALUES ('B', 250), ('a', 250)")
    first = (await client.get("/page-views?top=4")).json()["items"]
    # Pages with equal views are sorted by their bytes, whatever the collation of the database.
    assert first == [
        {"page": "B", "views": 250},
        {"page": "a", "views": 250},
        {"page": "page/250", "views": 250},
        {"page": "page/249", "views": 249},
    ]
    for query, count in (("", 20), ("?top=1", 1), ("?top=200", 200)):
        assert len((await client.get(f"/page-views{query}")).json()["items"]) == count
    assert "cache-status" not in (await client.get("/page-views")).headers


async def test_the_most_viewed_pages_come_from_postgres(unflushed: Settings, sql: asyncpg.Connection) -> None:
    await sql.execute("INSERT INTO page_views (page, views) VALUES ('home', 40)")
    async with application(unflushed) as client:
        await view(client, "home")
        await view(client, "news", 1_000)
        assert (await client.get("/page-views?top=20")).json() == {"items": [{"page": "home", "views": 40}]}


async def test_without_postgres_views_are_accepted_and_cached_totals_are_answered(
    settings: Settings, without_postgres: Settings, redis: Redis, sql: asyncpg.Connection
) -> None:
    async with application(settings) as client:
        await view(client, "home", 40)
        await in_postgres(sql, {"home": 40})
    async with application(without_postgres) as client:
        assert await view(client, "home", 2) == 42
        assert await total(client, "home") == 42
        assert await view(client, "cold", 7) is None
        assert (await view_many(client, {"page": "colder", "count": 3})).json() == {"accepted": 3}
        for path in ("/page-views/cold", "/page-views?top=20"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["type"]) == (503, "database-unavailable")
            assert answer.headers["retry-after"] == "1"
        assert len(await waiting(redis)) == 3
    async with application(settings) as client:
        assert [await total(client, page) for page in ("home", "cold", "colder")] == [42, 7, 3]


async def test_without_redis_no_view_is_accepted_and_no_total_is_guessed(
    without_redis: Settings, sql: asyncpg.Connection
) -> None:
    await sql.execute("INSERT INTO page_views (page, views) VALUES ('home', 40)")
    async with application(without_redis) as client:
        for answer in (
            await client.post("/page-views/home"),
            await client.post("/page-views/home", json={"count": 3}, headers={"Idempotency-Key": "visit-1"}),
            await view_many(client, {"page": "home"}, {"page": "news"}),
            await client.get("/page-views/home"),
            await client.get("/write-behind"),
        ):
            assert (answer.status_code, answer.json()["type"]) == (503, "cache-unavailable")
            assert answer.headers["retry-after"] == "1"
            assert "cache-status" not in answer.headers
        assert (await client.get("/page-views?top=1")).json() == {"items": [{"page": "home", "views": 40}]}


async def outstanding(redis: Redis, page: str, entries: int) -> None:
    """Adds that many pending entries to the shard of a page, each with one view of it."""
    stream = shards("views")[number(page)].stream
    async with redis.pipeline(transaction=False) as pipeline:
        for _ in range(entries):
            pipeline.xadd(stream, {"batch": ulid(1_800_000_000_000), "deltas": json.dumps({page: 1})})
        await pipeline.execute()


async def test_a_cold_total_behind_a_long_backlog_gets_a_503(without_postgres: Settings, redis: Redis) -> None:
    async with application(without_postgres) as client:
        await outstanding(redis, "home", 501)
        answer = await client.get("/page-views/home")
        assert (answer.status_code, answer.json()["type"], answer.headers["retry-after"]) == (503, "behind", "1")
        assert await view(client, "home") is None
        assert len(await waiting(redis)) == 502


async def test_a_full_backlog_accepts_no_more_views(without_postgres: Settings, redis: Redis) -> None:
    async with application(without_postgres) as client:
        await outstanding(redis, "home", 10_000)
        for answer in (await client.post("/page-views/home"), await view_many(client, {"page": "home"})):
            assert (answer.status_code, answer.json()["type"]) == (503, "backlog-full")
            assert answer.headers["retry-after"] == "1"
        assert len(await waiting(redis)) == 10_000


async def test_more_views_than_can_be_counted_are_refused(
    client: httpx.AsyncClient, sql: asyncpg.Connection, redis: Redis
) -> None:
    await sql.execute("INSERT INTO page_views (page, views) VALUES ('home', $1)", NEARLY_TOO_MANY)
    assert await total(client, "home") == NEARLY_TOO_MANY
    for answer in (
        await client.post("/page-views/home", json={"count": 100}),
        await view_many(client, {"page": "home", "count": 100}),
    ):
        assert (answer.status_code, answer.json()["type"]) == (422, "too-much")
        assert answer.json()["detail"] == "home would have a larger total than can be counted exactly."
    assert await waiting(redis) == []
    assert await view(client, "home") == NEARLY_TOO_MANY + 1
