"""Requests as bytes on a socket, for requests that an HTTP client refuses to send or silently repairs."""

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from tests.eventually import PATIENCE
from tests.service import Service


@dataclass(frozen=True, slots=True)
class Answer:
    """A response."""

    status: int
    headers: httpx.Headers
    body: bytes


async def exchange(service: Service, request: bytes) -> Answer:
    """Sends `request` on a new connection, and reads until the server closes it.

    The server may answer and close before it has read everything.
    """
    where = urlsplit(service.url)
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        received = bytearray()
        try:
            writer.write(request)
            while chunk := await reader.read(65_536):
                received += chunk
        except ConnectionError:
            assert received, "The server closed the connection without an answer."
        finally:
            writer.transport.abort()
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    pairs = [(name.strip(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    return Answer(int(status.split()[1]), httpx.Headers(pairs), body)


def request(method: str, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes | None = None) -> bytes:
    """Returns the bytes of a request after which the server closes the connection."""
    lines = [(b"Host", b"fourways"), (b"Connection", b"close"), *headers]
    if body is not None:
        lines.append((b"Content-Length", b"%d" % len(body)))
    head = b"".join(b"%s: %s\r\n" % line for line in lines)
    return b"%s %s HTTP/1.1\r\n%s\r\n%s" % (method.encode(), target, head, body or b"")
