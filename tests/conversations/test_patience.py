"""Time limits for clients, and the limit on connections: silent clients keep no other client out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import psutil  # type: ignore[import-untyped]
import pytest

from app.embedded import Endpoints
from tests.conversations.conversation import Conversation, asks, conversation, views
from tests.eventually import eventually
from tests.service import FOURWAYS, Service, serving

SLOW = "The request did not come to its end in time."
HALF = b"GET /products/NONE HTTP/1.1\r\nHost: fourways\r\n"
SHORT = dict.fromkeys(("FOURWAYS_HEADER_TIMEOUT", "FOURWAYS_BODY_TIMEOUT", "FOURWAYS_KEEP_ALIVE"), "1")
FEW = 4
DESCRIPTORS = 200
"""Limit of descriptors. Some of them are used for the stores and for files."""
ALLOWED = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS}))
from app.__main__ import main
main()
"""


@pytest.fixture(scope="module")
async def impatient(stores: Endpoints) -> AsyncIterator[Service]:
    """A service whose time limits are all one second."""
    async with serving(stores.redis_url, stores.database_url, command=FOURWAYS, workers=1, **SHORT) as service:
        yield service


@pytest.fixture(scope="module")
async def small(stores: Endpoints) -> AsyncIterator[Service]:
    """A service with four connections and long time limits."""
    patient = {"FOURWAYS_CONNECTIONS": str(FEW), "FOURWAYS_DATABASE_TIMEOUT": "120"}
    async with serving(stores.redis_url, stores.database_url, command=FOURWAYS, workers=1, **patient) as service:
        yield service


@pytest.mark.parametrize("sent", [b"G", HALF, HALF + b"X: "], ids=["method", "field", "value"])
async def test_an_incomplete_head_is_refused(impatient: Service, sent: bytes) -> None:
    async with conversation(impatient) as client:
        await client.say(asks() + sent)
        assert (await client.answer()).status == 404
        assert await client.refusal() == (408, SLOW)


async def test_a_head_sent_byte_by_byte_is_refused(impatient: Service) -> None:
    """Each byte arrives in time."""
    async with conversation(impatient) as client:
        await client.say(b"GET /")
        refusal = asyncio.create_task(client.refusal())
        while not refusal.done():
            await client.say(b"x")
            await asyncio.sleep(0.05)
        assert await refusal == (408, SLOW)


async def test_an_incomplete_body_is_refused_and_nothing_is_done(impatient: Service) -> None:
    async with conversation(impatient) as client:
        await client.say(views("slow", 5)[:-1])
        assert await client.refusal() == (408, SLOW)
    async with conversation(impatient) as other:
        await other.say(asks("/page-views/slow"))
        assert (await other.answer()).json()["views"] == 0


async def test_an_idle_connection_is_closed(impatient: Service) -> None:
    async with conversation(impatient) as new, conversation(impatient) as used:
        await used.say(asks())
        assert (await used.answer()).status == 404
        assert await used.rest() == await new.rest() == b""


async def test_the_service_does_not_wait_for_the_rest_of_a_refused_body(impatient: Service) -> None:
    async with conversation(impatient) as client:
        await client.say(asks("/users", method="POST", body=b" " * 70_000)[:-1000])
        assert (await client.answer()).status == 413
        assert await client.rest() == b""


async def test_connections_of_clients_that_never_read_are_closed(impatient: Service) -> None:
    process = psutil.Process(impatient.process.pid)

    def connections() -> int:
        return [one.status for one in process.net_connections("tcp")].count(psutil.CONN_ESTABLISHED)

    async with AsyncExitStack() as stack:
        for _ in range(5):
            client = await stack.enter_async_context(conversation(impatient))
            # The answers are more than the buffers of both sides hold.
            stack.callback(asyncio.create_task(client.say(asks("/openapi.json") * 1000)).cancel)

        async def are_there() -> bool:
            return connections() > 0  # The first ones may be closed by now.

        async def are_gone() -> bool:
            return connections() == 0

        await eventually(are_there)
        await eventually(are_gone)


async def test_the_connection_that_was_silent_longest_makes_room(small: Service) -> None:
    async with AsyncExitStack() as stack:
        halves = [await stack.enter_async_context(conversation(small)) for _ in range(3 * FEW)]
        for half in halves:
            await half.say(HALF)
        async with conversation(small) as good:
            await good.say(asks())
            assert (await good.answer()).status == 404
            assert await halves[0].rest() == b""
            await halves[-1].say(b"\r\n")
            assert (await halves[-1].answer()).status == 404


async def test_busy_connections_stay_and_a_new_one_is_refused(small: Service, stores: Endpoints) -> None:
    """Four clients wait for a lock in Postgres · a fifth client connects · the lock is released"""
    locker = await asyncpg.connect(stores.database_url)

    async def is_busy() -> bool:
        return bool(
            await locker.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'users'::regclass")
            == FEW
        )

    async with AsyncExitStack() as stack:
        async with locker.transaction():
            await locker.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
            busy: list[Conversation] = []
            for _ in range(FEW):
                busy.append(await stack.enter_async_context(conversation(small)))
                await busy[-1].say(asks("/users?limit=1"))
            await eventually(is_busy)
            async with conversation(small) as late:
                await late.say(asks())
                answer = await late.answer()
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
                assert answer.json()["detail"] == "There are too many connections."
                assert await late.rest() == b""
        assert [(await client.answer()).status for client in busy] == [200] * FEW
    await locker.close()


async def test_a_good_client_is_answered_when_there_are_more_clients_than_descriptors(stores: Endpoints) -> None:
    async with (
        serving(stores.redis_url, stores.database_url, command=("-c", ALLOWED, "serve")) as service,
        AsyncExitStack() as stack,
    ):
        for _ in range(2 * DESCRIPTORS):
            half = await stack.enter_async_context(conversation(service))
            await half.say(HALF)
        for _ in range(10):
            async with conversation(service) as good:
                await good.say(asks("/products?limit=1"))
                assert (await good.answer()).status == 200
