"""A Redis that tells less of itself than others: INFO has neither its version, nor what tells one run from another.

application  →  front  →  Redis
"""

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

UNTOLD = re.compile(rb"^(redis_version|run_id|master_replid)(?=:)", re.MULTILINE)
"""The fields of INFO that are not told. Each gets a name of the same length."""


@asynccontextmanager
async def reticent_redis(url: str) -> AsyncIterator[str]:
    """Yields the URL of a front of the Redis at `url`, a unix socket."""

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            there, back = await asyncio.open_unix_connection(urlsplit(url).path)
            await asyncio.gather(_passed(reader, back), _untold(there, writer))

    with tempfile.TemporaryDirectory() as directory:
        socket = str(Path(directory) / "redis.sock")
        server = await asyncio.start_unix_server(accepted, socket)
        try:
            yield url.replace(urlsplit(url).path, socket)
        finally:
            server.close()


async def _passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def _untold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Passes whole lines on, without the names of some fields. Each answer of Redis ends with a line."""
    held = b""
    try:
        while data := await reader.read(65536):
            lines, end, held = (held + data).rpartition(b"\r\n")
            writer.write(UNTOLD.sub(lambda field: b"x" * len(field[0]), lines + end))
            await writer.drain()
    finally:
        writer.close()
