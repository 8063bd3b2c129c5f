"""No request blocks the event loop: hostile bodies are bounded before they are parsed, and lists of mistakes are short.

The tests run in this process, and bypass the connection, which has its own limits. They measure processor time, which
other programs do not change.
"""

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from app.routers.sent_views import MOST_FINDINGS
from app.speed.settled_garbage import SELDOM
from tests.service import Service

LONGEST = 0.05
"""Seconds."""
MEGABYTES = 4 * 2**20
MANY, ONE = "/page-views", "/users"


def filled(piece: bytes, size: int, begin: bytes = b"", end: bytes = b"") -> bytes:
    """Returns that many bytes, filled with repetitions of `piece`."""
    return begin + piece * ((size - len(begin) - len(end)) // len(piece)) + end


def fields(size: int) -> bytes:
    """Returns an object of unknown fields."""
    return b"{" + b",".join(b'"%x":1' % number for number in range(size // 12)) + b"}"


def long_views(count: int) -> bytes:
    """Returns valid views of that many pages, each with a long name."""
    return json.dumps({"views": [{"page": f"{number:05}" + "x" * 375} for number in range(count)]}).encode()


def bad_views(count: int, each: int) -> bytes:
    """Returns views, each with that many unknown fields."""
    return json.dumps({"views": [{f"x{number}": 1 for number in range(each)}] * count}).encode()


BODIES = {
    "lists": (MANY, filled(b"[],", MEGABYTES, b"[", b"1]"), 413),
    "numbers": (MANY, filled(b"1,", MEGABYTES, b"[", b"1]"), 413),
    "fields": (MANY, fields(MEGABYTES), 413),
    "commas": (MANY, filled(b",", MEGABYTES), 413),
    "text": (MANY, filled(b"\\u0041", MEGABYTES, b'"', b'"'), 422),
    "objects": (MANY, filled(b"{},", 90_000, b'{"views":[', b"{}]}"), 422),
    "views-many-fields": (MANY, bad_views(9_000, 3), 422),
    "view-many-fields": (MANY, bad_views(1, 39_000), 422),
    "long-pages": (MANY, long_views(10_000), 202),
    "long-numbers": (MANY, filled(b"1" * 4_300 + b",", MEGABYTES, b"[", b"1]"), 413),
    "short-numbers": (MANY, filled(b"1" * 640 + b",", MEGABYTES, b'{"views":[', b"1]}"), 413),
    "short-counts": (MANY, filled(b'{"count":' + b"1" * 199 + b"},", MEGABYTES, b'{"views":[', b"1]}"), 422),
    "long-counts": (MANY, filled(b'{"page":"a","count":' + b"1" * 640 + b"},", MEGABYTES, b'{"views":[', b"1]}"), 413),
    "few-lists": (ONE, filled(b"[],", 65_000, b"[", b"1]"), 422),
    "few-fields": (ONE, fields(65_000), 422),
}


@pytest.mark.parametrize(("path", "body", "status"), BODIES.values(), ids=BODIES)
async def test_a_hostile_body_gets_a_short_answer(
    client: httpx.AsyncClient, path: str, body: bytes, status: int
) -> None:
    answer = await client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, len(answer.content) < 3000) == (status, True)


async def test_very_many_mistakes_of_a_batch_are_only_counted(client: httpx.AsyncClient) -> None:
    answer = await client.post("/page-views", json={"views": [{"x": 1, "y": 2}] * 5_000})
    assert answer.json()["detail"] == "body has 15,000 mistakes."
    assert MOST_FINDINGS < 15_000


@pytest.mark.parametrize(
    ("method", "path", "name"), [("GET", "/page-views/home", "If-None-Match"), ("DELETE", "/users/1", "If-Match")]
)
async def test_a_precondition_of_millions_of_commas_is_refused(
    client: httpx.AsyncClient, method: str, path: str, name: str
) -> None:
    answer = await client.request(method, path, headers={name: "," * MEGABYTES})
    assert (answer.status_code, answer.json()["detail"]) == (
        400,
        "A precondition may name at most 100 entity tags, and not 4,194,305.",
    )


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    """Yields the parts of a body as a connection delivers them."""
    for at in range(0, len(body), 65_536):
        yield body[at : at + 65_536]
        await asyncio.sleep(0)


@pytest.fixture
def seldom_collected() -> Iterator[None]:
    """The thresholds of the garbage collector as in a running service; in tests, the application does not set them."""
    thresholds = gc.get_threshold()
    gc.set_threshold(*SELDOM)
    yield
    gc.set_threshold(*thresholds)


@pytest.mark.prove
@pytest.mark.usefixtures("seldom_collected")
@pytest.mark.parametrize(("path", "body", "status"), BODIES.values(), ids=BODIES)
async def test_a_hostile_body_does_not_block_the_event_loop(
    client: httpx.AsyncClient, path: str, body: bytes, status: int
) -> None:
    longest = 0.0

    async def others() -> None:
        nonlocal longest
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - began)

    async def asked() -> int:
        headers = {"Content-Type": "application/json"}
        return (await client.post(path, content=_chunks(body), headers=headers)).status_code

    await asked()
    waiting = asyncio.create_task(others())
    assert await asked() == status
    waiting.cancel()
    assert longest < LONGEST


@pytest.mark.parametrize("kind", ["no JSON", "cut off"])
async def test_the_memory_of_failed_bodies_is_released_at_once(service: Service, kind: str) -> None:
    """An error in a reference cycle would keep its body of megabytes until the garbage collector's next run."""
    process, port = psutil.Process(service.process.pid), int(service.url.rpartition(":")[2])
    body = b'{"views":"' + b"a" * (4 * 2**20 - 300)
    length = len(body) + (kind == "cut off")
    head = (
        b"POST /page-views HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )
    sizes: list[int] = []
    for _ in range(40):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head % length + body)
        await writer.drain()
        if kind == "no JSON":
            assert b" 400 " in await reader.readline()
        else:
            writer.write_eof()
            await reader.read()  # Now the service has noticed.
        writer.close()
        await writer.wait_closed()
        sizes.append(process.memory_info().rss)
    assert max(sizes) - sizes[5] < 64 * 2**20
