"""What write-behind keeps in Redis is a format: names, types, bytes and lifetimes stay as they are, because an earlier
or a later version may share them.

`kept_in_redis.txt` was recorded from the version that had all of write-behind in one folder with the other strategies.
Changing it on purpose changes what two versions that run side by side can read of each other.
"""

import asyncio
import itertools
import re
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.caching.write_behind.views import Views

NOW = 1_800_000_000_000.0
RECORDED = Path(__file__).with_name("kept_in_redis.txt")


async def kept(redis: Redis, views: Views) -> str:
    """Returns all keys and their values. Parts that differ in each run are replaced by a placeholder."""
    lines = []
    for name in sorted([name async for name in redis.scan_iter("views:*")]):
        kind: Any = await redis.type(name)
        left = await redis.pttl(name)
        life = "" if left < 0 else f" for {timedelta(minutes=round(left / 60_000))}"
        lines.append(f"{name.decode()} {kind.decode()}{life}: {await value(redis, name, kind)}")
    text = "\n".join(lines).replace(str(views.cache.identity.run), "<life>")
    text = re.sub(r"\b\d{13}-\d+\b", "<id of the entry>", text)
    return re.sub(r"(:epoch string: b')\w{16}", r"\1<epoch>", text)


async def value(redis: Redis, name: bytes, kind: bytes) -> Any:
    """Returns the value under a name."""
    if kind == b"stream":
        groups = [(group["name"], group["pending"]) for group in await redis.xinfo_groups(name)]
        entries: Any = await redis.xrange(name)
        return f"{groups}" + "".join(f"\n    {fields}" for _id, fields in entries)
    if kind == b"hash":
        fields: Any = await redis.hgetall(name)
        # The records of keys are counted by the hour, and the hour may end in the middle of the test.
        return sum(map(int, fields.values())) if name.endswith(b":keyed") else fields
    return await redis.get(name)


async def test_the_same_calls_leave_the_same_bytes_in_redis_as_in_earlier_versions(
    ledger: None, views: Views, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = itertools.count(1)
    monkeypatch.setattr(secrets, "randbits", lambda bits: next(numbers))
    monkeypatch.setattr(views.cache.clock, "now", lambda: NOW)
    add, add_many = views.counters.add, views.counters.add_many
    assert await views.total("news") == 0
    await add("home", 5)
    await asyncio.gather(add("news", 2**50, "visit-1"), add("home", 2), add("home", 1, "visit-1"), add("/über", 3))
    await asyncio.gather(add("late", 1, "visit-2"), add('a"b\n', 4), add("home", 9, "visit-1"), add("late", 2))
    await add_many({"home": 6, "news": 7, "c": 8}, "call-1")
    await add_many({"home": 6, "d": 7, "c": 8}, "call-1")
    await add_many({"e": 1, "f": 2, "g": 3, "h": 2**53 - 1})
    assert await views.total("home") == 14
    await add("home", 1)
    accepted = await kept(redis, views)
    await views.carry()
    flushed = await kept(redis, views)
    assert f"Accepted\n\n{accepted}\n\nFlushed\n\n{flushed}\n" == RECORDED.read_text()
