"""The service stops: it answers complete requests, refuses incomplete ones, and waits for no client."""

import asyncio
import signal
from contextlib import AsyncExitStack

from app.embedded import Endpoints
from tests.conversations.conversation import JSON, asks, conversation, in_chunks, views
from tests.eventually import PATIENCE
from tests.faults.postgres_wire import PostgresWire
from tests.home import Home

SAYS = "The service is being stopped, and the request had not come to its end."
HALVES = {
    "method": b"G",
    "head": b"POST /users HTTP/1.1\r\nHost: fourways\r\n",
    "body": views("ending", 5)[:-1],
    "chunks": in_chunks("/users", b'{"name": "Ada",', end=b""),
    "unread": asks("/users?limit=1", body=b"unread")[:-1],
    "upgrade": views("ending", 5, b"Connection: Upgrade", b"Upgrade: h2c")[:-1],
}


async def test_at_shutdown_requests_in_flight_are_answered_and_incomplete_ones_refused(
    home: Home, endpoints: Endpoints
) -> None:
    """Six requests are incomplete, each after an answer that shows that its beginning was read; a seventh request waits
    for Postgres · SIGTERM · the six are refused while the seventh waits · the seventh is answered, and the process
    ends"""
    async with (
        PostgresWire(endpoints.database_url) as wire,
        wire.holding(r"^SELECT .*\bFROM users\b") as held,
        wire.holding(r"\bUPDATE users\b") as changes,
        home.runs(
            "serve", REDIS_URL=endpoints.redis_url, DATABASE_URL=wire.url,
            FOURWAYS_DATABASE_TIMEOUT="60", FOURWAYS_ALLOWED_HOSTS="*",
        ) as fourways,
        AsyncExitStack() as stack,
    ):  # fmt: skip
        await fourways.shows("Fourways serves at")
        busy = await stack.enter_async_context(conversation(home))
        await busy.say(asks("/users/1"))
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        # Another waiting request is followed, in the same write, by a head whose body never comes: the client
        # half-closes.
        cut = await stack.enter_async_context(conversation(home))
        bodiless = b"POST /page-views/cut HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
        await cut.say(asks("/users/2", JSON.rstrip(), method="PATCH", body=b'{"name":"Ada"}') + bodiless)
        cut.say_all()
        await asyncio.wait_for(changes.arrived.wait(), PATIENCE)
        halves = [await stack.enter_async_context(conversation(home)) for _ in HALVES]
        for half, sent in zip(halves, HALVES.values(), strict=True):
            await half.say(asks("/health/live") + sent)
            assert (await half.answer()).status == 200
        fourways.send(signal.SIGTERM)
        for half in halves:
            assert await half.refusal() == (503, SAYS)
            half.hang_up()
        held.release()
        changes.release()
        answer = await busy.answer()
        assert (answer.status, answer.headers["connection"]) == (404, "close")
        busy.hang_up()
        assert (await cut.answer()).status == 404, "Its own answer, and not a refusal in its place."
        assert await cut.rest() == b""
        assert await fourways.code() == 0
    assert "Traceback" not in fourways.screen
    assert "Cancel" not in fourways.screen
