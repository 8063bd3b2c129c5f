"""Write-behind over a stream, as published. DO NOT COPY: unacknowledged messages are never delivered again.

    read    GET · on a miss SELECT, and SETEX
    write   XADD
    flush   XREADGROUP `>` up to 50 · for each an UPDATE, and XACK

The article: "unacknowledged messages are redelivered to another consumer". They are not: `>` means new ones, and only
XAUTOCLAIM, or a read from `0` by the same consumer, brings the others back.

    F XREADGROUPs 1, and dies                   1 stays pending forever, and the database never gets it

The sample also forgets to write to the cache, so writers do not read their own writes:

    R reads 0, and keeps it                     W XADDs 1, and is acknowledged; readers get 0 until the entry expires

Copy `app.caching.Flusher` instead: it reclaims abandoned entries, and a ledger counts each batch once.
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
    """A number under a key, which is flushed to the table later."""

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
        """Reads the cache; on a miss, loads the row and fills the cache."""
        return await get_or_load(self._redis, f"{self._prefix}:{key}", self._ttl, self._table, key)

    async def write(self, key: str, value: int) -> None:
        """Writes to the stream."""
        await self._redis.xadd(
            f"{self._prefix}:stream", {"key": key, "value": json.dumps(value), "ts": str(time.time())}
        )

    async def flush(self) -> int:
        """Flushes new messages and returns how many it read. It does not block for them, as the original does with
        BLOCK: the pause comes between two passes."""
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
            except Exception as error:  # noqa: BLE001  # As published: "do not ACK -- it will be retried".
                logger.info("The message %s failed: %r", message_id, error)
        return len(messages)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Flushes, and pauses when nothing is new."""
        async with flushing(self.flush, self._interval):
            yield
