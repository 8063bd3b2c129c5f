"""Clients that vanish in the middle of a write: it is done or not done, and leaves nothing behind."""

import asyncio
import json
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Mapping
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.eventually import eventually
from tests.keyed import keyed
from tests.outages.instance import Instance, Pair, is_carried
from tests.outages.rows import Rows, made
from tests.service import Service

CLIENTS = 300
CALM = 20
"""How many checks in a row must find nothing: a check between two statements of one write finds nothing, either."""
BUSY = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'fourways' AND state <> 'idle'
"""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing resets the connection, without an orderly shutdown."""


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.prove) for seed in range(2, 11))])
async def test_clients_that_vanish_during_a_write_leave_nothing_behind(
    pair: Pair, sql: asyncpg.Connection, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    rows = await made(pair[0].connection, f"vanish-{seed}", 6)
    for instance in pair:
        for path in rows.paths:
            assert (await instance.connection.ask(path)).status == 200
    randomness = random.Random(seed)
    before = await _versions(sql)
    began = time.monotonic()
    sent = await asyncio.gather(
        *(
            _vanish(randomness.choice(pair).service, *_write(rows, number, randomness), randomness)
            for number in range(CLIENTS)
        )
    )

    calm = 0

    async def all_is_calm() -> bool:
        nonlocal calm
        calm = calm + 1 if await _is_quiet(sql) else 0
        return calm == CALM

    took = await eventually(all_is_calm)
    after = await _versions(sql)
    for instance in pair:
        for path in [*rows.paths, *(path for path in after if path not in before)]:
            answer = await instance.connection.ask(path)
            assert (answer.status, answer.json().get("version")) == (
                (200, after[path]) if path in after else (404, None)
            ), (path, answer)
    await eventually(lambda: is_carried(pair[0]))
    page = rows.page.removeprefix("/page-views/")
    stored = await sql.fetchval("SELECT coalesce(sum(views), 0) FROM page_views WHERE page = $1", page)
    for instance in pair:
        assert (await instance.connection.ask(rows.page)).json()["views"] == stored
    # A machine that stalls briefly refuses some requests, but not the next ones.
    await eventually(lambda: _answers_fifty_at_once(pair[0], rows))
    with capsys.disabled():
        changed = sum(before.get(path) != version for path, version in after.items())
        print(
            f"\n{CLIENTS} clients vanished in {time.monotonic() - began:.1f} s, {sum(sent)} after the last byte; "
            f"{changed} rows changed, {stored} views counted, quiet {took:.2f} s later"
        )


def _write(rows: Rows, number: int, randomness: random.Random) -> tuple[str, str, Mapping[str, object]]:
    """Returns the method, path and body of a write."""
    user, product, stock = (randomness.choice(paths) for paths in (rows.users, rows.products, rows.stocks))
    name = f"{rows.page.rpartition('/')[2]}-new-{number}"
    writes: list[tuple[str, str, Mapping[str, object]]] = [
        ("PATCH", user, {"name": name}),
        ("PATCH", product, {"name": name}),
        ("POST", "/users", {"name": name, "email": f"{name}@example.com"}),
        ("POST", "/products", {"sku": name, "name": name, "price": "1.00"}),
        ("PUT", stock, {"quantity": number}),
        ("POST", f"{stock}/adjustments", {"delta": 1}),
        ("PUT", f"/inventory/{name}", {"quantity": number}),
        ("POST", rows.page, {"count": 1}),
    ]
    return randomness.choice(writes)


async def _vanish(
    service: Service, method: str, path: str, body: Mapping[str, object], randomness: random.Random
) -> bool:
    """Sends a write, or only the beginning of one, and vanishes a moment later. Returns whether all of it was sent."""
    parts = urlsplit(service.url)
    content = json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(content)}\r\n\r\n".encode() + content
    cut = len(request) if randomness.random() < 0.8 else randomness.randrange(1, len(request))
    moment, rude = randomness.uniform(0.0, 0.5), randomness.random() < 0.5
    patience = randomness.choice([0.0, randomness.uniform(0.0, 0.02), randomness.uniform(0.0, 0.2)])

    # The clients come within half a second, and each goes at its own moment.
    await asyncio.sleep(moment)
    _reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    if rude:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.write(request[:cut])
    await asyncio.sleep(patience)
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    return cut == len(request)


async def _versions(sql: asyncpg.Connection) -> dict[str, int]:
    """Returns the version of every row, by its path."""
    queries = {
        "users": "SELECT id, version FROM users",
        "products": "SELECT sku, version FROM products",
        "inventory": "SELECT sku, version FROM stock",
    }
    return {
        f"/{resource}/{key}": version for resource, query in queries.items() for key, version in await sql.fetch(query)
    }


async def _is_quiet(sql: asyncpg.Connection) -> bool:
    """Whether no backend of the application is busy, or holds a transaction or a lock, and all changes are delivered.
    The application's own polls are short, and are found now and then."""
    quiet = not await sql.fetchval(BUSY) and not await sql.fetchval(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    )
    return quiet and not await sql.fetchval("SELECT count(*) FROM outbox WHERE done_at IS NULL")


async def _answers_fifty_at_once(instance: Instance, rows: Rows) -> bool:
    """Makes more requests than the pool has connections: if connections leaked, some would get a 503 each time."""
    async with keyed(instance.service, 50) as connections:
        answers = await asyncio.gather(
            *(
                connection.ask("/users") if number % 2 else connection.post(rows.page, {"count": 1})
                for number, connection in enumerate(connections)
            )
        )
    return Counter(answer.status for answer in answers) == {200: 25, 202: 25}
