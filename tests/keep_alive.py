"""One HTTP/1.1 connection, written and read by hand: it shows when a request was sent, and costs little."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Answer:
    """A response. The names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Returns the decoded body."""
        return json.loads(self.body)


class KeepAlive:
    """A connection that stays open between requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader, self._writer, self._host = reader, writer, host

    @classmethod
    async def to(cls, url: str) -> Self:
        """Opens a connection to the server at `url`."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        return cls(*await asyncio.open_connection(parts.hostname, parts.port), parts.netloc)

    async def send(self, path: str, *, method: str = "GET", body: object = None) -> None:
        """Writes a request, and returns when the kernel has accepted it."""
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: {self._host}\r\n"
        if content:
            head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\n"
        self._writer.write(head.encode() + b"\r\n" + content)
        await self._writer.drain()

    async def answer(self) -> Answer:
        """Reads the answer to the last request."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.rstrip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(status.split()[1]), headers, body)

    async def ask(self, path: str, *, method: str = "GET", body: object = None) -> Answer:
        """Sends a request, and reads its answer."""
        await self.send(path, method=method, body=body)
        return await self.answer()

    async def close(self) -> None:
        """Closes the connection, if the other end has not."""
        self._writer.close()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)
