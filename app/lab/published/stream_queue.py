"""Write-behind over a stream, as it is published. DO NOT COPY: what was not acknowledged is never delivered again.

    read    GET · on a miss SELECT, and SETEX
    write   XADD
    flush   XREADGROUP `>` up to 50 · for each an UPDATE, and XACK

The article: "unacknowledged messages are redelivered to another consumer". They are not: `>` means new ones, and only
XAUTOCLAIM, or a read from `0` by the same consumer, brings the others back.

    F XREADGROUPs 1, and dies                   1 stays pending for ever, and the database never gets it

And the sample forgot to write the cache, so a writer does not read what it wrote:

    R reads 0, and keeps it                     W XADDs 1, and is acknowledged; 0 is read until the entry ends

`app.caching.Flusher` is what to copy: it claims what was abandoned, and a ledger counts each batch once.
"""

import json
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app.lab.published.cache_aside import get_or_load
from app.lab.published.flushing import flushing
from app.lab.strategy import Holds, Table

logger = logging.getLogger(__name__)

GROUP = "db-writer"
MOST = 50


class StreamQueue:
    """A number under a key, which the table gets later."""

    holds = Holds.VALUES

    def __init__(
        self,
        redis: Redis,
        table: Table,
        prefix: str,
        ttl: timedelta,
        *,
        interval: timedelta = timedelta(seconds=1),
    ) -> None:
        self._redis, self._table, self._prefix, self._ttl, self._interval = redis, table, prefix, ttl, interval
        self._consumer = f"writer-{os.getpid()}"
        self._begun = False

    async def read(self, key: str) -> int | None:
        """From the cache, else from the table, whose answer is kept."""
        return await get_or_load(self._redis, f"{self._prefix}:{key}", self._ttl, self._table, key)

    async def write(self, key: str, value: int) -> None:
        """Into the stream."""
        await self._redis.xadd(
            f"{self._prefix}:stream", {"key": key, "value": json.dumps(value), "ts": str(time.time())}
        )

    async def flush(self) -> int:
        """Carries what is new, and answers how many messages it read. It does not wait for them, as the original does
        with BLOCK: the pause comes between two passes."""
        stream = f"{self._prefix}:stream"
        if not self._begun:
            try:
                await self._redis.xgroup_create(stream, GROUP, "0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
            self._begun = True
        answer = await self._redis.xreadgroup(GROUP, self._consumer, {stream: ">"}, count=MOST)
        messages = [
            message
            for _stream, messages in cast("list[tuple[bytes, list[tuple[bytes, Any]]]]", answer)
            for message in messages
        ]
        for message_id, fields in messages:
            try:
                await self._table.save(fields[b"key"].decode(), json.loads(fields[b"value"]))
                await self._redis.xack(stream, GROUP, message_id)
            except Exception as error:  # noqa: BLE001  # As it is published: "do not ACK -- it will be retried".
                logger.info("The message %s failed: %r", message_id, error)
        return len(messages)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Flushes, and pauses when nothing is new."""
        async with flushing(self.flush, self._interval):
            yield
