"""Dead letters over HTTP: they are listed, replayed once their cause is gone, or discarded."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx
from redis.asyncio import Redis

from app.settings import Settings
from tests.eventually import PATIENCE, eventually
from tests.faults.postgres_wire import PostgresWire
from tests.in_process import application
from tests.service import free_port

LETTERS = "/write-behind/dead-letters"
BATCH = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
OUTBOX = r"\bFROM outbox\b"
ADDS = r"^\s*INSERT INTO page_views"
LONG_AGO = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
REFUSED = 'new row for relation "page_views" violates check constraint "refused"'


@asynccontextmanager
async def refusing(sql: asyncpg.Connection, page: str) -> AsyncIterator[None]:
    """Holds open a constraint by which Postgres refuses the views of a page."""
    await sql.execute(f"ALTER TABLE page_views ADD CONSTRAINT refused CHECK (page <> '{page}')")
    try:
        yield
    finally:
        await sql.execute("ALTER TABLE page_views DROP CONSTRAINT IF EXISTS refused")


async def dead(sql: asyncpg.Connection, page: str | None = "home", delta: int | None = 3) -> int:
    """Inserts a dead letter, and returns its id."""
    query = "INSERT INTO dead_letters (page, delta, reason, deliveries) VALUES ($1, $2, 'no reason', 1) RETURNING id"
    return int(await sql.fetchval(query, page, delta))


async def left(sql: asyncpg.Connection) -> list[int]:
    """Returns the ids of the remaining letters."""
    return [int(row["id"]) for row in await sql.fetch("SELECT id FROM dead_letters ORDER BY id")]


async def stored(sql: asyncpg.Connection, page: str = "home") -> int:
    """Returns the views of a page in Postgres."""
    return int(await sql.fetchval("SELECT coalesce((SELECT views FROM page_views WHERE page = $1), 0)", page))


async def total(client: httpx.AsyncClient, page: str = "home") -> tuple[int, str]:
    """Returns the views of a page, and the Cache-Status of the read."""
    answer = await client.get(f"/page-views/{page}")
    assert answer.status_code == 200, answer.text
    return answer.json()["views"], answer.headers["cache-status"]


async def test_the_list_is_empty_when_there_are_no_dead_letters(client: httpx.AsyncClient) -> None:
    answer = await client.get(LETTERS)
    assert (answer.status_code, answer.json()) == (200, {"items": [], "next": None})


async def test_a_letter_is_listed_with_all_its_fields(client: httpx.AsyncClient, sql: asyncpg.Connection) -> None:
    query = (
        "INSERT INTO dead_letters (page, delta, batch, entry, reason, deliveries, created_at) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7)"
    )
    await sql.execute(query, "docs/grün.html", 2**63 - 1, BATCH, None, "bigint out of range", 4, LONG_AGO)
    await sql.execute(query, None, None, "views:{0} 1-0", b'\xff\x00{\x1b"caf\xc3\xa9\\', "no batch", 1, LONG_AGO)
    known, unknown = (await client.get(LETTERS)).json()["items"]
    assert list(known) == ["id", "page", "delta", "batch", "entry", "reason", "deliveries", "created_at"]
    assert known == {
        "id": 1,
        "page": "docs/grün.html",
        "delta": 2**63 - 1,
        "batch": BATCH,
        "entry": None,
        "reason": "bigint out of range",
        "deliveries": 4,
        "created_at": "2025-01-02T03:04:05Z",
    }
    # ASCII is returned literally. Other bytes are escaped, because JSON could not represent them.
    assert unknown == {
        "id": 2,
        "page": None,
        "delta": None,
        "batch": "views:{0} 1-0",
        "entry": '\\xff\x00{\x1b"caf\\xc3\\xa9\\',
        "reason": "no batch",
        "deliveries": 1,
        "created_at": "2025-01-02T03:04:05Z",
    }


async def test_letters_are_listed_page_by_page_oldest_first(client: httpx.AsyncClient, sql: asyncpg.Connection) -> None:
    # The table has them in another order, and with a gap.
    for letter in (7, 5, 3, 4, 1):
        await sql.execute("INSERT INTO dead_letters (id, reason, deliveries) VALUES ($1, '', 1)", letter)
    seen, after = [], 0
    while after is not None:
        answer = (await client.get(f"{LETTERS}?limit=2&after={after}")).json()
        seen.append([item["id"] for item in answer["items"]])
        after = answer["next"]
    assert seen == [[1, 3], [4, 5], [7]]
    for query, ids, following in (
        ("", [1, 3, 4, 5, 7], None),
        ("?limit=5", [1, 3, 4, 5, 7], None),
        ("?limit=4", [1, 3, 4, 5], 5),
        ("?after=2", [3, 4, 5, 7], None),
        ("?after=7", [], None),
        (f"?after={2**63 - 1}", [], None),
    ):
        answer = (await client.get(LETTERS + query)).json()
        assert ([item["id"] for item in answer["items"]], answer["next"]) == (ids, following), query


async def test_a_page_has_fifty_letters_by_default_and_two_hundred_on_request(
    client: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    await sql.execute("INSERT INTO dead_letters (reason, deliveries) SELECT '', 1 FROM generate_series(1, 201)")
    for query, count in (("", 50), ("?limit=1", 1), ("?limit=200", 200)):
        answer = (await client.get(LETTERS + query)).json()
        assert ([item["id"] for item in answer["items"]], answer["next"]) == ([*range(1, count + 1)], count)


async def test_refused_views_are_counted_by_a_replay_once_their_cause_is_gone(
    client: httpx.AsyncClient, settings: Settings, sql: asyncpg.Connection
) -> None:
    began = datetime.now(UTC)
    async with application(settings) as other:
        async with refusing(sql, "home"):
            views = [{"page": "home", "count": 3}, {"page": "news", "count": 2}]
            assert (await client.post("/page-views", json={"views": views})).status_code == 202

            async def is_dead() -> bool:
                return await left(sql) == [1]

            await eventually(is_dead)
            (letter,) = (await client.get(LETTERS)).json()["items"]
            assert (letter["page"], letter["delta"], letter["entry"]) == ("home", 3, None)
            assert (letter["reason"], letter["deliveries"] >= 1) == (REFUSED, True)
            assert re.fullmatch("[0-9A-Z]{26}", letter["batch"])
            assert abs(datetime.fromisoformat(letter["created_at"]) - began) < timedelta(seconds=PATIENCE)

            for _ in range(2):
                still = await client.post(f"{LETTERS}/1/replay")
                assert (still.status_code, still.headers["content-type"]) == (409, "application/problem+json")
                assert (still.json()["type"], still.json()["title"]) == ("conflict", "Conflict")
                assert still.json()["detail"] == f"Dead letter 1 is still refused: {REFUSED}"
            assert (await client.get(LETTERS)).json()["items"] == [letter]
            assert (await stored(sql), await stored(sql, "news")) == (0, 2)
        replayed = await client.post(f"{LETTERS}/1/replay")
        assert (replayed.status_code, replayed.json()) == (200, {"page": "home", "views": 3})
        for instance in (client, other):
            assert [(await total(instance, page))[0] for page in ("home", "news")] == [3, 2]
    assert (await left(sql), await stored(sql), await stored(sql, "news")) == ([], 3, 2)


async def test_replayed_views_are_in_the_next_total_of_any_instance(
    settings: Settings, sql: asyncpg.Connection
) -> None:
    """The letter is counted in Postgres · both relays are held · the total is read"""
    await sql.execute("INSERT INTO page_views (page, views) VALUES ('home', 40)")
    await sql.execute("UPDATE outbox SET done_at = now()")
    async with PostgresWire(settings.database_url or "") as wire:
        patient = settings.model_copy(update={"database_url": wire.url, "database_timeout": timedelta(seconds=60)})
        async with application(patient) as one, application(patient) as other:
            # The total is cached, so a replay that did not invalidate it would not show.
            assert await total(one) == (40, "write-behind; fwd=miss; stored")
            assert [await total(instance) for instance in (one, other)] == [(40, "write-behind; hit")] * 2
            async with wire.holding(OUTBOX) as held:
                await asyncio.wait_for(held.arrived.wait(), PATIENCE)
                for replays in (1, 2):
                    letter = await dead(sql)
                    assert (await one.post(f"{LETTERS}/{letter}/replay")).json() == {"page": "home", "views": 3}
                    asked = (other, one) if replays == 1 else (one, other)
                    assert [(await total(instance))[0] for instance in asked] == [40 + 3 * replays] * 2
    assert (await stored(sql), await left(sql)) == (46, [])


async def test_a_read_in_flight_does_not_bring_back_the_total_from_before_a_replay(
    settings: Settings, sql: asyncpg.Connection
) -> None:
    """R misses, and asks Postgres
                                        a dead letter is counted, and the total is dropped
    R gets its result, with the views from before: it must not be kept
    """
    await sql.execute("INSERT INTO page_views (page, views) VALUES ('home', 40)")
    letter = await dead(sql)
    async with PostgresWire(settings.database_url or "") as wire:
        patient = settings.model_copy(update={"database_url": wire.url, "database_timeout": timedelta(seconds=60)})
        async with (
            application(patient) as slow,
            application(settings) as client,
            wire.holding_replies(r"FROM page_views WHERE page = ANY") as held,
        ):
            reading = asyncio.create_task(total(slow))
            await asyncio.wait_for(held.arrived.wait(), PATIENCE)
            assert (await client.post(f"{LETTERS}/{letter}/replay")).status_code == 200
            held.release()
            assert (await reading)[0] == 43
            assert [(await total(instance))[0] for instance in (slow, client)] == [43, 43]


async def test_two_concurrent_replays_of_a_letter_count_it_once(settings: Settings, sql: asyncpg.Connection) -> None:
    """A takes the letter, and is about to count its views
                                        B wants the same letter, and has to wait for A
    A commits
    """
    letter = await dead(sql)
    async with PostgresWire(settings.database_url or "") as wire:
        patient = settings.model_copy(update={"database_url": wire.url, "database_timeout": timedelta(seconds=60)})
        async with application(patient) as client:
            async with wire.holding(ADDS) as held:
                first = asyncio.create_task(client.post(f"{LETTERS}/{letter}/replay"))
                await asyncio.wait_for(held.arrived.wait(), PATIENCE)
                second = asyncio.create_task(client.post(f"{LETTERS}/{letter}/replay"))
                await eventually(lambda: _waits_for_the_letter(sql, second))
                held.release()
                answers = [await first, await second]
            assert [answer.status_code for answer in answers] == [200, 404]
            assert (await total(client))[0] == 3
    assert (await stored(sql), await left(sql)) == (3, [])


async def _waits_for_the_letter(sql: asyncpg.Connection, asked: asyncio.Task[httpx.Response]) -> bool:
    assert not asked.done(), asked.result().text
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
        "AND query LIKE 'DELETE FROM dead_letters%'"
    )
    return bool(await sql.fetchval(query))


async def test_many_concurrent_replays_of_the_same_letters_count_each_once(
    client: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    letters = [await dead(sql) for _ in range(5)]
    answers = await asyncio.gather(*(client.post(f"{LETTERS}/{letter}/replay") for letter in letters * 4))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [404] * 15
    assert ((await total(client))[0], await stored(sql), await left(sql)) == (15, 15, [])


async def test_a_letter_without_a_page_cannot_be_counted_and_stays_until_it_is_discarded(
    client: httpx.AsyncClient, sql: asyncpg.Connection, redis: Redis
) -> None:
    await redis.xadd("views:{0}", {"batch": BATCH, "deltas": b"\xff{"})

    async def is_dead() -> bool:
        return await left(sql) == [1]

    await eventually(is_dead)
    (letter,) = (await client.get(LETTERS)).json()["items"]
    assert (letter["page"], letter["delta"], letter["entry"]) == (None, None, "\\xff{")
    assert (letter["reason"], letter["deliveries"]) == ("It is no batch.", 1)
    assert letter["batch"].startswith("views:{0} ")
    refused = await client.post(f"{LETTERS}/1/replay")
    assert (refused.status_code, refused.json()["type"]) == (409, "conflict")
    assert refused.json()["detail"] == "Dead letter 1 holds no views that can be counted; it can only be discarded."
    assert await left(sql) == [1]
    assert (await client.delete(f"{LETTERS}/1")).status_code == 204
    assert await left(sql) == []


async def test_a_discarded_letter_is_gone_and_not_counted(client: httpx.AsyncClient, sql: asyncpg.Connection) -> None:
    letters = [await dead(sql) for _ in range(3)]
    answer = await client.delete(f"{LETTERS}/{letters[1]}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert await left(sql) == [letters[0], letters[2]]
    assert (await stored(sql), (await total(client))[0]) == (0, 0)
    again = await client.delete(f"{LETTERS}/{letters[1]}")
    assert (again.status_code, again.json()["type"]) == (404, "not-found")


async def test_a_missing_letter_is_not_found(client: httpx.AsyncClient, sql: asyncpg.Connection) -> None:
    await sql.execute("INSERT INTO dead_letters (id, page, delta, reason, deliveries) VALUES (3, 'home', 3, '', 1)")
    for letter in (1, 2, 2**63 - 1):
        for method, path in (("POST", f"{LETTERS}/{letter}/replay"), ("DELETE", f"{LETTERS}/{letter}")):
            answer = await client.request(method, path)
            assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
            assert answer.json()["detail"] == f"There is no dead letter {letter}."
    assert (await left(sql), await stored(sql)) == ([3], 0)


async def test_an_invalid_letter_id_is_refused(client: httpx.AsyncClient, sql: asyncpg.Connection) -> None:
    # An id that could be mistaken for one of these must not affect it.
    query = "INSERT INTO dead_letters (id, page, delta, reason, deliveries) VALUES ($1, 'home', 3, '', 1)"
    await sql.executemany(query, [(1,), (7,)])
    for letter in ("0", "-1", "007", "+7", "7.0", "abc", "true", "%207", "7%0A", "7%00", str(2**63), "9" * 5000):
        for method, path in (("POST", f"{LETTERS}/{letter}/replay"), ("DELETE", f"{LETTERS}/{letter}")):
            answer = await client.request(method, path)
            assert (answer.status_code, answer.json()["type"]) == (422, "invalid"), (method, letter, answer.text)
            assert answer.json()["detail"].startswith("path.letter ")
    assert (await left(sql), await stored(sql)) == ([1, 7], 0)


async def test_a_405_lists_the_allowed_methods(client: httpx.AsyncClient) -> None:
    for path, allowed in (("", "GET, HEAD"), ("/7", "DELETE"), ("/7/replay", "POST")):
        for method in ("PUT", "PATCH", "TRACE"):
            answer = await client.request(method, LETTERS + path)
            assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


async def test_without_postgres_every_call_gets_a_503_with_retry_after(
    settings: Settings, sql: asyncpg.Connection
) -> None:
    letter = await dead(sql)
    nowhere = f"postgresql://postgres@127.0.0.1:{free_port()}/postgres"
    async with application(settings.model_copy(update={"database_url": nowhere})) as client:
        for method, path in (("GET", ""), ("POST", f"/{letter}/replay"), ("DELETE", f"/{letter}")):
            answer = await client.request(method, LETTERS + path)
            assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
            assert answer.headers["retry-after"] == "1"
            assert (answer.json()["type"], answer.json()["status"]) == ("database-unavailable", 503)
            assert answer.json()["detail"] == "The database refuses connections."
    assert (await left(sql), await stored(sql)) == ([letter], 0)


async def test_a_replay_with_an_unknown_outcome_counts_at_most_once(
    settings: Settings, sql: asyncpg.Connection
) -> None:
    letter = await dead(sql)
    async with (
        PostgresWire(settings.database_url or "") as wire,
        application(settings.model_copy(update={"database_url": wire.url})) as client,
    ):
        assert (await total(client))[0] == 0
        wire.cut_after("^COMMIT")
        answer = await client.post(f"{LETTERS}/{letter}/replay")
        assert (answer.status_code, answer.json()["type"]) == (503, "outcome-unknown")
        assert answer.headers["retry-after"] == "1"
        assert (await client.post(f"{LETTERS}/{letter}/replay")).status_code == 404

        # The relay drops the total.
        async def is_seen() -> bool:
            return (await total(client))[0] == 3

        await eventually(is_seen)
    assert (await stored(sql), await left(sql)) == (3, [])


async def test_without_redis_letters_can_still_be_listed_replayed_and_discarded(
    settings: Settings, sql: asyncpg.Connection
) -> None:
    letters = [await dead(sql) for _ in range(2)]
    nowhere = f"redis://127.0.0.1:{free_port()}"
    async with (
        application(settings) as whole,
        application(settings.model_copy(update={"redis_url": nowhere})) as client,
    ):
        assert [await total(whole) for _ in range(2)] == [
            (0, "write-behind; fwd=miss; stored"),
            (0, "write-behind; hit"),
        ]
        assert [item["id"] for item in (await client.get(LETTERS)).json()["items"]] == letters
        replayed = await client.post(f"{LETTERS}/{letters[0]}/replay")
        assert (replayed.status_code, replayed.json()) == (200, {"page": "home", "views": 3})
        assert (await client.delete(f"{LETTERS}/{letters[1]}")).status_code == 204
        assert (await stored(sql), await left(sql)) == (3, [])

        # The relay of an instance that can reach Redis drops the total.
        async def is_seen() -> bool:
            return (await total(whole))[0] == 3

        await eventually(is_seen)


async def test_discarded_views_are_in_no_total(client: httpx.AsyncClient, sql: asyncpg.Connection) -> None:
    async with refusing(sql, "home"):
        assert (await client.post("/page-views/home", json={"count": 3})).json()["views"] == 3

        async def is_dead() -> bool:
            return await left(sql) == [1]

        await eventually(is_dead)
        assert (await client.delete(f"{LETTERS}/1")).status_code == 204

        async def is_told() -> bool:
            return not await sql.fetchval("SELECT count(*) FROM outbox WHERE done_at IS NULL")

        await eventually(is_told)
        assert (await total(client))[0] == await stored(sql) == 0


async def test_a_path_with_a_trailing_line_break_is_another_path(
    client: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    letter = await dead(sql)
    assert (await client.post(f"{LETTERS}/{letter}/replay%0A")).status_code == 404
    assert await left(sql) == [letter]
