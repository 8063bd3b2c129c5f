"""One connection, spoken to in bytes."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from tests.eventually import PATIENCE
from tests.home import Home
from tests.keep_alive import Answer
from tests.service import Service

JSON = b"Content-Type: application/json\r\n"


class Conversation:
    """What is said is not changed, and answers are read one by one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def say(self, *parts: bytes) -> None:
        """Each part leaves before the next one does."""
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()
            await asyncio.sleep(0)

    def say_all(self) -> None:
        """Ends this half."""
        self._writer.write_eof()

    async def answer(self, method: str = "GET") -> Answer:
        """The next one. That to HEAD has no body."""
        async with asyncio.timeout(PATIENCE):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            length = 0 if method == "HEAD" else int(headers.get("content-length", "0"))
            body = await self._reader.readexactly(length)
        return Answer(int(status.split()[1]), headers, body)

    async def answers(self, count: int) -> list[Answer]:
        """So many."""
        return [await self.answer() for _ in range(count)]

    async def refusal(self) -> tuple[int, str]:
        """The status of an answer that is a problem, and the last one, and what it says."""
        answer = await self.answer()
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["connection"] == "close"
        assert await self.rest() == b""
        said = json.loads(answer.body)
        assert said["status"] == answer.status
        return answer.status, said["detail"]

    async def rest(self) -> bytes:
        """All that comes until the other side ends."""
        async with asyncio.timeout(PATIENCE):
            return await self._reader.read()

    def hang_up(self) -> None:
        """Ends it without a word."""
        self._writer.transport.abort()


@asynccontextmanager
async def conversation(service: Service | Home) -> AsyncIterator[Conversation]:
    """A new one."""
    where = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        yield Conversation(reader, writer)
    finally:
        writer.transport.abort()


def asks(target: str = "/products/NONE", *fields: bytes, method: str = "GET", body: bytes | None = None) -> bytes:
    """A request; with a body, it declares its length."""
    lines: Sequence[bytes] = [b"Host: fourways\r\n", *(b"%b\r\n" % field for field in fields)]
    if body is not None:
        lines = [*lines, JSON, b"Content-Length: %d\r\n" % len(body)]
    return f"{method} {target} HTTP/1.1\r\n".encode() + b"".join(lines) + b"\r\n" + (body or b"")


def views(page: str, count: int, *fields: bytes) -> bytes:
    """So many views of a page."""
    return asks(f"/page-views/{page}", *fields, method="POST", body=b'{"count": %d}' % count)


def in_chunks(target: str, *chunks: bytes, end: bytes = b"0\r\n\r\n", fields: bytes = b"") -> bytes:
    """A POST whose body comes in chunks."""
    head = f"POST {target} HTTP/1.1\r\n".encode() + b"Host: fourways\r\nTransfer-Encoding: chunked\r\n" + JSON + fields
    return head + b"\r\n" + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end
