"""What is wrong with Sentinels, or with replicas, is said in readiness and by `fourways check`, with what to do.
Meanwhile reads come from Postgres, and views are refused."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import asyncpg
import httpx
import pytest

from app.check import check
from app.settings import Settings
from tests.eventually import eventually
from tests.faults.redis_process import PASSWORD
from tests.faults.watched_redis import NAME, WatchedRedis
from tests.in_process import application
from tests.service import free_port

pytestmark = pytest.mark.not_on("redis", because="each test has a primary, a replica and three Sentinels")

LOOK = "see whether they run, and are what REDIS_URL names"


def settings(redis_url: str, database_url: str) -> Settings:
    """Returns the settings of an application that waits for Redis as long as a busy machine needs."""
    return Settings(_env_file=None, redis_url=redis_url, database_url=database_url, redis_timeout=timedelta(seconds=2))


def nowhere(watched: WatchedRedis) -> str:
    return f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{free_port()}/{NAME}"


def unknown(watched: WatchedRedis) -> str:
    return watched.url.replace(f"/{NAME}", "/another")


def wrong_password(watched: WatchedRedis) -> str:
    return watched.client_url.replace(f"sentinel_password={PASSWORD}", "sentinel_password=geheim")


def no_sentinel(watched: WatchedRedis) -> str:
    return f"redis+sentinel://127.0.0.1:{watched.primary.port}/{NAME}?sentinel_password={PASSWORD}"


@dataclass(frozen=True, slots=True)
class Trouble:
    """A URL, the status that it leads to, and what is said."""

    url: Callable[[WatchedRedis], str]
    code: int
    says: str


TROUBLES = {
    "no Sentinel answers": Trouble(
        nowhere, 200, f"Redis did not answer: it cannot be found, because no Sentinel answers: {LOOK}"
    ),
    "no Sentinel knows the name": Trouble(
        unknown,
        503,
        "Redis did not answer: it cannot be found, because its Sentinels do not monitor that name: put the name that "
        "they monitor behind the hosts in REDIS_URL",
    ),
    "the Sentinels want another password": Trouble(
        wrong_password,
        503,
        "Redis did not answer: it cannot be found, because a Sentinel says WRONGPASS invalid username-password pair or "
        "user is disabled: put the right sentinel_username and sentinel_password into REDIS_URL",
    ),
    "the URL names no Sentinels": Trouble(
        no_sentinel,
        200,
        "Redis did not answer: it cannot be found, because a Sentinel says ERR unknown command 'SENTINEL': name "
        "Sentinels in REDIS_URL, or write redis:// for a Redis",
    ),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
async def test_trouble_with_sentinels_is_named_from_the_start_while_reads_are_served(
    watched: WatchedRedis, database_url: str, sql: asyncpg.Connection, trouble: Trouble
) -> None:
    ada = await sql.fetchval("INSERT INTO users (name, email) VALUES ('Ada', 'ada@example.com') RETURNING id")
    wrong = settings(trouble.url(watched), database_url)
    async with application(wrong) as client:
        ready = await client.get("/health/ready")
        read = await client.get(f"/users/{ada}")
        viewed = await client.post("/page-views/home")
    said = ready.json()["parts"]["redis"].replace("`", "'")  # Redis 7 has other quotation marks.
    assert (ready.status_code, said) == (trouble.code, trouble.says)
    assert (read.status_code, read.json()["name"]) == (200, "Ada")
    assert "fwd=bypass" in read.headers["cache-status"]
    assert (viewed.status_code, "retry-after" in viewed.headers) == (503, True)
    for answer in (ready, read, viewed):
        assert not any(secret in answer.text for secret in ("geheim", "127.0.0.1"))
    assert (await check(wrong, workers=1))["redis"].replace("`", "'") == trouble.says


async def test_sentinels_that_fall_silent_are_reported_although_redis_answers(
    watched: WatchedRedis, database_url: str
) -> None:
    async with application(settings(watched.url, database_url)) as client:
        await eventually(lambda: says(client, "ok"))
        await watched.sentinels[0].kill()
        await eventually(lambda: says(client, f"of 3 Sentinels, 1 names no primary: {LOOK}"))
        assert (await client.post("/page-views/home")).status_code == 202


async def test_a_primary_that_nothing_replaces_is_reported_as_what_the_sentinels_name(
    watched: WatchedRedis, database_url: str
) -> None:
    async with application(settings(watched.url, database_url)) as client:
        await eventually(lambda: says(client, "ok"))
        for redis in (watched.replica, watched.primary):
            await redis.kill()
        gone = (
            "Redis did not answer: it refuses connections: see whether it runs, and can be reached at the address that "
            "its Sentinels name"
        )
        await eventually(lambda: says(client, gone))


async def test_views_that_too_few_replicas_would_get_are_refused_and_not_counted(
    watched: WatchedRedis, database_url: str, sql: asyncpg.Connection
) -> None:
    """`min-replicas-to-write` is 1, and the replica is gone. The primary refuses writes: it cannot be told of changes
    either, and is not believed."""
    async with application(settings(watched.url, database_url)) as client:
        await eventually(lambda: says(client, "ok"))
        assert (await client.post("/page-views/home")).status_code == 202
        await watched.primary.ask("CONFIG", "SET", "min-replicas-to-write", "1")
        await watched.primary.cut_off("replica")
        no_replicas = (
            "Redis answered with an error: NOREPLICAS Not enough good replicas to write: see whether its replicas "
            "follow it, or lower its min-replicas-to-write"
        )
        await eventually(lambda: says(client, no_replicas))
        for _ in range(3):
            refused = await client.post("/page-views/home")
            assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        assert (await client.get("/health/ready")).status_code == 200
        await watched.primary.let_in("replica")
        await eventually(lambda: says(client, "ok"))
        await eventually(lambda: is_accepted(client))

        async def both_are_counted() -> bool:
            return bool(await sql.fetchval("SELECT views FROM page_views WHERE page = 'home'") == 2)

        await eventually(both_are_counted)
    assert await sql.fetchval("SELECT views FROM page_views WHERE page = 'home'") == 2


async def is_accepted(client: httpx.AsyncClient) -> bool:
    """Whether a view is accepted."""
    return (await client.post("/page-views/home")).status_code == 202


def says(client: httpx.AsyncClient, words: str) -> Awaitable[bool]:
    """Whether this is what readiness says of Redis."""

    async def said() -> bool:
        return bool((await client.get("/health/ready")).json()["parts"]["redis"] == words)

    return said()
