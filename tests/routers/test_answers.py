"""Tags, preconditions, and Cache-Status."""

import asyncio
import time
from datetime import timedelta

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from app.settings import Settings
from tests.eventually import eventually
from tests.in_process import application
from tests.routers.conftest import Contents, contents
from tests.service import free_port

RESOURCES = ["/users/1", "/products/KETTLE-1"]
STRATEGIES = [("/users/1", "cache-aside"), ("/products/KETTLE-1", "read-through")]
MALFORMED = [
    "",
    " ",
    ",",
    "7",
    '"7',
    '7"',
    "'7'",
    'w/"7"',
    'W/ "7"',
    'W"7"',
    '"7" "8"',
    '"7"; "8"',
    '"7", 8',
    '"7", *',
    "*, *",
    "**",
    '"a b"',
    '"\x01"',
    'x"7"',
]


async def tagged(sql: asyncpg.Connection, version: int) -> str:
    """Returns the tag of a version in the database's epoch."""
    return f'"{version}-{await sql.fetchval("SELECT token FROM epochs ORDER BY n DESC LIMIT 1")}"'


@pytest.mark.parametrize("path", RESOURCES)
async def test_the_tag_is_version_and_epoch_in_quotes(
    client: httpx.AsyncClient, sql: asyncpg.Connection, rows: Contents, path: str
) -> None:
    miss, hit = await client.get(path), await client.get(path)
    assert miss.headers["etag"] == hit.headers["etag"] == await tagged(sql, hit.json()["version"])
    changed = await client.patch(path, json={"name": "New"})
    assert changed.headers["etag"] == await tagged(sql, changed.json()["version"]) != hit.headers["etag"]
    assert (await client.get(path)).headers["etag"] == changed.headers["etag"]


async def test_a_new_row_has_a_tag(client: httpx.AsyncClient, sql: asyncpg.Connection) -> None:
    user = await client.post("/users", json={"name": "Ada", "email": "ada@example.com"})
    product = await client.post("/products", json={"sku": "A", "name": "A", "price": "1"})
    for created in (user, product):
        assert created.headers["etag"] == await tagged(sql, created.json()["version"])


@pytest.mark.parametrize("path", RESOURCES)
@pytest.mark.parametrize(
    "tags",
    [
        "{tag}",
        "W/{tag}",
        '"1000", {tag}',
        '"1000",W/{tag},"x"',
        ", {tag}",
        "{tag},",
        "{tag} , ,",
        "*",
        " * ",
        '"a,b", {tag}',
        '"", {tag}',
    ],
)
async def test_a_client_with_the_current_version_gets_304(
    client: httpx.AsyncClient, rows: Contents, path: str, tags: str
) -> None:
    full = await client.get(path)
    answer = await client.get(path, headers={"If-None-Match": tags.format(tag=full.headers["etag"])})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == full.headers["etag"]
    assert "; hit; ttl=" in answer.headers["cache-status"]


@pytest.mark.parametrize("path", RESOURCES)
@pytest.mark.parametrize(
    "tags",
    [
        '"1000"',
        'W/"1000"',
        '"x"',
        '""',
        '"{version}"',
        '"0{version}-{epoch}"',
        '"{version}-{epoch}0"',
        '"1000", "1001"',
    ],
)
async def test_a_client_with_another_version_gets_the_current_one(
    client: httpx.AsyncClient, rows: Contents, path: str, tags: str
) -> None:
    version, epoch = (await client.get(path)).headers["etag"].strip('"').split("-")
    answer = await client.get(path, headers={"If-None-Match": tags.format(version=version, epoch=epoch)})
    assert (answer.status_code, str(answer.json()["version"])) == (200, version)


async def test_several_precondition_headers_are_one_list(client: httpx.AsyncClient, rows: Contents) -> None:
    tag = (await client.get("/users/1")).headers["etag"]
    lines = [("If-None-Match", '"1000"'), ("If-None-Match", tag)]
    assert (await client.get("/users/1", headers=lines)).status_code == 304


async def test_a_missing_row_is_404_whatever_the_client_has(client: httpx.AsyncClient) -> None:
    for tags in ("*", '"1"'):
        assert (await client.get("/users/1", headers={"If-None-Match": tags})).status_code == 404
        assert (await client.delete("/users/1", headers={"If-Match": tags})).status_code == 404


@pytest.mark.parametrize("path", RESOURCES)
@pytest.mark.parametrize("tags", MALFORMED)
async def test_a_malformed_precondition_is_refused(
    client: httpx.AsyncClient, sql: asyncpg.Connection, rows: Contents, path: str, tags: str
) -> None:
    answers = [
        await client.get(path, headers={"If-None-Match": tags}),
        await client.patch(path, headers={"If-Match": tags}, json={"name": "New"}),
        await client.delete(path, headers={"If-Match": tags}),
    ]
    for answer in answers:
        assert (answer.status_code, answer.json()["type"]) == (400, "unreadable")
        assert "a list of entity tags in double quotes" in answer.json()["detail"]
    assert await contents(sql) == rows


@pytest.mark.parametrize("path", RESOURCES)
@pytest.mark.parametrize("tags", ["{tag}", '"1000", {tag}', '{tag},W/"1"', "*", ' "x" ,, {tag}'])
async def test_a_change_of_the_expected_version_is_made(
    client: httpx.AsyncClient, rows: Contents, path: str, tags: str
) -> None:
    tag = (await client.get(path)).headers["etag"]
    changed = await client.patch(path, headers={"If-Match": tags.format(tag=tag)}, json={"name": "New"})
    assert (changed.status_code, changed.json()["name"]) == (200, "New")
    headers = {"If-Match": tags.format(tag=changed.headers["etag"])}
    assert (await client.delete(path, headers=headers)).status_code == 204


@pytest.mark.parametrize("path", RESOURCES)
@pytest.mark.parametrize(
    "tags",
    [
        '"1000"',
        '"1000", "1001"',
        '"x"',
        '""',
        '"0"',
        '"{version}"',
        '"0{version}-{epoch}"',
        '"{version}-{epoch}-"',
        '"\xb2"',
    ],
)
async def test_a_change_of_another_version_is_refused(
    client: httpx.AsyncClient, sql: asyncpg.Connection, rows: Contents, path: str, tags: str
) -> None:
    version, epoch = (await client.get(path)).headers["etag"].strip('"').split("-")
    headers = httpx.Headers({"If-Match": tags.format(version=version, epoch=epoch)}, encoding="latin-1")
    for method, body in (("PATCH", {"name": "New"}), ("DELETE", None)):
        answer = await client.request(method, path, headers=headers, json=body)
        assert (answer.status_code, answer.json()["type"]) == (412, "precondition-failed")
        assert f"in version {version}, which If-Match does not name" in answer.json()["detail"]
    assert await contents(sql) == rows


@pytest.mark.parametrize("path", RESOURCES)
async def test_a_weak_tag_never_matches_if_match(
    client: httpx.AsyncClient, sql: asyncpg.Connection, rows: Contents, path: str
) -> None:
    read = await client.get(path)
    weak = "W/" + read.headers["etag"]
    for method, body in (("PATCH", {"name": "New"}), ("DELETE", None)):
        answer = await client.request(method, path, headers={"If-Match": f'{weak}, "x"'}, json=body)
        assert answer.status_code == 412
        assert answer.json()["detail"].endswith(
            f"is in version {read.json()['version']}, which If-Match names with a weak tag, {weak}, and a weak one "
            "never matches. Probably a proxy has weakened it when it compressed the answer: read again with "
            "`Accept-Encoding: identity`, and send the tag of that answer; or let the proxy not compress."
        )
    assert await contents(sql) == rows


async def test_only_one_of_several_changes_of_one_version_is_made(client: httpx.AsyncClient, rows: Contents) -> None:
    headers = {"If-Match": (await client.get("/users/1")).headers["etag"]}
    answers = await asyncio.gather(
        *(client.patch("/users/1", headers=headers, json={"name": f"Name {number}"}) for number in range(8))
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7


async def test_more_than_a_hundred_tags_are_refused(client: httpx.AsyncClient, rows: Contents) -> None:
    hundred = ", ".join(f'"{number}"' for number in range(1000, 1100))
    assert (await client.get("/users/1", headers={"If-None-Match": hundred})).status_code == 200
    assert (await client.delete("/users/1", headers={"If-Match": hundred})).status_code == 412
    # More than a statement in Postgres may have parameters.
    too_many = ", ".join(f'"{number}"' for number in range(40_000))
    answer = await client.delete("/users/1", headers={"If-Match": too_many})
    assert (answer.status_code, answer.json()["detail"]) == (
        400,
        "A precondition may name at most 100 entity tags, and not 40,000.",
    )


async def test_a_long_run_of_blanks_is_parsed_in_linear_time(client: httpx.AsyncClient, rows: Contents) -> None:
    began = time.monotonic()
    answer = await client.get("/users/1", headers={"If-None-Match": '"7"' + " " * 200_000 + "x"})
    assert answer.status_code == 400
    assert time.monotonic() - began < 5  # With backtracking, it would take hours.


@pytest.mark.parametrize(("path", "strategy"), STRATEGIES)
async def test_a_miss_is_stored_and_a_hit_says_how_long_it_lasts(
    client: httpx.AsyncClient, settings: Settings, rows: Contents, path: str, strategy: str
) -> None:
    miss, hit = await client.get(path), await client.get(path)
    assert miss.headers["cache-status"] == f"{strategy}; fwd=miss; stored"
    name, outcome, ttl = hit.headers["cache-status"].split("; ")
    assert (name, outcome) == (strategy, "hit")
    longest = settings.users_ttl // timedelta(seconds=1)
    assert (
        longest * 0.8 < int(ttl.removeprefix("ttl=")) <= longest
    )  # Less up to a tenth, and less the time of the test.


@pytest.mark.parametrize(("path", "strategy"), STRATEGIES)
async def test_readers_of_one_cold_key_share_a_load(
    client: httpx.AsyncClient, rows: Contents, path: str, strategy: str
) -> None:
    answers = await asyncio.gather(*(client.get(path) for _ in range(20)))
    told = sorted(answer.headers["cache-status"] for answer in answers)
    assert told.count(f"{strategy}; fwd=miss; stored") == 1
    # A reader that polls just after the end of the load gets a hit.
    hits = sum(f"{strategy}; hit" in each for each in told)
    assert told.count(f"{strategy}; fwd=miss; collapsed") == 19 - hits > 0
    assert len({answer.content for answer in answers}) == 1


@pytest.mark.parametrize(
    ("path", "table", "strategy", "key"),
    [
        ("/users/1", "users", "cache-aside", "users:{1}"),
        ("/products/KETTLE-1", "products", "read-through", "products:{KETTLE-1}"),
    ],
)
async def test_a_load_that_lost_its_lease_is_answered_but_not_stored(
    client: httpx.AsyncClient,
    sql: asyncpg.Connection,
    redis: Redis,
    rows: Contents,
    path: str,
    table: str,
    strategy: str,
    key: str,
) -> None:
    async def loading() -> bool:
        return bool(await redis.exists(f"{key}:lease"))

    async with sql.transaction():
        await sql.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        reading = asyncio.create_task(client.get(path))
        await eventually(loading)
        await redis.delete(f"{key}:lease")
    answer = await reading
    assert (answer.status_code, answer.headers["cache-status"]) == (200, f"{strategy}; fwd=miss")
    assert not await redis.exists(key)


@pytest.mark.parametrize(
    ("path", "table", "strategy"),
    [("/users/1", "users", "cache-aside"), ("/products/KETTLE-1", "products", "read-through")],
)
async def test_a_stale_value_is_served_and_marked_while_the_database_does_not_answer(
    settings: Settings, sql: asyncpg.Connection, rows: Contents, path: str, table: str, strategy: str
) -> None:
    ttl = timedelta(seconds=0.2)
    settings = settings.model_copy(
        update={"users_ttl": ttl, "products_ttl": ttl, "database_timeout": timedelta(seconds=1)}
    )
    async with application(settings) as client:
        fresh = stale = await client.get(path)
        async with sql.transaction():
            await sql.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")

            async def is_stale() -> bool:
                nonlocal stale
                stale = await client.get(path)
                return "stale" in stale.headers["cache-status"]

            await eventually(is_stale)
            # The client has the stale version.
            revalidated = await client.get(path, headers={"If-None-Match": fresh.headers["etag"]})
    assert stale.headers["cache-status"].startswith(f"{strategy}; hit; ttl=-")
    assert stale.headers["cache-status"].endswith("; detail=stale-if-error")
    assert (stale.status_code, stale.content, stale.headers["etag"]) == (200, fresh.content, fresh.headers["etag"])
    assert revalidated.status_code == 304
    assert revalidated.headers["cache-status"].endswith("; detail=stale-if-error")


@pytest.mark.parametrize(("path", "strategy"), STRATEGIES)
async def test_without_redis_the_database_answers(settings: Settings, rows: Contents, path: str, strategy: str) -> None:
    settings = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}"})
    async with application(settings) as client:
        answer = await client.get(path)
        assert answer.status_code == 200
        assert answer.headers["cache-status"] == f"{strategy}; fwd=bypass; detail=cache-unavailable"
        # The instance does not know to which epoch this database belongs.
        assert "etag" not in answer.headers
        again = await client.get(path, headers={"If-None-Match": f'"{answer.json()["version"]}-None", "x"'})
        assert (again.status_code, again.content) == (200, answer.content)
        missing = await client.get(path + "0")
        assert (missing.status_code, missing.headers["cache-status"]) == (
            404,
            f"{strategy}; fwd=bypass; detail=cache-unavailable",
        )


async def test_only_the_read_of_a_single_row_has_a_cache_status(client: httpx.AsyncClient, rows: Contents) -> None:
    for path in ("/users", "/products", "/products?sku=KETTLE-1"):
        assert "cache-status" not in (await client.get(path)).headers
    assert "cache-status" not in (await client.patch("/users/1", json={"name": "New"})).headers
