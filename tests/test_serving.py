"""The application in its own processes: several workers, real stores, real signals."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil  # type: ignore[import-untyped]
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.embedded import Endpoints
from tests.eventually import PATIENCE, eventually
from tests.faults.postgres_wire import PostgresWire
from tests.fresh_database import fresh_database
from tests.keep_alive import Answer, KeepAlive
from tests.open_directory import open_directory
from tests.process_tree import ProcessTree
from tests.service import Service, free_port, serving
from tests.terminal import terminal

CROWD = 500
USERS = r"^SELECT .*\bFROM users\b"
PRODUCTS = r"^SELECT .*\bFROM products\b"
# Uvicorn closes a connection that was idle for 5 s. These tests open connections long before they use them.
PATIENT = {"UVICORN_TIMEOUT_KEEP_ALIVE": "120", "FOURWAYS_DATABASE_TIMEOUT": "60", "FOURWAYS_REDIS_TIMEOUT": "30"}
ADA = {"name": "Ada Lovelace", "email": "ada@example.com"}
KETTLE = {"sku": "KETTLE-1", "name": "Kettle", "price": "19.90"}


@pytest.fixture
async def wire(endpoints: Endpoints) -> AsyncIterator[PostgresWire]:
    async with PostgresWire(endpoints.database_url) as wire:
        yield wire


@pytest.fixture
async def watched(endpoints: Endpoints, wire: PostgresWire) -> AsyncIterator[Service]:
    """Three workers, whose statements go through the wire."""
    async with serving(endpoints.redis_url, wire.url, workers=3, **PATIENT) as service:
        yield service


@pytest.fixture
async def workers(endpoints: Endpoints) -> AsyncIterator[Service]:
    """Three workers."""
    async with serving(endpoints.redis_url, endpoints.database_url, workers=3, **PATIENT) as service:
        yield service


@pytest.fixture
def directory() -> Iterator[Path]:
    with open_directory() as directory:
        yield directory


async def test_five_hundred_readers_of_a_cold_key_cost_one_query(watched: Service, wire: PostgresWire) -> None:
    """A user, a product, a user who never existed, and one who was just deleted."""
    async with watched.client() as client:
        user = (await client.post("/users", json=ADA)).json()
        product = (await client.post("/products", json=KETTLE)).json()
    where = f"/users/{user['id']}"
    answers = await _rush(watched, wire, where, USERS)
    assert all(answer.status == 200 and answer.json() == user for answer in answers)

    answers = await _rush(watched, wire, "/products/KETTLE-1", PRODUCTS)
    assert all(answer.status == 200 and answer.json() == product for answer in answers)

    answers = await _rush(watched, wire, "/users/424242", USERS)
    assert {answer.status for answer in answers} == {404}

    async with watched.client() as client:
        assert (await client.get(where)).status_code == 200
        assert (await client.delete(where)).status_code == 204
    answers = await _rush(watched, wire, where, USERS)
    assert {answer.status for answer in answers} == {404}


async def test_metrics_are_summed_over_all_workers_even_after_one_was_replaced(workers: Service) -> None:
    async with _connections(workers, 30) as connections:
        reads = len(connections) * 3
        for number, connection in enumerate(connections * 3):
            await connection.ask(f"/users/{number % 7 + 1}")
        counted = {await _reads_counted(connection) for connection in connections}
    assert counted == {reads}, "Whichever worker is asked, it knows of all reads."
    dead = _workers(workers)[0]
    dead.kill()

    async def is_replaced() -> bool:
        living = _workers(workers)
        return dead not in living and len(living) == 3

    await eventually(is_replaced)
    async with _connections(workers, 30) as connections:
        for connection in connections:
            await connection.ask("/users/1")
        reads += len(connections)
        assert {await _reads_counted(connection) for connection in connections} == {reads}


async def test_migrations_and_the_service_run_on_separately_started_stores(
    endpoints: Endpoints, tmp_path: Path
) -> None:
    async with fresh_database(endpoints.database_url) as url:
        async with terminal(
            tmp_path / "alembic", "alembic", "upgrade", "head", DATABASE_URL=url, REDIS_URL=endpoints.redis_url
        ) as alembic:
            assert await alembic.code() == 0, alembic.screen
        async with serving(endpoints.redis_url, url) as service, service.client() as client:
            created = await client.post("/users", json=ADA)
            assert created.status_code == 201
            assert (await client.get(created.headers["location"])).json() == created.json()


@pytest.mark.parametrize("processes", [1, 3])
async def test_requests_from_before_sigterm_are_answered(
    endpoints: Endpoints, wire: PostgresWire, processes: int
) -> None:
    async with serving(endpoints.redis_url, wire.url, workers=processes, **PATIENT) as service:
        async with service.client() as client:
            where = (await client.post("/users", json=ADA)).headers["location"]
        tree = ProcessTree.of(service.process.pid)
        async with _connections(service, 100) as connections:
            async with wire.holding(USERS) as held:
                for connection in connections:
                    await connection.send(where)
                await asyncio.wait_for(held.arrived.wait(), PATIENCE)
                service.process.send_signal(signal.SIGTERM)
                await eventually(lambda: _is_draining(service))
                held.release()
            answers = [await connection.answer() for connection in connections]
        assert {answer.status for answer in answers} == {200}
        # After a clean shutdown, uvicorn raises the signal again on itself. Its supervisor does not.
        assert await service.ended() == (-signal.SIGTERM if processes == 1 else 0)
        await tree.gone()


async def test_sigterm_under_load_cuts_no_answer_short(workers: Service) -> None:
    tree = ProcessTree.of(workers.process.pid)
    answered = 0

    async def load(connection: KeepAlive) -> None:
        nonlocal answered
        while True:
            try:
                await connection.send("/users/1")
                answer = await connection.answer()
            except asyncio.IncompleteReadError as cut:
                # The server may close an idle connection just as the next request is on its way. Then no byte of an
                # answer has arrived, and the client may retry.
                if cut.partial:
                    raise
                return
            except ConnectionError:
                return
            assert answer.status == 404
            answered += 1
            if answer.headers.get("connection") == "close":
                return

    async def is_busy() -> bool:
        return answered > 500

    async with _connections(workers, 20) as connections:
        loads = asyncio.gather(*map(load, connections))
        await eventually(is_busy)
        workers.process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(loads, PATIENCE)
    assert await workers.ended() == 0
    await tree.gone()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.prove)])
async def test_workers_without_configured_stores_share_one_pair_and_leave_nothing_behind(
    directory: Path, number: signal.Signals
) -> None:
    port = str(free_port())
    async with terminal(
        directory / "screen", "uvicorn", "app.main:app", "--workers", "3", "--port", port, "--log-level", "info",
        FOURWAYS_DIRECTORY=str(directory / "data"),
    ) as uvicorn:  # fmt: skip
        await uvicorn.shows("Application startup complete.")

        async def all_are_up() -> bool:
            return uvicorn.screen.count("Application startup complete.") == 3

        await eventually(all_are_up)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, verify=False) as client:

            async def is_ready() -> bool:
                # On an overloaded machine, trust may lapse for a moment.
                return bool((await client.get("/health/ready")).json()["status"] == "ready")

            await eventually(is_ready)
        tree = uvicorn.tree()
        assert tree.servers() == {"redis-server": 1, "postgres": 1}
        uvicorn.send(number)
        assert await uvicorn.code() == 0
        await tree.gone()
        assert "Traceback" not in uvicorn.screen, uvicorn.screen


@pytest.mark.parametrize("workers", ["1", "3"])
async def test_uvicorn_names_an_invalid_setting_and_does_not_retry(tmp_path: Path, workers: str) -> None:
    async with terminal(
        tmp_path / "screen", "uvicorn", "app.main:app", "--port", str(free_port()), "--workers", workers,
        FOURWAYS_USERS_TTL="abc",
    ) as uvicorn:  # fmt: skip
        code = await uvicorn.code()
    sentence = "FOURWAYS_USERS_TTL is 'abc': it must be a number of seconds."
    assert 1 <= uvicorn.screen.count(sentence) <= int(workers)
    assert "Traceback" not in uvicorn.screen, uvicorn.screen
    assert code == (3 if workers == "1" else 0)  # Uvicorn's supervisor always exits with 0.


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("FOURWAYS_DIRECTORY", "/proc/none", "/proc/none cannot be made: "),
        ("PGSSLMODE", "bogus", "The sslmode in PGSSLMODE is 'bogus': it must be disable, allow, prefer, require,"),
    ],
)
async def test_uvicorn_says_in_a_sentence_why_the_application_cannot_start(
    directory: Path, workers: str, variable: str, value: str, sentence: str
) -> None:
    """Without REDIS_URL and DATABASE_URL, it starts its own stores. The environment is there for Postgres, too."""
    environment = {"FOURWAYS_DIRECTORY": str(directory / "data"), variable: value}
    async with terminal(
        directory / "screen", "uvicorn", "app.main:app", "--port", str(free_port()), "--workers", workers, **environment
    ) as uvicorn:
        code = await uvicorn.code()
    assert sentence in uvicorn.screen
    assert "Traceback" not in uvicorn.screen, uvicorn.screen
    assert code == (3 if workers == "1" else 0)  # Uvicorn's supervisor always exits with 0.


async def test_workers_end_when_their_supervisor_is_killed(workers: Service) -> None:
    async with _connections(workers, 30):
        tree = ProcessTree.of(workers.process.pid)
    workers.process.kill()
    await tree.gone()
    assert await _refuses(workers), "The next start can have the port."


async def _rush(service: Service, wire: PostgresWire, path: str, statement: str) -> list[Answer]:
    """Sends many readers through all workers, and checks that they cost one query. The query is held until the last
    reader has sent its request, so none comes late."""
    before = wire.count(statement)
    async with _connections(service, CROWD) as connections, wire.holding(statement) as held:
        for connection in connections:
            await connection.send(path)
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        held.release()
        answers = list(await asyncio.wait_for(asyncio.gather(*(one.answer() for one in connections)), PATIENCE))
    assert sum("fwd=miss; stored" in answer.headers["cache-status"] for answer in answers) == 1
    assert wire.count(statement) - before == 1
    return answers


@asynccontextmanager
async def _connections(service: Service, least: int) -> AsyncIterator[list[KeepAlive]]:
    """Yields at least that many open connections. Every worker has some of them."""
    connections: list[KeepAlive] = []

    async def open_one() -> None:
        connection = await KeepAlive.to(service.url)
        connections.append(connection)
        assert (await connection.ask("/health/live")).status == 200

    async def each_worker_has_one() -> bool:
        await open_one()
        return all(psutil.CONN_ESTABLISHED in _sockets(worker, service) for worker in _workers(service))

    try:
        await eventually(each_worker_has_one)
        await asyncio.gather(*(open_one() for _ in range(least - len(connections))))
        yield connections
    finally:
        for connection in connections:
            await connection.close()


def _workers(service: Service) -> list[psutil.Process]:
    """Returns the processes that serve: uvicorn itself, or its workers."""
    return ProcessTree.of(service.process.pid).workers()


def _sockets(worker: psutil.Process, service: Service) -> set[str]:
    """Returns the states of the worker's sockets at the service's port."""
    port = urlsplit(service.url).port
    return {one.status for one in worker.net_connections("tcp") if one.laddr.port == port}


async def _is_draining(service: Service) -> bool:
    """Returns whether the signal has reached every worker: none of them listens any more."""
    return not any(psutil.CONN_LISTEN in _sockets(worker, service) for worker in _workers(service))


async def _refuses(service: Service) -> bool:
    """Returns whether the port refuses connections."""
    try:
        connection = await KeepAlive.to(service.url)
    except OSError:
        return True
    await connection.close()
    return False


async def _reads_counted(connection: KeepAlive) -> float:
    """Returns the number of reads of users, according to /metrics on this connection."""
    text = (await connection.ask("/metrics")).body.decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(
        sample.value
        for sample in samples
        if sample.name == "fourways_cache_events_total"
        and sample.labels["resource"] == "users"
        and sample.labels["event"] in ("hit", "miss", "collapsed")
    )
