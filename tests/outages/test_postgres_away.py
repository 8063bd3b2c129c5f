"""Postgres refuses connections, is silent, dies, or has its tables altered: cached values are read, other requests are
told to come back, and everything recovers by itself."""

import asyncio
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping

import asyncpg
import pytest

from app.caching import SETTLED
from app.embedded import Endpoints
from app.embedded.account import postgres_account
from app.embedded.home import make_home
from app.embedded.postgres_server import SOCKET, PostgresServer
from app.schema import migrate
from tests.embedded.apps import postmaster_pid
from tests.eventually import PATIENCE, eventually
from tests.keep_alive import Answer
from tests.keyed import Keyed
from tests.open_directory import open_directory
from tests.outages.instance import Instance, Pair, all_told, fresh_stores, is_carried, recovered, running, two_running
from tests.outages.load import LONGEST, Load
from tests.outages.rows import Rows, is_relayed, made
from tests.topologies.ways import Ways


@pytest.mark.parametrize("fault", ["refuse", "silence"])
async def test_without_postgres_cached_values_are_read_and_other_requests_get_503(
    pair: Pair, sql: asyncpg.Connection, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    rows = await made(pair[0].connection, f"gone-{fault}", 2)
    page = f"{rows.page}/cached"
    assert (await pair[0].connection.post(page, {"count": 3})).json()["views"] == 3
    before = {path: (await pair[0].connection.ask(path)).json() for path in (*rows.one_of_each, page)}
    await all_told([instance.postgres for instance in pair], sql)
    for instance in pair:
        getattr(instance.postgres, fault)()

    for instance in pair:
        for path in rows.one_of_each:
            answer = await instance.connection.ask(path)
            assert (answer.status, answer.json()) == (200, before[path]), answer
            assert "; hit; ttl=" in answer.headers["cache-status"]
    took = [each for part in await asyncio.gather(*(_cut_off(one, rows, before) for one in pair)) for each in part]
    assert max(took) < LONGEST

    healed = await recovered(pair)
    for instance in pair:
        for answer in await _writes(instance, rows):
            assert answer.status == 200, answer
        for path in rows.paths:
            answer = await instance.connection.ask(path)
            assert (answer.status, "stale" in answer.headers["cache-status"]) == (200, False), answer
    await eventually(lambda: is_carried(pair[0]))
    assert (await pair[0].connection.ask("/write-behind")).json()["dead_letters"] == 0
    assert await sql.fetchval("SELECT views FROM page_views WHERE page = $1", page.removeprefix("/page-views/")) == 5
    with capsys.disabled():
        print(
            f"\nPostgres: {fault}; {len(took)} misses and writes refused within {min(took):.3f} to {max(took):.3f} s; "
            f"ready {healed:.2f} s after it healed"
        )


async def test_cached_values_are_read_when_postgres_falls_silent_during_a_delivery_of_the_relay(
    pair: Pair, sql: asyncpg.Connection
) -> None:
    """The relay tells Redis of a change, and checks whether there are more
                                        Postgres falls silent: nobody can change a row
    R has to find the cached value, as it would if the relay had found nothing to deliver
    """
    instance, other = pair
    rows = await made(instance.connection, "carrying", 2)
    assert (await instance.connection.ask(rows.stocks[0])).status == 200
    # Otherwise the other relay may hold a change of these rows, which this one would report as not delivered.
    await eventually(lambda: is_relayed(sql))
    # The other relay must not deliver the change before this one does.
    async with instance.postgres.holding(r"outbox\.id <= ") as held, other.postgres.holding(r"^UPDATE outbox"):
        # At once: the relay soon asks again, on another connection, and would be told of the change as a new one.
        held.then = instance.postgres.silence
        await sql.execute("UPDATE stock SET quantity = 1 WHERE sku = 'carrying-1'")
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        # Longer than Redis is trusted without news.
        silent = time.monotonic()
        answers: Counter[tuple[int, str]] = Counter()
        while time.monotonic() - silent < 2 * SETTLED.total_seconds():
            answer = await instance.connection.ask(rows.stocks[0])
            answers[answer.status, answer.headers.get("cache-status", "").split("=")[0]] += 1
    assert set(answers) == {(200, "write-through; hit; ttl")}, answers


@pytest.mark.parametrize("fault", [pytest.param("refuse", marks=pytest.mark.prove), "silence"])
async def test_no_request_of_a_steady_load_hangs_without_postgres(
    pair: Pair, sql: asyncpg.Connection, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    rows = await made(pair[0].connection, f"load-{fault}")
    load = Load([instance.service for instance in pair], rows, rate=100)
    async with load.running():
        await load.hears(50)
        for instance in pair:
            getattr(instance.postgres, fault)()
        began = time.monotonic()
        await load.hears(200)
        ended = time.monotonic()
        healed = await recovered(pair)
        again = time.monotonic()
        await load.hears(50)
    outage = load.within(began, ended)
    assert {heard.status for heard in outage} == {200, 202, 503}
    assert {heard.problem for heard in outage} <= {"", "database-unavailable", "outcome-unknown", "overloaded"}
    assert {heard.status for heard in outage if heard.kind == "view"} == {202}
    assert {heard.status for heard in load.within(again, time.monotonic())} <= {200, 202}
    assert max(heard.took for heard in load.heard) < LONGEST
    await eventually(lambda: is_carried(pair[0]))
    await load.check(sql)
    with capsys.disabled():
        print(load.report(f"Postgres: {fault} for {ended - began:.1f} s, ready {healed:.2f} s after it healed", outage))


@pytest.mark.parametrize("fault", ["refuse", pytest.param("silence", marks=pytest.mark.prove)])
async def test_without_both_stores_every_request_gets_503_with_retry_after(pair: Pair, fault: str) -> None:
    rows = await made(pair[0].connection, f"neither-{fault}", 1)
    stock = f"{rows.stocks[0]}/adjustments"
    asked: list[tuple[str, str, object]] = [
        *(("GET", path, None) for path in (*rows.one_of_each, rows.page, "/users", "/write-behind")),
        *(("PATCH", path, {"name": "New"}) for path in (rows.users[0], rows.products[0])),
        *(("POST", path, body) for path, body in ((stock, {"delta": -1}), (rows.page, {"count": 1}))),
    ] * 3
    for instance in pair:
        getattr(instance.redis, fault)()
        getattr(instance.postgres, fault)()
    connections = [await Keyed.to(pair[number % 2].service.url) for number in range(len(asked))]
    began = time.monotonic()
    answers = await asyncio.gather(
        *(
            connection.ask(path, method=method, body=body)
            for connection, (method, path, body) in zip(connections, asked, strict=True)
        )
    )
    assert time.monotonic() - began < LONGEST
    assert {(answer.status, answer.headers.get("retry-after")) for answer in answers} == {(503, "1")}
    for instance in pair:
        status, said = await instance.readiness()
        assert (status, said["status"]) == (200, "degraded")
    for connection in connections:
        await connection.close()
    await recovered(pair)
    for instance in pair:
        assert {answer.status for answer in await _writes(instance, rows)} == {200}


async def test_tables_altered_under_load_cause_only_expected_errors(
    servers: Endpoints, ways: Ways, capsys: pytest.CaptureFixture[str]
) -> None:
    # Its own instances and tables: a connection may keep an earlier statement for as long as nobody needs it.
    async with fresh_stores(servers, 6, ways) as stores, two_running(stores, ways, wired=False) as pair:
        rows = await made(pair[0].connection, "altered", 2)
        load = Load([instance.service for instance in pair], rows, rate=100)
        paged: Counter[str] = Counter()
        sql = await asyncpg.connect(stores.database_url)
        async with load.running():
            await load.hears(50)
            for change in (
                "ALTER TABLE users ADD COLUMN nickname text",
                "ALTER TABLE products ADD COLUMN colour text",
                "ALTER TABLE stock ADD COLUMN shelf text",
                "ALTER TABLE users ALTER COLUMN name TYPE varchar(400)",
                "ALTER TABLE products ALTER COLUMN name TYPE varchar(400)",
            ):
                await sql.execute(change)
                # A page of a list has no cache key, so it is read from Postgres each time.
                for instance in pair:
                    for path in ("/users", "/products") * 5:
                        answer = await instance.connection.ask(path)
                        paged["200" if answer.status == 200 else answer.json()["detail"]] += 1
                await load.hears(30)
        await sql.close()
        assert {heard.status for heard in load.heard} <= {200, 202, 503}
        assert set(paged) <= {"200", "The table was altered a moment ago; try again."}

        async def all_goes_on() -> bool:
            answers = [answer for instance in pair for answer in await _writes(instance, rows)]
            return all(answer.status == 200 for answer in answers)

        await eventually(all_goes_on)
        await eventually(lambda: is_carried(pair[0]))
    with capsys.disabled():
        print(load.report("Tables altered 5 times", load.heard), f"\n  pages of lists: {dict(paged)}")


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A Postgres that may be killed."""
    with open_directory() as directory:
        server = PostgresServer(make_home(directory / "postgres", SOCKET, postgres_account()), directory / "log")
        assert server.start()
        try:
            yield server
        finally:
            server.stop()
            server.let_go()


async def test_a_postgres_that_crashes_under_load_causes_only_503s(
    stores: Endpoints, ways: Ways, postgres: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    await asyncio.to_thread(migrate, postgres.url)
    mortal = Endpoints(stores.redis_url.replace("?db=2", "?db=3"), postgres.url)
    async with running(mortal, ways) as instance:
        rows = await made(instance.connection, "mortal")
        load = Load([instance.service], rows, rate=100)
        async with load.running():
            await load.hears(50)
            pid = await asyncio.to_thread(postmaster_pid, mortal)
            began = time.monotonic()
            os.kill(pid, signal.SIGQUIT)  # The signal that `pg_ctl stop -m immediate` sends.
            assert await asyncio.to_thread(postgres.start)
            up = time.monotonic()
            await load.hears(150)
            await recovered([instance])
            well = time.monotonic()
            await load.hears(50)
        assert {heard.status for heard in load.heard} <= {200, 202, 503}
        assert {heard.status for heard in load.within(well, time.monotonic())} <= {200, 202}
        assert max(heard.took for heard in load.heard) < LONGEST
        await eventually(lambda: is_carried(instance))
        connection = await asyncpg.connect(mortal.database_url)
        await load.check(connection)
        await connection.close()
    last = max([heard.began + heard.took for heard in load.heard if heard.status == 503], default=began)
    with capsys.disabled():
        print(
            load.report(
                f"Postgres: crashed, up after {up - began:.2f} s, the last 503 {last - up:+.2f} s after that",
                load.within(began, well),
            )
        )


async def _cut_off(instance: Instance, rows: Rows, before: Mapping[str, object]) -> list[float]:
    """Checks what an instance does without Postgres. Returns how long each refusal took."""
    page = f"{rows.page}/cached"
    for path in (rows.users[0], rows.products[0]):

        async def is_stale() -> bool:
            answer = await instance.connection.ask(path)  # noqa: B023  # It is awaited here.
            assert (answer.status, answer.json()) == (200, before[path]), answer  # noqa: B023
            return answer.headers["cache-status"].endswith("; detail=stale-if-error")

        await eventually(is_stale)
    assert "stale" not in (await instance.connection.ask(rows.stocks[0])).headers["cache-status"]
    took = await _refused(instance, rows)
    assert (await instance.connection.post(page, {"count": 1})).status == 202
    read = await instance.connection.ask(page)
    assert (read.status, read.json()["views"] in (4, 5)) == (200, True), read
    status, said = await instance.readiness()
    assert (status, said["status"]) == (200, "degraded")
    assert re.match("The database (refuses connections|does not answer in time): ", said["parts"]["postgres"])
    return took


async def _refused(instance: Instance, rows: Rows) -> list[float]:
    """Reads values that are not cached, and writes. Returns how long each refusal took."""
    took = []
    for method, path, body in (
        ("GET", rows.users[1], None),
        ("GET", rows.products[1], None),
        ("GET", f"{rows.stocks[1]}-nobody-knows", None),
        ("GET", f"{rows.page}/nobody-knows", None),
        ("GET", "/users", None),
        ("POST", "/users", {"name": "New", "email": "new@example.com"}),
        ("PATCH", rows.users[0], {"name": "New"}),
        ("PATCH", rows.products[0], {"name": "New"}),
        ("PUT", rows.stocks[0], {"quantity": 1}),
        ("POST", f"{rows.stocks[0]}/adjustments", {"delta": -1}),
        ("DELETE", rows.users[1], None),
    ):
        began = time.monotonic()
        answer = await instance.connection.ask(path, method=method, body=body)
        took.append(time.monotonic() - began)
        assert (answer.status, answer.headers.get("retry-after")) == (503, "1"), (method, path, answer)
        assert answer.json()["type"] == "database-unavailable", (method, path, answer)
    return took


async def _writes(instance: Instance, rows: Rows) -> list[Answer]:
    """Writes a row of each resource."""
    return [
        await instance.connection.ask(rows.users[0], method="PATCH", body={"name": "New"}),
        await instance.connection.ask(rows.products[0], method="PATCH", body={"name": "New"}),
        await instance.connection.ask(f"{rows.stocks[0]}/adjustments", method="POST", body={"delta": -1}),
    ]
