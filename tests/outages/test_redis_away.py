"""Redis refuses connections, or is silent: reads and writes continue without it, and afterwards every instance reads
what was answered meanwhile."""

import asyncio
import time

import asyncpg
import pytest

from tests.eventually import PATIENCE, eventually
from tests.keyed import Keyed
from tests.outages.instance import Instance, Pair, all_told, is_carried
from tests.outages.load import LONGEST, READS, Load
from tests.outages.rows import made

TURNS = 4
"""How many reads of one instance may bypass Redis at the same time: half of its connections to Postgres."""
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.mark.parametrize(
    ("fault", "rate", "requests"),
    [
        ("refuse", 60, 120),
        ("silence", 60, 120),
        pytest.param("refuse", 200, 6000, marks=[pytest.mark.prove, pytest.mark.timeout(300)]),
        pytest.param("silence", 200, 6000, marks=[pytest.mark.prove, pytest.mark.timeout(300)]),
    ],
)
async def test_reads_and_writes_continue_while_redis_does_not_answer(
    pair: Pair, sql: asyncpg.Connection, capsys: pytest.CaptureFixture[str], fault: str, rate: int, requests: int
) -> None:
    rows = await made(pair[0].connection, f"{fault}-{requests}")
    load = Load([instance.service for instance in pair], rows, rate=rate)
    async with load.running():
        await load.hears(50)
        for instance in pair:
            getattr(instance.redis, fault)()
        began = time.monotonic()
        await load.hears(requests)
        readiness = [await instance.readiness() for instance in pair]
        ended = time.monotonic()
        for instance in pair:
            instance.redis.heal()
        for instance in pair:
            await eventually(lambda: _hits(instance, rows.one_of_each))  # noqa: B023  # It is awaited here.
        healed = time.monotonic() - ended
        await load.hears(50)

    outage = load.within(began, ended)
    # An overloaded machine has no turn for some reads, and tells them so.
    turned_away = [heard for heard in outage if heard.kind in READS and heard.problem == "overloaded"]
    assert len(turned_away) <= len(outage) / 4
    for heard in outage:
        if heard in turned_away:
            assert heard.status == 503, heard
        elif heard.kind in READS:
            assert heard.status == 200, heard
            assert heard.cache_status.endswith("fwd=bypass; detail=cache-unavailable"), heard
        elif heard.kind in ("write users", "write products"):
            assert heard.status == 200, heard
        else:
            # Writers of stock that wait for Redis may hold all the connections to Postgres that writers may use.
            busy = {"database-unavailable"} if heard.kind == "write inventory" else set()
            assert heard.status == 503, heard
            assert heard.problem in {"cache-unavailable"} | busy, heard
    assert max(heard.took for heard in load.heard) < LONGEST
    for status, said in readiness:
        assert (status, said["status"]) == (200, "degraded")
        assert said["parts"]["redis"].startswith("Redis did not answer: it ")
        assert said["parts"]["breaker"].startswith("open: ")
    await eventually(lambda: is_carried(pair[0]))
    await load.check(sql)
    with capsys.disabled():
        print(
            load.report(f"Redis: {fault} for {ended - began:.1f} s, hits again {healed:.2f} s after it healed", outage)
        )


async def test_reads_that_bypass_redis_leave_half_of_the_connections_to_writers(
    pair: Pair, sql: asyncpg.Connection
) -> None:
    rows = await made(pair[0].connection, "crowd", 1)
    instance = pair[0]
    instance.redis.refuse()
    await eventually(lambda: _is_open(instance))
    readers = [await Keyed.to(instance.service.url) for _ in range(30)]
    most: int = 0
    async with sql.transaction():
        await sql.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        for number, reader in enumerate(readers, 1):
            await reader.send(f"/users/{number}")

        async def all_turns_are_taken() -> bool:
            nonlocal most
            # Within a transaction, Postgres would repeat its first answer.
            await sql.execute("SELECT pg_stat_clear_snapshot()")
            most = max(most, int(await sql.fetchval(WAITING)))
            return most >= TURNS

        await eventually(all_turns_are_taken)
        writing = await instance.connection.ask(rows.products[0], method="PATCH", body={"name": "New"})
        await sql.execute("SELECT pg_stat_clear_snapshot()")
        most = max(most, await sql.fetchval(WAITING))
    answers = [await asyncio.wait_for(reader.answer(), PATIENCE) for reader in readers]
    for reader in readers:
        await reader.close()
    assert writing.status == 200
    assert most == TURNS
    assert {answer.status for answer in answers} <= {404, 503}
    assert all(answer.json()["type"] in ("overloaded", "database-unavailable", "not-found") for answer in answers)


@pytest.mark.parametrize("fault", ["refuse", "silence"])
async def test_a_write_of_an_instance_without_redis_is_read_next_by_the_other_instance(
    pair: Pair, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    """A commits, and cannot tell Redis; if A answered at once,
    R on B, which can reach Redis, would hit the old value
    """
    lost, whole = pair
    rows = await made(whole.connection, f"lost-{fault}", 1)
    took = []
    getattr(lost.redis, fault)()
    for number in range(5):
        for path in (rows.users[0], rows.products[0]):
            assert (await whole.connection.ask(path)).status == 200
            began = time.monotonic()
            written = await lost.connection.ask(path, method="PATCH", body={"name": f"{number}"})
            took.append(time.monotonic() - began)
            assert written.status == 200
            read = await whole.connection.ask(path)
            assert (read.status, read.json()) == (200, written.json())
    with capsys.disabled():
        print(f"\nRedis: {fault} for one of two; its writes took {min(took):.2f} to {max(took):.2f} s")


async def test_an_instance_with_redis_and_without_postgres_reports_its_hits_as_unverified(
    pair: Pair, sql: asyncpg.Connection
) -> None:
    """A has lost Redis, and B has lost Postgres. Nothing leads from A to B:

    A commits, cannot tell Redis, waits until the trust of all others has ended, and answers
                                        R on B hits the old value: B still believes Redis, because Postgres may be away
                                        for everybody. B reports it as unverified.
    """
    without_redis, without_postgres = pair
    rows = await made(without_redis.connection, "crossed", 1)
    for path in (rows.users[0], rows.products[0]):
        assert (await without_postgres.connection.ask(path)).status == 200
    await all_told([instance.postgres for instance in pair], sql)
    without_redis.redis.refuse()
    without_postgres.postgres.refuse()
    await eventually(lambda: _is_open(without_redis))
    for path in (rows.users[0], rows.products[0]):
        written = await without_redis.connection.ask(path, method="PATCH", body={"name": "New"})
        assert written.status == 200
        read = await without_postgres.connection.ask(path)
        assert read.status == 200
        assert read.headers["cache-status"].endswith("; detail=unverified")
    without_postgres.postgres.heal()
    for path in (rows.users[0], rows.products[0]):

        async def is_new(path: str = path) -> bool:
            read = await without_postgres.connection.ask(path)
            return bool(read.json()["name"] == "New" and "unverified" not in read.headers["cache-status"])

        await eventually(is_new)


async def test_a_broken_connection_of_the_relay_fails_no_request(pair: Pair) -> None:
    """The relay asks Redis every 100 ms. Its connection may break like any other, by CLIENT KILL or in a firewall that
    has forgotten it, while Redis still answers."""
    instance = pair[0]
    rows = await made(instance.connection, "probe", 1)
    refused = []
    for _ in range(5):
        lost = instance.redis.cut_after("^BEAT ")
        await asyncio.wait_for(lost.dropped.wait(), PATIENCE)
        answers = [
            await instance.connection.post(f"{rows.stocks[0]}/adjustments", {"delta": -1}),
            await instance.connection.post(rows.page, {"count": 1}),
            await instance.connection.ask(rows.page),
        ]
        refused += [answer.json()["detail"] for answer in answers if answer.status >= 400]
    assert refused == []


async def _hits(instance: Instance, paths: list[str]) -> bool:
    answers = [await instance.connection.ask(path) for path in paths]
    return all("; hit; " in answer.headers.get("cache-status", "") for answer in answers)


async def _is_open(instance: Instance) -> bool:
    return bool((await instance.readiness())[1]["parts"]["breaker"] != "ok")
