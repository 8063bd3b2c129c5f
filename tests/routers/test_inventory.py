"""Inventory over HTTP."""

import asyncio
from datetime import datetime, timedelta

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from app.settings import Settings
from tests.eventually import eventually
from tests.faults.postgres_wire import PostgresWire
from tests.in_process import application
from tests.outages.instance import all_told
from tests.routers.conftest import Contents, contents
from tests.routers.test_products import SKUS
from tests.service import Service, free_port

LARGEST = 2**53 - 1
LOCK = "SELECT pg_advisory_xact_lock(stock_lock($1))"


async def put(client: httpx.AsyncClient, sku: str, quantity: int, **headers: str) -> httpx.Response:
    """Sets the quantity. The name of a header has an underscore for each hyphen."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.put(f"/inventory/{sku}", json={"quantity": quantity}, headers=named)


async def adjust(client: httpx.AsyncClient, sku: str, delta: int, key: str | None = None) -> httpx.Response:
    """Adds or removes pieces."""
    headers = {} if key is None else {"Idempotency-Key": key}
    return await client.post(f"/inventory/{sku}/adjustments", json={"delta": delta}, headers=headers)


async def quantity(client: httpx.AsyncClient, sku: str = "A") -> int:
    """Reads the quantity."""
    answer = await client.get(f"/inventory/{sku}")
    assert answer.status_code == 200, answer.text
    return int(answer.json()["quantity"])


def encoded(sku: str) -> str:
    """Returns a sku with every byte percent-encoded."""
    return "".join(f"%{byte:02X}" for byte in sku.encode())


async def waits_for_a_lock(sql: asyncpg.Connection) -> None:
    """Waits until a session waits for an advisory lock."""

    async def somebody() -> bool:
        query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        return int(await sql.fetchval(query)) > 0

    await eventually(somebody)


async def test_stock_is_created_read_changed_and_removed(client: httpx.AsyncClient) -> None:
    created = await put(client, "KETTLE-1", 30)
    assert (created.status_code, created.headers["location"]) == (201, "/inventory/KETTLE-1")
    assert created.headers["etag"].startswith(f'"{created.json()["version"]}-')

    read = await client.get("/inventory/KETTLE-1")
    assert (read.status_code, read.json(), read.headers["etag"]) == (200, created.json(), created.headers["etag"])

    changed = await put(client, "KETTLE-1", 29)
    assert (changed.status_code, changed.json()["quantity"]) == (200, 29)
    assert "location" not in changed.headers
    assert changed.json()["version"] > created.json()["version"]
    assert changed.headers["etag"].startswith(f'"{changed.json()["version"]}-')
    assert (await client.get("/inventory/KETTLE-1")).json() == changed.json()

    adjusted = await adjust(client, "KETTLE-1", -2)
    assert (adjusted.status_code, adjusted.json()["quantity"]) == (200, 27)
    read = await client.get("/inventory/KETTLE-1")
    assert (read.json(), read.headers["etag"]) == (adjusted.json(), adjusted.headers["etag"])
    assert adjusted.headers["etag"] != changed.headers["etag"]

    removed = await client.delete("/inventory/KETTLE-1")
    assert (removed.status_code, removed.content) == (204, b"")
    for call in (client.get("/inventory/KETTLE-1"), client.delete("/inventory/KETTLE-1")):
        missing = await call
        assert (missing.status_code, missing.json()["detail"]) == (404, "There is no stock of KETTLE-1.")
    assert (await put(client, "KETTLE-1", 1)).status_code == 201


async def test_stock_has_exactly_these_fields(client: httpx.AsyncClient) -> None:
    answers = [await put(client, "A", 30), await put(client, "A", 30), await adjust(client, "A", 1, "key")]
    answers += [await adjust(client, "A", 1, "key"), await client.get("/inventory/A")]
    for answer in answers:
        assert list(answer.json()) == ["sku", "quantity", "version", "updated_at"]
        assert datetime.fromisoformat(answer.json()["updated_at"]).tzinfo is not None


async def test_stock_needs_no_product(client: httpx.AsyncClient) -> None:
    assert (await put(client, "NO-SUCH-PRODUCT", 1)).status_code == 201
    assert (await client.get("/products/NO-SUCH-PRODUCT")).status_code == 404


@pytest.mark.parametrize("number", [0, 1, LARGEST])
async def test_the_limits_of_a_quantity_are_accepted(client: httpx.AsyncClient, number: int) -> None:
    assert (await put(client, "A", number)).json()["quantity"] == number
    assert [await quantity(client) for _ in range(2)] == [number, number]


async def test_if_none_match_star_creates_stock_only_if_there_is_none(client: httpx.AsyncClient) -> None:
    for star in ("*", " * "):
        assert (await put(client, "A", 30, If_None_Match=star)).status_code == 201
        again = await put(client, "A", 31, If_None_Match=star)
        assert (again.status_code, again.json()["type"]) == (412, "precondition-failed")
        assert again.json()["detail"] == "There is stock of A already."
        assert await quantity(client) == 30
        await client.delete("/inventory/A")


async def test_only_one_of_many_conditional_creations_succeeds(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(put(client, "A", number, If_None_Match="*") for number in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [412] * 7
    (created,) = (answer.json() for answer in answers if answer.status_code == 201)
    assert (await client.get("/inventory/A")).json() == created


async def test_only_one_of_many_concurrent_puts_creates_the_stock(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(put(client, "A", number) for number in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]


@pytest.mark.parametrize("tags", ["{tag}", '"1000000", {tag}', '{tag},W/"1"', "*", ' "x" ,, {tag}'])
async def test_a_change_of_the_expected_version_is_made(client: httpx.AsyncClient, tags: str) -> None:
    tag = (await put(client, "A", 30)).headers["etag"]
    changed = await put(client, "A", 31, If_Match=tags.format(tag=tag))
    assert (changed.status_code, changed.json()["quantity"]) == (200, 31)
    headers = {"If-Match": tags.format(tag=changed.headers["etag"])}
    assert (await client.delete("/inventory/A", headers=headers)).status_code == 204


@pytest.mark.parametrize("tags", ['"1000000"', '"x"', '""', '"0"', '"9223372036854775808"', '"0{version}"'])
async def test_a_change_of_another_version_is_refused(
    client: httpx.AsyncClient, sql: asyncpg.Connection, rows: Contents, tags: str
) -> None:
    stock = await client.get("/inventory/KETTLE-1")
    version = stock.json()["version"]
    tags = tags.format(tag=stock.headers["etag"], version=version)
    for answer in (
        await put(client, "KETTLE-1", 1, If_Match=tags),
        await client.delete("/inventory/KETTLE-1", headers={"If-Match": tags}),
    ):
        assert (answer.status_code, answer.json()["type"]) == (412, "precondition-failed")
        assert answer.json()["detail"] == (
            f"The stock of KETTLE-1 is in version {version}, which If-Match does not name."
        )
    assert await contents(sql) == rows
    assert (await client.get("/inventory/KETTLE-1")).json() == stock.json()


async def test_a_weak_tag_never_matches_if_match(
    client: httpx.AsyncClient, sql: asyncpg.Connection, rows: Contents
) -> None:
    stock = await client.get("/inventory/KETTLE-1")
    weak = "W/" + stock.headers["etag"]
    for answer in (
        await put(client, "KETTLE-1", 1, If_Match=weak),
        await client.delete("/inventory/KETTLE-1", headers={"If-Match": weak}),
    ):
        assert answer.status_code == 412
        assert answer.json()["detail"] == (
            f"The stock of KETTLE-1 is in version {stock.json()['version']}, which If-Match names with a weak tag, "
            f"{weak}, and a weak one never matches. Probably a proxy has weakened it when it compressed the answer: "
            "read again with `Accept-Encoding: identity`, and send the tag of that answer; or let the proxy not "
            "compress."
        )
    assert await contents(sql) == rows


@pytest.mark.parametrize("tags", ["*", '"1"', 'W/"1"', '"x"'])
async def test_if_match_never_creates_missing_stock(
    client: httpx.AsyncClient, sql: asyncpg.Connection, tags: str
) -> None:
    for answer in (
        await put(client, "A", 1, If_Match=tags),
        await put(client, "A", 1, If_Match=tags, If_None_Match="*"),
        await client.delete("/inventory/A", headers={"If-Match": tags}),
    ):
        assert (answer.status_code, answer.json()["detail"]) == (404, "There is no stock of A.")
    assert await sql.fetchval("SELECT count(*) FROM stock") == 0


@pytest.mark.parametrize("tags", ["*", "{tag}"])
async def test_contradictory_preconditions_are_refused(client: httpx.AsyncClient, tags: str) -> None:
    tag = (await put(client, "A", 30)).headers["etag"]
    both = await put(client, "A", 31, If_Match=tags.format(tag=tag), If_None_Match="*")
    assert both.status_code == 412
    assert await quantity(client) == 30


async def test_only_one_of_several_changes_of_one_version_is_made(client: httpx.AsyncClient) -> None:
    tag = (await put(client, "A", 30)).headers["etag"]
    answers = await asyncio.gather(*(put(client, "A", number, If_Match=tag) for number in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7


async def test_stock_never_goes_below_zero(client: httpx.AsyncClient, sql: asyncpg.Connection) -> None:
    await put(client, "A", 3)
    refused = await adjust(client, "A", -5)
    assert refused.headers["content-type"] == "application/problem+json"
    assert (refused.status_code, refused.json()) == (
        409,
        {
            "type": "out-of-stock",
            "title": "Conflict",
            "status": 409,
            "detail": "Only 3 of A are left, and 5 were asked for.",
            "available": 3,
            "requested": 5,
        },
    )
    assert await quantity(client) == 3
    assert (await adjust(client, "A", -3)).json()["quantity"] == 0
    refused = await adjust(client, "A", -LARGEST)
    assert (refused.status_code, refused.json()["available"], refused.json()["requested"]) == (409, 0, LARGEST)
    assert await quantity(client) == 0
    assert await sql.fetchval("SELECT quantity FROM stock") == 0


async def test_stock_never_exceeds_the_largest_countable_number(client: httpx.AsyncClient) -> None:
    await put(client, "A", 1)
    assert (await adjust(client, "A", LARGEST - 1)).json()["quantity"] == LARGEST
    for delta in (1, LARGEST):
        refused = await adjust(client, "A", delta)
        assert (refused.status_code, refused.json()["type"]) == (422, "too-much")
        assert refused.json()["detail"] == f"There are {LARGEST} of A; {delta} more are too many to count."
    assert await quantity(client) == LARGEST
    assert (await adjust(client, "A", -LARGEST)).json()["quantity"] == 0


async def test_stock_that_does_not_exist_cannot_be_adjusted(client: httpx.AsyncClient, sql: asyncpg.Connection) -> None:
    for key in (None, "key"):
        answer = await adjust(client, "A", 1, key)
        assert (answer.status_code, answer.json()["detail"]) == (404, "There is no stock of A.")
    assert await sql.fetchval("SELECT count(*) FROM stock_adjustments") == 0


async def test_a_retry_returns_the_answer_of_the_first_call(client: httpx.AsyncClient, sql: asyncpg.Connection) -> None:
    await put(client, "A", 30)
    first = await adjust(client, "A", -2, "order-1")
    await adjust(client, "A", -3, "order-2")
    again = await adjust(client, "A", -2, "order-1")
    assert (first.status_code, first.json()["quantity"]) == (200, 28)
    assert (again.status_code, again.content) == (200, first.content)
    assert "etag" not in again.headers, "Nobody knows in which epoch it was made."
    # The old answer does not replace the cached value.
    assert [await quantity(client) for _ in range(2)] == [25, 25]
    assert await sql.fetchval("SELECT quantity FROM stock") == 25


async def test_concurrent_retries_are_one_adjustment(three_workers: Service, sql: asyncpg.Connection) -> None:
    async with three_workers.client() as client:
        await put(client, "A", 30)
        answers = await asyncio.gather(*(adjust(client, "A", -2, "order-1") for _ in range(20)))
        assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
        assert answers[0].json()["quantity"] == 28
        assert await quantity(client) == 28
    assert await sql.fetchval("SELECT count(*) FROM stock_adjustments") == 1


async def test_one_key_cannot_be_used_for_two_deltas(client: httpx.AsyncClient) -> None:
    await put(client, "A", 30)
    await adjust(client, "A", -2, "order-1")
    for delta in (-3, 2, -30, LARGEST):
        refused = await adjust(client, "A", delta, "order-1")
        assert (refused.status_code, refused.json()["type"]) == (422, "key-reused")
        assert refused.json()["detail"] == f"The key order-1 was used for -2 of A, and not {delta:+}."
    assert await quantity(client) == 28


async def test_a_refusal_is_not_remembered(client: httpx.AsyncClient, sql: asyncpg.Connection) -> None:
    await put(client, "A", 3)
    assert (await adjust(client, "A", -5, "order-1")).status_code == 409
    assert (await adjust(client, "A", LARGEST, "order-1")).status_code == 422
    assert (await adjust(client, "B", -5, "order-1")).status_code == 404
    assert await sql.fetchval("SELECT count(*) FROM stock_adjustments") == 0
    await put(client, "A", 7)
    assert (await adjust(client, "A", -5, "order-1")).json()["quantity"] == 2


async def test_a_key_belongs_to_its_sku(client: httpx.AsyncClient) -> None:
    for sku in ("A", "B", "a"):
        await put(client, sku, 30)
    assert (await adjust(client, "A", -1, "order-1")).json()["quantity"] == 29
    assert (await adjust(client, "B", -2, "order-1")).json()["quantity"] == 28
    assert (await adjust(client, "a", -3, "order-1")).json()["quantity"] == 27
    assert (await adjust(client, "A", -1, "ORDER-1")).json()["quantity"] == 28


@pytest.mark.parametrize("key", ["1", "x" * 255, "!~", '"quoted"', "a,b;c=d", "%00", "';--"])
async def test_any_visible_ascii_is_a_key(client: httpx.AsyncClient, key: str) -> None:
    await put(client, "A", 30)
    answers = [await adjust(client, "A", -1, key) for _ in range(2)]
    assert [answer.json()["quantity"] for answer in answers] == [29, 29]


@pytest.mark.parametrize(
    "sku", [*SKUS, "A/adjustments", "adjustments", "/adjustments", "A/adjustments/adjustments", "A/adjustments/", "%0A"]
)
async def test_the_location_of_any_sku_leads_to_its_stock(client: httpx.AsyncClient, sku: str) -> None:
    location = (await client.put(f"/inventory/{encoded(sku)}", json={"quantity": 30})).headers["location"]
    assert location.isascii()
    assert "/" not in location.removeprefix("/inventory/")
    for _ in range(2):  # From the database, and then from the cache.
        assert (await client.get(location)).json()["sku"] == sku
    adjusted = await client.post(f"{location}/adjustments", json={"delta": -1}, headers={"Idempotency-Key": "k"})
    assert (adjusted.json()["sku"], adjusted.json()["quantity"]) == (sku, 29)
    assert (await client.get(location)).json() == adjusted.json()
    assert (await client.delete(location)).status_code == 204
    assert (await client.get(location)).status_code == 404


async def test_the_location_of_any_sku_leads_to_its_stock_over_real_uvicorn(service: Service) -> None:
    async with service.client() as client:
        for sku in [*SKUS, "A/adjustments", "%0A"]:
            location = (await client.put(f"/inventory/{encoded(sku)}", json={"quantity": 30})).headers["location"]
            assert (await client.get(location)).json()["sku"] == sku
            assert (await adjust(client, encoded(sku), -1)).json()["sku"] == sku


async def test_a_slash_in_a_sku_need_not_be_encoded(client: httpx.AsyncClient) -> None:
    await put(client, "CUP-1/SAUCER", 30)
    await put(client, "CUP-1/SAUCER/adjustments", 7)
    assert (await adjust(client, "CUP-1/SAUCER", -1)).json()["sku"] == "CUP-1/SAUCER"
    assert (await adjust(client, "CUP-1/SAUCER/adjustments", -1)).json()["sku"] == "CUP-1/SAUCER/adjustments"
    assert (await quantity(client, "CUP-1/SAUCER"), await quantity(client, "CUP-1%2FSAUCER/adjustments")) == (29, 6)


async def test_skus_that_differ_in_case_or_in_their_end_are_different(client: httpx.AsyncClient) -> None:
    skus = ["cup", "CUP", "Cup", "CUP/", "CUP//", "é", "e\N{COMBINING ACUTE ACCENT}"]
    for number, sku in enumerate(skus):
        assert (await put(client, encoded(sku), number)).status_code == 201
    assert [await quantity(client, encoded(sku)) for sku in skus] == list(range(len(skus)))


async def test_a_line_break_in_a_sku_is_refused(client: httpx.AsyncClient) -> None:
    await put(client, "CUP", 30)
    for sku in ("CUP%0A", "CUP%0A%0A", "CU%0AP", "%0ACUP"):
        for answer in (
            await client.get(f"/inventory/{sku}"),
            await put(client, sku, 1),
            await adjust(client, sku, 1),
            await client.delete(f"/inventory/{sku}"),
        ):
            assert (answer.status_code, answer.json()["errors"][0]["where"]) == (422, "path.sku")
    behind = await client.post("/inventory/CUP/adjustments%0A", json={"delta": 1})
    assert (behind.status_code, behind.headers["allow"]) == (405, "GET, PUT, DELETE, HEAD")
    assert await quantity(client, "CUP") == 30


async def test_a_read_after_a_write_is_a_hit(client: httpx.AsyncClient, settings: Settings, rows: Contents) -> None:
    miss, hit = [await client.get("/inventory/KETTLE-1") for _ in range(2)]
    assert miss.headers["cache-status"] == "write-through; fwd=miss; stored"
    assert miss.content == hit.content
    await put(client, "KETTLE-1", 29)
    for answer in (hit, await client.get("/inventory/KETTLE-1")):
        name, outcome, ttl = answer.headers["cache-status"].split("; ")
        assert (name, outcome) == ("write-through", "hit")
        longest = settings.inventory_ttl // timedelta(seconds=1)
        assert (
            longest * 0.8 < int(ttl.removeprefix("ttl=")) <= longest
        )  # Less up to a tenth, and less the time of the test.


async def test_missing_stock_is_cached_too(client: httpx.AsyncClient) -> None:
    miss, hit = [await client.get("/inventory/A") for _ in range(2)]
    assert (miss.status_code, miss.headers["cache-status"]) == (404, "write-through; fwd=miss; stored")
    assert (hit.status_code, hit.headers["cache-status"].rpartition("=")[0]) == (404, "write-through; hit; ttl")
    await put(client, "A", 1)
    assert await quantity(client) == 1
    await client.delete("/inventory/A")
    gone = await client.get("/inventory/A")
    assert (gone.status_code, gone.headers["cache-status"].rpartition("=")[0]) == (404, "write-through; hit; ttl")


async def test_readers_of_one_cold_key_share_a_load(client: httpx.AsyncClient, rows: Contents) -> None:
    answers = await asyncio.gather(*(client.get("/inventory/KETTLE-1") for _ in range(20)))
    told = sorted(answer.headers["cache-status"] for answer in answers)
    assert told.count("write-through; fwd=miss; stored") == 1
    assert told.count("write-through; fwd=miss; collapsed") == 19
    assert len({answer.content for answer in answers}) == 1


async def test_during_a_write_the_database_answers_and_nothing_is_cached(
    client: httpx.AsyncClient, sql: asyncpg.Connection, redis: Redis, rows: Contents
) -> None:
    async with sql.transaction():
        await sql.execute(LOCK, "KETTLE-1")
        await sql.execute("UPDATE stock SET quantity = 29")
        for _ in range(2):
            answer = await client.get("/inventory/KETTLE-1")
            assert (answer.status_code, answer.json()["quantity"]) == (200, 30)
            assert answer.headers["cache-status"] == "write-through; fwd=bypass; detail=locked"
            tag = {"If-None-Match": answer.headers["etag"]}
            unchanged = await client.get("/inventory/KETTLE-1", headers=tag)
            assert unchanged.status_code == 304
            assert unchanged.headers["cache-status"] == "write-through; fwd=bypass; detail=locked"
        assert not await redis.exists("stock:{KETTLE-1}")
        missing = await client.get("/inventory/A")
        assert missing.headers["cache-status"] == "write-through; fwd=miss; stored"  # Each SKU has its own lock.
    assert await quantity(client, "KETTLE-1") == 29


@pytest.mark.parametrize("tags", ["{tag}", "W/{tag}", '"1000000", {tag}', "*", " * "])
async def test_a_client_with_the_current_version_gets_304(client: httpx.AsyncClient, tags: str) -> None:
    tag = (await put(client, "A", 30)).headers["etag"]
    answer = await client.get("/inventory/A", headers={"If-None-Match": tags.format(tag=tag)})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert answer.headers["cache-status"].startswith("write-through; hit; ttl=")
    changed = (await adjust(client, "A", -1)).headers["etag"]
    answer = await client.get("/inventory/A", headers={"If-None-Match": tag})
    assert (answer.status_code, answer.headers["etag"]) == (200, changed)


async def test_head_is_a_get_without_its_body(service: Service) -> None:
    async with service.client() as client:
        await put(client, "A", 30)
        get, head = await client.get("/inventory/A"), await client.head("/inventory/A")
        assert (head.status_code, head.content) == (200, b"")
        assert [head.headers[name] for name in ("etag", "content-length", "content-type")] == [
            get.headers[name] for name in ("etag", "content-length", "content-type")
        ]
        assert head.headers["cache-status"].startswith("write-through; hit")
        assert (await client.head("/inventory/B")).status_code == 404


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/inventory/A", "GET, PUT, DELETE, HEAD"),
        ("/inventory/A/B", "GET, PUT, DELETE, HEAD"),
        ("/inventory/A/adjustments", "GET, POST, PUT, DELETE, HEAD"),
    ],
)
async def test_a_405_lists_the_allowed_methods(client: httpx.AsyncClient, path: str, allowed: str) -> None:
    for method in {"POST", "PATCH", "OPTIONS", "TRACE"} - {*allowed.split(", ")}:
        answer = await client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


async def test_without_redis_nothing_is_saved_and_reads_continue(
    settings: Settings, sql: asyncpg.Connection, rows: Contents
) -> None:
    settings = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}"})
    async with application(settings) as client:
        for answer in (
            await put(client, "KETTLE-1", 1),
            await put(client, "NEW", 1),
            await put(client, "NEW", 1, If_None_Match="*"),
            await adjust(client, "KETTLE-1", -1),
            await adjust(client, "KETTLE-1", -1, "order-1"),
            await client.delete("/inventory/KETTLE-1"),
        ):
            assert (answer.status_code, answer.json()["type"]) == (503, "cache-unavailable")
            assert answer.headers["retry-after"] == "1"
        assert await contents(sql) == rows
        read = await client.get("/inventory/KETTLE-1")
        assert (read.status_code, read.json()["quantity"]) == (200, 30)
        assert read.headers["cache-status"] == "write-through; fwd=bypass; detail=cache-unavailable"
        assert (await client.get("/inventory/NEW")).status_code == 404


async def test_a_retry_is_answered_without_redis(settings: Settings, client: httpx.AsyncClient) -> None:
    await put(client, "A", 30)
    first = await adjust(client, "A", -1, "order-1")
    async with application(
        settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}"})
    ) as without_redis:
        again = await adjust(without_redis, "A", -1, "order-1")
    assert (again.status_code, again.content) == (200, first.content)


async def test_without_postgres_cached_stock_is_still_answered(
    settings: Settings, redis: Redis, sql: asyncpg.Connection
) -> None:
    assert settings.database_url is not None
    async with (
        PostgresWire(settings.database_url) as wire,
        application(settings.model_copy(update={"database_url": wire.url})) as client,
    ):
        await put(client, "A", 30)
        await all_told([wire], sql)
        wire.refuse()
        assert await quantity(client) == 30
        for answer in (await client.get("/inventory/B"), await put(client, "A", 1), await adjust(client, "A", 1)):
            assert (answer.status_code, answer.json()["type"]) == (503, "database-unavailable")
            assert answer.headers["retry-after"] == "1"
        assert await quantity(client) == 30


async def test_a_writer_that_waits_too_long_for_the_lock_saves_nothing(
    settings: Settings, sql: asyncpg.Connection, rows: Contents
) -> None:
    settings = settings.model_copy(update={"database_timeout": timedelta(seconds=0.3)})
    async with application(settings) as client:
        assert await quantity(client, "KETTLE-1") == 30
        async with sql.transaction():
            await sql.execute(LOCK, "KETTLE-1")
            for answer in await asyncio.gather(
                put(client, "KETTLE-1", 1),
                adjust(client, "KETTLE-1", -1, "order-1"),
                client.delete("/inventory/KETTLE-1"),
            ):
                assert (answer.status_code, answer.json()["type"]) == (503, "database-unavailable")
                assert answer.headers["retry-after"] == "1"
            # A writer that waits for the lock has not revoked the value yet.
            read = await client.get("/inventory/KETTLE-1")
            assert (read.json()["quantity"], read.headers["cache-status"].split("; ")[1]) == (30, "hit")
        assert await contents(sql) == rows
        assert (await adjust(client, "KETTLE-1", -1, "order-1")).json()["quantity"] == 29


async def test_a_writer_waits_for_another_writer_and_then_continues(
    client: httpx.AsyncClient, sql: asyncpg.Connection, rows: Contents
) -> None:
    async with sql.transaction():
        await sql.execute(LOCK, "KETTLE-1")
        writer = asyncio.create_task(adjust(client, "KETTLE-1", -1))
        await waits_for_a_lock(sql)
    assert (await writer).json()["quantity"] == 29


async def test_a_write_in_sql_shows_soon(client: httpx.AsyncClient, sql: asyncpg.Connection) -> None:
    await put(client, "A", 30)
    await sql.execute("UPDATE stock SET quantity = 31")

    async def shows() -> bool:
        return await quantity(client) == 31

    await eventually(shows)
