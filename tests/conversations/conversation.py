"""One connection, used byte by byte."""

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
    """A connection that sends bytes unchanged, and reads answers one by one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def say(self, *parts: bytes) -> None:
        """Sends each part before the next one."""
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()
            await asyncio.sleep(0)

    def say_all(self) -> None:
        """Closes the sending half of the connection."""
        self._writer.write_eof()

    async def answer(self, method: str = "GET") -> Answer:
        """Reads the next answer. An answer to HEAD has no body."""
        async with asyncio.timeout(PATIENCE):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            length = 0 if method == "HEAD" else int(headers.get("content-length", "0"))
            body = await self._reader.readexactly(length)
        return Answer(int(status.split()[1]), headers, body)

    async def answers(self, count: int) -> list[Answer]:
        """Reads that many answers."""
        return [await self.answer() for _ in range(count)]

    async def refusal(self) -> tuple[int, str]:
        """Reads a problem after which the server closes the connection, and returns its status and its detail."""
        answer = await self.answer()
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["connection"] == "close"
        assert await self.rest() == b""
        said = json.loads(answer.body)
        assert said["status"] == answer.status
        return answer.status, said["detail"]

    async def rest(self) -> bytes:
        """Reads until the other side closes the connection."""
        async with asyncio.timeout(PATIENCE):
            return await self._reader.read()

    def hang_up(self) -> None:
        """Aborts the connection."""
        self._writer.transport.abort()


@asynccontextmanager
async def conversation(service: Service | Home) -> AsyncIterator[Conversation]:
    """Yields a new connection."""
    where = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        yield Conversation(reader, writer)
    finally:
        writer.transport.abort()


def asks(target: str = "/products/NONE", *fields: bytes, method: str = "GET", body: bytes | None = None) -> bytes:
    """Returns a request. With a body, it declares the length."""
    lines: Sequence[bytes] = [b"Host: fourways\r\n", *(b"%b\r\n" % field for field in fields)]
    if body is not None:
        lines = [*lines, JSON, b"Content-Length: %d\r\n" % len(body)]
    return f"{method} {target} HTTP/1.1\r\n".encode() + b"".join(lines) + b"\r\n" + (body or b"")


def views(page: str, count: int, *fields: bytes) -> bytes:
    """Returns a request that adds that many views of a page."""
    return asks(f"/page-views/{page}", *fields, method="POST", body=b'{"count": %d}' % count)


def in_chunks(target: str, *chunks: bytes, end: bytes = b"0\r\n\r\n", fields: bytes = b"") -> bytes:
    """Returns a POST with a chunked body."""
    head = f"POST {target} HTTP/1.1\r\n".encode() + b"Host: fourways\r\nTransfer-Encoding: chunked\r\n" + JSON + fields
    return head + b"\r\n" + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end
